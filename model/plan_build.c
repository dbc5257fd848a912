// Making a plan: tasks, lifetimes of their buffers, one reservation for everything.
#include "model/tasks.h"

#include <stdlib.h>
#include <string.h>

// Buffers of a task: its output, the gradient of its output, scratch of either pass, state.
enum { SLOT_Y, SLOT_DY, SLOT_SCRATCH, SLOT_BACKWARD_SCRATCH, SLOT_STATE, SLOTS };

typedef struct layout {
    pm_plan *plan;
    pm_lifetime *buffers; // (tasks, SLOTS)
    size_t *owner_y;      // task whose output buffer holds this task's output
    size_t *owner_dy;     // task whose gradient buffer holds this task's output gradient
    bool *needs_dx;       // (tasks): something before the task is trained
} layout;

// Points in time: forward of task i, the loss, backward of task i.
static uint32_t forward_time(size_t i)
{
    return (uint32_t)i;
}

static uint32_t loss_time(const pm_plan *plan)
{
    return (uint32_t)plan->task_count;
}

static uint32_t backward_time(const pm_plan *plan, size_t i)
{
    return (uint32_t)(2 * plan->task_count - i);
}

static bool has_trained_param(const pm_plan *plan, const pm_node *node)
{
    for (uint32_t i = 1; i < node->input_count; i++)
        if (plan->graph->params[plan->graph->values[node->inputs[i]].param].kind == PM_PARAM_TRAINED)
            return true;
    return false;
}

static pm_lifetime *slot(const layout *l, size_t task, int which)
{
    return &l->buffers[task * SLOTS + (size_t)which];
}

static void extend(pm_lifetime *buffer, uint32_t last)
{
    buffer->last = buffer->last > last ? buffer->last : last;
}

static bool passes_through(const pm_operator *op)
{
    return op->element_wise || op->id == PM_OPERATOR_FLATTEN;
}

// Output buffers; an element-wise task works in place unless backward needs what it would overwrite.
static void plan_outputs(layout *l)
{
    pm_plan *plan = l->plan;
    bool kept = true; // the buffer that holds the running activation is read by some backward
    for (size_t i = 0; i < plan->task_count; i++) {
        const pm_task *task = &plan->tasks[i];
        const pm_operator *op = plan->graph->nodes[i].op;
        // Flatten changes nothing, so it may share even what is kept. The graph's input is the caller's.
        bool in_place =
            i > 0 && passes_through(op) && (!plan->training || !kept || op->id == PM_OPERATOR_FLATTEN);
        l->owner_y[i] = in_place ? l->owner_y[i - 1] : i;
        pm_lifetime *buffer = slot(l, l->owner_y[i], SLOT_Y);
        if (!in_place)
            *buffer = (pm_lifetime){.bytes = plan->max_rows * task->y_count * sizeof(float),
                                    .first = forward_time(i),
                                    .last = forward_time(i)};
        bool read = plan->training && op->backward_reads_output;
        kept = in_place ? kept || read : read;
        extend(buffer, i + 1 < plan->task_count ? forward_time(i + 1)
                       : plan->training         ? loss_time(plan)
                                                : forward_time(i));
        if (read)
            extend(buffer, backward_time(plan, i));
        if (plan->training && i + 1 < plan->task_count && plan->graph->nodes[i + 1].op->backward_reads_input)
            extend(buffer, backward_time(plan, i + 1));
    }
}

// Gradients of outputs, from the loss down to the first task that has something trained before it.
static void plan_gradients(layout *l)
{
    pm_plan *plan = l->plan;
    bool trained = false;
    for (size_t i = 0; i < plan->task_count; i++) {
        l->needs_dx[i] = trained;
        trained = trained || has_trained_param(plan, plan->tasks[i].node);
    }
    for (size_t i = plan->task_count; i-- > 0;) {
        bool last = i + 1 == plan->task_count;
        if (!last && !l->needs_dx[i + 1])
            break;
        bool in_place = !last && passes_through(plan->tasks[i + 1].node->op);
        l->owner_dy[i] = in_place ? l->owner_dy[i + 1] : i;
        if (!in_place)
            *slot(l, i, SLOT_DY) =
                (pm_lifetime){.bytes = plan->max_rows * plan->tasks[i].y_count * sizeof(float),
                              .first = last ? loss_time(plan) : backward_time(plan, i + 1)};
        extend(slot(l, l->owner_dy[i], SLOT_DY), backward_time(plan, i));
    }
}

