#include "core/rng.h"

#include <string.h>

enum { PHILOX_ROUNDS = 10, FEISTEL_ROUNDS = 6 };

static const uint32_t PHILOX_M0 = 0xD2511F53u, PHILOX_M1 = 0xCD9E8D57u;
static const uint32_t PHILOX_W0 = 0x9E3779B9u, PHILOX_W1 = 0xBB67AE85u;

void pm_philox(pm_rng_key key, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0;
        uint64_t p1 = (uint64_t)PHILOX_M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

pm_rng_key pm_rng_key_make(uint64_t seed, const char *purpose)
{
    // FNV-1a gathers the name; one Philox block spreads it over the key.
    uint64_t hash = 0xCBF29CE484222325ull;
    for (const char *p = purpose; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001B3ull;
    pm_rng_key key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    uint32_t counter[4] = {(uint32_t)hash, (uint32_t)(hash >> 32), 0, 0}, out[4];
    pm_philox(key, counter, out);
    return (pm_rng_key){{out[0], out[1]}};
}

static uint64_t draw64(pm_rng_key key, uint64_t stream, uint64_t index)
{
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                           (uint32_t)(stream >> 32)};
    uint32_t out[4];
    pm_philox(key, counter, out);
    return (uint64_t)out[1] << 32 | out[0];
}

double pm_rng_uniform(pm_rng_key key, uint64_t stream, uint64_t index)
{
    return (double)(draw64(key, stream, index) >> 11) * 0x1.0p-53;
}

uint64_t pm_rng_below(pm_rng_key key, uint64_t stream, uint64_t index, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)draw64(key, stream, index) * bound) >> 64);
}

uint64_t pm_rng_permute(pm_rng_key key, uint64_t epoch, uint64_t i, uint64_t n)
{
    unsigned half = 1; // bits of each Feistel half; the domain is the smallest 4^half >= n
    while (half < 32 && (UINT64_C(1) << (2 * half)) < n)
        half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint32_t counter[4] = {(uint32_t)right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32)}, out[4];
            pm_philox(key, counter, out);
            uint64_t next = left ^ (out[0] & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
