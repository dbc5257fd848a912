#include "worker/evaluate.h"

#include "core/arena.h"
#include "core/quality.h"
#include "model/losses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pm_evaluator {
    pm_plan *plan;
    const pm_dataset *dataset;
    const pm_job *job;
    uint64_t *counters;
    size_t counter_count;
    uint32_t max_rows;
    pm_row_shape shape;
    pm_arena *arena;
    void *input;   // (max_rows, features)
    float *output; // (max_rows, places, outputs)
    void *targets; // (max_rows, places) int32 or (max_rows, outputs) float
};

pm_status pm_evaluator_create(pm_evaluator **evaluator, pm_plan *plan, uint32_t max_rows,
                              const pm_dataset *dataset, const pm_job *job, const pm_row_shape *shape)
{
    pm_status status = pm_quality_check(job, shape->outputs);
    pm_evaluator *e = status.code == PM_OK ? calloc(1, sizeof *e) : NULL;
    if (!e)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "an evaluator") : status;
    *e = (pm_evaluator){.plan = plan,
                        .dataset = dataset,
                        .job = job,
                        .counter_count = pm_quality_counters(job, shape->outputs),
                        .max_rows = max_rows,
                        .shape = *shape};
    const size_t in = pm_align(max_rows * shape->features * (shape->whole ? sizeof(int64_t) : sizeof(float)));
    const size_t out = pm_align(max_rows * shape->places * shape->outputs * sizeof(float));
    e->counters = calloc(e->counter_count + 1, sizeof *e->counters);
    status = e->counters ? pm_arena_create(&e->arena, in + 2 * out) : pm_fail(PM_NO_MEMORY, "an evaluator");
    if (status.code != PM_OK) {
        pm_evaluator_destroy(&e);
        return status;
    }
    e->input = pm_arena_alloc(e->arena, in);
    e->output = pm_arena_alloc(e->arena, out);
    e->targets = pm_arena_alloc(e->arena, out); // floats, or fewer classes of the same size
    *evaluator = e;
    return pm_ok();
}

void pm_evaluator_destroy(pm_evaluator **evaluator)
{
    if (!evaluator || !*evaluator)
        return;
    pm_arena_destroy(&(*evaluator)->arena);
    free((*evaluator)->counters);
    free(*evaluator);
    *evaluator = NULL;
}

static double score_class(const float *logits, size_t outputs, int32_t target, uint64_t *correct)
{
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < outputs; i++)
        best = logits[i] > logits[best] ? i : best;
    for (size_t i = 0; i < outputs; i++)
        sum += exp((double)logits[i] - logits[best]);
    *correct += best == (size_t)target;
    return log(sum) + logits[best] - logits[target];
}

static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

// Against the class of a row; it is right when no other output is as large.
static double score_ranking(const float *outputs, size_t count, int32_t class, uint64_t *correct)
{
    double sum = 0;
    bool right = true;
    for (size_t i = 0; i < count; i++) {
        if (i == (size_t) class)
            continue;
        sum += softplus((double)outputs[i] - (double)outputs[class]);
        right = right && outputs[i] < outputs[class];
    }
    *correct += right;
    return count > 1 ? sum / (double)(count - 1) : 0;
}

// Against the values wanted: the mean over the outputs.
static double score_values(pm_loss loss, const float *outputs, const float *wanted, size_t count,
                           uint64_t *correct)
{
    double sum = 0;
    bool right = loss == PM_LOSS_BINARY_CROSS_ENTROPY;
    for (size_t i = 0; i < count; i++) {
        const double x = (double)outputs[i], t = (double)wanted[i];
        sum += loss == PM_LOSS_L1                     ? fabs(x - t)
               : loss == PM_LOSS_BINARY_CROSS_ENTROPY ? softplus(x) - x * t
                                                      : (x - t) * (x - t);
        right = right && (x > 0) == (t > 0.5);
    }
    *correct += right;
    return sum / (double)count;
}

// The loss of place i, counted over all rows.
static double score(const pm_evaluator *e, size_t i, uint64_t *correct)
{
    const size_t count = e->shape.outputs;
    const float *outputs = e->output + i * count;
    if (pm_loss_kind_of(e->job->loss)->target == PM_TARGET_VALUES) {
        const float *wanted = (const float *)e->targets + i * count;
        pm_quality_count_values(e->job, outputs, wanted, count, e->counters);
        return score_values(e->job->loss, outputs, wanted, count, correct);
    }
    const int32_t class = ((const int32_t *)e->targets)[i];
    pm_quality_count_class(e->job, outputs, count, class, e->counters);
    return e->job->loss == PM_LOSS_BPR ? score_ranking(outputs, count, class, correct)
                                       : score_class(outputs, count, class, correct);
}

// The rows [row, end) of one lane.
static pm_status run_lane(pm_evaluator *e, uint64_t row, uint64_t end, double *loss, uint64_t *correct)
{
    *loss = 0;
    while (row < end) {
        uint32_t n = end - row < e->max_rows ? (uint32_t)(end - row) : e->max_rows;
        for (uint32_t i = 0; i < n; i++)
            pm_dataset_read(e->dataset, row + i, i, e->input, e->targets);
        pm_status status =
            pm_plan_run(e->plan, (const void *const[]){e->input}, n, (void *const[]){e->output});
        if (status.code != PM_OK)
            return status;
        for (size_t i = 0; i < n * e->shape.places; i++)
            *loss += score(e, i, correct);
        row += n;
    }
    return pm_ok();
}

static double tree_sum(const double *values, uint32_t count)
{
    return count == 1 ? values[0] : tree_sum(values, count / 2) + tree_sum(values + count / 2, count / 2);
}

pm_status pm_evaluator_run(pm_evaluator *evaluator, pm_block block, uint32_t lanes, pm_evaluation *result)
{
    uint64_t all = pm_dataset_rows(evaluator->dataset);
    double loss[PM_MAX_LANES];
    const uint64_t rows = all * (block.first + block.count) / lanes - all * block.first / lanes;
    *result = (pm_evaluation){.rows = rows * evaluator->shape.places,
                              .counters = evaluator->counters,
                              .counter_count = evaluator->counter_count};
    memset(evaluator->counters, 0, evaluator->counter_count * sizeof *evaluator->counters);
    for (uint32_t i = 0; i < block.count; i++) {
        uint64_t lane = block.first + i;
        pm_status status =
            run_lane(evaluator, all * lane / lanes, all * (lane + 1) / lanes, &loss[i], &result->correct);
        if (status.code != PM_OK)
            return status;
    }
    result->loss_sum = tree_sum(loss, block.count);
    return pm_ok();
}
