#include "cluster/placement.h"

#include "tests/unit/cluster_kit.h"

static const uint64_t COUNTS[] = {3 * PM_SLICE_FLOATS + 5, 10, PM_SLICE_FLOATS, 400000, 1};

Test(placement, slices_tile_their_tables_whatever_the_shards)
{
    for (uint32_t shards = 1; shards < 9; shards++) {
        pm_placement *p = NULL;
        ok(pm_placement_create(&p, COUNTS, NULL, 5, shards));
        cr_assert_eq(pm_placement_size(p), 4 + 1 + 1 + 2 + 1);
        uint32_t index = 0;
        for (uint32_t t = 0; t < 5; t++) {
            uint64_t offset = 0;
            cr_assert_eq(pm_placement_first(p, t), index);
            for (uint32_t s = 0; s < pm_placement_count(p, t); s++, index++) {
                const pm_slice *slice = pm_placement_slice(p, index);
                cr_assert_eq(pm_placement_find(p, t, s), index);
                cr_assert_eq(slice->table, t);
                cr_assert_eq(slice->slice, s);
                cr_assert_eq(slice->offset, offset);
                cr_assert_leq(slice->count, PM_SLICE_FLOATS);
                cr_assert_lt(slice->shard, shards);
                offset += slice->count;
            }
            cr_assert_eq(offset, COUNTS[t]);
        }
        pm_placement_destroy(&p);
    }
}

Test(placement, bytes_are_balanced)
{
    uint64_t counts[40], load[3] = {0};
    for (int i = 0; i < 40; i++)
        counts[i] = (uint64_t)(i * 7919 % 13 + 1) * 50000;
    pm_placement *p = NULL;
    ok(pm_placement_create(&p, counts, NULL, 40, 3));
    for (uint32_t i = 0; i < pm_placement_size(p); i++)
        load[pm_placement_slice(p, i)->shard] += pm_placement_slice(p, i)->count;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            cr_assert_leq(load[a], load[b] + PM_SLICE_FLOATS);
    pm_placement_destroy(&p);
}

Test(placement, what_is_not_there_is_not_found)
{
    pm_placement *p = NULL;
    ok(pm_placement_create(&p, COUNTS, NULL, 5, 2));
    cr_assert_eq(pm_placement_find(p, 5, 0), -1);
    cr_assert_eq(pm_placement_find(p, 1, 1), -1);
    cr_assert_eq(pm_placement_find(p, UINT32_MAX, UINT32_MAX), -1);
    pm_placement_destroy(&p);
}

Test(placement, empty_tables_and_giants_are_refused)
{
    pm_placement *p = NULL;
    cr_assert_eq(pm_placement_create(&p, (const uint64_t[]){0}, NULL, 1, 1).code, PM_INVALID);
    cr_assert_eq(pm_placement_create(&p, (const uint64_t[]){UINT64_MAX}, NULL, 1, 1).code, PM_UNSUPPORTED);
    cr_assert_eq(pm_placement_create(&p, COUNTS, NULL, 5, 0).code, PM_INVALID);
    cr_assert_null(p);
}

Test(placement, a_table_of_rows_is_cut_between_them)
{
    const uint64_t counts[] = {7 * 100000, 5};
    const uint32_t widths[] = {7, 0}, wide[] = {PM_SLICE_FLOATS + 1}, odd[] = {4};
    pm_placement *p = NULL;
    ok(pm_placement_create(&p, counts, widths, 2, 2));
    cr_assert_eq(pm_placement_count(p, 0), 3);
    uint64_t at = 0;
    for (uint32_t i = 0; i < 3; i++) {
        const pm_slice *s = pm_placement_slice(p, i);
        cr_assert_eq(s->offset, at);
        cr_assert_eq(s->count % 7, 0);
        at += s->count;
    }
    cr_assert_eq(at, counts[0]);
    pm_placement_destroy(&p);
    cr_assert_eq(pm_placement_create(&p, (const uint64_t[]){wide[0]}, wide, 1, 1).code, PM_UNSUPPORTED);
    cr_assert_eq(pm_placement_create(&p, (const uint64_t[]){7}, odd, 1, 1).code, PM_UNSUPPORTED);
}
