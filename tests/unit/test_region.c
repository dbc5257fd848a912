#include "model/region.h"

#include "core/arena.h"
#include "tests/unit/nets.h"

#include <string.h>

Test(region, pieces_are_zeroed_aligned_and_do_not_overlap)
{
    enum { COUNT = 3000 };
    static unsigned char *pieces[COUNT];
    static size_t sizes[COUNT];
    pm_region *region = pm_region_create();
    size_t total = 0;
    for (size_t i = 0; i < COUNT; i++) {
        sizes[i] = i % 97 == 0 ? 100000 : i * 13 % 301;
        pieces[i] = pm_region_alloc(region, sizes[i]);
        total += sizes[i];
        cr_assert_neq(pieces[i], NULL);
        cr_assert_eq((uintptr_t)pieces[i] % (sizes[i] >= PM_ALIGN ? PM_ALIGN : 16), 0);
        for (size_t k = 0; k < sizes[i]; k++)
            cr_assert_eq(pieces[i][k], 0);
        memset(pieces[i], (int)(i % 250 + 1), sizes[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        for (size_t k = 0; k < sizes[i]; k++)
            cr_assert_eq(pieces[i][k], i % 250 + 1);
    cr_assert_eq(pm_region_used(region), total);
    cr_assert_str_eq(pm_region_text(region, "text"), "text");
    pm_region_destroy(&region);
    cr_assert_eq(region, NULL);
    pm_region_destroy(&region);
}

Test(region, what_cannot_be_is_refused)
{
    pm_region *region = pm_region_create();
    cr_assert_eq(pm_region_alloc(region, SIZE_MAX - 3), NULL);
    cr_assert_neq(pm_region_alloc(region, 0), NULL);
    pm_region_destroy(&region);
}
