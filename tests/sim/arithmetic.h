#pragma once
// In place of a model: small pure functions of the parameters' bits, one dense and one of rows.
#include "cluster/lanes.h"

#include <string.h>

enum { TABLES = 4, SPARSE = 2, WIDTH = 8, ROWS = 8 };

static const uint64_t COUNTS[TABLES] = {37, 5, 64, 9};

// ---- the gradient of one lane: any bit of any parameter changes all of it ----

static void lane_gradient(const float *values, uint32_t table, uint64_t step, uint32_t lane, float *out)
{
    uint64_t mix = (step + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(lane + 1) << 40 ^ table;
    for (uint64_t i = 0; i < COUNTS[table]; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        mix = (mix ^ bits) * 0xbf58476d1ce4e5b9u;
        mix ^= mix >> 29;
    }
    for (uint64_t i = 0; i < COUNTS[table]; i++) {
        mix = mix * 6364136223846793005u + 1442695040888963407u;
        out[i] = (float)(int32_t)(mix >> 32) * 0x1p-33f;
    }
}

// ---- and of a sparse table: of some rows, from those rows alone ----

static bool touches(uint64_t step, uint32_t lane, uint32_t row)
{
    uint64_t mix = (step * 257 + lane) * 0x9e3779b97f4a7c15u + row * 0xbf58476d1ce4e5b9u;
    return (mix ^ mix >> 31) % 4 == 0;
}

static uint32_t touched_rows(uint64_t step, pm_block block, uint32_t ids[ROWS])
{
    uint32_t count = 0;
    for (uint32_t row = 0; row < ROWS; row++) {
        bool any = false;
        for (uint32_t i = 0; i < block.count; i++)
            any = any || touches(step, block.first + i, row);
        if (any)
            ids[count++] = row;
    }
    return count;
}

static void lane_rows(const float *values, uint64_t step, uint32_t lane, float *out, bool has[ROWS])
{
    uint64_t mix = (step + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(lane + 1) << 40;
    for (uint32_t row = 0; row < ROWS; row++) {
        has[row] = touches(step, lane, row);
        for (uint32_t i = row * WIDTH; has[row] && i < (row + 1) * WIDTH; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], sizeof bits);
            mix = (mix ^ bits) * 0xbf58476d1ce4e5b9u;
            mix ^= mix >> 29;
        }
    }
    for (uint32_t i = 0; i < ROWS * WIDTH; i++) {
        mix = mix * 6364136223846793005u + 1442695040888963407u;
        out[i] = has[i / WIDTH] ? (float)(int32_t)(mix >> 32) * 0x1p-33f : 0;
    }
}

static void block_rows(const float *values, uint64_t step, pm_block block, float *out, bool has[ROWS])
{
    if (block.count == 1) {
        lane_rows(values, step, block.first, out, has);
        return;
    }
    float right[ROWS * WIDTH];
    bool other[ROWS];
    uint32_t half = block.count / 2;
    block_rows(values, step, (pm_block){block.first, half}, out, has);
    block_rows(values, step, (pm_block){block.first + half, half}, right, other);
    for (uint32_t i = 0; i < ROWS * WIDTH; i++)
        out[i] = !other[i / WIDTH] ? out[i] : has[i / WIDTH] ? out[i] + right[i] : right[i];
    for (uint32_t row = 0; row < ROWS; row++)
        has[row] = has[row] || other[row];
}

// The touched rows of all side by side.
static uint32_t pack_rows(const float *all, uint64_t step, pm_block block, uint32_t ids[ROWS], float *rows)
{
    const uint32_t count = touched_rows(step, block, ids);
    for (uint32_t i = 0; i < count; i++)
        memcpy(rows + i * WIDTH, all + ids[i] * WIDTH, WIDTH * sizeof *rows);
    return count;
}

static void block_gradient(const float *values, uint32_t table, uint64_t step, pm_block block, float *out)
{
    if (block.count == 1) {
        lane_gradient(values, table, step, block.first, out);
        return;
    }
    float right[64];
    uint32_t half = block.count / 2;
    block_gradient(values, table, step, (pm_block){block.first, half}, out);
    block_gradient(values, table, step, (pm_block){block.first + half, half}, right);
    for (uint64_t i = 0; i < COUNTS[table]; i++)
        out[i] += right[i];
}
