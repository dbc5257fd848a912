// Running the tasks of a plan over lanes, on the plan's threads. A task ends on all of them before the next
// begins: what later tasks make lies where earlier ones have finished.
#include "model/plan_impl.h"

// Less work than this is done sooner by one thread than it is handed out.
enum { WORTH_SHARING_NS = 5000 };

// The lanes [lane, lane + lanes), run by one of the plan's threads. place: where in the memory of what is
// local to a group the first of them is.
typedef struct span {
    uint32_t thread, lane, lanes, place;
} span;

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

static pm_call call_of(const pm_plan *plan, const pm_task *task, uint32_t thread)
{
    const size_t inputs = task->node->input_count, outputs = task->node->output_count;
    pm_call call = {.in = task->lane_inputs + thread * inputs,
                    .out = task->lane_outputs + thread * outputs,
                    .lanes = 1,
                    .scratch = (unsigned char *)task->scratch + thread * pm_align(task->scratch_bytes),
                    .packed = task->prepared ? task->packed : NULL,
                    .count = task->out[0] ? task->out[0]->count : 0};
    if (plan->step) {
        call.seed = plan->step->seed;
        call.step = plan->step->step;
        call.first_lane = plan->step->first_lane;
    }
    return call;
}

// Lets a thread's call read and write the memory of the lane, or of what is local from place on.
static void enter_lane(const pm_plan *plan, const pm_task *task, const span *at)
{
    const pm_node *node = task->node;
    const void **inputs = task->lane_inputs + (size_t)at->thread * node->input_count;
    void **outputs = task->lane_outputs + (size_t)at->thread * node->output_count;
    for (uint32_t i = 0; i < node->input_count; i++) {
        const bool local = task->inputs[i] && plan->local[plan->roots[node->inputs[i]]];
        const size_t offset = (local ? at->place : at->lane) * task->input_stride[i];
        inputs[i] = task->inputs[i] ? (const unsigned char *)task->inputs[i] + offset : NULL;
    }
    for (uint32_t i = 0; i < node->output_count; i++) {
        const bool local = task->outputs[i] && plan->local[plan->roots[node->outputs[i]]];
        const size_t offset = (local ? at->place : at->lane) * task->output_stride[i];
        outputs[i] = task->outputs[i] ? (unsigned char *)task->outputs[i] + offset : NULL;
    }
}

// A task whose lanes are independent, or that is the same for all.
static void run_lanes(const pm_plan *plan, const pm_task *task, span at)
{
    pm_call call = call_of(plan, task, at.thread);
    const uint32_t first_lane = call.first_lane, end = at.lane + at.lanes;
    const uint32_t together = task->whole ? at.lanes : 1;
    for (call.lanes = together; at.lane < end; at.lane += together, at.place += together) {
        enter_lane(plan, task, &at);
        call.first_lane = first_lane + at.lane;
        task->node->op->run(task, &call);
    }
}

// Where a thread keeps a partial sum of the level.
static float *slot(const pm_plan *plan, uint32_t thread, uint32_t level)
{
    return plan->tree + ((size_t)thread * plan->tree_slots + level) * plan->tree_count;
}

// out = the sum over the lanes of at along the aligned binary tree of what the task makes for each, count
// elements from first. A binary counter: level[i] waits for its right neighbour of the same size; left +
// right, as in any sub-block.
static void sum_lanes(const pm_plan *plan, const pm_task *task, span at, size_t first, size_t count,
                      float *out)
{
    float *level[PM_MAX_TREE] = {out};
    for (uint32_t i = 1; i < PM_MAX_TREE && 1u << i <= plan->max_lanes; i++)
        level[i] = slot(plan, at.thread, i - 1);
    void **outputs = task->lane_outputs + (size_t)at.thread * task->node->output_count;
    pm_call call = call_of(plan, task, at.thread);
    call.first = first;
    call.count = count;
    const uint32_t first_lane = call.first_lane;
    uint32_t top = 0;
    for (uint32_t lane = 0; lane < at.lanes; lane++, at.lane++) {
        enter_lane(plan, task, &at);
        outputs[0] = level[top++];
        call.first_lane = first_lane + at.lane;
        task->node->op->run(task, &call);
        for (uint32_t bits = lane; bits & 1; bits >>= 1) {
            plan->kernels->add(level[top - 2], level[top - 1], count);
            top--;
        }
    }
}

// What the threads share: a group of tasks, or one task, in shares of which a thread takes the one of its
// number.
typedef struct work {
    pm_plan *plan;
    const pm_task *task;
    const pm_group *group;
    uint32_t shares;
} work;

static void run_share(void *ctx, uint32_t thread)
{
    const work *w = ctx;
    const uint64_t lanes = w->plan->lanes;
    if (thread >= w->shares)
        return;
    const uint32_t first = (uint32_t)(lanes * thread / w->shares);
    const uint32_t end = (uint32_t)(lanes * (thread + 1) / w->shares);
    run_lanes(w->plan, w->task, (span){thread, first, end - first, first});
}

// Of one lane there are no levels to keep in cache.
static bool is_made_at_once(const work *w)
{
    return w->plan->lanes == 1 && w->task->unit;
}

