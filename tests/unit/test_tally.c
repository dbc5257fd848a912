#include "cluster/tally.h"

#include "tests/unit/cluster_kit.h"

static pm_score of_block(uint32_t first, uint32_t count)
{
    if (count == 1)
        return (pm_score){1.0 / (first + 3), first, 2, NULL, 0};
    pm_score left = of_block(first, count / 2), right = of_block(first + count / 2, count / 2);
    return (pm_score){left.loss_sum + right.loss_sum, left.correct + right.correct, left.rows + right.rows,
                      NULL, 0};
}

Test(tally, sums_have_the_same_bits_for_any_blocks_and_order)
{
    pm_tally *t = NULL;
    ok(pm_tally_create(&t, 8, 4));
    pm_score whole = of_block(0, 8), total = {0};
    cr_assert(pm_tally_add(t, 0, (pm_block){0, 8}, whole, &total));
    cr_assert_eq(total.loss_sum, whole.loss_sum);
    static const pm_block parts[] = {{7, 1}, {0, 2}, {4, 2}, {6, 1}, {2, 2}};
    for (int i = 0; i < 5; i++) {
        pm_score part = of_block(parts[i].first, parts[i].count);
        cr_assert_eq(pm_tally_add(t, 1, parts[i], part, &total), i == 4);
    }
    cr_assert_eq(total.loss_sum, whole.loss_sum);
    cr_assert_eq(total.correct, whole.correct);
    cr_assert_eq(total.rows, whole.rows);
    pm_tally_destroy(&t);
}

Test(tally, a_report_that_comes_twice_counts_once)
{
    pm_tally *t = NULL;
    ok(pm_tally_create(&t, 2, 4));
    pm_score one = {1, 1, 1, NULL, 0}, total = {0};
    cr_assert_not(pm_tally_add(t, 5, (pm_block){0, 1}, one, &total));
    cr_assert_not(pm_tally_add(t, 5, (pm_block){0, 1}, one, &total));
    cr_assert(pm_tally_add(t, 5, (pm_block){1, 1}, one, &total));
    cr_assert_eq(total.rows, 2);
    cr_assert_not(pm_tally_add(t, 5, (pm_block){1, 1}, one, &total), "a complete clock stays complete");
    pm_tally_destroy(&t);
}

Test(tally, an_old_clock_does_not_disturb_the_newer_one_in_its_place)
{
    pm_tally *t = NULL;
    ok(pm_tally_create(&t, 2, 4));
    pm_score one = {1, 1, 1, NULL, 0}, total = {0};
    cr_assert_not(pm_tally_add(t, 9, (pm_block){0, 1}, one, &total));
    cr_assert_not(pm_tally_add(t, 5, (pm_block){0, 2}, one, &total));
    cr_assert(pm_tally_add(t, 9, (pm_block){1, 1}, one, &total));
    pm_tally_destroy(&t);
}

Test(tally, counters_add_up_once)
{
    pm_tally *t = NULL;
    ok(pm_tally_create(&t, 4, 2));
    const uint64_t a[] = {1, 10}, b[] = {2, 20}, c[] = {4, 40};
    pm_score total = {0};
    cr_assert_not(pm_tally_add(t, 3, (pm_block){2, 1}, (pm_score){0, 0, 1, a, 2}, &total));
    cr_assert_not(pm_tally_add(t, 3, (pm_block){2, 1}, (pm_score){0, 0, 1, a, 2}, &total));
    cr_assert_not(pm_tally_add(t, 3, (pm_block){0, 2}, (pm_score){0, 0, 2, b, 2}, &total));
    cr_assert(pm_tally_add(t, 3, (pm_block){3, 1}, (pm_score){0, 0, 1, c, 2}, &total));
    cr_assert(total.rows == 4 && total.counter_count == 2);
    cr_assert(total.counters[0] == 7 && total.counters[1] == 70);
    cr_assert_not(pm_tally_add(t, 4, (pm_block){0, 2}, (pm_score){0, 0, 2, a, 2}, &total));
    cr_assert(pm_tally_add(t, 4, (pm_block){2, 2}, (pm_score){0, 0, 2, a, 1}, &total));
    cr_assert_eq(total.counter_count, 0, "of different numbers");
    pm_tally_destroy(&t);
}
