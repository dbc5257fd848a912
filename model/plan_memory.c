// The memory of a plan: which values lie in one place, how long each place is needed, one arena for all.
#include "model/buffers.h"
#include "model/plan_impl.h"

#include <stdlib.h>

typedef struct layout {
    pm_plan *plan;
    uint32_t *last;       // (values): the last task that reads it
    uint32_t *root_last;  // (values), of roots: of all values that lie there
    uint32_t *root_first; // (values), of roots: the task that makes it
    pm_lifetime *buffers; // (values, then tasks' scratch): the plan's lifetimes
} layout;

static const pm_value *value_at(const pm_plan *plan, uint32_t value)
{
    return &plan->program->values[value];
}

static size_t all_lanes_bytes(const pm_plan *plan, uint32_t value)
{
    const pm_value *v = value_at(plan, value);
    return pm_tensor_bytes(&v->tensor) * (v->shared ? 1 : plan->max_lanes);
}

// For the lanes that are there at once.
static size_t value_bytes(const pm_plan *plan, uint32_t value)
{
    return pm_tensor_bytes(&value_at(plan, value)->tensor) * pm_plan_lanes_of(plan, value);
}

// What is not made by a task, or must outlive the step.
static void choose_places(layout *l)
{
    pm_plan *plan = l->plan;
    const pm_graph *p = plan->program;
    for (size_t i = 0; i < p->value_count; i++) {
        plan->roots[i] = (uint32_t)i;
        if (p->values[i].constant) {
            plan->places[i] = PM_PLACE_BOUND;
            plan->memory[i] = (void *)(uintptr_t)p->values[i].tensor.data; // read only
        }
    }
    for (size_t t = 0; !plan->training && t < plan->task_count; t++)
        for (uint32_t i = 0; i < plan->tasks[t].node->output_count; i++) {
            const uint32_t output = plan->tasks[t].node->outputs[i];
            if (output != PM_NO_VALUE && p->values[output].shared)
                plan->places[output] = PM_PLACE_KEPT; // made once
        }
    for (size_t i = 0; i < p->input_count; i++)
        if (!p->values[p->inputs[i]].constant)
            plan->places[p->inputs[i]] = plan->training ? PM_PLACE_KEPT : PM_PLACE_BOUND;
    for (size_t i = 0; i < p->param_count; i++)
        plan->places[p->param_values[i]] = plan->training ? PM_PLACE_KEPT : PM_PLACE_BOUND;
    for (size_t i = 0; plan->training && i < p->param_count; i++)
        if (plan->gradient_values[i] != PM_NO_VALUE && !p->values[plan->gradient_values[i]].constant)
            plan->places[plan->gradient_values[i]] = PM_PLACE_KEPT;
    for (size_t i = 0; plan->training && i < p->param_count; i++)
        if (plan->sparse[i].ids != PM_NO_VALUE)
            plan->places[plan->sparse[i].ids] = plan->places[plan->sparse[i].count] = PM_PLACE_KEPT;
    if (plan->training)
        plan->places[plan->row_loss] = plan->places[plan->correct] = PM_PLACE_KEPT;
}

