#pragma once
// Small nets for the tests of model/: layer lists, their graphs, and numbers to run them on.
#include "core/rng.h"
#include "model/losses.h"
#include "model/plan.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define NETS_OK(expression)                                                                                  \
    do {                                                                                                     \
        pm_status nets_status = (expression);                                                                \
        cr_assert_eq(nets_status.code, PM_OK, "%s", nets_status.message);                                    \
    } while (0)

#define NETS_LAYERS(...)                                                                                     \
    (const pm_layer[]){__VA_ARGS__}, sizeof((const pm_layer[]){__VA_ARGS__}) / sizeof(pm_layer)

// A graph of the layers over an image (2, 9, 8), or over a vector of 11 when flat.
static inline pm_status nets_try(pm_graph **graph, bool flat, pm_loss loss, const pm_layer *layers,
                                 size_t count)
{
    int64_t image[] = {2, 9, 8}, vector[] = {11};
    char name[] = "x";
    pm_job job = {.seed = 7, .loss = loss};
    job.model = (pm_job_model){.input_name = name,
                               .input_shape = flat ? vector : image,
                               .input_rank = flat ? 1 : 3,
                               .layers = (pm_layer *)(uintptr_t)layers,
                               .layer_count = (uint32_t)count};
    return pm_graph_from_job(graph, &job);
}

static inline pm_graph *nets_graph(bool flat, pm_loss loss, const pm_layer *layers, size_t count)
{
    pm_graph *graph = NULL;
    NETS_OK(nets_try(&graph, flat, loss, layers, count));
    return graph;
}

static inline pm_graph *nets_mlp(void)
{
    return nets_graph(true, PM_LOSS_SOFTMAX_CROSS_ENTROPY,
                      NETS_LAYERS({.op = PM_OP_GEMM, .units = 70}, {.op = PM_OP_RELU},
                                  {.op = PM_OP_DROPOUT, .ratio = 0.25}, {.op = PM_OP_GEMM, .units = 33},
                                  {.op = PM_OP_TANH}, {.op = PM_OP_GEMM, .units = 5}));
}

// Every operator on images.
static inline pm_graph *nets_cnn(void)
{
    return nets_graph(false, PM_LOSS_SOFTMAX_CROSS_ENTROPY,
                      NETS_LAYERS({.op = PM_OP_CONV, .channels = 6, .kernel = 3, .pad = 1},
                                  {.op = PM_OP_BATCH_NORMALIZATION}, {.op = PM_OP_RELU},
                                  {.op = PM_OP_MAX_POOL, .kernel = 2},
                                  {.op = PM_OP_CONV, .channels = 9, .kernel = 3}, {.op = PM_OP_SIGMOID},
                                  {.op = PM_OP_DROPOUT, .ratio = 0.5},
                                  {.op = PM_OP_AVERAGE_POOL, .kernel = 2, .stride = 1, .pad = 1},
                                  {.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 20, .no_bias = true},
                                  {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 5}));
}

// Uniform in [-1, 1), a pure function of (stream, index).
static inline float nets_number(uint64_t stream, uint64_t index)
{
    return (float)(2 * pm_rng_uniform(pm_rng_key_make(3, "nets"), stream, index) - 1);
}

// count of them, owned by the caller.
static inline float *nets_numbers(size_t count, uint64_t stream)
{
    float *x = malloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = nets_number(stream, i);
    return x;
}

// Fills the plan's input and targets with the rows of lanes first ... of the data set "nets".
static inline void nets_fill(pm_plan *plan, const pm_graph *graph, pm_loss loss, uint32_t rows_per_lane,
                             uint32_t first, uint32_t lanes)
{
    size_t inputs = pm_graph_input_count(graph), outputs = pm_graph_output_count(graph);
    for (size_t r = 0; r < (size_t)lanes * rows_per_lane; r++) {
        uint64_t row = (uint64_t)first * rows_per_lane + r;
        for (size_t i = 0; i < inputs; i++)
            pm_plan_input(plan)[r * inputs + i] = nets_number(row, i);
        const bool classes = pm_loss_kind_of(loss)->target == PM_TARGET_CLASS;
        if (classes)
            ((int32_t *)pm_plan_target(plan))[r] = (int32_t)(row * 7 % outputs);
        for (size_t i = 0; !classes && i < outputs; i++)
            ((float *)pm_plan_target(plan))[r * outputs + i] = nets_number(row + 1000, i);
    }
}
