#include "worker/targets.h"

#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pm_targets {
    const pm_job *job;
    size_t features, classes, rows; // rows of a lane
    double alpha;                   // of mixup; 0: none
    pm_rng_key key;
    int32_t *given;   // (rows)
    float *features0; // (features) of the lane's first row as it was, for the last
    float *weights0;  // (classes)
};

// Beta(alpha, alpha) for alpha <= 1 (Joehnk 1964).
static double draw_share(const pm_targets *t, uint64_t step, uint64_t row)
{
    enum { TRIES = 64 };
    double x = 0, y = 0;
    for (uint64_t i = 0; i < TRIES; i++) {
        x = pow(pm_rng_uniform(t->key, step, row << 32 | 2 * i), 1 / t->alpha);
        y = pow(pm_rng_uniform(t->key, step, row << 32 | (2 * i + 1)), 1 / t->alpha);
        if (x + y > 0 && x + y <= 1)
            return x / (x + y);
    }
    return x >= y ? 1 : 0; // alpha so small that shares are whole
}

static void write_weights(const pm_targets *t, int32_t class, float *weights)
{
    double factor = t->job->class_weight_count ? t->job->class_weights[class] : 1;
    double spread = t->job->label_smoothing / (double)t->classes;
    for (size_t c = 0; c < t->classes; c++)
        weights[c] = (float)(factor * spread);
    weights[class] = (float)(factor * (1 - t->job->label_smoothing + spread));
}

static void mix(float *values, const float *others, size_t count, float share)
{
    for (size_t i = 0; i < count; i++)
        values[i] = share * values[i] + (1 - share) * others[i];
}

static void mix_rows(pm_targets *t, uint64_t step, uint32_t lane, float *rows, float *weights)
{
    memcpy(t->features0, rows, t->features * sizeof *rows);
    memcpy(t->weights0, weights, t->classes * sizeof *weights);
    for (size_t i = 0; i < t->rows; i++) {
        bool last = i + 1 == t->rows;
        float share = (float)draw_share(t, step, (uint64_t)lane * t->rows + i);
        mix(rows + i * t->features, last ? t->features0 : rows + (i + 1) * t->features, t->features, share);
        mix(weights + i * t->classes, last ? t->weights0 : weights + (i + 1) * t->classes, t->classes, share);
    }
}

void pm_targets_soften(pm_targets *targets, uint64_t step, uint32_t lane, float *rows, float *weights)
{
    for (size_t i = 0; i < targets->rows; i++)
        write_weights(targets, targets->given[i], weights + i * targets->classes);
    if (targets->alpha > 0)
        mix_rows(targets, step, lane, rows, weights);
}

int32_t *pm_targets_classes(pm_targets *targets)
{
    return targets->given;
}

pm_status pm_targets_create(pm_targets **targets, const pm_job *job, const pm_row_shape *shape)
{
    const size_t features = shape->features, classes = shape->outputs;
    *targets = NULL;
    if (!pm_job_softens(job))
        return pm_ok();
    if (shape->whole || shape->places != 1)
        return pm_fail(PM_INVALID, "label_smoothing, class_weights and mixup want one class a row");
    if (job->class_weight_count && job->class_weight_count != classes)
        return pm_fail(PM_INVALID, "class_weights: %u weights for the model's %zu classes",
                       job->class_weight_count, classes);
    pm_targets *t = calloc(1, sizeof *t);
    if (!t)
        return pm_fail(PM_NO_MEMORY, "targets");
    *t = (pm_targets){.job = job,
                      .features = features,
                      .classes = classes,
                      .rows = job->batch / job->lanes,
                      .key = pm_rng_key_make(job->seed, "mixup")};
    for (uint32_t i = 0; i < job->augment_count; i++)
        if (job->augment[i].op == PM_AUGMENT_MIXUP)
            t->alpha = job->augment[i].alpha;
    t->given = calloc(t->rows, sizeof *t->given);
    t->features0 = calloc(features, sizeof *t->features0);
    t->weights0 = calloc(classes, sizeof *t->weights0);
    if (!t->given || !t->features0 || !t->weights0) {
        pm_targets_destroy(&t);
        return pm_fail(PM_NO_MEMORY, "targets");
    }
    *targets = t;
    return pm_ok();
}

void pm_targets_destroy(pm_targets **targets)
{
    if (!targets || !*targets)
        return;
    free((*targets)->given);
    free((*targets)->features0);
    free((*targets)->weights0);
    free(*targets);
    *targets = NULL;
}
