#include "model/kernels.h"

#include "tests/unit/kernels.h"

// Half of them what rounding is about: ties, carries, subnormals, the largest, infinity, NaN.
static void fill_bits(float *values, size_t n)
{
    static const uint32_t edges[] = {0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0x3fffffff,
                                     0x7f7fffff, 0x7f7f8000, 0x7f7f7fff, 0x7f800000, 0xff800000,
                                     0x7f800001, 0xffc00000, 0x7fffffff, 0x00000001, 0x807fffff,
                                     0x007fffff, 0x00800000, 0x80808000, 0x00000000, 0x80000000};
    const pm_rng_key key = pm_rng_key_make(1, "bits");
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = i % 2 ? edges[i / 2 % (sizeof edges / sizeof *edges)]
                                    : (uint32_t)(pm_rng_uniform(key, 0, i) * 4294967295.0);
        memcpy(&values[i], &bits, sizeof bits);
    }
}

Test(kernel_pairs, rounding_to_bfloat16_gives_the_twins_bits)
{
    EACH_TABLE(fast)
    {
        EACH_LENGTH(n)
        {
            fill_bits(x, 2 * n);
            memset(got, 0, sizeof got);
            memset(wanted, 0, sizeof wanted);
            fast->round(x, (uint16_t *)(void *)got, n);
            plain->round(x, (uint16_t *)(void *)wanted, n);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, %zu elements", fast->name, n);
            fast->round_pairs(x, x + n, (uint32_t *)(void *)got, n);
            plain->round_pairs(x, x + n, (uint32_t *)(void *)wanted, n);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, %zu pairs", fast->name, n);
            fast->round_pairs(x, NULL, (uint32_t *)(void *)got, n);
            plain->round_pairs(x, NULL, (uint32_t *)(void *)wanted, n);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, %zu halves of pairs", fast->name, n);
        }
    }
}

Test(kernel_pairs, a_panel_product_in_pairs_gives_the_twins_bits)
{
    size_t a_offsets[20], a_steps[50], b_offsets[50];
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows <= 20; rows += 1 + rows / 6)
            for (size_t depth = 0; depth <= 50; depth += 1 + depth * 2)
                for (size_t columns = 1; columns <= 2 * fast->panel; columns += 13) {
                    pm_panel p = {.rows = rows,
                                  .columns = columns,
                                  .depth = depth,
                                  .pairs = true,
                                  .a = y,
                                  .a_offsets = a_offsets,
                                  .a_steps = a_steps,
                                  .b = z,
                                  .b_offsets = b_offsets,
                                  .b_stride = MAX / 2,
                                  .c = got,
                                  .c_stride = 70,
                                  .accumulate = depth % 2,
                                  .bias = rows % 2 ? x : NULL,
                                  .relu = rows % 3 == 0};
                    for (size_t r = 0; r < rows; r++)
                        a_offsets[r] = 7 * r; // pairs begin anywhere
                    for (size_t k = 0; k < depth; k++) {
                        a_steps[k] = 2 * k + k % 5;
                        b_offsets[k] = k * fast->panel;
                    }
                    fill(x, MAX, 51, 2);
                    fast->round(x, (uint16_t *)(void *)y, MAX);
                    fast->round_pairs(x + 1, x, (uint32_t *)(void *)z, MAX - 1);
                    fill(got, MAX, 52, 1);
                    memcpy(wanted, got, sizeof got);
                    fast->panel_product(&p);
                    for (size_t first = 0; first < columns; first += fast->panel) {
                        p.c = wanted + first;
                        p.columns = columns - first < fast->panel ? columns - first : fast->panel;
                        plain->panel_product(&p);
                        p.b = (const uint32_t *)p.b + p.b_stride;
                        p.bias = p.bias ? p.bias + fast->panel : NULL;
                    }
                    cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s: %zu rows, %zu columns, depth %zu",
                              fast->name, rows, columns, depth);
                }
    }
}
