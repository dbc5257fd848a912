#include "cli/plan_profile.h"

#include "core/arena.h"
#include "core/rng.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct profile {
    pm_plan *plan;
    const pm_graph *graph;
    pm_plan_profile_options options;
    float **params; // (params): values made for those that have none
    void **inputs, **outputs;
    int64_t *samples; // (repetitions + 1, tasks)
} profile;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fill(float *values, size_t count, const char *name, double span)
{
    const pm_rng_key key = pm_rng_key_make(1, name);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(span * (2 * pm_rng_uniform(key, 0, i) - 1));
}

// Parameters are made small, so that deep models stay finite; variances must not be negative.
static void fill_param(float *values, const pm_param *param)
{
    fill(values, param->count, param->name, 0.05);
    for (size_t i = 0; param->kind == PM_PARAM_STATISTIC && i < param->count; i++)
        values[i] = 1 + values[i];
}

// Integers are zero: an index that every table has.
static void *make_port(const pm_port *port, uint32_t rows)
{
    const size_t bytes = port->count * rows * pm_type_size(port->type);
    void *memory = aligned_alloc(PM_ALIGN, pm_align(bytes + 1));
    if (!memory)
        return NULL;
    memset(memory, 0, bytes);
    if (port->type == PM_TYPE_F32)
        fill(memory, port->count * rows, port->name, 1);
    return memory;
}

static pm_status prepare_inference(profile *p)
{
    pm_status status = pm_ok();
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_param_count(p->graph); i++) {
        const pm_param *param = pm_graph_param(p->graph, i);
        if (param->initial)
            continue;
        p->params[i] = malloc(param->count * sizeof(float));
        if (!p->params[i])
            return pm_fail(PM_NO_MEMORY, "parameter %.64s", param->name);
        fill_param(p->params[i], param);
        status = pm_plan_bind(p->plan, i, p->params[i]);
    }
    for (size_t i = 0; i < pm_graph_inputs(p->graph); i++)
        if (!(p->inputs[i] = make_port(pm_graph_input(p->graph, i), p->options.rows)))
            return pm_fail(PM_NO_MEMORY, "input %zu", i);
    for (size_t i = 0; i < pm_graph_outputs(p->graph); i++)
        if (!(p->outputs[i] = make_port(pm_graph_output(p->graph, i), p->options.rows)))
            return pm_fail(PM_NO_MEMORY, "output %zu", i);
    return status.code == PM_OK ? pm_plan_prepare(p->plan) : status;
}

static void prepare_training(profile *p)
{
    const uint32_t rows = p->options.rows;
    for (size_t i = 0; i < pm_graph_param_count(p->graph); i++)
        if (!pm_graph_param(p->graph, i)->initial)
            fill_param(pm_plan_param(p->plan, i), pm_graph_param(p->graph, i));
    for (size_t i = 0; i < pm_graph_inputs(p->graph); i++) {
        const pm_port *port = pm_graph_input(p->graph, i);
        if (port->type == PM_TYPE_F32)
            fill(pm_plan_input_at(p->plan, i), port->count * rows, port->name, 1);
    }
}

static pm_status run_once(profile *p)
{
    if (!p->options.training)
        return pm_plan_run(p->plan, (const void *const *)p->inputs, p->options.rows, p->outputs);
    pm_step step = {.seed = 1, .lane_count = p->options.lanes};
    return pm_plan_step(p->plan, &step);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static pm_status measure(profile *p, int64_t *median_ns, int64_t *column)
{
    const size_t tasks = pm_plan_tasks(p->plan);
    const uint32_t runs = p->options.repetitions;
    pm_status status = run_once(p);
    for (uint32_t r = 0; r < runs && status.code == PM_OK; r++) {
        pm_plan_time_tasks(p->plan, now_ns, p->samples + r * tasks);
        status = run_once(p);
    }
    pm_plan_time_tasks(p->plan, NULL, NULL);
    for (size_t t = 0; t < tasks; t++) {
        for (uint32_t r = 0; r < runs; r++)
            column[r] = p->samples[r * tasks + t];
        qsort(column, runs, sizeof *column, by_value);
        median_ns[t] = column[runs / 2];
    }
    return status;
}

static void release(profile *p)
{
    for (size_t i = 0; p->params && i < pm_graph_param_count(p->graph); i++)
        free(p->params[i]);
    for (size_t i = 0; p->inputs && i < pm_graph_inputs(p->graph); i++)
        free(p->inputs[i]);
    for (size_t i = 0; p->outputs && i < pm_graph_outputs(p->graph); i++)
        free(p->outputs[i]);
    free(p->params);
    free(p->inputs);
    free(p->outputs);
    free(p->samples);
}

pm_status pm_plan_profile(pm_plan *plan, const pm_graph *graph, pm_plan_profile_options options,
                          int64_t **median_ns)
{
    const size_t tasks = pm_plan_tasks(plan);
    profile p = {.plan = plan,
                 .graph = graph,
                 .options = options,
                 .params = calloc(pm_graph_param_count(graph) + 1, sizeof(float *)),
                 .inputs = calloc(pm_graph_inputs(graph) + 1, sizeof(void *)),
                 .outputs = calloc(pm_graph_outputs(graph) + 1, sizeof(void *)),
                 .samples = calloc((size_t)options.repetitions * tasks + 1, sizeof(int64_t))};
    int64_t *medians = calloc(tasks + options.repetitions + 1, sizeof *medians);
    pm_status status = pm_fail(PM_NO_MEMORY, "a profile of %zu tasks", tasks);
    if (p.params && p.inputs && p.outputs && p.samples && medians) {
        status = pm_ok();
        if (options.training)
            prepare_training(&p);
        else
            status = prepare_inference(&p);
        if (status.code == PM_OK)
            status = measure(&p, medians, medians + tasks);
    }
    release(&p);
    if (status.code == PM_OK)
        *median_ns = medians;
    else
        free(medians);
    return status;
}
