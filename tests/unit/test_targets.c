#include "worker/targets.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { FEATURES = 3, CLASSES = 4, ROWS = 8, LANES = 2 };

static pm_job job_with(double smoothing, double *weights, pm_job_augment *list)
{
    return (pm_job){.seed = 9,
                    .batch = ROWS * LANES,
                    .lanes = LANES,
                    .label_smoothing = smoothing,
                    .class_weights = weights,
                    .class_weight_count = weights ? CLASSES : 0,
                    .augment = list,
                    .augment_count = list ? 1 : 0};
}

static void soften(const pm_job *job, uint64_t step, uint32_t lane, float *rows, float *weights)
{
    pm_targets *targets = NULL;
    cr_assert_eq(pm_targets_create(&targets, job,
                                   &(pm_row_shape){.features = FEATURES, .places = 1, .outputs = CLASSES})
                     .code,
                 PM_OK);
    for (int i = 0; i < ROWS; i++) {
        pm_targets_classes(targets)[i] = i % CLASSES;
        for (int f = 0; f < FEATURES; f++)
            rows[i * FEATURES + f] = (float)(i * 10 + f);
    }
    pm_targets_soften(targets, step, lane, rows, weights);
    pm_targets_destroy(&targets);
    cr_assert_null(targets);
}

Test(targets, a_job_that_softens_nothing_has_none)
{
    pm_job job = job_with(0, NULL, NULL);
    pm_targets *targets = NULL;
    cr_assert_eq(pm_targets_create(&targets, &job,
                                   &(pm_row_shape){.features = FEATURES, .places = 1, .outputs = CLASSES})
                     .code,
                 PM_OK);
    cr_assert_null(targets);
}

Test(targets, smoothing_spreads_and_weights_scale)
{
    double factors[CLASSES] = {1, 2, 0, 0.5};
    pm_job job = job_with(0.2, factors, NULL);
    float rows[ROWS * FEATURES], weights[ROWS * CLASSES];
    soften(&job, 0, 0, rows, weights);
    for (int i = 0; i < ROWS; i++)
        for (int c = 0; c < CLASSES; c++)
            cr_assert_float_eq(weights[i * CLASSES + c],
                               factors[i % CLASSES] * (c == i % CLASSES ? 0.85 : 0.05), 1e-6);
    cr_assert_eq(rows[5 * FEATURES + 1], 51, "features are left alone");
}

Test(targets, mixup_takes_features_and_targets_in_the_same_shares_from_the_next_row)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_MIXUP, .alpha = 0.4}};
    pm_job job = job_with(0, NULL, list);
    float rows[ROWS * FEATURES], weights[ROWS * CLASSES];
    double sum = 0;
    int n = 0, middle = 0;
    for (uint64_t step = 0; step < 400; step++) {
        soften(&job, step, 1, rows, weights);
        for (int i = 0; i < ROWS; i++, n++) {
            float share = weights[i * CLASSES + i % CLASSES], rest = weights[i * CLASSES + (i + 1) % CLASSES];
            cr_assert_float_eq(share + rest, 1, 1e-6);
            int next = (i + 1) % ROWS;
            for (int f = 0; f < FEATURES; f++)
                cr_assert_float_eq(rows[i * FEATURES + f],
                                   share * (float)(i * 10 + f) + rest * (float)(next * 10 + f), 1e-4);
            sum += (double)share;
            middle += share > 0.25f && share < 0.75f;
        }
    }
    cr_assert_float_eq(sum / n, 0.5, 0.02);
    // Beta(0.4, 0.4) has 0.28 of its mass there, the uniform distribution 0.5.
    cr_assert_float_eq((double)middle / n, 0.28, 0.03);
}

Test(targets, a_lane_is_softened_alike_each_time_and_otherwise_than_the_next)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_MIXUP, .alpha = 1}};
    pm_job job = job_with(0.1, NULL, list);
    float rows[3][ROWS * FEATURES], weights[3][ROWS * CLASSES];
    for (int i = 0; i < 3; i++)
        soften(&job, 7, i == 2, rows[i], weights[i]);
    cr_assert_arr_eq(rows[0], rows[1], sizeof rows[0]);
    cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
    cr_assert_neq(memcmp(rows[0], rows[2], sizeof rows[0]), 0);
}

Test(targets, weights_that_are_not_one_a_class_are_refused)
{
    double factors[CLASSES] = {1, 1, 1, 1};
    pm_job job = job_with(0, factors, NULL);
    pm_targets *targets = NULL;
    pm_status status = pm_targets_create(
        &targets, &job, &(pm_row_shape){.features = FEATURES, .places = 1, .outputs = CLASSES + 1});
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "4 weights for the model's 5 classes"), "%s", status.message);
}
