#pragma once
// Training targets as weights of classes, for jobs that smooth, weigh or mix them. Validation goes by the
// classes themselves.
//
// A row of class y has (1 - label_smoothing) at y and label_smoothing / classes everywhere (Szegedy and
// others 2016), all times the class's weight; the loss stays the mean over rows. mixup (Zhang and others
// 2018) then takes a row's features and targets in part from the next row of its lane, in shares drawn by
// counter for (seed, step, lane, row).
#include "worker/dataset.h"

typedef struct pm_targets pm_targets;

// *targets is NULL when the job leaves classes as they are. PM_INVALID when there is not one weight for each
// class, or not one class a row. The caller owns it.
pm_status pm_targets_create(pm_targets **targets, const pm_job *job, const pm_row_shape *shape) PM_CHECKED;

// Where the caller puts the classes of a lane's rows.
int32_t *pm_targets_classes(pm_targets *targets);

// Makes weights (rows of the lane, classes) of them and mixes them and rows (rows of the lane, features).
void pm_targets_soften(pm_targets *targets, uint64_t step, uint32_t lane, float *rows, float *weights);

void pm_targets_destroy(pm_targets **targets);
