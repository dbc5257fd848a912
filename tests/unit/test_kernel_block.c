#include "model/kernels.h"
#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <string.h>

enum { MAX = 8192 };

static float x[MAX], y[MAX], dy[MAX], got[MAX], wanted[MAX], more_got[MAX], more_wanted[MAX];

static void fill(float *to, size_t n, uint64_t stream, float scale)
{
    for (size_t i = 0; i < n; i++)
        to[i] = scale * nets_number(stream, i);
}

static void expect_near(const pm_kernels *table, const char *what, const float *is, const float *should,
                        size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(fabs((double)is[i] - (double)should[i]) <= tolerance * (1 + fabs((double)should[i])),
                  "%s %s, element %zu of %zu: %.9g, wanted %.9g", table->name, what, i, n, (double)is[i],
                  (double)should[i]);
}

#define EACH_TABLE(fast)                                                                                     \
    const pm_kernels *tables[PM_KERNEL_TABLES], *plain = pm_reference_kernels(), *fast = NULL;                              \
    const size_t table_count = pm_kernels_all(tables);                                                       \
    for (size_t at = 0; at < table_count && (fast = tables[at]); at++)

Test(kernel_block, erf_and_gelu_agree_with_their_twins)
{
    EACH_TABLE(fast)
    {
        for (size_t n = 1; n < 4000; n = n * 2 + 1) {
            fill(x, n, n, n % 2 ? 10 : 1.5f);
            fast->error_function(x, got, n);
            plain->error_function(x, wanted, n);
            expect_near(fast, "erf", got, wanted, n, 3e-7);
            fast->gelu(x, got, more_got, n);
            plain->gelu(x, wanted, more_wanted, n);
            expect_near(fast, "gelu", got, wanted, n, 5e-7);
            expect_near(fast, "gelu slope", more_got, more_wanted, n, 5e-7);
            fast->gelu(x, y, NULL, n);
            cr_assert(memcmp(y, got, n * sizeof *y) == 0);
            memcpy(dy, x, n * sizeof *dy);
            fast->gelu(dy, got, dy, n); // the slope over x
            cr_assert(memcmp(dy, more_got, n * sizeof *dy) == 0);
            fast->multiply(x, y, got, n);
            plain->multiply(x, y, wanted, n);
            expect_near(fast, "product", got, wanted, n, 0);
        }
    }
}

Test(kernel_block, erf_keeps_small_digits_saturates_and_keeps_nan)
{
    const float far[] = {-100, -9.5f, 9.5f, 100, INFINITY, -INFINITY, 0};
    EACH_TABLE(fast)
    {
        for (size_t i = 0; i < 1000; i++)
            x[i] = (float)(exp(-14 * (double)i / 1000) * (i % 2 ? 1 : -1));
        fast->error_function(x, got, 1000);
        plain->error_function(x, wanted, 1000);
        for (size_t i = 0; i < 1000; i++)
            cr_assert(fabs((double)got[i] / (double)wanted[i] - 1) < 3e-7, "erf %g: %.9g, wanted %.9g",
                      (double)x[i], (double)got[i], (double)wanted[i]);
        fast->error_function(far, got, 7);
        plain->error_function(far, wanted, 7);
        expect_near(fast, "erf", got, wanted, 7, 1e-7);
        fast->gelu(far, got, NULL, 4);
        plain->gelu(far, wanted, NULL, 4);
        expect_near(fast, "gelu", got, wanted, 4, 1e-7);
        const float nan = NAN;
        fast->error_function(&nan, got, 1);
        fast->gelu(&nan, got + 1, got + 2, 1);
        cr_assert(isnan(got[0]) && isnan(got[1]) && isnan(got[2]));
    }
}

