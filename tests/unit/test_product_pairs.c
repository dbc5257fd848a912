#include "model/product_pairs.h"

#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    size_t m, n, k;
} shape;

// Odd and even depths, depths of several blocks, rows and columns that leave tails.
static const shape SHAPES[] = {{1, 1, 1},  {3, 33, 2},    {8, 32, 7},   {13, 65, 64},
                               {40, 7, 9}, {17, 40, 601}, {9, 64, 256}, {130, 20, 515}};

static float rounded(float x)
{
    uint32_t pair = 0;
    pm_reference_kernels()->round_pairs(&x, NULL, &pair, 1);
    pair <<= 16;
    memcpy(&x, &pair, sizeof x);
    return x;
}

static float at(const float *x, size_t stride, bool transposed, size_t row, size_t column)
{
    return rounded(transposed ? x[column * stride + row] : x[row * stride + column]);
}

// The second of each pair, then the first: products of bfloat16 are exact, so each addition rounds once.
static float element(const pm_product *p, size_t i, size_t j)
{
    float sum = 0;
    for (size_t k = 0; k < p->k; k += 2)
        for (size_t half = 2; half-- > 0;)
            if (k + half < p->k)
                sum += at(p->a, p->a_stride, p->transpose_a, i, k + half) *
                       at(p->b, p->b_stride, p->transpose_b, k + half, j);
    return sum;
}

typedef void (*check)(const pm_kernels *kernels, const pm_product *p);

// Each shape in each of the ways to transpose, with every kernel set.
static void for_all(check look)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (size_t t = 0; t < table_count; t++)
            for (int way = 0; way < 4; way++) {
                const shape s = SHAPES[i];
                float *a = nets_numbers(s.m * s.k, 1), *b = nets_numbers(s.k * s.n, 2),
                      *bias = nets_numbers(s.n, 3), *c = malloc(s.m * s.n * sizeof *c);
                const size_t bytes = pm_product_pairs_bytes(tables[t], s.m, s.n, s.k);
                void *scratch = malloc(bytes);
                const pm_product p = {.transpose_a = way & 1,
                                      .transpose_b = way & 2,
                                      .m = s.m,
                                      .n = s.n,
                                      .k = s.k,
                                      .a = a,
                                      .a_stride = way & 1 ? s.m : s.k,
                                      .b = b,
                                      .b_stride = way & 2 ? s.k : s.n,
                                      .c = c,
                                      .c_stride = s.n,
                                      .bias = way == 3 ? bias : NULL,
                                      .relu = way == 3};
                memset(scratch, 0xff, bytes);
                pm_product_pairs(tables[t], &p, scratch);
                look(tables[t], &p);
                free(a);
                free(b);
                free(bias);
                free(c);
                free(scratch);
            }
}

static void is_twin(const pm_kernels *kernels, const pm_product *p)
{
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            float wanted = element(p, i, j) + (p->bias ? p->bias[j] : 0);
            wanted = p->relu && wanted < 0 ? 0 : wanted;
            cr_assert_eq(p->c[i * p->n + j], wanted, "%s (%zu, %zu, %zu) at %zu, %zu: %a, wanted %a",
                         kernels->name, p->m, p->n, p->k, i, j, (double)p->c[i * p->n + j], (double)wanted);
        }
}

Test(product_pairs, the_bits_are_those_of_the_scalar_twin)
{
    for_all(is_twin);
}

static void is_near(const pm_kernels *kernels, const pm_product *p)
{
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double wanted = p->bias ? (double)p->bias[j] : 0, size = fabs(wanted);
            for (size_t k = 0; k < p->k; k++) {
                const double a = (double)(p->transpose_a ? p->a[k * p->m + i] : p->a[i * p->k + k]),
                             b = (double)(p->transpose_b ? p->b[j * p->k + k] : p->b[k * p->n + j]);
                wanted += a * b;
                size += fabs(a * b);
            }
            wanted = p->relu && wanted < 0 ? 0 : wanted;
            // Each operand is off by at most 2^-8 of itself; the sum by much less.
            cr_assert(fabs((double)p->c[i * p->n + j] - wanted) <= size * 2.02 / 256, "%s", kernels->name);
        }
}

Test(product_pairs, a_product_is_as_near_as_bfloat16_allows)
{
    for_all(is_near);
}

Test(product_pairs, a_row_has_the_same_bits_alone_and_among_others)
{
    enum { M = 29, N = 45, K = 300 };
    const pm_kernels *kernels = pm_kernels_get();
    float *a = nets_numbers(M * K, 1), *b = nets_numbers(N * K, 2), *c = malloc(M * N * sizeof *c), one[N];
    void *scratch = malloc(pm_product_pairs_bytes(kernels, M, N, K));
    pm_product p = {.transpose_b = true,
                    .m = M,
                    .n = N,
                    .k = K,
                    .a = a,
                    .a_stride = K,
                    .b = b,
                    .b_stride = K,
                    .c = c,
                    .c_stride = N};
    pm_product_pairs(kernels, &p, scratch);
    p.m = 1;
    p.c = one;
    for (size_t r = 0; r < M; r++, p.a += K) {
        pm_product_pairs(kernels, &p, scratch);
        cr_assert(memcmp(one, c + r * N, sizeof one) == 0);
    }
    free(a);
    free(b);
    free(c);
    free(scratch);
}
