#include "cluster/lanes.h"

#include <criterion/criterion.h>

Test(lanes, blocks_are_aligned_powers_of_two)
{
    cr_assert(pm_block_valid((pm_block){0, 8}, 8));
    cr_assert(pm_block_valid((pm_block){6, 2}, 8));
    cr_assert_not(pm_block_valid((pm_block){1, 2}, 8));
    cr_assert_not(pm_block_valid((pm_block){0, 3}, 8));
    cr_assert_not(pm_block_valid((pm_block){0, 0}, 8));
    cr_assert_not(pm_block_valid((pm_block){8, 1}, 8));
    cr_assert_not(pm_block_valid((pm_block){0, 16}, 8));
    cr_assert_not(pm_block_valid((pm_block){UINT32_MAX, 1}, 8));
}

Test(lanes, blocks_and_nodes_are_one_to_one)
{
    for (uint32_t node = 1; node < 2 * 64; node++) {
        pm_block block = pm_node_block(node, 64);
        cr_assert(pm_block_valid(block, 64));
        cr_assert_eq(pm_block_node(block, 64), node);
    }
}

Test(lanes, shares_cover_every_lane_once_and_are_even)
{
    for (uint32_t lanes = 1; lanes <= PM_MAX_LANES; lanes *= 2)
        for (uint32_t workers = 1; workers <= 20; workers++) {
            uint32_t next = 0;
            for (uint32_t w = 0; w < workers; w++) {
                pm_block blocks[PM_BLOCKS_MAX];
                uint32_t count = pm_lanes_share(lanes, workers, w, blocks), mine = 0;
                cr_assert_leq(count, PM_BLOCKS_MAX);
                for (uint32_t b = 0; b < count; b++) {
                    cr_assert(pm_block_valid(blocks[b], lanes));
                    cr_assert_eq(blocks[b].first, next);
                    next += blocks[b].count;
                    mine += blocks[b].count;
                }
                cr_assert_geq(mine, lanes / workers);
                cr_assert_leq(mine, (lanes + workers - 1) / workers);
            }
            cr_assert_eq(next, lanes, "%u lanes, %u workers", lanes, workers);
        }
}

Test(lanes, a_power_of_two_of_workers_get_one_block_each)
{
    pm_block blocks[PM_BLOCKS_MAX];
    for (uint32_t w = 0; w < 4; w++) {
        cr_assert_eq(pm_lanes_share(16, 4, w, blocks), 1);
        cr_assert_eq(blocks[0].first, w * 4);
        cr_assert_eq(blocks[0].count, 4);
    }
}

Test(lanes, a_marked_node_covers_what_is_below_it)
{
    pm_lane_set set = {{0}};
    pm_lane_set_put(&set, 3); // the right half of 8 lanes
    cr_assert(pm_lane_set_covers(&set, 3));
    cr_assert(pm_lane_set_covers(&set, 15));
    cr_assert_not(pm_lane_set_covers(&set, 2));
    cr_assert_not(pm_lane_set_covers(&set, 1));
    cr_assert_eq(pm_lane_set_below(&set, 1, 8), 3);
    cr_assert_eq(pm_lane_set_below(&set, 3, 8), 0);
    pm_lane_set_drop(&set, 3);
    cr_assert_not(pm_lane_set_covers(&set, 15));
}
