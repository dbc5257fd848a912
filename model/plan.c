// Steps and requests; plan_build.c makes the plan, plan_run.c runs its tasks.
#include "model/losses.h"
#include "model/plan_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

pm_status pm_plan_set_threads(pm_plan *plan, pm_threads *threads)
{
    if (pm_threads_count(threads) > plan->most_threads)
        return pm_fail(PM_INVALID, "%u threads for a plan of at most %u", pm_threads_count(threads),
                       plan->most_threads);
    plan->threads = threads;
    return pm_ok();
}

static pm_status check_step(const pm_plan *plan, const pm_step *step)
{
    uint32_t lanes = step->lane_count;
    if (!plan->training)
        return pm_fail(PM_INVALID, "an inference plan cannot train");
    if (lanes == 0 || (lanes & (lanes - 1)) || lanes > plan->max_lanes || step->first_lane % lanes)
        return pm_fail(PM_INVALID, "lanes [%u, +%u) are no aligned block of at most %u", step->first_lane,
                       lanes, plan->max_lanes);
    if (pm_loss_kind_of(plan->loss)->target != PM_TARGET_CLASS)
        return pm_ok();
    const int32_t *classes = pm_plan_memory(plan, plan->target);
    const size_t count = pm_graph_output_count(plan->graph) / plan->row_losses;
    for (size_t i = 0; i < (size_t)lanes * plan->rows_per_lane * plan->row_losses; i++)
        if (classes[i] < 0 || (size_t)classes[i] >= count)
            return pm_fail(PM_INVALID, "row %zu of the block has class %" PRId32 " of %zu",
                           i / plan->row_losses, classes[i], count);
    return pm_ok();
}

// The tree sum of count (a power of two) values.
static double tree_sum(const double *values, uint32_t count)
{
    return count == 1 ? values[0] : tree_sum(values, count / 2) + tree_sum(values + count / 2, count / 2);
}

static void read_loss(const pm_plan *plan)
{
    pm_step *step = plan->step;
    const double *row_loss = pm_plan_memory(plan, plan->row_loss);
    const uint8_t *correct = pm_plan_memory(plan, plan->correct);
    const bool judges = pm_loss_kind_of(plan->loss)->judges;
    const size_t losses = (size_t)plan->rows_per_lane * plan->row_losses;
    double lanes[PM_MAX_LANES];
    step->correct = 0;
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        lanes[lane] = 0;
        for (size_t i = lane * losses; i < (lane + 1) * losses; i++) {
            lanes[lane] += row_loss[i];
            step->correct += judges && correct[i];
        }
    }
    step->loss = tree_sum(lanes, plan->lanes);
}

static bool is_finite(const pm_plan *plan, uint32_t value)
{
    const pm_value *v = &plan->program->values[value];
    return v->tensor.type != PM_TYPE_F32 ||
           plan->kernels->all_finite(pm_plan_memory(plan, value),
                                     v->tensor.count * (v->shared ? 1 : plan->lanes));
}

// Runs forward again, looking at each output while it is there: buffers are shared, so afterwards is too
// late.
static pm_status blame(pm_plan *plan)
{
    const uint64_t step = plan->step->step;
    for (size_t i = 0; i < plan->program->input_count; i++)
        if (!is_finite(plan, plan->program->inputs[i]))
            return pm_fail(PM_NOT_FINITE, "step %" PRIu64 ": the input holds NaN or infinity", step);
    for (size_t t = 0; t < plan->forward_count; t++) {
        pm_task *task = &plan->tasks[t];
        const pm_node *node = task->node;
        pm_plan_run_task(plan, task);
        if (node->outputs[0] != PM_NO_VALUE && !is_finite(plan, node->outputs[0]))
            return pm_fail(PM_NOT_FINITE,
                           "step %" PRIu64 ": node %.64s (%s) is the first whose output holds NaN or "
                           "infinity",
                           step, node->name, node->op->name);
    }
    return pm_fail(PM_NOT_FINITE, "step %" PRIu64 ": the loss is not finite although every output is", step);
}

