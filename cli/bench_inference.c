// The two models, and how long their answers take.
#include "cli/bench.h"
#include "model/plan.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS_MAX = 32 };

pm_status pm_bench_model_make(pm_bench_model *model, size_t index)
{
    static pm_layer mlp[] = {{.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 512},
                             {.op = PM_OP_RELU},    {.op = PM_OP_GEMM, .units = 256},
                             {.op = PM_OP_RELU},    {.op = PM_OP_GEMM, .units = 10}};
    static pm_layer cnn[] = {{.op = PM_OP_CONV, .channels = 32, .kernel = 3, .pad = 1},
                             {.op = PM_OP_RELU},
                             {.op = PM_OP_MAX_POOL, .kernel = 2},
                             {.op = PM_OP_CONV, .channels = 64, .kernel = 3, .pad = 1},
                             {.op = PM_OP_RELU},
                             {.op = PM_OP_MAX_POOL, .kernel = 2},
                             {.op = PM_OP_FLATTEN},
                             {.op = PM_OP_GEMM, .units = 128},
                             {.op = PM_OP_RELU},
                             {.op = PM_OP_GEMM, .units = 10}};
    // Multiply-adds of a row in each layer with weights; the first one's input has no gradient.
    const double gemms[] = {784 * 512, 512 * 256 + 256 * 10};
    const double convs[] = {784 * 32 * 9, 196 * 64 * 288 + 3136 * 128 + 128 * 10};
    const double *adds = index == 0 ? gemms : convs;
    char name[] = "x";
    int64_t shape[] = {1, 28, 28};
    const pm_job job = {
        .seed = 1,
        .loss = PM_LOSS_SOFTMAX_CROSS_ENTROPY,
        .model = {.input_name = name,
                  .input_shape = shape,
                  .input_rank = 3,
                  .layers = index == 0 ? mlp : cnn,
                  .layer_count = index == 0 ? sizeof mlp / sizeof mlp[0] : sizeof cnn / sizeof cnn[0]}};
    *model = (pm_bench_model){.name = index == 0 ? "mlp" : "cnn",
                              .forward_operations = 2 * (adds[0] + adds[1]),
                              .training_operations = 4 * adds[0] + 6 * adds[1]};
    return pm_graph_from_job(&model->graph, &job);
}

static pm_status answers(const pm_bench *bench, const pm_bench_model *model)
{
    static const uint32_t ROWS[] = {1, 8, ROWS_MAX};
    pm_bench_request r = {.input = pm_bench_numbers(ROWS_MAX * pm_graph_input_count(model->graph), 1),
                          .output = pm_bench_numbers(ROWS_MAX * pm_graph_output_count(model->graph), 2)};
    pm_status status = pm_fail(PM_NO_MEMORY, "requests");
    if (r.input && r.output)
        status = pm_plan_create_inference(&r.plan, model->graph, ROWS_MAX);
    if (status.code == PM_OK)
        status = pm_plan_prepare(r.plan);
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0] && status.code == PM_OK; i++) {
        double seconds = 1;
        r.rows = ROWS[i];
        status = pm_bench_median(bench, pm_bench_request_run, &r, &seconds);
        const double rate = model->forward_operations * r.rows / seconds;
        if (status.code == PM_OK)
            printf("inference %s batch %u: %.1f us, %.0f rows/s, %.1f GFLOP/s, %.2f of multiply-adds\n",
                   model->name, r.rows, seconds * 1e6, r.rows / seconds, rate * 1e-9,
                   rate / bench->multiply_adds);
    }
    pm_plan_destroy(&r.plan);
    free((void *)(uintptr_t)r.input);
    free(r.output);
    return status;
}

pm_status pm_bench_inference(const pm_bench *bench)
{
    pm_status status = pm_ok();
    for (size_t i = 0; i < PM_BENCH_MODELS && status.code == PM_OK; i++) {
        pm_bench_model model = {0};
        status = pm_bench_model_make(&model, i);
        if (status.code == PM_OK)
            status = answers(bench, &model);
        pm_graph_destroy(&model.graph);
    }
    return status;
}