static void plan_scratch(layout *l)
{
    const pm_plan *plan = l->plan;
    for (size_t i = 0; i < plan->task_count; i++) {
        const pm_task *task = &plan->tasks[i];
        uint32_t forward = forward_time(i), backward = backward_time(plan, i);
        *slot(l, i, SLOT_SCRATCH) =
            (pm_lifetime){.bytes = task->scratch_bytes, .first = forward, .last = forward};
        *slot(l, i, SLOT_BACKWARD_SCRATCH) =
            (pm_lifetime){.bytes = task->backward_scratch_bytes, .first = backward, .last = backward};
        *slot(l, i, SLOT_STATE) =
            (pm_lifetime){.bytes = task->state_bytes, .first = forward, .last = backward};
    }
}

static void set_pointers(const layout *l)
{
    pm_plan *plan = l->plan;
    for (size_t i = 0; i < plan->task_count; i++) {
        pm_task *task = &plan->tasks[i];
        task->y = (float *)(void *)(plan->activations + slot(l, l->owner_y[i], SLOT_Y)->offset);
        task->x = i == 0 ? plan->input : plan->tasks[i - 1].y;
        task->scratch = plan->activations + slot(l, i, SLOT_SCRATCH)->offset;
        task->backward_scratch = plan->activations + slot(l, i, SLOT_BACKWARD_SCRATCH)->offset;
        task->state = plan->activations + slot(l, i, SLOT_STATE)->offset;
        if (!plan->training || (i + 1 < plan->task_count && !l->needs_dx[i + 1]))
            continue;
        float *dy = (float *)(void *)(plan->activations + slot(l, l->owner_dy[i], SLOT_DY)->offset);
        task->dy = dy;
        if (i + 1 < plan->task_count)
            plan->tasks[i + 1].dx = dy;
        else
            plan->output_gradient = dy;
    }
}

// What lives as long as the plan; called with no arena to measure, then again to allocate.
static size_t reserve_persistent(pm_plan *plan)
{
    const pm_graph *g = plan->graph;
    size_t total = 0, tree_levels = 0;
    for (uint32_t lanes = plan->max_lanes; lanes > 1; lanes /= 2)
        tree_levels++;
#define RESERVE(pointer, bytes)                                                                              \
    do {                                                                                                     \
        total += pm_align(bytes);                                                                            \
        if (plan->arena)                                                                                     \
            (pointer) = pm_arena_alloc(plan->arena, bytes);                                                  \
    } while (0)
    for (size_t i = 0; i < plan->task_count; i++)
        RESERVE(plan->tasks[i].packed, plan->tasks[i].packed_bytes);
    if (plan->training) {
        size_t output_bytes = plan->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY
                                  ? sizeof(int32_t)
                                  : pm_graph_output_count(g) * sizeof(float);
        for (size_t i = 0; i < g->param_count; i++) {
            RESERVE(plan->params[i], g->params[i].count * sizeof(float));
            RESERVE(plan->gradients[i], g->params[i].count * sizeof(float));
        }
        RESERVE(plan->input, plan->max_rows * pm_graph_input_count(g) * sizeof(float));
        RESERVE(plan->target, plan->max_rows * output_bytes);
        RESERVE(plan->row_loss, plan->max_rows * sizeof(double));
        RESERVE(plan->correct, plan->max_rows);
        RESERVE(plan->tree, tree_levels * plan->tree_count * sizeof(float));
    }
#undef RESERVE
    return total;
}

