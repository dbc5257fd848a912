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

// A square of VECTOR x VECTOR elements turned over its diagonal, in log2(VECTOR) exchanges of halves between
// rows at growing distance (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972).
#define EXCHANGE(distance, first, second)                                                                    \
    for (size_t i = 0; i < VECTOR; i++)                                                                      \
        if (!(i & (distance))) {                                                                             \
            const vector a = rows[i], b = rows[i + (distance)];                                              \
            rows[i] = __builtin_shufflevector(a, b, first);                                                  \
            rows[i + (distance)] = __builtin_shufflevector(a, b, second);                                    \
        }
#if defined(__AVX512F__)
#define FIRST_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define SECOND_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define FIRST_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SECOND_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define FIRST_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define SECOND_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define FIRST_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SECOND_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#elif defined(__AVX2__)
#define FIRST_1 0, 8, 2, 10, 4, 12, 6, 14
#define SECOND_1 1, 9, 3, 11, 5, 13, 7, 15
#define FIRST_2 0, 1, 8, 9, 4, 5, 12, 13
#define SECOND_2 2, 3, 10, 11, 6, 7, 14, 15
#define FIRST_4 0, 1, 2, 3, 8, 9, 10, 11
#define SECOND_4 4, 5, 6, 7, 12, 13, 14, 15
#else
#define FIRST_1 0, 4, 2, 6
#define SECOND_1 1, 5, 3, 7
#define FIRST_2 0, 1, 4, 5
#define SECOND_2 2, 3, 6, 7
#endif

static inline void transpose_square(const float *x, size_t x_stride, float *to)
{
    vector rows[VECTOR];
#pragma GCC unroll 16
    for (size_t i = 0; i < VECTOR; i++)
        rows[i] = *(const vector *)(x + i * x_stride);
#pragma GCC unroll 16
    EXCHANGE(1, FIRST_1, SECOND_1)
#pragma GCC unroll 16
    EXCHANGE(2, FIRST_2, SECOND_2)
#ifdef FIRST_4
#pragma GCC unroll 16
    EXCHANGE(4, FIRST_4, SECOND_4)
#endif
#ifdef FIRST_8
#pragma GCC unroll 16
    EXCHANGE(8, FIRST_8, SECOND_8)
#endif
#pragma GCC unroll 16
    for (size_t i = 0; i < VECTOR; i++)
        *(vector *)(to + i * PANEL) = rows[i];
}

static void pack_panel(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel)
{
    const size_t squares = rows / VECTOR * VECTOR, deep = depth / VECTOR * VECTOR;
    for (size_t k = 0; k < deep; k += VECTOR)
        for (size_t j = 0; j < squares; j += VECTOR)
            transpose_square(x + j * x_stride + k, x_stride, panel + k * PANEL + j);
    for (size_t k = 0; k < depth; k++) {
        float *to = panel + k * PANEL;
        for (size_t j = k < deep ? squares : 0; j < rows; j++)
            to[j] = x[j * x_stride + k];
        for (size_t j = rows; j < PANEL; j++)
            to[j] = 0;
    }
}

void PM_KERNEL(fill_panel)(pm_kernels *table)
{
    table->panel = PANEL;
    table->panel_product = panel_product;
    table->pack_panel = pack_panel;
}
