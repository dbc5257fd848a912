#include "model/buffers.h"

#include "core/arena.h"
#include "tests/unit/nets.h"

static pm_lifetime random_lifetime(uint64_t trial, uint64_t i)
{
    pm_rng_key key = pm_rng_key_make(trial, "lifetimes");
    pm_lifetime l = {.bytes = pm_rng_below(key, 0, i, 5000), .first = (uint32_t)pm_rng_below(key, 1, i, 40)};
    l.last = l.first + (uint32_t)pm_rng_below(key, 2, i, 10);
    return l;
}

Test(buffers, those_that_live_together_never_overlap)
{
    enum { COUNT = 100 };
    for (uint64_t trial = 0; trial < 50; trial++) {
        pm_lifetime all[COUNT];
        size_t peak = 0, sum = 0;
        for (uint64_t i = 0; i < COUNT; i++) {
            all[i] = random_lifetime(trial, i);
            sum += pm_align(all[i].bytes);
        }
        NETS_OK(pm_buffers_place(all, COUNT, &peak));
        cr_assert_lt(peak, sum / 2);
        for (size_t i = 0; i < COUNT; i++) {
            cr_assert_eq(all[i].offset % PM_ALIGN, 0);
            cr_assert_leq(all[i].offset + all[i].bytes, peak);
            for (size_t j = 0; j < i; j++) {
                bool together = all[i].first <= all[j].last && all[j].first <= all[i].last;
                bool overlap = all[i].offset < all[j].offset + all[j].bytes &&
                               all[j].offset < all[i].offset + all[i].bytes;
                cr_assert(!(together && overlap && all[i].bytes && all[j].bytes), "%zu and %zu", i, j);
            }
        }
    }
}

Test(buffers, a_chain_needs_its_two_largest_neighbours)
{
    pm_lifetime chain[] = {{.bytes = 640, .first = 0, .last = 1},
                           {.bytes = 1280, .first = 1, .last = 2},
                           {.bytes = 640, .first = 2, .last = 3},
                           {.bytes = 64, .first = 3, .last = 4}};
    size_t peak = 0;
    NETS_OK(pm_buffers_place(chain, 4, &peak));
    cr_assert_eq(peak, 1920);
    NETS_OK(pm_buffers_place(NULL, 0, &peak));
    cr_assert_eq(peak, 0);
}