static pm_status place_and_reserve(layout *l)
{
    pm_plan *plan = l->plan;
    size_t peak = 0, unshared = 0, count = plan->task_count * SLOTS;
    pm_status status = pm_buffers_place(l->buffers, count, &peak);
    if (status.code != PM_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        unshared += pm_align(l->buffers[i].bytes);
    for (size_t i = 0; i < plan->task_count; i++)
        if (l->owner_y[i] != i)
            unshared += pm_align(plan->max_rows * plan->tasks[i].y_count * sizeof(float));
    size_t persistent = reserve_persistent(plan);
    status = pm_arena_create(&plan->arena, persistent + pm_align(peak));
    if (status.code != PM_OK)
        return status;
    plan->bytes_unshared = persistent + unshared;
    (void)reserve_persistent(plan);
    plan->activations = pm_arena_alloc(plan->arena, peak);
    return plan->activations ? pm_ok() : pm_fail(PM_INTERNAL, "the plan outgrew its reservation");
}

static void set_initial_values(pm_plan *plan)
{
    for (size_t i = 0; i < plan->graph->param_count; i++) {
        const pm_param *param = &plan->graph->params[i];
        if (!plan->training)
            plan->params[i] = param->initial;
        else if (param->initial)
            memcpy((float *)(uintptr_t)plan->params[i], param->initial, param->count * sizeof(float));
    }
}

static pm_status make_tasks(pm_plan *plan)
{
    const pm_graph *g = plan->graph;
    uint32_t value = g->input;
    for (size_t i = 0; i < plan->task_count; i++) {
        const pm_node *node = &g->nodes[i];
        pm_task *task = &plan->tasks[i];
        if (node->inputs[0] != value)
            return pm_fail(PM_UNSUPPORTED, "node %.64s does not read its predecessor's output", node->name);
        value = node->output;
        *task = (pm_task){.node = node,
                          .kind = pm_task_kind_get(node->op->id),
                          .x_count = g->values[node->inputs[0]].count,
                          .y_count = g->values[node->output].count};
        bool window = node->op->id == PM_OPERATOR_CONV || node->op->id == PM_OPERATOR_MAX_POOL ||
                      node->op->id == PM_OPERATOR_AVERAGE_POOL;
        pm_status status = window ? pm_node_window(g, node, &task->window) : pm_ok();
        if (status.code != PM_OK)
            return pm_wrap(status, "node %.64s", node->name);
        task->kind->size(plan, task);
        plan->tree_count = plan->tree_count > task->tree_count ? plan->tree_count : task->tree_count;
    }
    return pm_ok();
}

static pm_status lay_out(pm_plan *plan)
{
    size_t n = plan->task_count;
    layout l = {.plan = plan,
                .buffers = calloc(n * SLOTS, sizeof *l.buffers),
                .owner_y = calloc(n, sizeof *l.owner_y),
                .owner_dy = calloc(n, sizeof *l.owner_dy),
                .needs_dx = calloc(n, sizeof *l.needs_dx)};
    pm_status status = pm_fail(PM_NO_MEMORY, "a plan of %zu tasks", n);
    if (l.buffers && l.owner_y && l.owner_dy && l.needs_dx) {
        plan_outputs(&l);
        if (plan->training)
            plan_gradients(&l);
        plan_scratch(&l);
        status = place_and_reserve(&l);
        if (status.code == PM_OK)
            set_pointers(&l);
    }
    free(l.buffers);
    free(l.owner_y);
    free(l.owner_dy);
    free(l.needs_dx);
    return status;
}

// The whole creation of either kind of plan.
static pm_status build(pm_plan **plan, const pm_plan *wanted)
{
    const pm_graph *g = wanted->graph;
    pm_status status = pm_blas_check();
    if (status.code != PM_OK)
        return status;
    if (wanted->max_rows == 0 || wanted->max_rows > UINT32_MAX / PM_MAX_LANES)
        return pm_fail(PM_INVALID, "a plan of %u rows", wanted->max_rows);
    pm_plan *p = malloc(sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a plan");
    *p = *wanted;
    p->kernels = pm_kernels_get();
    p->task_count = g->node_count;
    p->tasks = calloc(g->node_count + 1, sizeof *p->tasks);
    p->params = calloc(g->param_count + 1, sizeof *p->params);
    p->gradients = calloc(g->param_count + 1, sizeof *p->gradients);
    if (!p->tasks || !p->params || !p->gradients) {
        pm_plan_destroy(&p);
        return pm_fail(PM_NO_MEMORY, "a plan of %zu tasks", g->node_count);
    }
    status = make_tasks(p);
    if (status.code == PM_OK)
        status = lay_out(p);
    if (status.code != PM_OK) {
        pm_plan_destroy(&p);
        return status;
    }
    set_initial_values(p);
    *plan = p;
    return status;
}

pm_status pm_plan_create_training(pm_plan **plan, const pm_graph *graph, pm_loss loss, uint32_t rows_per_lane,
                                  uint32_t max_lanes, uint32_t total_rows)
{
    const pm_value *output = &graph->values[graph->output];
    if (rows_per_lane == 0 || total_rows == 0 || max_lanes == 0 || (max_lanes & (max_lanes - 1)) ||
        max_lanes > PM_MAX_LANES || rows_per_lane > UINT32_MAX / PM_MAX_LANES / PM_MAX_LANES)
        return pm_fail(PM_INVALID, "%u rows a lane, %u lanes (a power of two up to %d), %u rows in all",
                       rows_per_lane, max_lanes, PM_MAX_LANES, total_rows);
    if (loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY && output->rank != 2)
        return pm_fail(PM_INVALID, "softmax_cross_entropy wants an output (N, classes)");
    pm_plan wanted = {.graph = graph,
                      .training = true,
                      .loss = loss,
                      .rows_per_lane = rows_per_lane,
                      .max_lanes = max_lanes,
                      .max_rows = rows_per_lane * max_lanes,
                      .loss_scale = 1 / (float)total_rows};
    return pm_wrap(build(plan, &wanted), "training plan");
}

pm_status pm_plan_create_inference(pm_plan **plan, const pm_graph *graph, uint32_t max_rows)
{
    pm_plan wanted = {.graph = graph, .max_rows = max_rows};
    return pm_wrap(build(plan, &wanted), "inference plan");
}
