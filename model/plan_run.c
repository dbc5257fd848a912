// Running the tasks of a plan over lanes.
#include "model/plan_impl.h"

void pm_plan_connect(pm_plan *plan)
{
    for (size_t t = 0; t < plan->task_count; t++) {
        pm_task *task = &plan->tasks[t];
        const pm_node *node = task->node;
        for (uint32_t i = 0; i < node->input_count; i++)
            task->inputs[i] = node->inputs[i] == PM_NO_VALUE ? NULL : pm_plan_memory(plan, node->inputs[i]);
        for (uint32_t i = 0; i < node->output_count; i++)
            task->outputs[i] =
                node->outputs[i] == PM_NO_VALUE ? NULL : pm_plan_memory(plan, node->outputs[i]);
    }
}

static pm_call call_of(const pm_plan *plan, const pm_task *task)
{
    pm_call call = {.in = task->inputs,
                    .out = task->outputs,
                    .lanes = 1,
                    .scratch = task->scratch,
                    .packed = task->prepared ? task->packed : NULL,
                    .count = task->out[0] ? task->out[0]->count : 0};
    if (plan->step) {
        call.seed = plan->step->seed;
        call.step = plan->step->step;
        call.first_lane = plan->step->first_lane;
    }
    return call;
}

static void enter_lane(const pm_task *task, uint32_t lane, pm_call *call)
{
    const pm_node *node = task->node;
    for (uint32_t i = 0; i < node->input_count; i++)
        task->lane_inputs[i] =
            task->inputs[i] ? (const unsigned char *)task->inputs[i] + lane * task->input_stride[i] : NULL;
    for (uint32_t i = 0; i < node->output_count; i++)
        task->lane_outputs[i] =
            task->outputs[i] ? (unsigned char *)task->outputs[i] + lane * task->output_stride[i] : NULL;
    call->in = task->lane_inputs;
    call->out = task->lane_outputs;
}

// The sum over the lanes along the aligned binary tree of what the task makes for each, count elements from
// first. A binary counter: level[i] waits for its right neighbour of the same size; left + right, as in any
// sub-block.
static void sum_part(pm_plan *plan, pm_task *task, size_t first, size_t count)
{
    float *level[PM_MAX_TREE] = {(float *)task->outputs[0] + first};
    for (uint32_t i = 1; i < PM_MAX_TREE && 1u << i <= plan->max_lanes; i++)
        level[i] = plan->tree + (i - 1) * plan->tree_count;
    uint32_t top = 0;
    pm_call call = call_of(plan, task);
    call.first = first;
    call.count = count;
    const uint32_t first_lane = call.first_lane;
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        enter_lane(task, lane, &call);
        task->lane_outputs[0] = level[top++];
        call.first_lane = first_lane + lane;
        task->node->op->run(task, &call);
        for (uint32_t bits = lane; bits & 1; bits >>= 1) {
            plan->kernels->add(level[top - 2], level[top - 1], count);
            top--;
        }
    }
}

static void run_task(pm_plan *plan, pm_task *task)
{
    if (task->sums_lanes) {
        const size_t count = task->out[0]->count, part = task->part ? task->part : count;
        for (size_t first = 0; first < count; first += part)
            sum_part(plan, task, first, count - first < part ? count - first : part);
        return;
    }
    pm_call call = call_of(plan, task);
    if (task->is_shared || task->whole) {
        call.lanes = task->is_shared ? 1 : plan->lanes;
        task->node->op->run(task, &call);
        return;
    }
    const uint32_t first_lane = call.first_lane;
    for (uint32_t lane = 0; lane < plan->lanes; lane++) {
        enter_lane(task, lane, &call);
        call.first_lane = first_lane + lane;
        task->node->op->run(task, &call);
    }
}

// The lanes [lane, lane + lanes) of a task whose lanes are independent. What is local to the group has a
// place for one block.
static void run_block(const pm_plan *plan, pm_task *task, uint32_t lane, uint32_t lanes)
{
    const pm_node *node = task->node;
    const uint32_t step = task->whole ? lanes : 1;
    pm_call call = call_of(plan, task);
    call.in = task->lane_inputs;
    call.out = task->lane_outputs;
    call.lanes = step;
    for (uint32_t at = 0; at < lanes; at += step) {
        for (uint32_t i = 0; i < node->input_count; i++) {
            const uint32_t from = task->inputs[i] && plan->local[plan->roots[node->inputs[i]]] ? 0 : lane;
            task->lane_inputs[i] =
                task->inputs[i] ? (const unsigned char *)task->inputs[i] + (from + at) * task->input_stride[i]
                                : NULL;
        }
        for (uint32_t i = 0; i < node->output_count; i++) {
            const uint32_t to = task->outputs[i] && plan->local[plan->roots[node->outputs[i]]] ? 0 : lane;
            task->lane_outputs[i] =
                task->outputs[i] ? (unsigned char *)task->outputs[i] + (to + at) * task->output_stride[i]
                                 : NULL;
        }
        call.first_lane = lane + at;
        task->node->op->run(task, &call);
    }
}

void pm_plan_run_group(pm_plan *plan, const pm_group *group)
{
    for (uint32_t t = group->first; plan->now_ns && t < group->first + group->count; t++)
        plan->nanoseconds[t] = 0;
    for (uint32_t lane = 0; lane < plan->lanes; lane += group->block) {
        const uint32_t left = plan->lanes - lane, lanes = left < group->block ? left : group->block;
        for (uint32_t t = group->first; t < group->first + group->count; t++) {
            if (plan->tasks[t].node->op->traits & PM_TRAIT_VIEW)
                continue;
            const int64_t start = plan->now_ns ? plan->now_ns() : 0;
            run_block(plan, &plan->tasks[t], lane, lanes);
            if (plan->now_ns)
                plan->nanoseconds[t] += plan->now_ns() - start;
        }
    }
}

void pm_plan_run_task(pm_plan *plan, pm_task *task)
{
    if (task->node->op->traits & PM_TRAIT_VIEW)
        return;
    const int64_t start = plan->now_ns ? plan->now_ns() : 0;
    run_task(plan, task);
    if (plan->now_ns)
        plan->nanoseconds[task - plan->tasks] = plan->now_ns() - start;
}
