#include "core/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>

// Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors).
Test(rng, philox_gives_the_published_answers)
{
    uint32_t out[4];
    pm_philox((pm_rng_key){{0, 0}}, (uint32_t[4]){0, 0, 0, 0}, out);
    cr_assert_eq(out[0], 0x6627e8d5u);
    cr_assert_eq(out[1], 0xe169c58du);
    cr_assert_eq(out[2], 0xbc57ac4cu);
    cr_assert_eq(out[3], 0x9b00dbd8u);
    pm_philox((pm_rng_key){{0xffffffffu, 0xffffffffu}},
              (uint32_t[4]){0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, out);
    cr_assert_eq(out[0], 0x408f276du);
    cr_assert_eq(out[1], 0x41c83b0eu);
    cr_assert_eq(out[2], 0xa20bc7c6u);
    cr_assert_eq(out[3], 0x6d5451fdu);
}

Test(rng, permutation_visits_every_position_once)
{
    pm_rng_key key = pm_rng_key_make(7, "order");
    for (uint64_t n = 1; n < 2000; n = n * 3 + 1) {
        unsigned char *seen = calloc(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = pm_rng_permute(key, 3, i, n);
            cr_assert_lt(at, n);
            cr_assert_eq(seen[at]++, 0, "n %lu position %lu", (unsigned long)n, (unsigned long)i);
        }
        free(seen);
    }
}

Test(rng, epochs_have_different_orders)
{
    pm_rng_key key = pm_rng_key_make(7, "order");
    int same = 0;
    for (uint64_t i = 0; i < 1000; i++)
        same += pm_rng_permute(key, 0, i, 1000) == pm_rng_permute(key, 1, i, 1000);
    cr_assert_lt(same, 20);
}

Test(rng, uniform_fills_the_unit_interval)
{
    pm_rng_key key = pm_rng_key_make(1, "uniform");
    double sum = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double u = pm_rng_uniform(key, 0, i);
        cr_assert(u >= 0 && u < 1);
        sum += u;
    }
    cr_assert_float_eq(sum / 10000, 0.5, 0.02);
}
