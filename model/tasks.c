// The tasks of the operators on rows and elements.
#include "model/tasks.h"

#include <stdio.h>
#include <string.h>

enum {
    GEMM_CHUNK = 1 << 15
}; // floats of a weight gradient that are summed at a time, so that the tree stays in cache

// --- Gemm: y (rows, out) = x (rows, in) * weight (out, in)^T + bias (out)

static size_t gemm_chunk(const pm_task *task)
{
    size_t outputs = GEMM_CHUNK / task->x_count;
    return outputs == 0 ? 1 : outputs < task->y_count ? outputs : task->y_count;
}

static void gemm_size(const pm_plan *plan, pm_task *task)
{
    size_t weight = gemm_chunk(task) * task->x_count;
    task->tree_count = weight > task->y_count ? weight : task->y_count;
    (void)plan;
}

static void gemm_forward(pm_plan *plan, pm_task *task)
{
    pm_product_run(&(pm_product){.transpose_b = true,
                                 .m = plan->rows,
                                 .n = task->y_count,
                                 .k = task->x_count,
                                 .a = task->x,
                                 .a_stride = task->x_count,
                                 .b = pm_task_param(plan, task, 1),
                                 .b_stride = task->x_count,
                                 .c = task->y,
                                 .c_stride = task->y_count});
    if (task->node->input_count > 2)
        plan->kernels->add_row(task->y, pm_task_param(plan, task, 2), plan->rows, task->y_count);
}

typedef struct gemm_part {
    const pm_plan *plan;
    const pm_task *task;
    size_t first, count; // outputs
} gemm_part;

static void gemm_weight_partial(const void *ctx, uint32_t lane, float *partial)
{
    const gemm_part *part = ctx;
    const pm_task *task = part->task;
    size_t row = (size_t)lane * part->plan->rows_per_lane;
    pm_product_run(&(pm_product){.transpose_a = true,
                                 .m = part->count,
                                 .n = task->x_count,
                                 .k = part->plan->rows_per_lane,
                                 .a = task->dy + row * task->y_count + part->first,
                                 .a_stride = task->y_count,
                                 .b = task->x + row * task->x_count,
                                 .b_stride = task->x_count,
                                 .c = partial,
                                 .c_stride = task->x_count,
                                 .fixed_shape = true});
}

static void gemm_bias_partial(const void *ctx, uint32_t lane, float *partial)
{
    const gemm_part *part = ctx;
    size_t rows = part->plan->rows_per_lane, outputs = part->task->y_count;
    part->plan->kernels->sum_rows(part->task->dy + lane * rows * outputs, rows, outputs, partial);
}

static pm_status gemm_backward(pm_plan *plan, pm_task *task)
{
    gemm_part part = {.plan = plan, .task = task};
    float *weight = pm_task_gradient(plan, task, 1);
    for (size_t chunk = gemm_chunk(task); part.first < task->y_count; part.first += part.count) {
        part.count = task->y_count - part.first < chunk ? task->y_count - part.first : chunk;
        pm_plan_tree_sum(plan, weight + part.first * task->x_count, part.count * task->x_count,
                         gemm_weight_partial, &part);
    }
    pm_status status = pm_plan_gradient_done(plan, task, 1);
    if (status.code == PM_OK && task->node->input_count > 2) {
        pm_plan_tree_sum(plan, pm_task_gradient(plan, task, 2), task->y_count, gemm_bias_partial, &part);
        status = pm_plan_gradient_done(plan, task, 2);
    }
    if (status.code == PM_OK && task->dx)
        pm_product_run(&(pm_product){.m = plan->rows,
                                     .n = task->x_count,
                                     .k = task->y_count,
                                     .a = task->dy,
                                     .a_stride = task->y_count,
                                     .b = pm_task_param(plan, task, 1),
                                     .b_stride = task->x_count,
                                     .c = task->dx,
                                     .c_stride = task->x_count});
    return status;
}

// --- element-wise

#define ELEMENT_TASK(name)                                                                                   \
    static void name##_forward(pm_plan *plan, pm_task *task)                                                 \
    {                                                                                                        \
        plan->kernels->name(task->x, task->y, plan->rows * task->y_count);                                   \
    }                                                                                                        \
    static pm_status name##_backward(pm_plan *plan, pm_task *task)                                           \
    {                                                                                                        \
        if (task->dx)                                                                                        \
            plan->kernels->name##_backward(task->y, task->dy, task->dx, plan->rows * task->y_count);         \
        return pm_ok();                                                                                      \
    }

