// The tile of matrix products over panels; see model/kernels.h. This file alone is compiled with contraction:
// every product here is followed by its one addition, so each element is a chain of fused multiply-adds over
// rising depth, the same in a tile of any number of rows.
#include "model/kernels_variant.h"

#include <string.h>

#if defined(__AVX512F__)
enum { VECTOR = 16, ROWS = 8 };
#elif defined(__AVX2__)
enum { VECTOR = 8, ROWS = 6 };
#else
enum { VECTOR = 4, ROWS = 6 };
#endif
enum { PANEL = 2 * VECTOR };

typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(sizeof(float)), may_alias));

static inline __attribute__((always_inline)) void tile(const size_t rows, const pm_panel *p)
{
    const float *a[ROWS];
    vector low[ROWS], high[ROWS];
    float edge[ROWS * PANEL];
    const bool whole = p->columns == PANEL;
    float *c = whole ? p->c : edge;
    const size_t stride = whole ? p->c_stride : PANEL;
    if (p->accumulate && !whole) {
        memset(edge, 0, sizeof edge);
        for (size_t r = 0; r < rows; r++)
            memcpy(edge + r * PANEL, p->c + r * p->c_stride, p->columns * sizeof *edge);
    }
    for (size_t r = 0; r < rows; r++) {
        a[r] = p->a + p->a_offsets[r];
        low[r] = high[r] = (vector){0};
        if (p->accumulate) {
            low[r] = *(const vector *)(c + r * stride);
            high[r] = *(const vector *)(c + r * stride + VECTOR);
        }
    }
    for (size_t k = 0; k < p->depth; k++) {
        const float *b = p->b + p->b_offsets[k];
        const vector b_low = *(const vector *)b, b_high = *(const vector *)(b + VECTOR);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            low[r] += a[r][k] * b_low;
            high[r] += a[r][k] * b_high;
        }
    }
    for (size_t r = 0; r < rows; r++) {
        *(vector *)(c + r * stride) = low[r];
        *(vector *)(c + r * stride + VECTOR) = high[r];
    }
    for (size_t r = 0; !whole && r < rows; r++)
        memcpy(p->c + r * p->c_stride, edge + r * PANEL, p->columns * sizeof *edge);
}

static void panel_product(const pm_panel *p)
{
    pm_panel part = *p;
    for (size_t left = p->rows; left > 0;) {
        size_t rows = left < ROWS ? left : ROWS;
        switch (rows) {
        case 1:
            tile(1, &part);
            break;
        case 2:
            tile(2, &part);
            break;
        case 3:
            tile(3, &part);
            break;
        case 4:
            tile(4, &part);
            break;
        case 5:
            tile(5, &part);
            break;
        case 6:
            tile(6, &part);
            break;
#if defined(__AVX512F__)
        case 7:
            tile(7, &part);
            break;
#endif
        default:
            tile(ROWS, &part);
        }
        left -= rows;
        part.a_offsets += rows;
        part.c += rows * part.c_stride;
    }
}

static void pack_panel(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel)
{
    for (size_t k = 0; k < depth; k++, panel += PANEL) {
        for (size_t j = 0; j < rows; j++)
            panel[j] = x[j * x_stride + k];
        for (size_t j = rows; j < PANEL; j++)
            panel[j] = 0;
    }
}

void PM_KERNEL(fill_panel)(pm_kernels *table)
{
    table->panel = PANEL;
    table->panel_product = panel_product;
    table->pack_panel = pack_panel;
}
