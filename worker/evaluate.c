#include "worker/evaluate.h"

#include "core/arena.h"

#include <math.h>
#include <stdlib.h>

struct pm_evaluator {
    pm_plan *plan;
    const pm_dataset *dataset;
    pm_loss loss;
    uint32_t max_rows;
    size_t features, outputs;
    pm_arena *arena;
    float *input;  // (max_rows, features)
    float *output; // (max_rows, outputs)
    void *targets; // (max_rows) int32 or (max_rows, outputs) float
};

pm_status pm_evaluator_create(pm_evaluator **evaluator, pm_plan *plan, uint32_t max_rows,
                              const pm_dataset *dataset, pm_loss loss, size_t features, size_t outputs)
{
    pm_evaluator *e = calloc(1, sizeof *e);
    if (!e)
        return pm_fail(PM_NO_MEMORY, "an evaluator");
    *e = (pm_evaluator){plan, dataset, loss, max_rows, features, outputs, NULL, NULL, NULL, NULL};
    size_t in = pm_align(max_rows * features * sizeof(float)),
           out = pm_align(max_rows * outputs * sizeof(float));
    size_t aim = out > pm_align(max_rows * sizeof(int32_t)) ? out : pm_align(max_rows * sizeof(int32_t));
    pm_status status = pm_arena_create(&e->arena, in + out + aim);
    if (status.code != PM_OK) {
        pm_evaluator_destroy(&e);
        return status;
    }
    e->input = pm_arena_alloc(e->arena, in);
    e->output = pm_arena_alloc(e->arena, out);
    e->targets = pm_arena_alloc(e->arena, aim);
    *evaluator = e;
    return pm_ok();
}

void pm_evaluator_destroy(pm_evaluator **evaluator)
{
    if (!evaluator || !*evaluator)
        return;
    pm_arena_destroy(&(*evaluator)->arena);
    free(*evaluator);
    *evaluator = NULL;
}

static void score_class(const float *logits, size_t outputs, int32_t target, pm_evaluation *result)
{
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < outputs; i++)
        best = logits[i] > logits[best] ? i : best;
    for (size_t i = 0; i < outputs; i++)
        sum += exp((double)logits[i] - logits[best]);
    result->loss_sum += log(sum) + logits[best] - logits[target];
    result->correct += best == (size_t)target;
}

static void score(const pm_evaluator *e, uint32_t row, pm_evaluation *result)
{
    const float *output = e->output + row * e->outputs;
    if (e->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY) {
        score_class(output, e->outputs, ((const int32_t *)e->targets)[row], result);
        return;
    }
    const float *target = (const float *)e->targets + row * e->outputs;
    double sum = 0;
    for (size_t i = 0; i < e->outputs; i++)
        sum += ((double)output[i] - target[i]) * ((double)output[i] - target[i]);
    result->loss_sum += sum / (double)e->outputs;
}

pm_status pm_evaluator_run(pm_evaluator *evaluator, pm_block block, uint32_t lanes, pm_evaluation *result)
{
    uint64_t all = pm_dataset_rows(evaluator->dataset);
    uint64_t row = all * block.first / lanes, end = all * (block.first + block.count) / lanes;
    *result = (pm_evaluation){0, 0, end - row};
    while (row < end) {
        uint32_t n = end - row < evaluator->max_rows ? (uint32_t)(end - row) : evaluator->max_rows;
        for (uint32_t i = 0; i < n; i++)
            pm_dataset_read(evaluator->dataset, row + i, i, evaluator->input, evaluator->targets);
        pm_status status = pm_plan_infer(evaluator->plan, evaluator->input, n, evaluator->output);
        if (status.code != PM_OK)
            return status;
        for (uint32_t i = 0; i < n; i++)
            score(evaluator, i, result);
        row += n;
    }
    return pm_ok();
}
