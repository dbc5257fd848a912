// The tasks of Conv.
#include "model/tasks.h"

// --- Conv: each image unrolled to (channels * window, pixels), y = weight (out, channels * window) *
// unrolled + bias

static size_t conv_depth(const pm_window *w)
{
    return (size_t)(w->channels * w->kernel_h * w->kernel_w);
}

static size_t conv_pixels(const pm_window *w)
{
    return (size_t)(w->out_height * w->out_width);
}

// A 1x1 window over every pixel is a product on the image as it is.
static bool needs_unroll(const pm_window *w)
{
    return w->kernel_h != 1 || w->kernel_w != 1 || w->stride_h != 1 || w->stride_w != 1 || w->pad_top ||
           w->pad_left || w->pad_bottom || w->pad_right;
}

static void conv_size(const pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    size_t depth = conv_depth(w);
    task->scratch_bytes = needs_unroll(w) ? depth * conv_pixels(w) * sizeof(float) : 0;
    task->backward_scratch_bytes = plan->training ? task->scratch_bytes : 0;
    task->tree_count = (size_t)w->out_channels * depth;
}

static const float *unrolled(const pm_plan *plan, const pm_task *task, const float *image, float *scratch)
{
    if (!needs_unroll(&task->window))
        return image;
    plan->kernels->unroll(&task->window, image, scratch);
    return scratch;
}

static void conv_forward(pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    const size_t channels = (size_t)w->out_channels, depth = conv_depth(w), pixels = conv_pixels(w);
    for (size_t r = 0; r < plan->rows; r++) {
        float *y = task->y + r * task->y_count;
        const float *columns = unrolled(plan, task, task->x + r * task->x_count, task->scratch);
        pm_product_run(&(pm_product){.m = channels,
                                     .n = pixels,
                                     .k = depth,
                                     .a = pm_task_param(plan, task, 1),
                                     .a_stride = depth,
                                     .b = columns,
                                     .b_stride = pixels,
                                     .c = y,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        if (task->node->input_count > 2)
            plan->kernels->add_channel(y, pm_task_param(plan, task, 2), channels, pixels);
    }
}

typedef struct lane_part {
    const pm_plan *plan;
    const pm_task *task;
} lane_part;

static void conv_weight_partial(const void *ctx, uint32_t lane, float *partial)
{
    const lane_part *part = ctx;
    const pm_task *task = part->task;
    const size_t depth = conv_depth(&task->window), pixels = conv_pixels(&task->window);
    for (size_t i = 0; i < part->plan->rows_per_lane; i++) {
        size_t row = lane * (size_t)part->plan->rows_per_lane + i;
        const float *columns =
            unrolled(part->plan, task, task->x + row * task->x_count, task->backward_scratch);
        pm_product_run(&(pm_product){.transpose_b = true,
                                     .m = (size_t)task->window.out_channels,
                                     .n = depth,
                                     .k = pixels,
                                     .a = task->dy + row * task->y_count,
                                     .a_stride = pixels,
                                     .b = columns,
                                     .b_stride = pixels,
                                     .c = partial,
                                     .c_stride = depth,
                                     .accumulate = i > 0,
                                     .fixed_shape = true});
    }
}

static void conv_bias_partial(const void *ctx, uint32_t lane, float *partial)
{
    const lane_part *part = ctx;
    const pm_task *task = part->task;
    const size_t rows = part->plan->rows_per_lane;
    part->plan->kernels->sum_channels(task->dy + lane * rows * task->y_count, rows,
                                      (size_t)task->window.out_channels, conv_pixels(&task->window), partial);
}

static void conv_input_gradient(pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    const size_t depth = conv_depth(w), pixels = conv_pixels(w);
    const bool unroll = needs_unroll(w);
    for (size_t r = 0; r < plan->rows; r++) {
        float *image = task->dx + r * task->x_count;
        float *columns = unroll ? task->backward_scratch : image;
        pm_product_run(&(pm_product){.transpose_a = true,
                                     .m = depth,
                                     .n = pixels,
                                     .k = (size_t)w->out_channels,
                                     .a = pm_task_param(plan, task, 1),
                                     .a_stride = depth,
                                     .b = task->dy + r * task->y_count,
                                     .b_stride = pixels,
                                     .c = columns,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        if (unroll)
            plan->kernels->unroll_backward(w, columns, image);
    }
}

static pm_status conv_backward(pm_plan *plan, pm_task *task)
{
    lane_part part = {.plan = plan, .task = task};
    pm_plan_tree_sum(plan, pm_task_gradient(plan, task, 1), task->tree_count, conv_weight_partial, &part);
    pm_status status = pm_plan_gradient_done(plan, task, 1);
    if (status.code == PM_OK && task->node->input_count > 2) {
        pm_plan_tree_sum(plan, pm_task_gradient(plan, task, 2), (size_t)task->window.out_channels,
                         conv_bias_partial, &part);
        status = pm_plan_gradient_done(plan, task, 2);
    }
    if (status.code == PM_OK && task->dx)
        conv_input_gradient(plan, task);
    return status;
}

const pm_task_kind PM_TASK_CONV = {conv_size, conv_forward, conv_backward, NULL};
