#include "model/kernels.h"

#include "tests/unit/kernels.h"

enum { CHANNELS = 5 };

static float dy[MAX], mean[2][CHANNELS], variance[2][CHANNELS], sums[2][2][CHANNELS];

// Of numbers, with or without a rectifier.
static void check(const pm_kernels *fast, const pm_kernels *plain, pm_norm n)
{
    const size_t count = n.planes.images * n.planes.stride;
    fast->norm(&n, x, got);
    plain->norm(&n, x, wanted);
    expect_near(fast, "norm", got, wanted, count, 1e-6);
    fast->norm_sums(&n, x, dy, sums[0][0], sums[0][1]);
    plain->norm_sums(&n, x, dy, sums[1][0], sums[1][1]);
    expect_near(fast, "sum of dy", sums[0][0], sums[1][0], n.planes.channels, 1e-4);
    expect_near(fast, "sum of dy x", sums[0][1], sums[1][1], n.planes.channels, 1e-3);
    fast->norm_backward(&n, x, dy, sums[1][0], sums[1][1], got);
    plain->norm_backward(&n, x, dy, sums[1][0], sums[1][1], wanted);
    expect_near(fast, "dx", got, wanted, count, 1e-3);
}

Test(kernel_norm, normalizing_agrees_with_the_twins)
{
    EACH_TABLE(fast)
    {
        for (size_t images = 1; images <= 5; images += 2)
            for (size_t channels = 1; channels <= CHANNELS; channels++)
                for (size_t area = 1; area <= 100; area += 11) {
                    const pm_planes planes = {images, channels, area, channels * area + 3};
                    fill(x, MAX, area, 3);
                    fill(dy, MAX, area + 1, 1);
                    fill(z, 3 * channels, 6, 1);
                    memset(got, 0, sizeof got);
                    memset(wanted, 0, sizeof wanted);
                    fast->moments(&planes, x, mean[0], variance[0]);
                    plain->moments(&planes, x, mean[1], variance[1]);
                    expect_near(fast, "mean", mean[0], mean[1], channels, 1e-5);
                    expect_near(fast, "variance", variance[0], variance[1], channels, 1e-4);
                    for (int relu = 0; relu < 2; relu++)
                        check(fast, plain,
                              (pm_norm){planes, z, z + channels, mean[1], z + 2 * channels, relu});
                }
    }
}

// What the element-wise kernels make one after the other.
Test(kernel_norm, a_rectifier_over_it_changes_no_bit)
{
    EACH_TABLE(fast)
    {
        for (size_t area = 1; area <= 100; area += 33) {
            const pm_planes planes = {4, CHANNELS, area, CHANNELS * area};
            const size_t count = 4 * CHANNELS * area;
            fill(x, MAX, 1, 3);
            fill(y, MAX, 2, 1);
            fill(z, 3 * CHANNELS, 6, 1);
            x[area / 2] = NAN;
            pm_norm n = {planes, z, z + CHANNELS, mean[1], z + 2 * CHANNELS, false};
            memset(mean, 0, sizeof mean);
            fast->norm(&n, x, wanted);
            fast->relu(wanted, wanted, count);
            fast->relu_backward(wanted, y, dy, count);
            n.relu = true;
            fast->norm(&n, x, got);
            cr_assert(memcmp(got, wanted, count * sizeof *got) == 0, "%s", fast->name);
            x[area / 2] = 1;
            fast->norm_sums(&n, x, y, sums[0][0], sums[0][1]);
            n.relu = false;
            fast->norm(&n, x, wanted);
            fast->relu_backward(wanted, y, dy, count);
            fast->norm_sums(&n, x, dy, sums[1][0], sums[1][1]);
            cr_assert(memcmp(sums[0], sums[1], sizeof sums[0]) == 0, "%s", fast->name);
            fast->norm_backward(&n, x, dy, sums[0][0], sums[0][1], wanted);
            n.relu = true;
            fast->norm_backward(&n, x, y, sums[0][0], sums[0][1], got);
            cr_assert(memcmp(got, wanted, count * sizeof *got) == 0, "%s", fast->name);
        }
    }
    (void)plain;
}
