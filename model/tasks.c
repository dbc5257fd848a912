// The tasks of the operators on rows and elements.
#include "model/tasks.h"

#include <stdio.h>
#include <string.h>

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
    static const pm_task_kind flatten = {no_size, flatten_forward, flatten_backward, NULL};
    static const pm_task_kind relu = {no_size, relu_forward, relu_backward, NULL};
    static const pm_task_kind sigmoid = {no_size, sigmoid_forward, sigmoid_backward, NULL};
    static const pm_task_kind tanh = {no_size, tanh_forward, tanh_backward, NULL};
    static const pm_task_kind softmax = {no_size, softmax_forward, softmax_backward, NULL};
    static const pm_task_kind dropout = {dropout_size, dropout_forward, dropout_backward, NULL};
    static const pm_task_kind *const kinds[PM_OPERATOR_COUNT] = {
        [PM_OPERATOR_GEMM] = &PM_TASK_GEMM,
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
