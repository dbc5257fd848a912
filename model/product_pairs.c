#include "model/product_pairs.h"

#include "core/arena.h"

#include <string.h>

// Pairs of k that are gone over before the next rows: so much of a panel stays in the first cache. Columns of
// a turned A are apart by more than its rows, or a power of two of them would fall on the same lines of a
// cache.
enum { DEPTH = 128, APART = 16 };

typedef struct views {
    uint32_t *a;             // (m, pairs), or (pairs, m + APART) where A is transposed
    uint32_t *rows, *packed; // (panel, pairs), (pairs, panel): of a panel of B
    size_t *offsets, *steps, *b_offsets;
} views;

static size_t carve(unsigned char *memory, const pm_kernels *kernels, size_t m, size_t k, views *v)
{
    const size_t pairs = (k + 1) / 2, panel = pairs * kernels->panel * sizeof(uint32_t);
    const size_t bytes[] = {(m + APART) * pairs * sizeof(uint32_t),
                            panel,
                            panel,
                            m * sizeof(size_t),
                            pairs * sizeof(size_t),
                            pairs * sizeof(size_t)};
    void *places[6] = {0};
    size_t total = 0;
    for (size_t i = 0; i < 6; i++) {
        places[i] = memory ? memory + total : NULL;
        total += pm_align(bytes[i]);
    }
    if (memory)
        *v = (views){places[0], places[1], places[2], places[3], places[4], places[5]};
    return total;
}

size_t pm_product_pairs_bytes(const pm_kernels *kernels, size_t m, size_t n, size_t k)
{
    (void)n; // B is packed a panel at a time
    return carve(NULL, kernels, m, k, NULL);
}

// Rows of k elements as pairs.
static void round_rows(const pm_kernels *kernels, const float *x, size_t rows, size_t k, size_t stride,
                       uint32_t *y)
{
    uint16_t *to = (uint16_t *)(void *)y;
    if (k % 2 == 0 && stride == k) {
        kernels->round(x, to, rows * k);
        return;
    }
    for (size_t r = 0; r < rows; r++, x += stride, to += k % 2) {
        kernels->round(x, to, k);
        to += k;
        if (k % 2)
            *to = 0;
    }
}

// Columns of k elements, the rows of x, as rows of pairs.
static void round_columns(const pm_kernels *kernels, const float *x, size_t columns, size_t k, size_t stride,
                          uint32_t *y, size_t y_stride)
{
    for (size_t i = 0; i < k; i += 2, x += 2 * stride, y += y_stride)
        kernels->round_pairs(x, i + 1 < k ? x + stride : NULL, y, columns);
}

static void set_a(const pm_kernels *kernels, const pm_product *p, const views *v)
{
    const size_t pairs = (p->k + 1) / 2, apart = p->m + APART;
    for (size_t r = 0; r < p->m; r++)
        v->offsets[r] = 2 * r * (p->transpose_a ? 1 : pairs);
    for (size_t i = 0; i < pairs; i++) {
        v->steps[i] = 2 * i * (p->transpose_a ? apart : 1);
        v->b_offsets[i] = i * kernels->panel;
    }
    if (p->transpose_a)
        round_columns(kernels, p->a, p->m, p->k, p->a_stride, v->a, apart);
    else
        round_rows(kernels, p->a, p->m, p->k, p->a_stride, v->a);
}

static void set_b(const pm_kernels *kernels, const pm_product *p, size_t first, size_t columns,
                  const views *v)
{
    const size_t pairs = (p->k + 1) / 2;
    if (p->transpose_b) {
        round_rows(kernels, p->b + first * p->b_stride, columns, p->k, p->b_stride, v->rows);
        kernels->pack_panel((const float *)(void *)v->rows, columns, pairs, pairs,
                            (float *)(void *)v->packed);
        return;
    }
    if (columns < kernels->panel)
        memset(v->packed, 0, pairs * kernels->panel * sizeof *v->packed);
    round_columns(kernels, p->b + first, columns, p->k, p->b_stride, v->packed, kernels->panel);
}

void pm_product_pairs(const pm_kernels *kernels, const pm_product *p, void *scratch)
{
    const size_t pairs = (p->k + 1) / 2, panel = kernels->panel;
    views v = {0};
    (void)carve(scratch, kernels, p->m, p->k, &v);
    set_a(kernels, p, &v);
    for (size_t first = 0; first < p->n; first += panel) {
        const size_t columns = p->n - first < panel ? p->n - first : panel;
        set_b(kernels, p, first, columns, &v);
        for (size_t i = 0; i < pairs; i += DEPTH) {
            const bool last = pairs - i <= DEPTH;
            kernels->panel_product(&(pm_panel){.rows = p->m,
                                               .columns = columns,
                                               .depth = last ? pairs - i : DEPTH,
                                               .pairs = true,
                                               .a = v.a,
                                               .a_offsets = v.offsets,
                                               .a_steps = v.steps + i,
                                               .b = v.packed + i * panel,
                                               .b_offsets = v.b_offsets,
                                               .c = p->c + first,
                                               .c_stride = p->c_stride,
                                               .accumulate = p->accumulate || i > 0,
                                               .bias = last && p->bias ? p->bias + first : NULL,
                                               .relu = last && p->relu});
        }
    }
}
