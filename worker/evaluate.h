#pragma once
// Validation: the rows of a data set that belong to a block of lanes, through the inference plan, which is
// the one that serves. Lane l of L owns rows [n l / L, n (l + 1) / L).
#include "cluster/lanes.h"
#include "model/plan.h"
#include "worker/dataset.h"

typedef struct pm_evaluator pm_evaluator;

typedef struct pm_evaluation {
    double loss_sum;    // of all losses (model/losses.h), along the tree of lanes
    uint64_t correct;   // how often an output is right; 0 where the loss does not judge
    uint64_t rows;      // losses: rows, times their places
    uint64_t *counters; // of the job's metrics (core/quality.h); the evaluator's, until its next run
    size_t counter_count;
} pm_evaluation;

// plan: for inference, at least 1 row at a time; dataset, plan and job stay the caller's and outlive the
// evaluator. PM_INVALID when the job's metrics do not go with the outputs.
pm_status pm_evaluator_create(pm_evaluator **evaluator, pm_plan *plan, uint32_t max_rows,
                              const pm_dataset *dataset, const pm_job *job,
                              const pm_row_shape *shape) PM_CHECKED;
void pm_evaluator_destroy(pm_evaluator **evaluator);

// block is an aligned block of lanes. The sum of two neighbours' loss_sum is that of both, bit for bit.
pm_status pm_evaluator_run(pm_evaluator *evaluator, pm_block block, uint32_t lanes,
                           pm_evaluation *result) PM_CHECKED;
