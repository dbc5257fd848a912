// How long the models' answers take.
#include "cli/bench.h"
#include "model/plan.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS_MAX = 32 };

static pm_status answers(const pm_bench *bench, const pm_bench_model *model)
{
    static const uint32_t ROWS[] = {1, 8, ROWS_MAX};
    pm_bench_request r = {.input = pm_bench_model_inputs(model, ROWS_MAX, 1),
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
