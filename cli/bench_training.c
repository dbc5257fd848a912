// Training steps in one process: forward, loss, backward and the update, by threads that each own an aligned
// part of the batch's lanes and share values and the work of the update.
#include "cli/bench.h"
#include "model/plan.h"
#include "ps/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 4 };

typedef struct fleet {
    const pm_bench_model *model;
    pm_precision precision;
    uint32_t threads;
    pm_plan **plans;                 // (threads): a lane each
    float **values[2];               // (params), of an even and of an odd step
    float **moments[PM_MOMENTS_MAX]; // (params)
    uint64_t step;                   // that runs, or the next
    pm_threads *crew;
    pm_status *statuses; // (threads)
} fleet;

// A thread's part of every parameter: gradients added along the tree, then the update.
static void update(void *ctx, uint32_t index)
{
    fleet *f = ctx;
    const uint64_t step = f->step;
    const pm_job_optimizer *optimizer = &f->model->optimizer;
    for (size_t p = 0; p < pm_graph_param_count(f->model->graph); p++) {
        const size_t count = pm_graph_param(f->model->graph, p)->count, first = count * index / f->threads,
                     last = count * (index + 1) / f->threads;
        for (uint32_t apart = 1; apart < f->threads; apart *= 2)
            for (uint32_t i = 0; i < f->threads; i += 2 * apart) {
                float *left = (float *)(uintptr_t)pm_plan_gradient(f->plans[i], p); // this run's to change
                const float *right = pm_plan_gradient(f->plans[i + apart], p);
                for (size_t e = first; e < last; e++)
                    left[e] += right[e];
            }
        pm_optimizer_apply(optimizer, optimizer->learning_rate, step,
                           &(pm_update){.count = last - first,
                                        .decays = true,
                                        .gradient = pm_plan_gradient(f->plans[0], p) + first,
                                        .from = f->values[step % 2][p] + first,
                                        .to = f->values[(step + 1) % 2][p] + first,
                                        .moments = {f->moments[0][p] + first, f->moments[1][p] + first}});
    }
}

static void run_plan(void *ctx, uint32_t index)
{
    fleet *f = ctx;
    pm_plan *plan = f->plans[index];
    pm_step step = {.seed = 1, .step = f->step, .first_lane = index, .lane_count = 1};
    for (size_t p = 0; p < pm_graph_param_count(f->model->graph); p++)
        memcpy(pm_plan_param(plan, p), f->values[f->step % 2][p],
               pm_graph_param(f->model->graph, p)->count * sizeof(float));
    f->statuses[index] = pm_plan_step(plan, &step);
}

// STEPS steps of all threads.
static pm_status run_steps(void *ctx)
{
    fleet *f = ctx;
    for (unsigned i = 0; i < STEPS; i++, f->step++) {
        pm_threads_run(f->crew, run_plan, f);
        for (uint32_t t = 0; t < f->threads; t++)
            if (f->statuses[t].code != PM_OK)
                return f->statuses[t];
        pm_threads_run(f->crew, update, f);
    }
    return pm_ok();
}

static pm_status fill_plan(fleet *f, uint32_t index)
{
    const pm_bench_model *model = f->model;
    const uint32_t rows = model->batch / f->threads;
    pm_status status =
        pm_plan_create_training_with(&f->plans[index], model->graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, rows, 1,
                                     model->batch, &(pm_plan_options){.precision = f->precision});
    if (status.code != PM_OK)
        return status;
    const size_t count = rows * pm_graph_input_count(model->graph);
    void *inputs = pm_bench_model_inputs(model, rows, 7 + index);
    if (!inputs)
        return pm_fail(PM_NO_MEMORY, "training rows");
    memcpy(pm_plan_input_at(f->plans[index], 0), inputs,
           count * (model->vocabulary ? sizeof(int64_t) : sizeof(float)));
    free(inputs);
    for (uint32_t i = 0; i < rows * model->places; i++)
        ((int32_t *)pm_plan_target(f->plans[index]))[i] = (int32_t)(i % model->classes);
    return status;
}