// A sum that is made in parts: each thread makes every so many-th, over all lanes.
static void sum_share_of_parts(void *ctx, uint32_t thread)
{
    const work *w = ctx;
    const size_t count = w->task->out[0]->count;
    size_t part = w->task->part ? w->task->part : count;
    if (is_made_at_once(w))
        part = (count / w->task->unit + w->shares - 1) / w->shares * w->task->unit;
    if (thread >= w->shares)
        return;
    for (size_t first = thread * part; first < count; first += w->shares * part)
        sum_lanes(w->plan, w->task, (span){thread, 0, w->plan->lanes, 0}, first,
                  count - first < part ? count - first : part, (float *)w->task->outputs[0] + first);
}

static float *share_of_sum(const work *w, uint32_t share)
{
    return share == 0 ? w->task->outputs[0] : slot(w->plan, share, w->plan->tree_slots - 1);
}

// A sum that is made at once: each thread makes that of an aligned block of lanes, a subtree.
static void sum_share_of_lanes(void *ctx, uint32_t thread)
{
    const work *w = ctx;
    const uint32_t lanes = w->plan->lanes / w->shares;
    if (thread < w->shares)
        sum_lanes(w->plan, w->task, (span){thread, thread * lanes, lanes, 0}, 0, w->task->out[0]->count,
                  share_of_sum(w, thread));
}

// Then each adds the subtrees' sums for some of the elements.
static void join_share(void *ctx, uint32_t thread)
{
    const work *w = ctx;
    if (thread >= w->shares)
        return;
    const size_t count = w->task->out[0]->count;
    const size_t first = count * thread / w->shares, end = count * (thread + 1) / w->shares;
    for (uint32_t apart = 1; apart < w->shares; apart *= 2)
        for (uint32_t i = 0; i < w->shares; i += 2 * apart)
            w->plan->kernels->add(share_of_sum(w, i) + first, share_of_sum(w, i + apart) + first,
                                  end - first);
}

static void sum_task(work *w)
{
    const size_t count = w->task->out[0]->count;
    if (w->shares == 1 || (w->task->part && w->task->part < count) || is_made_at_once(w)) {
        if (w->shares > 1)
            pm_threads_run(w->plan->threads, sum_share_of_parts, w);
        else
            sum_share_of_parts(w, 0);
        return;
    }
    uint32_t shares = 1; // a power of two, as the lanes are
    while (2 * shares <= w->shares && 2 * shares <= w->plan->lanes)
        shares *= 2;
    w->shares = shares;
    pm_threads_run(w->plan->threads, sum_share_of_lanes, w);
    pm_threads_run(w->plan->threads, join_share, w);
}

static uint32_t shares_of(const pm_plan *plan, uint64_t lane_ns)
{
    return lane_ns * plan->lanes < WORTH_SHARING_NS ? 1 : pm_threads_count(plan->threads);
}

void pm_plan_run_task(pm_plan *plan, pm_task *task)
{
    if (task->node->op->traits & PM_TRAIT_VIEW)
        return;
    const int64_t start = plan->now_ns ? plan->now_ns() : 0;
    work w = {.plan = plan, .task = task, .shares = task->joins ? 1 : shares_of(plan, task->lane_ns)};
    if (task->is_shared)
        run_lanes(plan, task, (span){.lanes = 1});
    else if (task->sums_lanes)
        sum_task(&w);
    else if (w.shares == 1)
        run_share(&w, 0);
    else
        pm_threads_run(plan->threads, run_share, &w);
    if (plan->now_ns)
        plan->nanoseconds[task - plan->tasks] = plan->now_ns() - start;
}

// A thread's blocks of a group's lanes, each through all of the tasks; the first thread takes the time.
static void run_blocks(void *ctx, uint32_t thread)
{
    const work *w = ctx;
    pm_plan *plan = w->plan;
    const pm_group *group = w->group;
    const uint32_t even = (plan->lanes + w->shares - 1) / w->shares;
    const uint32_t block = group->block < even ? group->block : even;
    const bool timed = plan->now_ns && thread == 0;
    for (uint64_t lane = (uint64_t)thread * block; lane < plan->lanes; lane += (uint64_t)w->shares * block) {
        const uint32_t left = plan->lanes - (uint32_t)lane, lanes = left < block ? left : block;
        for (uint32_t t = group->first; t < group->first + group->count; t++) {
            if (plan->tasks[t].node->op->traits & PM_TRAIT_VIEW)
                continue;
            const int64_t start = timed ? plan->now_ns() : 0;
            run_lanes(plan, &plan->tasks[t], (span){thread, (uint32_t)lane, lanes, thread * group->block});
            if (timed)
                plan->nanoseconds[t] += plan->now_ns() - start;
        }
    }
}

void pm_plan_run_group(pm_plan *plan, const pm_group *group)
{
    uint64_t lane_ns = 0;
    for (uint32_t t = group->first; t < group->first + group->count; t++) {
        lane_ns += plan->tasks[t].lane_ns;
        if (plan->now_ns)
            plan->nanoseconds[t] = 0;
    }
    work w = {.plan = plan, .group = group, .shares = shares_of(plan, lane_ns)};
    if (w.shares == 1)
        run_blocks(&w, 0);
    else
        pm_threads_run(plan->threads, run_blocks, &w);
}
