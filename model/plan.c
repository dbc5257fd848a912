// Running a plan; plan_build.c makes it.
#include "model/plan_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void pm_plan_tree_sum(pm_plan *plan, float *sum, size_t count,
                      void (*produce)(const void *ctx, uint32_t lane, float *partial), const void *ctx)
{
    // A binary counter: level[i] waits for its right neighbour of the same size; left + right, as in any
    // sub-block.
    float *level[PM_MAX_TREE] = {sum};
    for (uint32_t i = 1; i < PM_MAX_TREE && 1u << i <= plan->max_lanes; i++)
        level[i] = plan->tree + (i - 1) * plan->tree_count;
    uint32_t top = 0;
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        produce(ctx, lane, level[top++]);
        for (uint32_t bits = lane; bits & 1; bits >>= 1) {
            plan->kernels->add(level[top - 2], level[top - 1], count);
            top--;
        }
    }
}

pm_status pm_plan_gradient_done(pm_plan *plan, const pm_task *task, uint32_t input)
{
    const pm_step_hooks *hooks = plan->step->hooks;
    if (!hooks || !hooks->after_gradient)
        return pm_ok();
    size_t param = (size_t)plan->graph->values[task->node->inputs[input]].param;
    return hooks->after_gradient(hooks->ctx, param);
}

static pm_status announce_params(const pm_plan *plan, const pm_task *task)
{
    const pm_step_hooks *hooks = plan->step->hooks;
    if (!hooks || !hooks->before_param)
        return pm_ok();
    for (uint32_t i = 1; i < task->node->input_count; i++) {
        int64_t param = plan->graph->values[task->node->inputs[i]].param;
        if (plan->graph->params[param].kind == PM_PARAM_STATISTIC)
            continue;
        pm_status status = hooks->before_param(hooks->ctx, (size_t)param);
        if (status.code != PM_OK)
            return status;
    }
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
    if (plan->loss != PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        return pm_ok();
    const int32_t *classes = plan->target;
    size_t count = pm_graph_output_count(plan->graph);
    for (size_t i = 0; i < (size_t)lanes * plan->rows_per_lane; i++)
        if (classes[i] < 0 || (size_t)classes[i] >= count)
            return pm_fail(PM_INVALID, "row %zu of the block has class %" PRId32 " of %zu", i, classes[i],
                           count);
    return pm_ok();
}

// The tree sum of count (a power of two) values.
static double tree_sum(const double *values, uint32_t count)
{
    return count == 1 ? values[0] : tree_sum(values, count / 2) + tree_sum(values + count / 2, count / 2);
}

static void run_loss(pm_plan *plan)
{
    pm_step *step = plan->step;
    const float *output = plan->tasks[plan->task_count - 1].y;
    size_t outputs = pm_graph_output_count(plan->graph);
    step->correct = 0;
    if (plan->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY) {
        plan->kernels->cross_entropy(output, plan->target, plan->loss_scale, plan->output_gradient,
                                     plan->row_loss, plan->correct, plan->rows, outputs);
        for (uint32_t r = 0; r < plan->rows; r++)
            step->correct += plan->correct[r];
    } else {
        plan->kernels->squared_error(output, plan->target, plan->loss_scale, plan->output_gradient,
                                     plan->row_loss, plan->rows, outputs);
    }
    double lanes[PM_MAX_LANES];
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        lanes[lane] = 0;
        for (uint32_t r = 0; r < plan->rows_per_lane; r++)
            lanes[lane] += plan->row_loss[lane * plan->rows_per_lane + r];
    }
    step->loss = tree_sum(lanes, plan->lanes);
}

// Runs forward again, looking at each output while it is there: buffers are shared, so afterwards is too
// late.
static pm_status blame(pm_plan *plan)
{
    uint64_t step = plan->step->step;
    size_t inputs = plan->rows * pm_graph_input_count(plan->graph);
    if (!plan->kernels->all_finite(plan->input, inputs))
        return pm_fail(PM_NOT_FINITE, "step %" PRIu64 ": the input holds NaN or infinity", step);
    for (size_t i = 0; i < plan->task_count; i++) {
        pm_task *task = &plan->tasks[i];
        task->kind->forward(plan, task);
        if (!plan->kernels->all_finite(task->y, plan->rows * task->y_count))
            return pm_fail(PM_NOT_FINITE,
                           "step %" PRIu64 ": node %.64s (%s) is the first whose output holds NaN or "
                           "infinity",
                           step, task->node->name, task->node->op->name);
    }
    return pm_fail(PM_NOT_FINITE, "step %" PRIu64 ": the loss is not finite although every output is", step);
}

