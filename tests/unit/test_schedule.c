#include "cluster/schedule.h"

#include "tests/unit/cluster_kit.h"

Test(schedule, the_last_part_of_a_batch_is_left_out)
{
    pm_job job = kit_job(8, 1, 1);
    pm_steps steps;
    ok(pm_steps_make(&steps, &job, 8 * 10 + 7));
    cr_assert_eq(steps.per_epoch, 10);
    cr_assert_eq(steps.total, 20);
}

Test(schedule, cuts_come_every_so_many_steps_and_at_the_end)
{
    pm_job job = kit_job(8, 1, 1);
    job.checkpoint.every_steps = 6;
    pm_steps steps;
    ok(pm_steps_make(&steps, &job, 80));
    for (uint64_t clock = 0; clock <= 20; clock++)
        cr_assert_eq(pm_steps_is_cut(&steps, clock), clock == 6 || clock == 12 || clock == 18 || clock == 20);
}

Test(schedule, without_a_number_each_epochs_end_is_a_cut)
{
    pm_job job = kit_job(8, 1, 1);
    job.checkpoint.every_steps = 0;
    pm_steps steps;
    ok(pm_steps_make(&steps, &job, 80));
    for (uint64_t clock = 0; clock <= 20; clock++)
        cr_assert_eq(pm_steps_is_cut(&steps, clock), pm_steps_is_epoch_end(&steps, clock));
}

Test(schedule, less_than_one_batch_is_refused)
{
    pm_job job = kit_job(8, 1, 1);
    pm_steps steps;
    cr_assert_eq(pm_steps_make(&steps, &job, 7).code, PM_INVALID);
}
