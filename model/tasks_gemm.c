// The tasks of Gemm: y (rows, out) = x (rows, in) * weight (out, in)^T + bias (out).
#include "model/tasks.h"

// Floats of a weight gradient that are summed at a time, so that the tree's levels stay in cache.
enum { GEMM_CHUNK = 1 << 15 };

static size_t gemm_chunk(const pm_task *task)
{
    size_t outputs = GEMM_CHUNK / task->x_count;
    return outputs == 0 ? 1 : outputs < task->y_count ? outputs : task->y_count;
}

static size_t gemm_panels(const pm_plan *plan, const pm_task *task)
{
    return (task->y_count + plan->kernels->panel - 1) / plan->kernels->panel;
}

static void gemm_size(const pm_plan *plan, pm_task *task)
{
    size_t weight = gemm_chunk(task) * task->x_count;
    task->tree_count = weight > task->y_count ? weight : task->y_count;
    if (plan->training)
        return;
    size_t panel_bytes = task->x_count * plan->kernels->panel * sizeof(float);
    task->packed_bytes = gemm_panels(plan, task) * panel_bytes;
    task->scratch_bytes = panel_bytes + (task->x_count + plan->max_rows) * sizeof(size_t);
}

static void gemm_pack(const pm_plan *plan, const pm_task *task, size_t panel, float *packed)
{
    size_t width = plan->kernels->panel, first = panel * width;
    size_t outputs = task->y_count - first < width ? task->y_count - first : width;
    plan->kernels->pack_panel(pm_task_param(plan, task, 1) + first * task->x_count, outputs, task->x_count,
                              task->x_count, packed);
}

static void gemm_prepare(pm_plan *plan, pm_task *task)
{
    size_t panel_count = task->x_count * plan->kernels->panel;
    for (size_t panel = 0; panel < gemm_panels(plan, task); panel++)
        gemm_pack(plan, task, panel, task->packed + panel * panel_count);
}

// Requests are often of few rows, where packing the weights dominates: prepared, they are packed already. One
// kernel for any number of rows, so that a row's bits never depend on the batch.
static void gemm_infer(pm_plan *plan, pm_task *task)
{
    const size_t width = plan->kernels->panel, panel_count = task->x_count * width;
    float *scratch = task->scratch;
    size_t *b_offsets = (size_t *)(void *)(scratch + panel_count), *a_offsets = b_offsets + task->x_count;
    for (size_t k = 0; k < task->x_count; k++)
        b_offsets[k] = k * width;
    for (size_t r = 0; r < plan->rows; r++)
        a_offsets[r] = r * task->x_count;
    for (size_t panel = 0; panel < gemm_panels(plan, task); panel++) {
        const float *packed = task->prepared ? task->packed + panel * panel_count : scratch;
        size_t first = panel * width;
        if (!task->prepared)
            gemm_pack(plan, task, panel, scratch);
        plan->kernels->panel_product(
            &(pm_panel){.rows = plan->rows,
                        .columns = task->y_count - first < width ? task->y_count - first : width,
                        .depth = task->x_count,
                        .a = task->x,
                        .a_offsets = a_offsets,
                        .b = packed,
                        .b_offsets = b_offsets,
                        .c = task->y + first,
                        .c_stride = task->y_count});
    }
}

static void gemm_forward(pm_plan *plan, pm_task *task)
{
    if (plan->training)
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
    else
        gemm_infer(plan, task);
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

const pm_task_kind PM_TASK_GEMM = {gemm_size, gemm_forward, gemm_backward, gemm_prepare};
