#pragma once
// Blocks of lanes of one step, whole and in parts: their sums are the same to the bit.
#include "tests/unit/nets.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS_ROWS = 3 }; // of a lane

// Runs the block and returns the gradients one after another; the caller frees.
static inline float *blocks_run(const pm_graph *graph, pm_loss loss, pm_precision precision,
                                uint32_t max_lanes, uint32_t first, uint32_t lanes, pm_step *out,
                                size_t *count)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training_with(&plan, graph, loss, BLOCKS_ROWS, max_lanes, 24,
                                         &(pm_plan_options){.precision = precision}));
    nets_fill(plan, graph, loss, BLOCKS_ROWS, first, lanes);
    *out = (pm_step){.seed = 5, .step = 11, .first_lane = first, .lane_count = lanes};
    NETS_OK(pm_plan_step(plan, out));
    *count = 0;
    for (size_t p = 0; p < pm_graph_param_count(graph); p++)
        *count += pm_graph_param(graph, p)->count;
    float *all = malloc(*count * sizeof *all), *at = all;
    for (size_t p = 0; p < pm_graph_param_count(graph); p++) {
        memcpy(at, pm_plan_gradient(plan, p), pm_graph_param(graph, p)->count * sizeof *at);
        at += pm_graph_param(graph, p)->count;
    }
    pm_plan_destroy(&plan);
    return all;
}

// sum over [first, first + lanes) made of ever smaller blocks, each run by itself.
static inline float *blocks_combine(const pm_graph *graph, pm_loss loss, pm_precision precision,
                                    uint32_t first, uint32_t lanes, uint32_t smallest, double *sum_loss,
                                    uint64_t *correct, size_t *count)
{
    if (lanes == smallest) {
        pm_step step;
        float *all = blocks_run(graph, loss, precision, lanes, first, lanes, &step, count);
        *sum_loss = step.loss;
        *correct = step.correct;
        return all;
    }
    double right_loss = 0;
    uint64_t right_correct = 0;
    float *left =
        blocks_combine(graph, loss, precision, first, lanes / 2, smallest, sum_loss, correct, count);
    float *right = blocks_combine(graph, loss, precision, first + lanes / 2, lanes / 2, smallest, &right_loss,
                                  &right_correct, count);
    for (size_t i = 0; i < *count; i++)
        left[i] += right[i];
    *sum_loss += right_loss;
    *correct += right_correct;
    free(right);
    return left;
}

static inline void blocks_check(pm_graph *graph, pm_loss loss, pm_precision precision)
{
    size_t count = 0, whole_count = 0;
    pm_step step;
    float *whole = blocks_run(graph, loss, precision, 8, 0, 8, &step, &whole_count);
    for (uint32_t smallest = 4; smallest > 0; smallest /= 2) {
        double sum_loss = 0;
        uint64_t correct = 0;
        float *parts = blocks_combine(graph, loss, precision, 0, 8, smallest, &sum_loss, &correct, &count);
        cr_assert_eq(count, whole_count);
        for (size_t i = 0; i < count; i++)
            cr_assert(memcmp(&parts[i], &whole[i], sizeof(float)) == 0,
                      "element %zu, blocks of %u: %a, whole %a", i, smallest, (double)parts[i],
                      (double)whole[i]);
        cr_assert_eq(sum_loss, step.loss);
        cr_assert_eq(correct, step.correct);
        free(parts);
    }
    free(whole);
    pm_graph_destroy(&graph);
}
