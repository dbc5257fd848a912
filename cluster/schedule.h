#pragma once
// Which steps a job has, and at which clocks it is cut for a snapshot. A clock counts applied steps: the cut
// at clock c holds the parameters after step c - 1.
#include "core/job.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pm_steps {
    uint64_t per_epoch; // the job's, or rows / batch, rounded down: a last part of a batch is left out
    uint64_t total;     // per_epoch * epochs
    uint64_t cut_every; // steps
} pm_steps;

// PM_INVALID when the data has fewer rows than one batch.
pm_status pm_steps_make(pm_steps *steps, const pm_job *job, uint64_t train_rows) PM_CHECKED;

// Every cut_every steps and at the end.
bool pm_steps_is_cut(const pm_steps *steps, uint64_t clock);

// After the last step of an epoch: when the validation data is evaluated.
bool pm_steps_is_epoch_end(const pm_steps *steps, uint64_t clock);
