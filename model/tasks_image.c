// The tasks of the operators on images: (rows, channels, height, width).
#include "model/tasks.h"

#include <math.h>
#include <string.h>

// --- pools

static void max_pool_size(const pm_plan *plan, pm_task *task)
{
    task->state_bytes = plan->training ? plan->max_rows * task->y_count * sizeof(int32_t) : 0;
}

static void max_pool_forward(pm_plan *plan, pm_task *task)
{
    for (size_t r = 0; r < plan->rows; r++)
        plan->kernels->max_pool(&task->window, task->x + r * task->x_count, task->y + r * task->y_count,
                                plan->training ? (int32_t *)task->state + r * task->y_count : NULL);
}

static pm_status max_pool_backward(pm_plan *plan, pm_task *task)
{
    for (size_t r = 0; task->dx && r < plan->rows; r++)
        plan->kernels->max_pool_backward(&task->window, (const int32_t *)task->state + r * task->y_count,
                                         task->dy + r * task->y_count, task->dx + r * task->x_count);
    return pm_ok();
}

static void average_pool_size(const pm_plan *plan, pm_task *task)
{
    (void)plan;
    (void)task;
}

static void average_pool_forward(pm_plan *plan, pm_task *task)
{
    for (size_t r = 0; r < plan->rows; r++)
        plan->kernels->average_pool(&task->window, task->x + r * task->x_count, task->y + r * task->y_count);
}

static pm_status average_pool_backward(pm_plan *plan, pm_task *task)
{
    for (size_t r = 0; task->dx && r < plan->rows; r++)
        plan->kernels->average_pool_backward(&task->window, task->dy + r * task->y_count,
                                             task->dx + r * task->x_count);
    return pm_ok();
}

const pm_task_kind PM_TASK_MAX_POOL = {max_pool_size, max_pool_forward, max_pool_backward, NULL};
const pm_task_kind PM_TASK_AVERAGE_POOL = {average_pool_size, average_pool_forward, average_pool_backward,
                                           NULL};

// --- BatchNormalization: y = (x - mean) / sqrt(variance + epsilon) * scale + bias for each channel; mean and
// population variance are each lane's own when training, the running ones otherwise.

// Views into the state: each (max_lanes, channels).
typedef struct norm_state {
    float *mean, *variance, *inverse;
} norm_state;

static size_t norm_channels(const pm_plan *plan, const pm_task *task)
{
    return (size_t)plan->graph->values[task->node->output].shape[1];
}

static norm_state norm_views(const pm_plan *plan, const pm_task *task)
{
    float *state = task->state;
    size_t count = plan->max_lanes * norm_channels(plan, task);
    return (norm_state){state, state + count, state + 2 * count};
}

static void norm_size(const pm_plan *plan, pm_task *task)
{
    size_t channels = norm_channels(plan, task), row = channels * sizeof(float);
    task->scratch_bytes = 2 * row; // factor and offset of each channel
    task->state_bytes = plan->training ? 3 * plan->max_lanes * row : 0;
    task->backward_scratch_bytes =
        plan->training ? 2 * plan->max_lanes * row : 0; // partial sums of bias and scale
    task->tree_count = channels;
}

// y = x * factor + offset over rows from the first, with the given moments.
static void normalize(pm_plan *plan, pm_task *task, size_t first, size_t rows, const float *mean,
                      const float *variance, float *inverse)
{
    const size_t channels = norm_channels(plan, task), area = task->y_count / channels;
    const float *scale = pm_task_param(plan, task, 1), *bias = pm_task_param(plan, task, 2);
    const float epsilon = pm_node_float(task->node, "epsilon", 1e-5f);
    float *factor = task->scratch, *offset = factor + channels;
    for (size_t c = 0; c < channels; c++) {
        float inverse_c = 1 / sqrtf(variance[c] + epsilon);
        factor[c] = scale[c] * inverse_c;
        offset[c] = bias[c] - mean[c] * factor[c];
        if (inverse)
            inverse[c] = inverse_c;
    }
    plan->kernels->scale_channels(task->x + first * task->x_count, factor, offset,
                                  task->y + first * task->y_count, rows, channels, area);
}

static void norm_forward(pm_plan *plan, pm_task *task)
{
    if (!plan->training) {
        normalize(plan, task, 0, plan->rows, pm_task_param(plan, task, 3), pm_task_param(plan, task, 4),
                  NULL);
        return;
    }
    const size_t channels = norm_channels(plan, task), area = task->y_count / channels;
    const norm_state state = norm_views(plan, task);
    for (size_t lane = 0; lane < plan->lanes; lane++) {
        const size_t first = lane * plan->rows_per_lane, at = lane * channels;
        for (size_t c = 0; c < channels; c++)
            plan->kernels->moments(task->x + first * task->x_count + c * area, plan->rows_per_lane,
                                   task->x_count, area, &state.mean[at + c], &state.variance[at + c]);
        normalize(plan, task, first, plan->rows_per_lane, &state.mean[at], &state.variance[at],
                  &state.inverse[at]);
    }
}

typedef struct lane_part {
    const float *lanes; // (lanes, count): ready-made partial sums
    size_t count;
} lane_part;

static void copy_partial(const void *ctx, uint32_t lane, float *partial)
{
    const lane_part *part = ctx;
    memcpy(partial, part->lanes + lane * part->count, part->count * sizeof *partial);
}

// The sums of each lane and channel, then the input's gradient, which needs them.
static void norm_lane_backward(pm_plan *plan, pm_task *task, size_t lane, float *sum_dy, float *sum_dy_x)
{
    const size_t channels = norm_channels(plan, task), area = task->y_count / channels;
    const size_t rows = plan->rows_per_lane, at = lane * channels;
    const float *scale = pm_task_param(plan, task, 1);
    const float count = (float)rows * (float)area;
    const norm_state state = norm_views(plan, task);
    for (size_t c = 0; c < channels; c++) {
        const size_t start = lane * rows * task->x_count + c * area;
        const float mean = state.mean[at + c], inverse = state.inverse[at + c];
        plan->kernels->norm_sums(task->x + start, task->dy + start, rows, task->x_count, area, mean, inverse,
                                 &sum_dy[at + c], &sum_dy_x[at + c]);
        if (task->dx)
            plan->kernels->norm_backward(task->x + start, task->dy + start, task->dx + start, rows,
                                         task->x_count, area, mean, inverse, sum_dy[at + c] / count,
                                         sum_dy_x[at + c] / count, scale[c] * inverse);
    }
}

static pm_status norm_backward(pm_plan *plan, pm_task *task)
{
    const size_t channels = norm_channels(plan, task);
    const norm_state state = norm_views(plan, task);
    float *sum_dy = task->backward_scratch, *sum_dy_x = sum_dy + plan->max_lanes * channels;
    for (size_t lane = 0; lane < plan->lanes; lane++)
        norm_lane_backward(plan, task, lane, sum_dy, sum_dy_x);
    const float *sources[] = {NULL, sum_dy_x, sum_dy, state.mean, state.variance};
    pm_status status = pm_ok();
    for (uint32_t i = 1; status.code == PM_OK && i <= 4; i++) {
        lane_part part = {.lanes = sources[i], .count = channels};
        pm_plan_tree_sum(plan, pm_task_gradient(plan, task, i), channels, copy_partial, &part);
        status = pm_plan_gradient_done(plan, task, i);
    }
    return status;
}

const pm_task_kind PM_TASK_BATCH_NORMALIZATION = {norm_size, norm_forward, norm_backward, NULL};