pm_status pm_plan_step(pm_plan *plan, pm_step *step)
{
    pm_status status = check_step(plan, step);
    if (status.code != PM_OK)
        return status;
    plan->step = step;
    plan->lanes = step->lane_count;
    plan->rows = step->lane_count * plan->rows_per_lane;
    for (size_t i = 0; i < plan->task_count; i++) {
        pm_task *task = &plan->tasks[i];
        status = announce_params(plan, task);
        if (status.code != PM_OK)
            return status;
        task->kind->forward(plan, task);
    }
    run_loss(plan);
    if (!isfinite(step->loss))
        return blame(plan);
    for (size_t i = plan->task_count; i-- > 0;) {
        pm_task *task = &plan->tasks[i];
        status = task->kind->backward(plan, task);
        if (status.code != PM_OK)
            return status;
    }
    return status;
}

pm_status pm_plan_bind(pm_plan *plan, size_t param, const float *values)
{
    if (plan->training || param >= plan->graph->param_count || !values || (uintptr_t)values % sizeof *values)
        return pm_fail(PM_INVALID, "parameter %zu cannot be bound to %p", param, (const void *)values);
    plan->params[param] = values;
    for (size_t i = 0; i < plan->task_count; i++) {
        const pm_node *node = plan->tasks[i].node;
        for (uint32_t k = 1; k < node->input_count; k++)
            if (plan->graph->values[node->inputs[k]].param == (int64_t)param)
                plan->tasks[i].prepared = false;
    }
    return pm_ok();
}

static pm_status check_bound(const pm_plan *plan)
{
    for (size_t i = 0; i < plan->graph->param_count; i++)
        if (!plan->params[i])
            return pm_fail(PM_INVALID, "parameter %.64s is not bound", plan->graph->params[i].name);
    return pm_ok();
}

pm_status pm_plan_prepare(pm_plan *plan)
{
    if (plan->training)
        return pm_fail(PM_INVALID, "a training plan has nothing to prepare");
    pm_status status = check_bound(plan);
    for (size_t i = 0; status.code == PM_OK && i < plan->task_count; i++) {
        if (!plan->tasks[i].kind->prepare)
            continue;
        plan->tasks[i].kind->prepare(plan, &plan->tasks[i]);
        plan->tasks[i].prepared = true;
    }
    return status;
}

pm_status pm_plan_infer(pm_plan *plan, const float *input, uint32_t rows, float *output)
{
    if (plan->training || rows == 0 || rows > plan->max_rows)
        return pm_fail(PM_INVALID, "%u rows, planned for 1 to %u", rows, plan->max_rows);
    pm_status status = check_bound(plan);
    if (status.code != PM_OK)
        return status;
    plan->rows = rows;
    for (size_t i = 0; i < plan->task_count; i++) {
        pm_task *task = &plan->tasks[i];
        task->x = i == 0 ? input : plan->tasks[i - 1].y;
        if (i + 1 == plan->task_count)
            task->y = output;
        task->kind->forward(plan, task);
    }
    return status;
}

float *pm_plan_input(pm_plan *plan)
{
    return plan->input;
}

void *pm_plan_target(pm_plan *plan)
{
    return plan->target;
}

float *pm_plan_param(pm_plan *plan, size_t param)
{
    return plan->training ? (float *)(uintptr_t)plan->params[param] : NULL;
}

const float *pm_plan_gradient(const pm_plan *plan, size_t param)
{
    return plan->training ? plan->gradients[param] : NULL;
}

size_t pm_plan_bytes(const pm_plan *plan)
{
    return pm_arena_size(plan->arena);
}

size_t pm_plan_bytes_unshared(const pm_plan *plan)
{
    return plan->bytes_unshared;
}

void pm_plan_destroy(pm_plan **plan)
{
    if (!plan || !*plan)
        return;
    pm_arena_destroy(&(*plan)->arena);
    free((*plan)->tasks);
    free((*plan)->params);
    free((*plan)->gradients);
    free(*plan);
    *plan = NULL;
}
