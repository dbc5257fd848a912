#include "model/product.h"

#include "core/arena.h"
#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Each of a block's limits is passed by one of them: rows, depth, columns, whole panels with short rows and
// with long ones, rows of A that are whole pages apart.
typedef struct shape {
    size_t m, n, k;
} shape;

static const shape SHAPES[] = {{1, 1, 1},      {3, 5, 7},     {8, 32, 16},    {7, 64, 100},  {20, 48, 33},
                               {130, 40, 65},  {300, 33, 9},  {40, 64, 300},  {5, 70, 1030}, {9, 1100, 4},
                               {150, 320, 70}, {17, 256, 40}, {40, 130, 1024}};

// Of a kind of product.
enum { TRANSPOSE_A = 1, TRANSPOSE_B = 2, ACCUMULATE = 4, ENDS = 8, KINDS = 16 };

// A product with operands of its own, and what it takes to be made.
typedef struct trial {
    float *a, *b, *c, *bias; // c: as it was before
    float *made, *packed;
    void *scratch;
    pm_product product;
} trial;

static trial make(shape s, unsigned kind)
{
    const size_t beside = 3; // floats between rows
    trial t = {.a = nets_numbers((s.m + beside) * (s.k + beside), 1),
               .b = nets_numbers((s.n + beside) * (s.k + beside), 2),
               .c = nets_numbers(s.m * (s.n + beside), 3),
               .bias = nets_numbers(s.n, 4),
               .made = malloc(s.m * (s.n + beside) * sizeof(float))};
    t.product = (pm_product){.transpose_a = kind & TRANSPOSE_A,
                             .transpose_b = kind & TRANSPOSE_B,
                             .m = s.m,
                             .n = s.n,
                             .k = s.k,
                             .a = t.a,
                             .a_stride = (kind & TRANSPOSE_A ? s.m : s.k) + beside,
                             .b_stride = kind & TRANSPOSE_B ? s.k + beside : s.n,
                             .c = t.made,
                             .c_stride = s.n + beside,
                             .accumulate = kind & ACCUMULATE,
                             .bias = kind & ENDS ? t.bias : NULL,
                             .relu = kind & ENDS};
    return t;
}

static size_t elements(const trial *t)
{
    return t->product.m * t->product.c_stride;
}

// Ready to be made by a table, with B packed for good or not.
static void prepare(trial *t, const pm_kernels *kernels, bool packed)
{
    pm_product *p = &t->product;
    free(t->packed);
    free(t->scratch);
    t->packed = NULL;
    p->b = t->b;
    p->b_packed = packed;
    if (packed) {
        t->packed = aligned_alloc(PM_ALIGN, pm_align(pm_product_packed_bytes(kernels, p->n, p->k)));
        pm_product_pack(kernels, p, t->packed);
        p->b = t->packed;
    }
    t->scratch = aligned_alloc(PM_ALIGN, pm_align(pm_product_bytes(kernels, p)));
    memcpy(t->made, t->c, elements(t) * sizeof(float));
}

// By its twin.
static float *wanted_of(trial *t)
{
    float *wanted = malloc(elements(t) * sizeof *wanted);
    memcpy(wanted, t->c, elements(t) * sizeof *wanted);
    pm_product twin = t->product;
    twin.b = t->b;
    twin.c = wanted;
    pm_reference_product(&twin);
    return wanted;
}

static void drop(trial *t)
{
    free(t->a);
    free(t->b);
    free(t->c);
    free(t->bias);
    free(t->made);
    free(t->packed);
    free(t->scratch);
}

static void expect(const trial *t, const float *wanted, const char *name)
{
    const pm_product *p = &t->product;
    for (size_t e = 0; e < elements(t); e++)
        cr_assert(fabsf(t->made[e] - wanted[e]) < 1e-4f, "%s: %zu x %zu x %zu at %zu: %g, wanted %g", name,
                  p->m, p->n, p->k, e, (double)t->made[e], (double)wanted[e]);
}

Test(product, agrees_with_its_twin)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t count = pm_kernels_all(tables);
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (unsigned kind = 0; kind < KINDS; kind++) {
            trial t = make(SHAPES[i], kind);
            float *wanted = wanted_of(&t);
            for (size_t j = 0; j < 2 * count; j++) {
                prepare(&t, tables[j / 2], j % 2);
                pm_product_run(tables[j / 2], &t.product, t.scratch);
                expect(&t, wanted, tables[j / 2]->name);
            }
            free(wanted);
            drop(&t);
        }
}

// Rows first to first + count of the product, made alone, have the bits that they have in it.
static void has_the_same_bits(const pm_kernels *kernels, const trial *t, size_t first, size_t count)
{
    const pm_product *whole = &t->product;
    float *c = malloc(count * whole->c_stride * sizeof *c);
    pm_product part = *whole;
    part.m = count;
    part.a += whole->transpose_a ? first : first * whole->a_stride;
    part.c = c;
    pm_product_run(kernels, &part, t->scratch);
    for (size_t r = 0; r < count; r++)
        cr_assert(memcmp(c + r * whole->c_stride, t->made + (first + r) * whole->c_stride,
                         whole->n * sizeof *c) == 0,
                  "%s: row %zu of %zu from %zu", kernels->name, r, count, first);
    free(c);
}

Test(product, a_row_has_the_same_bits_among_any_others)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t count = pm_kernels_all(tables);
    const shape shapes[] = {{270, 64, 70}, {140, 37, 1100}, {140, 300, 20}, {40, 130, 1024}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (unsigned kind = 0; kind < ACCUMULATE; kind++) {
            trial t = make(shapes[i], kind);
            for (size_t j = 0; j < 2 * count; j++) {
                prepare(&t, tables[j / 2], j % 2);
                pm_product_run(tables[j / 2], &t.product, t.scratch);
                for (size_t rows = 1; rows <= shapes[i].m; rows = 2 * rows + 1)
                    has_the_same_bits(tables[j / 2], &t, (shapes[i].m - rows) / 2, rows);
            }
            drop(&t);
        }
}

Test(product, of_a_fixed_shape_is_made_on_both_sides_of_the_limit_of_small_ones)
{
    const pm_kernels *kernels = pm_kernels_get();
    const shape shapes[] = {{7, 512, 512}, {100, 100, 100}, {102, 102, 102}};
    for (size_t i = 0; i < 3; i++) {
        const shape s = shapes[i];
        cr_assert_eq(pm_product_is_small(s.m, s.n, s.k), i < 2);
        cr_assert_eq(pm_product_fixed_bytes(kernels, &(pm_product){.m = s.m, .n = s.n, .k = s.k}) == 0,
                     i < 2);
        trial t = make(s, 0);
        float *wanted = wanted_of(&t);
        prepare(&t, kernels, false);
        pm_product_run_fixed(kernels, &t.product, t.scratch);
        expect(&t, wanted, kernels->name);
        free(wanted);
        drop(&t);
    }
}
