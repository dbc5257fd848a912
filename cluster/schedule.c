#include "cluster/schedule.h"

pm_status pm_steps_make(pm_steps *steps, const pm_job *job, uint64_t train_rows)
{
    const uint64_t pass = job->batch ? train_rows / job->batch : 0;
    steps->per_epoch = job->steps_per_epoch ? job->steps_per_epoch : pass;
    if (pass == 0)
        return pm_fail(PM_INVALID, "%llu rows of training data make no batch of %u; lower batch",
                       (unsigned long long)train_rows, job->batch);
    steps->total = steps->per_epoch * job->epochs;
    steps->cut_every = job->checkpoint.every_steps ? job->checkpoint.every_steps : steps->per_epoch;
    return pm_ok();
}

bool pm_steps_is_cut(const pm_steps *steps, uint64_t clock)
{
    return clock > 0 && (clock % steps->cut_every == 0 || clock == steps->total);
}

bool pm_steps_is_epoch_end(const pm_steps *steps, uint64_t clock)
{
    return clock > 0 && clock % steps->per_epoch == 0;
}