static void find_last_readers(layout *l)
{
    const pm_plan *plan = l->plan;
    const pm_graph *p = plan->program;
    for (size_t t = 0; t < plan->task_count; t++) {
        const pm_node *node = plan->tasks[t].node;
        for (uint32_t i = 0; i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                l->last[node->inputs[i]] = (uint32_t)t;
    }
    const uint32_t end = (uint32_t)plan->task_count;
    for (size_t i = 0; i < p->output_count; i++)
        l->last[p->outputs[i]] = end;
    for (size_t i = 0; plan->training && i < p->param_count; i++)
        if (plan->gradient_values[i] != PM_NO_VALUE)
            l->last[plan->gradient_values[i]] = end;
}

// The value whose place task t's output 0 takes over: a view's input, or an input that is read here for the
// last time by an element-wise operator. PM_NO_VALUE: none.
static uint32_t overtaken(const layout *l, uint32_t t)
{
    pm_plan *plan = l->plan;
    const pm_task *task = &plan->tasks[t];
    const pm_node *node = task->node;
    const uint32_t traits = node->op->traits, output = node->outputs[0];
    if (traits & PM_TRAIT_VIEW) {
        pm_place *place = &plan->places[plan->roots[node->inputs[0]]];
        if (plan->places[output] == PM_PLACE_KEPT && *place == PM_PLACE_ACTIVATION)
            *place = PM_PLACE_KEPT;
        return node->inputs[0];
    }
    if (!(traits & PM_TRAIT_IN_PLACE) || task->sums_lanes || plan->places[output] != PM_PLACE_ACTIVATION)
        return PM_NO_VALUE;
    for (uint32_t i = 0; i < node->input_count; i++) {
        if (node->inputs[i] == PM_NO_VALUE)
            continue;
        const uint32_t root = plan->roots[node->inputs[i]];
        if (plan->places[root] == PM_PLACE_ACTIVATION && l->root_last[root] == t &&
            task->in[i]->type == task->out[0]->type && task->in[i]->count == task->out[0]->count &&
            value_at(plan, root)->shared == value_at(plan, output)->shared)
            return node->inputs[i];
    }
    return PM_NO_VALUE;
}

static void find_roots(layout *l)
{
    pm_plan *plan = l->plan;
    for (uint32_t t = 0; t < plan->task_count; t++) {
        const pm_node *node = plan->tasks[t].node;
        for (uint32_t i = 0; i < node->output_count; i++) {
            const uint32_t output = node->outputs[i];
            if (output == PM_NO_VALUE)
                continue;
            const uint32_t from = i == 0 ? overtaken(l, t) : PM_NO_VALUE;
            const uint32_t root = from == PM_NO_VALUE ? output : plan->roots[from];
            const uint32_t last = l->last[output] > t ? l->last[output] : t;
            plan->roots[output] = root;
            if (root == output)
                l->root_first[root] = t;
            l->root_last[root] = last > l->root_last[root] ? last : l->root_last[root];
        }
    }
}

// A request's outputs are written where the caller wants them.
static void bind_outputs(layout *l)
{
    pm_plan *plan = l->plan;
    for (size_t i = 0; !plan->training && i < plan->program->output_count; i++) {
        const uint32_t root = plan->roots[plan->program->outputs[i]];
        plan->direct[i] = plan->places[root] == PM_PLACE_ACTIVATION;
        if (plan->direct[i])
            plan->places[root] = PM_PLACE_BOUND;
    }
}

// A group's tasks run again and again, a block of lanes at a time: what comes from outside or is wanted there
// is taken all the while, what stays inside serves one block after another.
static void find_local(layout *l)
{
    pm_plan *plan = l->plan;
    for (uint32_t i = 0; i < plan->program->value_count; i++) {
        const uint32_t first = l->root_first[i], last = l->root_last[i];
        if (plan->roots[i] != i || plan->task_count == 0)
            continue;
        const pm_group *from = &plan->groups[plan->group_of[first]];
        const pm_group *to = last < plan->task_count ? &plan->groups[plan->group_of[last]] : NULL;
        plan->local[i] = from == to && from->count > 1 && plan->places[i] == PM_PLACE_ACTIVATION;
        if (plan->local[i])
            plan->block_lanes[i] = from->block * plan->most_threads;
        if (plan->local[i] && plan->most_threads == 1)
            continue; // threads go through the tasks of a group each at its own pace
        l->root_first[i] = from->first;
        l->root_last[i] = to ? to->first + to->count - 1 : last;
    }
}

// Of all threads.
static size_t scratch_bytes(const pm_plan *plan, const pm_task *task)
{
    const uint32_t threads = plan->most_threads;
    return threads == 1 ? task->scratch_bytes : threads * pm_align(task->scratch_bytes);
}

static void set_lifetimes(layout *l)
{
    const pm_plan *plan = l->plan;
    pm_lifetime *scratch = l->buffers + plan->program->value_count;
    for (uint32_t t = 0; t < plan->task_count; t++) {
        const pm_node *node = plan->tasks[t].node;
        const pm_group *group = &plan->groups[plan->group_of[t]];
        const bool alone = plan->most_threads == 1;
        scratch[t] = (pm_lifetime){.bytes = scratch_bytes(plan, &plan->tasks[t]),
                                   .first = alone ? t : group->first,
                                   .last = alone ? t : group->first + group->count - 1};
        for (uint32_t i = 0; i < node->output_count; i++) {
            const uint32_t output = node->outputs[i];
            if (output != PM_NO_VALUE && plan->roots[output] == output)
                l->buffers[output] = (pm_lifetime){
                    .bytes = plan->places[output] == PM_PLACE_ACTIVATION ? value_bytes(plan, output) : 0,
                    .first = l->root_first[output],
                    .last = l->root_last[output]};
        }
    }
}

// What the task itself asks for: its outputs, scratch and packed inputs. Never overflows: a value has at most
// 2^28 elements, a plan at most 2^24 lanes.
static size_t task_bytes(const pm_plan *plan, const pm_task *task)
{
    size_t bytes = scratch_bytes(plan, task) + task->packed_bytes;
    for (uint32_t i = 0; i < task->node->output_count; i++)
        if (task->node->outputs[i] != PM_NO_VALUE)
            bytes += value_bytes(plan, task->node->outputs[i]);
    return bytes;
}

static pm_status refuse_size(const pm_plan *plan, const pm_task *task, size_t total)
{
    if (!task)
        return pm_fail(PM_NO_MEMORY, "the plan needs %zu bytes, it may have %zu", total, plan->most_bytes);
    return pm_fail(PM_NO_MEMORY, "node %.64s (%s) needs %zu of %zu bytes, the plan may have %zu",
                   task->node->name, task->node->op->name, task_bytes(plan, task), total, plan->most_bytes);
}

// Before anything is placed: no task asks for more than the whole plan may have, so that sums do not
// overflow.
static pm_status check_tasks(const pm_plan *plan)
{
    for (size_t t = 0; t < plan->task_count; t++)
        if (task_bytes(plan, &plan->tasks[t]) > plan->most_bytes)
            return refuse_size(plan, &plan->tasks[t], task_bytes(plan, &plan->tasks[t]));
    return pm_ok();
}

static pm_status check_total(const pm_plan *plan, size_t total)
{
    const pm_task *largest = NULL;
    for (size_t t = 0; t < plan->task_count; t++)
        if (!largest || task_bytes(plan, &plan->tasks[t]) > task_bytes(plan, largest))
            largest = &plan->tasks[t];
    if (total <= plan->most_bytes)
        return pm_ok();
    if (plan->least && total < *plan->least)
        *plan->least = total;
    return refuse_size(plan, largest, total);
}

// What lives as long as the plan; called with no arena to measure, then again to allocate.
static size_t reserve_kept(pm_plan *plan)
{
    const pm_graph *p = plan->program;
    size_t total = 0;
    plan->tree_slots = plan->most_threads > 1;
    for (uint32_t lanes = plan->training ? plan->max_lanes : 1; lanes > 1; lanes /= 2)
        plan->tree_slots++;
#define RESERVE(pointer, bytes)                                                                              \
    do {                                                                                                     \
        total += pm_align(bytes);                                                                            \
        if (plan->arena)                                                                                     \
            (pointer) = pm_arena_alloc(plan->arena, bytes);                                                  \
    } while (0)
    for (uint32_t i = 0; i < p->value_count; i++)
        if (plan->places[i] == PM_PLACE_KEPT && plan->roots[i] == i)
            RESERVE(plan->memory[i], value_bytes(plan, i));
    for (size_t i = 0; i < plan->task_count; i++)
        RESERVE(plan->tasks[i].packed, plan->tasks[i].packed_bytes);
    for (size_t i = 0; plan->training && i < p->param_count; i++)
        if (plan->gradient_values[i] == PM_NO_VALUE && !p->params[i].frozen)
            RESERVE(plan->gradients[i], p->params[i].count * sizeof(float));
    RESERVE(plan->tree, plan->most_threads * plan->tree_slots * plan->tree_count * sizeof(float));
#undef RESERVE
    return total;
}

// All that tasks make and use, each by itself and for all lanes.
static size_t unshared_bytes(const pm_plan *plan)
{
    size_t total = 0;
    for (size_t t = 0; t < plan->task_count; t++) {
        const pm_node *node = plan->tasks[t].node;
        total += pm_align(scratch_bytes(plan, &plan->tasks[t]));
        for (uint32_t i = 0; i < node->output_count; i++)
            if (node->outputs[i] != PM_NO_VALUE && plan->places[node->outputs[i]] != PM_PLACE_KEPT)
                total += pm_align(all_lanes_bytes(plan, node->outputs[i]));
    }
    return total;
}

// Each parameter's gradient is a sum of its own (model/gradient.c); that of a sparse one is of some rows.
static void find_gradient(pm_plan *plan, size_t param)
{
    const uint32_t value = plan->gradient_values[param];
    if (value == PM_NO_VALUE)
        return;
    plan->gradients[param] = pm_plan_memory(plan, value);
    if (plan->sparse[param].ids == PM_NO_VALUE && plan->places[plan->roots[value]] == PM_PLACE_KEPT)
        plan->own_gradients[param] = plan->gradients[param];
}

static pm_status reserve_all(layout *l)
{
    pm_plan *plan = l->plan;
    const size_t values = plan->program->value_count;
    size_t peak = 0;
    pm_status status = check_tasks(plan);
    if (status.code == PM_OK)
        status = pm_buffers_place(l->buffers, values + plan->task_count, &peak);
    if (status.code != PM_OK)
        return status;
    const size_t kept = reserve_kept(plan), total = kept + pm_align(peak);
    status = check_total(plan, total);
    if (status.code == PM_OK)
        status = pm_arena_create(&plan->arena, total ? total : PM_ALIGN); // an empty one has no address
    if (status.code != PM_OK)
        return status;
    plan->bytes_unshared = kept + unshared_bytes(plan);
    plan->base = pm_arena_alloc(plan->arena, 0);
    (void)reserve_kept(plan);
    unsigned char *shared = plan->shared = pm_arena_alloc(plan->arena, peak);
    if (!shared)
        return pm_fail(PM_INTERNAL, "the plan outgrew its reservation");
    for (size_t i = 0; i < values; i++)
        if (l->buffers[i].bytes > 0)
            plan->memory[i] = shared + l->buffers[i].offset;
    for (size_t t = 0; t < plan->task_count; t++)
        plan->tasks[t].scratch = shared + l->buffers[values + t].offset;
    for (size_t i = 0; plan->training && i < plan->program->param_count; i++)
        find_gradient(plan, i);
    return status;
}

pm_status pm_plan_place(pm_plan *plan)
{
    const size_t values = plan->program->value_count;
    layout l = {.plan = plan,
                .last = calloc(values + 1, sizeof(uint32_t)),
                .root_last = calloc(values + 1, sizeof(uint32_t)),
                .root_first = calloc(values + 1, sizeof(uint32_t)),
                .buffers =
                    pm_region_alloc(plan->region, (values + plan->task_count + 1) * sizeof(pm_lifetime))};
    plan->lifetimes = l.buffers;
    pm_status status = pm_fail(PM_NO_MEMORY, "the layout of a plan");
    if (l.last && l.root_last && l.root_first && l.buffers) {
        choose_places(&l);
        find_last_readers(&l);
        find_roots(&l);
        bind_outputs(&l);
        find_local(&l);
        set_lifetimes(&l);
        status = reserve_all(&l);
    }
    free(l.last);
    free(l.root_last);
    free(l.root_first);
    return status;
}
