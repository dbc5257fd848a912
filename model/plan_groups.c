// Inference runs depth first: tasks one after another whose lanes do not depend on each other are run over a
// few lanes at a time, as many as keep what they hand on in cache. That gives what writing fused operators
// (convolution, normalization, activation, pool) would, for any operators, changes no bit, as no lane's bits
// depend on how many run together, and what is handed on inside a group needs memory for a block of lanes
// only.
#include "model/cost.h"
#include "model/plan_impl.h"

// What the values of one task of a block may take: half of the cache that a core has for itself today.
enum { BLOCK_BYTES = 512 << 10 };

// Products over packed weights want all rows at once: the weights are read from end to end for each call.
static bool stands_alone(const pm_task *task)
{
    return task->is_shared || task->sums_lanes || task->alone;
}

static uint32_t block_of(const pm_plan *plan, const pm_group *group)
{
    size_t most = 1;
    for (uint32_t t = group->first; t < group->first + group->count; t++) {
        const size_t bytes = pm_task_lane_bytes(&plan->tasks[t]);
        most = bytes > most ? bytes : most;
    }
    const size_t lanes = most < BLOCK_BYTES ? BLOCK_BYTES / most : 1;
    return lanes < plan->max_lanes ? (uint32_t)lanes : plan->max_lanes;
}

pm_status pm_plan_group(pm_plan *plan)
{
    plan->groups = pm_region_alloc(plan->region, plan->task_count * sizeof *plan->groups);
    plan->group_of = pm_region_alloc(plan->region, plan->task_count * sizeof *plan->group_of);
    plan->local = pm_region_alloc(plan->region, plan->program->value_count * sizeof *plan->local);
    plan->block_lanes = pm_region_alloc(plan->region, plan->program->value_count * sizeof *plan->block_lanes);
    if (!plan->groups || !plan->group_of || !plan->local || !plan->block_lanes)
        return pm_fail(PM_NO_MEMORY, "the groups of a plan");
    for (uint32_t t = 0; t < plan->task_count; t++) {
        const bool joins =
            !plan->training && t > 0 && !stands_alone(&plan->tasks[t]) && !stands_alone(&plan->tasks[t - 1]);
        if (joins)
            plan->groups[plan->group_count - 1].count++;
        else
            plan->groups[plan->group_count++] = (pm_group){.first = t, .count = 1};
        plan->group_of[t] = (uint32_t)plan->group_count - 1;
    }
    for (size_t g = 0; g < plan->group_count; g++)
        plan->groups[g].block =
            plan->groups[g].count > 1 ? block_of(plan, &plan->groups[g]) : plan->max_lanes;
    return pm_ok();
}
