#include "tests/unit/kernels.h"

enum { STRIDE = 32, WIDTH = 5, HEIGHT = 3 };

Test(kernel_tiles, both_ends_agree_with_their_twins_and_with_each_other_table)
{
    EACH_TABLE(fast)
    {
        for (size_t channels = 1; channels <= STRIDE; channels += 6)
            for (size_t width = WIDTH - 1; width <= WIDTH; width++)
                for (size_t height = HEIGHT - 1; height <= HEIGHT; height++) {
                    const pm_tiles t = {.width = width,
                                        .height = height,
                                        .channels = channels,
                                        .stride = STRIDE,
                                        .relu = height == HEIGHT};
                    const size_t count = (width + 1) / 2 * ((height + 1) / 2);
                    fill(x, MAX, 1, 1);
                    fill(z, STRIDE, 2, 1);
                    fast->tiles_in(&t, x, got);
                    all_tables[0]->tiles_in(&t, x, y);
                    plain->tiles_in(&t, x, wanted);
                    for (size_t i = 0; i < PM_TILE * count; i++) {
                        expect_near(fast, "in", got + i * STRIDE, wanted + i * STRIDE, channels, 5e-7);
                        cr_assert(memcmp(got + i * STRIDE, y + i * STRIDE, channels * sizeof *got) == 0);
                    }
                    fast->tiles_out(&t, wanted, z, got);
                    all_tables[0]->tiles_out(&t, wanted, z, y);
                    plain->tiles_out(&t, wanted, z, x);
                    for (size_t p = 0; p < width * height; p++) {
                        expect_near(fast, "out", got + p * STRIDE, x + p * STRIDE, channels, 4e-6);
                        cr_assert(memcmp(got + p * STRIDE, y + p * STRIDE, channels * sizeof *got) == 0);
                    }
                }
    }
}

// What does not reach an output directly does not reach it by way of its tile.
Test(kernel_tiles, a_nan_reaches_those_outputs_whose_windows_see_it)
{
    const pm_tiles t = {.width = 2, .height = 2, .channels = 1, .stride = STRIDE, .relu = true};
    EACH_TABLE(fast)
    {
        for (size_t at = 0; at < 16; at++) {
            memset(x, 0, sizeof x);
            memset(z, 0, sizeof z);
            x[at * STRIDE] = NAN;
            fast->tiles_in(&t, x, wanted);
            fast->tiles_out(&t, wanted, z, got); // the weights' transform is 1 everywhere
            for (size_t p = 0; p < 4; p++) {
                const size_t down = at / 4 - p / 2, right = at % 4 - p % 2;
                cr_assert_eq(isnan(got[p * STRIDE]) != 0, down < 3 && right < 3, "%s: pixel %zu, output %zu",
                             fast->name, at, p);
            }
        }
    }
    (void)plain;
}