// Runs the tasks [first, last) and calls the hooks around them; *before and *after are the next events.
static pm_status run_tasks(pm_plan *plan, size_t first, size_t last, size_t *before, size_t *after)
{
    const pm_step_hooks none = {0}, *hooks = plan->step->hooks ? plan->step->hooks : &none;
    pm_status status = pm_ok();
    for (size_t t = first; t < last; t++) {
        for (; *before < plan->before_count && plan->before[*before].task == t; ++*before)
            if (hooks->before_param && status.code == PM_OK)
                status = hooks->before_param(hooks->ctx, plan->before[*before].param);
        if (status.code != PM_OK)
            return status;
        pm_plan_run_task(plan, &plan->tasks[t]);
        if (t + 1 == plan->rows_known && hooks->rows_known)
            status = hooks->rows_known(hooks->ctx);
        for (; *after < plan->after_count && plan->after[*after].task == t; ++*after)
            if (hooks->after_gradient && status.code == PM_OK)
                status = hooks->after_gradient(hooks->ctx, plan->after[*after].param);
        if (status.code != PM_OK)
            return status;
    }
    return status;
}

pm_status pm_plan_step(pm_plan *plan, pm_step *step)
{
    size_t before = 0, after = 0;
    pm_status status = check_step(plan, step);
    if (status.code != PM_OK)
        return status;
    plan->step = step;
    plan->lanes = step->lane_count;
    if (plan->rebound)
        pm_plan_connect(plan);
    plan->rebound = false;
    status = run_tasks(plan, 0, plan->forward_count, &before, &after);
    if (status.code != PM_OK)
        return status;
    read_loss(plan);
    if (!isfinite(step->loss))
        return blame(plan);
    return run_tasks(plan, plan->forward_count, plan->task_count, &before, &after);
}

// Whether task reads value's memory, or something that follows from parameters alone.
static bool reads_frozen(const pm_plan *plan, const pm_task *task, uint32_t value)
{
    for (uint32_t i = 0; i < task->node->input_count; i++) {
        const uint32_t input = task->node->inputs[i];
        if (input != PM_NO_VALUE &&
            (plan->roots[input] == value || plan->places[plan->roots[input]] == PM_PLACE_KEPT))
            return true;
    }
    return false;
}

pm_status pm_plan_bind(pm_plan *plan, size_t param, const float *values)
{
    if (plan->training || param >= plan->graph->param_count || !values || (uintptr_t)values % sizeof *values)
        return pm_fail(PM_INVALID, "parameter %zu cannot be bound to %p", param, (const void *)values);
    const uint32_t value = plan->program->param_values[param];
    plan->memory[value] = (void *)(uintptr_t)values; // read only
    plan->frozen = false;
    for (size_t t = 0; t < plan->task_count; t++)
        if (reads_frozen(plan, &plan->tasks[t], value))
            plan->tasks[t].prepared = false;
    return pm_ok();
}

static pm_status check_bound(const pm_plan *plan)
{
    for (size_t i = 0; i < plan->graph->param_count; i++)
        if (!plan->memory[plan->program->param_values[i]])
            return pm_fail(PM_INVALID, "parameter %.64s is not bound", plan->graph->params[i].name);
    return pm_ok();
}

static void run_shared(pm_plan *plan)
{
    for (size_t t = 0; t < plan->task_count; t++)
        if (plan->tasks[t].is_shared)
            pm_plan_run_task(plan, &plan->tasks[t]);
}

pm_status pm_plan_prepare(pm_plan *plan)
{
    if (plan->training)
        return pm_fail(PM_INVALID, "a training plan has nothing to prepare");
    pm_status status = check_bound(plan);
    if (status.code != PM_OK)
        return status;
    pm_plan_connect(plan);
    run_shared(plan);
    plan->frozen = true;
    for (size_t t = 0; t < plan->task_count; t++) {
        pm_task *task = &plan->tasks[t];
        const pm_call call = {.in = task->inputs, .out = task->outputs, .lanes = 1};
        if (task->packed_bytes == 0)
            continue;
        task->node->op->pack(task, &call, task->packed);
        task->prepared = true;
    }
    return status;
}

// Rows of what was not made where the caller wants it: inputs and constants that are outputs too.
static void copy_output(const pm_plan *plan, size_t index, void *output)
{
    const pm_value *v = &plan->program->values[plan->program->outputs[index]];
    const unsigned char *from = pm_plan_memory(plan, plan->program->outputs[index]);
    const size_t bytes = pm_tensor_bytes(&v->tensor);
    for (uint32_t row = 0; bytes > 0 && row < plan->lanes; row++)
        memcpy((unsigned char *)output + row * bytes, from + (v->shared ? 0 : row * bytes), bytes);
}