static pm_status make_values(fleet *f)
{
    for (size_t p = 0; p < pm_graph_param_count(f->model->graph); p++) {
        const pm_param *param = pm_graph_param(f->model->graph, p);
        f->values[0][p] = malloc(param->count * sizeof(float));
        f->values[1][p] = malloc(param->count * sizeof(float));
        for (size_t m = 0; m < PM_MOMENTS_MAX; m++)
            f->moments[m][p] = calloc(param->count, sizeof(float));
        if (!f->values[0][p] || !f->values[1][p] || !f->moments[0][p] || !f->moments[1][p])
            return pm_fail(PM_NO_MEMORY, "parameter %.64s", param->name);
        memcpy(f->values[0][p], param->initial, param->count * sizeof(float));
    }
    return pm_ok();
}

static void release(fleet *f)
{
    pm_threads_destroy(&f->crew);
    for (uint32_t i = 0; f->plans && i < f->threads; i++)
        pm_plan_destroy(&f->plans[i]);
    for (size_t p = 0; p < pm_graph_param_count(f->model->graph); p++)
        for (size_t i = 0; i < 2 + PM_MOMENTS_MAX; i++) {
            float **list = i < 2 ? f->values[i] : f->moments[i - 2];
            if (list)
                free(list[p]);
        }
    for (size_t i = 0; i < 2; i++)
        free(f->values[i]);
    for (size_t i = 0; i < PM_MOMENTS_MAX; i++)
        free(f->moments[i]);
    free(f->plans);
    free(f->statuses);
}

// *seconds: of a step.
static pm_status measure(const pm_bench *bench, const pm_bench_model *model, uint32_t threads,
                         pm_precision precision, double *seconds)
{
    const size_t params = pm_graph_param_count(model->graph);
    fleet f = {.model = model,
               .precision = precision,
               .threads = threads,
               .plans = calloc(threads, sizeof(pm_plan *)),
               .values = {calloc(params, sizeof(float *)), calloc(params, sizeof(float *))},
               .moments = {calloc(params, sizeof(float *)), calloc(params, sizeof(float *))},
               .statuses = calloc(threads, sizeof(pm_status))};
    pm_status status = pm_fail(PM_NO_MEMORY, "training of %zu parameters", params);
    if (f.plans && f.values[0] && f.values[1] && f.moments[0] && f.moments[1] && f.statuses)
        status = make_values(&f);
    if (status.code == PM_OK)
        status = pm_threads_create(&f.crew, threads);
    for (uint32_t i = 0; i < threads && status.code == PM_OK; i++)
        status = fill_plan(&f, i);
    if (status.code == PM_OK)
        status = pm_bench_median(bench, run_steps, &f, seconds);
    *seconds /= STEPS;
    release(&f);
    return status;
}

static pm_status train(const pm_bench *bench, const pm_bench_model *model, uint32_t threads)
{
    static const char *const names[] = {[PM_PRECISION_F32] = "f32", [PM_PRECISION_BF16] = "bf16"};
    double seconds[2] = {1, 1};
    pm_status status = pm_ok();
    for (pm_precision p = PM_PRECISION_F32; p <= PM_PRECISION_BF16 && status.code == PM_OK; p++) {
        status = measure(bench, model, threads, p, &seconds[p]);
        const double rows = model->batch / seconds[p], rate = rows * model->training_operations;
        if (status.code == PM_OK)
            printf("training %s batch %u threads %u %s: %.1f us, %.0f %s/s, %.1f GFLOP/s, %.2f of "
                   "multiply-adds, %.2f of f32\n",
                   model->name, model->batch, threads, names[p], seconds[p] * 1e6, rows * model->places,
                   model->unit, rate * 1e-9,
                   rate / (threads == 1 ? bench->multiply_adds : bench->multiply_adds_all),
                   seconds[PM_PRECISION_F32] / seconds[p]);
    }
    return status;
}

pm_status pm_bench_training(const pm_bench *bench)
{
    pm_status status = pm_ok();
    for (size_t i = 0; i < PM_BENCH_MODELS && status.code == PM_OK; i++) {
        pm_bench_model model = {0};
        status = pm_bench_model_make(&model, i);
        if (status.code == PM_OK)
            status = train(bench, &model, 1);
        if (status.code == PM_OK && bench->threads > 1 && model.batch % bench->threads == 0)
            status = train(bench, &model, bench->threads);
        pm_graph_destroy(&model.graph);
    }
    return status;
}
