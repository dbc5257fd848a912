#include "model/task.h"

#include <stdlib.h>
#include <string.h>

pm_status pm_task_make(pm_task *task, const pm_graph *program, const pm_node *node, bool sums_lanes,
                       bool training, uint32_t max_lanes, uint32_t threads, pm_region *region)
{
    const uint32_t inputs = node->input_count, outputs = node->output_count;
    const size_t pointer = sizeof(void *);
    *task = (pm_task){.node = node,
                      .kernels = pm_kernels_get(),
                      .region = region,
                      .training = training,
                      .max_lanes = max_lanes,
                      .in = pm_region_alloc(region, inputs * pointer),
                      .out = pm_region_alloc(region, outputs * pointer),
                      .shared = pm_region_alloc(region, inputs * sizeof(bool)),
                      .is_shared = true,
                      .sums_lanes = sums_lanes,
                      .inputs = pm_region_alloc(region, inputs * pointer),
                      .outputs = pm_region_alloc(region, outputs * pointer),
                      .input_stride = pm_region_alloc(region, inputs * sizeof(size_t)),
                      .output_stride = pm_region_alloc(region, outputs * sizeof(size_t)),
                      .lane_inputs = pm_region_alloc(region, (size_t)threads * inputs * pointer),
                      .lane_outputs = pm_region_alloc(region, (size_t)threads * outputs * pointer)};
    if (!task->in || !task->out || !task->shared || !task->inputs || !task->outputs || !task->input_stride ||
        !task->output_stride || !task->lane_inputs || !task->lane_outputs)
        return pm_fail(PM_NO_MEMORY, "a task");
    for (uint32_t i = 0; i < inputs; i++) {
        const pm_value *v = node->inputs[i] == PM_NO_VALUE ? NULL : &program->values[node->inputs[i]];
        task->in[i] = v ? &v->tensor : NULL;
        task->shared[i] = !v || v->shared;
        task->input_stride[i] = task->shared[i] ? 0 : pm_tensor_bytes(&v->tensor);
    }
    for (uint32_t i = 0; i < outputs; i++) {
        const pm_value *v = node->outputs[i] == PM_NO_VALUE ? NULL : &program->values[node->outputs[i]];
        task->out[i] = v ? &v->tensor : NULL;
        task->is_shared = task->is_shared && (!v || v->shared);
        task->output_stride[i] = !v || v->shared ? 0 : pm_tensor_bytes(&v->tensor);
    }
    task->is_shared = task->is_shared && !sums_lanes && !(node->op->traits & PM_TRAIT_JOINS_LANES);
    return pm_ok();
}

bool pm_task_is_stacked(const pm_task *task)
{
    for (uint32_t i = 0; i < task->node->input_count; i++)
        if (task->in[i] && task->shared[i])
            return false;
    return true;
}

pm_status pm_task_plan_whole(pm_task *task)
{
    task->whole = pm_task_is_stacked(task);
    return pm_ok();
}

pm_status pm_task_plan(pm_task *task)
{
    return task->node->op->plan ? task->node->op->plan(task) : pm_ok();
}

pm_status pm_task_fold(const pm_graph *program, const pm_node *node, pm_tensor *output, pm_region *region)
{
    pm_task task;
    const pm_tensor lane = *output;
    const uint32_t nothing[] = {PM_NO_VALUE}; // the output is no value of the program yet
    pm_node bare = *node;
    bare.outputs = nothing;
    const void **in = pm_region_alloc(region, node->input_count * sizeof *in);
    void *data = pm_region_alloc(region, pm_tensor_bytes(output));
    pm_status status =
        in && data ? pm_ok() : pm_fail(PM_NO_MEMORY, "a constant of %zu elements", output->count);
    if (status.code == PM_OK)
        status = pm_task_make(&task, program, &bare, false, false, 1, 1, region);
    if (status.code != PM_OK)
        return status;
    task.node = node;
    task.out[0] = &lane;
    status = pm_task_plan(&task);
    void *scratch = status.code == PM_OK ? pm_region_alloc(region, task.scratch_bytes) : NULL;
    if (!scratch)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "scratch of %zu bytes", task.scratch_bytes)
                                    : status;
    for (uint32_t i = 0; i < node->input_count; i++)
        in[i] = task.in[i] ? task.in[i]->data : NULL;
    const pm_call call = {.in = in, .out = &data, .lanes = 1, .scratch = scratch, .count = lane.count};
    node->op->run(&task, &call);
    output->data = data;
    return pm_ok();
}