pm_status pm_plan_run(pm_plan *plan, const void *const *inputs, uint32_t rows, void *const *outputs)
{
    const pm_graph *p = plan->program;
    if (plan->training || rows == 0 || rows > plan->max_lanes)
        return pm_fail(PM_INVALID, "%u rows, planned for 1 to %u", rows, plan->max_lanes);
    pm_status status = check_bound(plan);
    if (status.code != PM_OK)
        return status;
    plan->lanes = rows;
    for (size_t i = 0; i < p->input_count; i++)
        if (!p->values[p->inputs[i]].constant)
            plan->memory[p->inputs[i]] = (void *)(uintptr_t)inputs[i]; // read only
    for (size_t i = 0; i < p->output_count; i++)
        if (plan->direct[i])
            plan->memory[plan->roots[p->outputs[i]]] = outputs[i];
    pm_plan_connect(plan);
    for (size_t g = 0; g < plan->group_count; g++) {
        pm_task *first = &plan->tasks[plan->groups[g].first];
        if (plan->groups[g].count > 1)
            pm_plan_run_group(plan, &plan->groups[g]);
        else if (!plan->frozen || !first->is_shared)
            pm_plan_run_task(plan, first);
    }
    for (size_t i = 0; i < p->output_count; i++)
        if (!plan->direct[i])
            copy_output(plan, i, outputs[i]);
    return status;
}

pm_status pm_plan_infer(pm_plan *plan, const float *input, uint32_t rows, float *output)
{
    const pm_graph *g = plan->graph;
    if (g->input_count != 1 || g->output_count != 1 || g->input_ports[0].type != PM_TYPE_F32 ||
        g->output_ports[0].type != PM_TYPE_F32)
        return pm_fail(PM_INVALID, "a model of %zu inputs and %zu outputs, wanted one of float32 each",
                       g->input_count, g->output_count);
    return pm_plan_run(plan, (const void *const[]){input}, rows, (void *const[]){output});
}

float *pm_plan_input(pm_plan *plan)
{
    return pm_plan_input_at(plan, 0);
}

void *pm_plan_input_at(pm_plan *plan, size_t index)
{
    return plan->training ? pm_plan_memory(plan, plan->program->inputs[index]) : NULL;
}

void *pm_plan_target(pm_plan *plan)
{
    return plan->training ? pm_plan_memory(plan, plan->target) : NULL;
}

float *pm_plan_param(pm_plan *plan, size_t param)
{
    return plan->training ? pm_plan_memory(plan, plan->program->param_values[param]) : NULL;
}

const uint32_t *pm_plan_rows(const pm_plan *plan, size_t param, size_t *count)
{
    const bool sparse = plan->training && plan->sparse[param].ids != PM_NO_VALUE;
    *count = sparse ? (size_t) * (const int32_t *)pm_plan_memory(plan, plan->sparse[param].count) : 0;
    return sparse ? pm_plan_memory(plan, plan->sparse[param].ids) : NULL;
}

size_t pm_plan_most_rows(const pm_plan *plan, size_t param)
{
    const bool sparse = plan->training && plan->sparse[param].ids != PM_NO_VALUE;
    return sparse ? plan->program->values[plan->sparse[param].ids].tensor.count : 0;
}

const float *pm_plan_gradient(const pm_plan *plan, size_t param)
{
    return plan->training ? plan->gradients[param] : NULL;
}

void pm_plan_bind_gradient(pm_plan *plan, size_t param, float *memory)
{
    if (!plan->training || !plan->own_gradients[param])
        return;
    float *place = memory ? memory : plan->own_gradients[param];
    plan->rebound = plan->rebound || plan->gradients[param] != place;
    plan->gradients[param] = place;
    plan->memory[plan->roots[plan->gradient_values[param]]] = place;
}

size_t pm_plan_bytes(const pm_plan *plan)
{
    return pm_arena_size(plan->arena);
}

uint32_t pm_plan_segments(const pm_plan *plan)
{
    return plan->segments;
}

size_t pm_plan_bytes_unshared(const pm_plan *plan)
{
    return plan->bytes_unshared;
}
