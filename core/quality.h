#pragma once
// The measures that a job's `metrics` asks of its validation data. Besides the sum of losses and the number
// of right answers they follow from whole counts alone, so they have the same bits for any number of workers.
//
//   - accuracy: answers that are right, of all (model/losses.h says which are)
//   - top_2, top_3, top_5, top_10: answers whose class is among that many largest outputs; of equal
//     ones the first counts as larger
//   - log_loss: the mean loss, of softmax_cross_entropy or binary_cross_entropy
//   - rmse: the root of the mean loss of mean_squared_error, over all rows and outputs
//   - f1: 2 tp / (2 tp + fp + fn) of each class, 0 where it neither occurs nor is answered, and its
//     mean over the classes ("macro"; Sokolova and Lapalme 2009); under binary_cross_entropy of each
//     output, which is answered where it is above 0
//   - auc: how probable it is that a row of the second class (or target 1) has a larger score than one
//     of the first, equal scores counting half (Hanley and McNeil 1982). The score is the difference of
//     the two outputs, or the one output of binary_cross_entropy, rounded down to 1/128 and bounded by
//     +-16.
#include "core/job.h"

// PM_INVALID when a measure does not go with the model's outputs.
pm_status pm_quality_check(const pm_job *job, size_t outputs) PM_CHECKED;

// How many counters the job's measures take for outputs of a place.
size_t pm_quality_counters(const pm_job *job, size_t outputs);

// Adds an answer to the counters: against a class, or against wanted values.
void pm_quality_count_class(const pm_job *job, const float *outputs, size_t count, int32_t class,
                            uint64_t *counters);
void pm_quality_count_values(const pm_job *job, const float *outputs, const float *wanted, size_t count,
                             uint64_t *counters);

// All answers of an evaluation.
typedef struct pm_quality_sums {
    double loss; // mean
    uint64_t correct, rows;
    const uint64_t *counters;
    size_t counter_count;
} pm_quality_sums;

// The value of one measure; NaN where it has none.
double pm_quality_value(const pm_job *job, pm_quality quality, const pm_quality_sums *sums);
