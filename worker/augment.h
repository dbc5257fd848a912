#pragma once
// Changes to training rows as the job's data.augment lists them, each drawn by counter for (seed, operation,
// step, lane, row): the same rows are changed in the same way by whichever worker computes the lane.
// Coordinates go through the C library's sine and cosine.
#include "core/job.h"

typedef struct pm_augment pm_augment;

// For rows of shape: (channels, height, width), or (height, width). PM_INVALID when the job changes images
// and shape is that of none. *augment is NULL when the job lists nothing. The caller owns it.
pm_status pm_augment_create(pm_augment **augment, const pm_job *job, const int64_t *shape,
                            uint32_t rank) PM_CHECKED;

// Changes in place row i of a lane at a step, but for the mixing with others. One thread at a time.
void pm_augment_row(pm_augment *augment, uint64_t step, uint32_t lane, uint32_t i, float *row);

void pm_augment_destroy(pm_augment **augment);
