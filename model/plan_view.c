#include "model/plan_view.h"

#include "model/cost.h"
#include "model/plan_impl.h"

size_t pm_plan_values(const pm_plan *plan)
{
    return plan->program->value_count;
}

size_t pm_plan_tasks(const pm_plan *plan)
{
    return plan->task_count;
}

// Of a whole run.
static uint32_t lanes_of(const pm_plan *plan, uint32_t value)
{
    return plan->program->values[value].shared ? 1 : plan->max_lanes;
}

static pm_value_place place_of(const pm_plan *plan, uint32_t root)
{
    if (plan->program->values[root].constant)
        return PM_VALUE_CONSTANT;
    return plan->places[root] == PM_PLACE_BOUND  ? PM_VALUE_BOUND
           : plan->places[root] == PM_PLACE_KEPT ? PM_VALUE_KEPT
                                                 : PM_VALUE_SHARED;
}

static size_t offset_of(const pm_plan *plan, const void *memory)
{
    return memory ? (size_t)((const unsigned char *)memory - plan->base) : 0;
}

pm_value_view pm_plan_value(const pm_plan *plan, size_t index)
{
    const uint32_t value = (uint32_t)index, root = plan->roots[value];
    const pm_value *v = &plan->program->values[value];
    pm_value_view view = {.name = v->name,
                          .type = pm_type_name(v->tensor.type),
                          .shape = v->tensor.shape,
                          .rank = v->tensor.rank,
                          .per_lane = !v->shared,
                          .place = place_of(plan, root),
                          .root = root,
                          .bytes = pm_tensor_bytes(&v->tensor) * pm_plan_lanes_of(plan, value)};
    if (view.place == PM_VALUE_SHARED && plan->lifetimes[root].bytes == 0) {
        view.first = 1; // nobody's any more: pruned
        return view;
    }
    const bool lasts = view.place != PM_VALUE_SHARED;
    view.first = lasts ? 0 : plan->lifetimes[root].first;
    view.last = lasts ? (uint32_t)plan->task_count : plan->lifetimes[root].last;
    if (view.place == PM_VALUE_KEPT || view.place == PM_VALUE_SHARED)
        view.offset = offset_of(plan, plan->memory[root]);
    return view;
}

// Bytes of the inputs and outputs; a view moves none.
static uint64_t moved(const pm_plan *plan, const pm_task *task)
{
    const pm_node *node = task->node;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < node->input_count; i++)
        if (task->in[i])
            bytes += pm_tensor_bytes(task->in[i]) * (uint64_t)lanes_of(plan, node->inputs[i]);
    for (uint32_t i = 0; i < node->output_count; i++)
        if (task->out[i])
            bytes += pm_tensor_bytes(task->out[i]) * (uint64_t)lanes_of(plan, node->outputs[i]);
    return bytes;
}

pm_task_view pm_plan_task(const pm_plan *plan, size_t index)
{
    const pm_task *task = &plan->tasks[index];
    const pm_node *node = task->node;
    const bool view = node->op->traits & PM_TRAIT_VIEW;
    return (pm_task_view){.node = node->name,
                          .op = node->op->name,
                          .backward = index >= plan->forward_count,
                          .view = view,
                          .pairs = task->pairs,
                          .once = task->is_shared,
                          .inputs = node->inputs,
                          .outputs = node->outputs,
                          .input_count = node->input_count,
                          .output_count = node->output_count,
                          .flops = pm_task_flops(task) * (task->is_shared ? 1 : plan->max_lanes),
                          .moved = view ? 0 : moved(plan, task),
                          .scratch_offset = task->scratch_bytes ? offset_of(plan, task->scratch) : 0,
                          .scratch_bytes = plan->lifetimes[plan->program->value_count + index].bytes,
                          .packed_offset = task->packed_bytes ? offset_of(plan, task->packed) : 0,
                          .packed_bytes = task->packed_bytes};
}

size_t pm_plan_peak(const pm_plan *plan)
{
    return pm_arena_used(plan->arena);
}

void pm_plan_time_tasks(pm_plan *plan, int64_t (*now_ns)(void), int64_t *nanoseconds)
{
    plan->now_ns = nanoseconds ? now_ns : NULL;
    plan->nanoseconds = nanoseconds;
}
