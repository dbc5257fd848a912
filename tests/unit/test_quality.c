#include "core/quality.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static pm_job job_of(pm_loss loss, pm_quality *metrics, uint32_t count)
{
    return (pm_job){.loss = loss, .metrics = metrics, .metric_count = count};
}

static double value(const pm_job *job, pm_quality quality, const uint64_t *counters, size_t count,
                    uint64_t rows)
{
    const pm_quality_sums sums = {
        .loss = 0.25, .correct = 3, .rows = rows, .counters = counters, .counter_count = count};
    return pm_quality_value(job, quality, &sums);
}

// Answers 0 1 1 2 0 against 0 1 2 2 1: f1 of the classes 2/3, 1/2, 2/3.
Test(quality, f1_is_the_mean_over_the_classes)
{
    pm_quality f1[] = {PM_QUALITY_F1};
    pm_job job = job_of(PM_LOSS_SOFTMAX_CROSS_ENTROPY, f1, 1);
    const size_t count = pm_quality_counters(&job, 4);
    uint64_t *counters = calloc(count, sizeof *counters);
    const int answers[] = {0, 1, 1, 2, 0}, wanted[] = {0, 1, 2, 2, 1};
    for (int i = 0; i < 5; i++) {
        float outputs[4] = {0};
        outputs[answers[i]] = 1;
        pm_quality_count_class(&job, outputs, 4, wanted[i], counters);
    }
    cr_assert_float_eq(value(&job, PM_QUALITY_F1, counters, count, 5), (2.0 / 3 + 0.5 + 2.0 / 3 + 0) / 4,
                       1e-12, "a class that neither occurs nor is answered counts 0");
    free(counters);
}

// Scores 0.1 0.4 0.35 0.8 of targets 0 0 1 1: three of four pairs are in order.
Test(quality, auc_counts_pairs_in_order_and_half_of_equal_ones)
{
    pm_quality metrics[] = {PM_QUALITY_AUC, PM_QUALITY_F1};
    pm_job job = job_of(PM_LOSS_BINARY_CROSS_ENTROPY, metrics, 2);
    const size_t count = pm_quality_counters(&job, 1);
    uint64_t *counters = calloc(count, sizeof *counters);
    const float scores[] = {0.1f, 0.4f, 0.35f, 0.8f}, wanted[] = {0, 0, 1, 1};
    for (int i = 0; i < 4; i++)
        pm_quality_count_values(&job, &scores[i], &wanted[i], 1, counters);
    cr_assert_float_eq(value(&job, PM_QUALITY_AUC, counters, count, 4), 0.75, 1e-12);
    cr_assert_float_eq(value(&job, PM_QUALITY_F1, counters, count, 4), 2.0 * 2 / (2 * 2 + 2), 1e-12);
    const float same = 0.4f, far = 1e9f, below = -INFINITY;
    pm_quality_count_values(&job, &same, &wanted[3], 1, counters);
    cr_assert_float_eq(value(&job, PM_QUALITY_AUC, counters, count, 5), 4.5 / 6, 1e-12);
    pm_quality_count_values(&job, &far, &wanted[3], 1, counters);
    pm_quality_count_values(&job, &below, &wanted[0], 1, counters);
    cr_assert_float_eq(value(&job, PM_QUALITY_AUC, counters, count, 7), (4.5 + 2 + 4) / 12, 1e-12);
    memset(counters, 0, count * sizeof *counters);
    pm_quality_count_values(&job, &same, &wanted[3], 1, counters);
    cr_assert(isnan(value(&job, PM_QUALITY_AUC, counters, count, 1)), "there are no pairs");
    free(counters);
}

Test(quality, top_5_takes_the_first_of_equal_outputs)
{
    pm_quality metrics[] = {PM_QUALITY_TOP_5, PM_QUALITY_ACCURACY};
    pm_job job = job_of(PM_LOSS_SOFTMAX_CROSS_ENTROPY, metrics, 2);
    uint64_t counter = 0;
    const float outputs[] = {0, 1, 2, 2, 2, 2, 2};
    cr_assert_eq(pm_quality_counters(&job, 7), 1);
    const uint64_t after[] = {0, 0, 1, 2, 3, 4, 5};
    for (int32_t c = 0; c < 7; c++) {
        pm_quality_count_class(&job, outputs, 7, c, &counter);
        cr_assert_eq(counter, after[c], "class %d", (int)c);
    }
    cr_assert_float_eq(value(&job, PM_QUALITY_TOP_5, &counter, 1, 7), 5.0 / 7, 1e-12);
    cr_assert_float_eq(value(&job, PM_QUALITY_ACCURACY, &counter, 1, 7), 3.0 / 7, 1e-12);
    cr_assert_float_eq(value(&job, PM_QUALITY_RMSE, &counter, 1, 7), 0.5, 1e-12);
    cr_assert(isnan(value(&job, PM_QUALITY_TOP_5, NULL, 0, 7)));
}

Test(quality, several_tops_are_counted_side_by_side)
{
    pm_quality metrics[] = {PM_QUALITY_TOP_3, PM_QUALITY_F1, PM_QUALITY_TOP_2, PM_QUALITY_TOP_10};
    pm_job job = job_of(PM_LOSS_SOFTMAX_CROSS_ENTROPY, metrics, 4);
    const float outputs[] = {5, 4, 3, 2};
    uint64_t counters[3 + 3 * 4] = {0};
    cr_assert_eq(pm_quality_counters(&job, 4), sizeof counters / sizeof *counters);
    for (int32_t c = 0; c < 4; c++)
        pm_quality_count_class(&job, outputs, 4, c, counters);
    cr_assert_float_eq(value(&job, PM_QUALITY_TOP_2, counters, 15, 4), 0.5, 1e-12);
    cr_assert_float_eq(value(&job, PM_QUALITY_TOP_3, counters, 15, 4), 0.75, 1e-12);
    cr_assert_float_eq(value(&job, PM_QUALITY_TOP_10, counters, 15, 4), 1, 1e-12);
    // Class 0 is always answered: 2 / (2 + 3) of it, 0 of the others.
    cr_assert_float_eq(value(&job, PM_QUALITY_F1, counters, 15, 4), 0.4 / 4, 1e-12);
}

Test(quality, auc_of_many_classes_is_refused)
{
    pm_quality auc[] = {PM_QUALITY_AUC};
    const pm_job job = job_of(PM_LOSS_SOFTMAX_CROSS_ENTROPY, auc, 1);
    cr_assert_eq(pm_quality_check(&job, 2).code, PM_OK);
    cr_assert_eq(pm_quality_check(&job, 10).code, PM_INVALID);
}