Test(kernel_block, layer_norms_agree_with_their_twins)
{
    float means[2][20], inverses[2][20], scale[130], bias[130], sums[2][2][130];
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows < 20; rows += 6)
            for (size_t c = 1; c < 130; c += 9) {
                pm_layer_norm n = {.rows = rows, .columns = c, .scale = scale, .epsilon = 1e-5f};
                fill(x, rows * c, c, 3);
                fill(dy, rows * c, c + 1, 1);
                fill(scale, c, 3, 2);
                fill(bias, c, 4, 1);
                for (int biased = 0; biased < 2; biased++) {
                    n.bias = biased ? bias : NULL;
                    fast->layer_norm(&n, x, got, means[0], inverses[0]);
                    plain->layer_norm(&n, x, wanted, means[1], inverses[1]);
                    expect_near(fast, "layer norm", got, wanted, rows * c, 1e-5);
                    expect_near(fast, "means", means[0], means[1], rows, 1e-6);
                    expect_near(fast, "inverses", inverses[0], inverses[1], rows, 1e-5);
                }
                if (c < 3)
                    continue; // the gradient of two columns is a difference of nearly equal numbers
                plain->layer_norm_backward(&n, x, dy, means[1], inverses[1], wanted, sums[1][0], sums[1][1]);
                memcpy(got, dy, sizeof got); // over dy
                fast->layer_norm_backward(&n, x, got, means[1], inverses[1], got, sums[0][0], sums[0][1]);
                expect_near(fast, "layer norm backward", got, wanted, rows * c, 2e-5);
                expect_near(fast, "of the scale", sums[0][0], sums[1][0], c, 1e-5);
                expect_near(fast, "of the bias", sums[0][1], sums[1][1], c, 1e-5);
            }
    }
}

Test(kernel_block, shares_of_attention_agree_with_their_twins)
{
    enum { ROWS = 7, STRIDE = 101 };
    uint32_t visible[ROWS];
    static float mask[ROWS * STRIDE];
    EACH_TABLE(fast)
    {
        for (size_t c = 1; c <= STRIDE; c += 4)
            for (int form = 0; form < 4; form++) {
                for (size_t r = 0; r < ROWS; r++)
                    visible[r] = (uint32_t)(1 + (r * 13 + c / 2) % c);
                fill(mask, ROWS * STRIDE, 8, 2);
                mask[0] = c > 1 && visible[0] > 1 ? -INFINITY : 0;
                const pm_attend a = {.rows = ROWS,
                                     .columns = c,
                                     .stride = STRIDE,
                                     .scale = 0.7f,
                                     .mask = form & 1 ? mask : NULL,
                                     .mask_stride = STRIDE,
                                     .visible = form & 2 ? visible : NULL};
                fill(x, ROWS * STRIDE, c, 6);
                fill(dy, ROWS * STRIDE, c + 1, 1);
                memcpy(got, x, sizeof got);
                memcpy(wanted, x, sizeof wanted);
                fast->attend(&a, got);
                plain->attend(&a, wanted);
                for (size_t r = 0; r < ROWS; r++)
                    expect_near(fast, "shares", got + r * STRIDE, wanted + r * STRIDE, c, 1e-6);
                memcpy(y, wanted, sizeof y);
                memcpy(got, dy, sizeof got);
                memcpy(wanted, dy, sizeof wanted);
                fast->attend_backward(&a, y, got);
                plain->attend_backward(&a, y, wanted);
                for (size_t r = 0; r < ROWS; r++)
                    expect_near(fast, "shares backward", got + r * STRIDE, wanted + r * STRIDE, c, 1e-6);
            }
    }
}

// As kernels of products alone may contract, these give the same bits in each table.
Test(kernel_block, variants_give_the_same_bits)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t count = pm_kernels_all(tables);
    const pm_layer_norm n = {.rows = 5, .columns = 77, .scale = dy, .bias = dy + 100, .epsilon = 1e-5f};
    const pm_attend a = {.rows = 5, .columns = 77, .stride = 77, .scale = 0.3f};
    fill(x, 400, 1, 4);
    fill(dy, 400, 2, 1);
    for (size_t t = 0; t < count; t++) {
        float *to = t == 0 ? wanted : got, means[5], inverses[5];
        tables[t]->error_function(x, to, 400);
        tables[t]->gelu(x, to + 400, to + 800, 400);
        tables[t]->layer_norm(&n, x, to + 1200, means, inverses);
        tables[t]->layer_norm_backward(&n, x, dy, means, inverses, to + 1600, to + 2000, to + 2100);
        memcpy(to + 2200, x, 400 * sizeof *to);
        tables[t]->attend(&a, to + 2200);
        memcpy(to + 2600, dy, 400 * sizeof *to);
        tables[t]->attend_backward(&a, to + 2200, to + 2600);
        cr_assert(t == 0 || memcmp(got, wanted, 3000 * sizeof *got) == 0, "%s", tables[t]->name);
    }
}