ELEMENT_TASK(relu)
ELEMENT_TASK(sigmoid)
ELEMENT_TASK(tanh)

static void no_size(const pm_plan *plan, pm_task *task)
{
    (void)plan;
    (void)task;
}

static void flatten_forward(pm_plan *plan, pm_task *task)
{
    if (task->x != task->y)
        memcpy(task->y, task->x, plan->rows * task->y_count * sizeof *task->y);
}

static pm_status flatten_backward(pm_plan *plan, pm_task *task)
{
    if (task->dx && task->dx != task->dy)
        memcpy(task->dx, task->dy, plan->rows * task->y_count * sizeof *task->dx);
    return pm_ok();
}

// --- Softmax over the last axis

static size_t softmax_classes(const pm_plan *plan, const pm_task *task)
{
    const pm_value *y = &plan->graph->values[task->node->output];
    return (size_t)y->shape[y->rank - 1];
}

static void softmax_forward(pm_plan *plan, pm_task *task)
{
    size_t classes = softmax_classes(plan, task);
    plan->kernels->softmax(task->x, task->y, plan->rows * task->y_count / classes, classes);
}

static pm_status softmax_backward(pm_plan *plan, pm_task *task)
{
    size_t classes = softmax_classes(plan, task);
    if (task->dx)
        plan->kernels->softmax_backward(task->y, task->dy, task->dx, plan->rows * task->y_count / classes,
                                        classes);
    return pm_ok();
}

// --- Dropout: the mask is a pure function of (seed, step, lane, node, element in the lane)

static void dropout_size(const pm_plan *plan, pm_task *task)
{
    task->state_bytes = plan->training ? plan->max_rows * task->y_count : 0;
}

static void dropout_forward(pm_plan *plan, pm_task *task)
{
    size_t lane_count = plan->rows_per_lane * task->y_count;
    if (!plan->training) {
        if (task->x != task->y)
            memcpy(task->y, task->x, plan->rows * task->y_count * sizeof *task->y);
        return;
    }
    char purpose[PM_MAX_NAME + 16];
    snprintf(purpose, sizeof purpose, "dropout:%s", task->node->name);
    pm_dropout dropout = {.key = pm_rng_key_make(plan->step->seed, purpose),
                          .step = plan->step->step,
                          .ratio = pm_node_float(task->node, "ratio", 0.5f)};
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        dropout.lane = plan->step->first_lane + lane;
        plan->kernels->dropout(&dropout, task->x + lane * lane_count, task->y + lane * lane_count,
                               (uint8_t *)task->state + lane * lane_count, lane_count);
    }
}

static pm_status dropout_backward(pm_plan *plan, pm_task *task)
{
    if (task->dx)
        plan->kernels->dropout_backward(pm_node_float(task->node, "ratio", 0.5f), task->state, task->dy,
                                        task->dx, plan->rows * task->y_count);
    return pm_ok();
}

const pm_task_kind *pm_task_kind_get(pm_operator_id id)
{
    static const pm_task_kind gemm = {gemm_size, gemm_forward, gemm_backward, NULL};
    static const pm_task_kind flatten = {no_size, flatten_forward, flatten_backward, NULL};
    static const pm_task_kind relu = {no_size, relu_forward, relu_backward, NULL};
    static const pm_task_kind sigmoid = {no_size, sigmoid_forward, sigmoid_backward, NULL};
    static const pm_task_kind tanh = {no_size, tanh_forward, tanh_backward, NULL};
    static const pm_task_kind softmax = {no_size, softmax_forward, softmax_backward, NULL};
    static const pm_task_kind dropout = {dropout_size, dropout_forward, dropout_backward, NULL};
    static const pm_task_kind *const kinds[PM_OPERATOR_COUNT] = {
        [PM_OPERATOR_GEMM] = &gemm,
        [PM_OPERATOR_CONV] = &PM_TASK_CONV,
        [PM_OPERATOR_MAX_POOL] = &PM_TASK_MAX_POOL,
        [PM_OPERATOR_AVERAGE_POOL] = &PM_TASK_AVERAGE_POOL,
        [PM_OPERATOR_BATCH_NORMALIZATION] = &PM_TASK_BATCH_NORMALIZATION,
        [PM_OPERATOR_FLATTEN] = &flatten,
        [PM_OPERATOR_RELU] = &relu,
        [PM_OPERATOR_SIGMOID] = &sigmoid,
        [PM_OPERATOR_TANH] = &tanh,
        [PM_OPERATOR_SOFTMAX] = &softmax,
        [PM_OPERATOR_DROPOUT] = &dropout,
    };
    return kinds[id];
}
