#pragma once
// The update rules. Elementwise in float, in one fixed order of operations, with the step's constants
// computed once in double: the same bits on every machine and for every cut of a table into slices.
#include "core/job.h"
#include "model/kernels.h"

// How many arrays of moments a slice has: 0 for sgd, 1 for momentum and adagrad, 2 for adam and adamw.
uint32_t pm_optimizer_moments(pm_optimizer_kind kind);

// What every moment begins with.
float pm_optimizer_moment_start(const pm_job_optimizer *optimizer);

// The learning rate of a step (0-based) of total: a linear ramp that reaches the full rate at step
// warmup_steps - 1, then constant, or half a cosine down to the least at the end (Loshchilov and Hutter,
// "SGDR", 2017, without restarts).
double pm_optimizer_rate(const pm_job_optimizer *optimizer, uint64_t step, uint64_t total);

// The rows of a sparse table that a step touches.
typedef struct pm_rows {
    const uint32_t *ids; // (count)
    size_t count, width;
    bool decays;
    const float *gradient; // (count, width)
    float *from;           // (count, width)
    float *to;             // all rows
    float *moments[PM_MOMENTS_MAX];
} pm_rows;

// sgd: to = from - rate * g. momentum: m = momentum * m + g, to = from - rate * m. adam: Kingma and Ba,
// "Adam", 2015, with bias correction. For these weight decay adds weight_decay * from to g. adamw: Loshchilov
// and Hutter, "Decoupled weight decay regularization", 2019: first from is scaled by 1 - rate * weight_decay.
// adagrad: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", 2011, diagonal: s += g * g, to = from - rate
// * g / (sqrt(s) + epsilon), as PyTorch's with lr_decay 0.
void pm_optimizer_apply(const pm_job_optimizer *optimizer, double rate, uint64_t step,
                        const pm_update *update);

// The same for some rows of a table, width floats each: ids (rows) ascend; gradient is (rows, width), as are
// the values before, from, which this fills in; to and the moments are whole tables (or slices that the ids
// count in). Other rows and their moments stay as they are, as if the step had not been: for momentum, adam,
// adamw and weight decay this is less than what a gradient of 0 does to a dense table.
void pm_optimizer_apply_rows(const pm_job_optimizer *optimizer, double rate, uint64_t step,
                             const pm_rows *rows);

// A running statistic: to = momentum * from + (1 - momentum) * sum / lanes.
void pm_statistic_apply(double momentum, uint32_t lanes, const pm_update *update);
