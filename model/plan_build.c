// Making a plan: the program, its tasks, one reservation for everything.
#include "model/blas.h"
#include "model/cost.h"
#include "model/plan_impl.h"
#include "model/program.h"
#include "model/program_fuse.h"
#include "model/program_fuse_pairs.h"
#include "model/program_share.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_shared(const pm_graph *p, const pm_node *node)
{
    for (uint32_t i = 0; i < node->output_count; i++)
        if (node->outputs[i] != PM_NO_VALUE && !p->values[node->outputs[i]].shared)
            return false;
    return true;
}

// What follows from parameters alone goes first, so that it does not part what runs for each request.
static pm_status shared_first(pm_graph *p)
{
    pm_node *sorted = calloc(p->node_count + 1, sizeof *sorted);
    size_t count = 0;
    if (!sorted)
        return pm_fail(PM_NO_MEMORY, "a program of %zu nodes", p->node_count);
    for (int shared = 1; shared >= 0; shared--)
        for (size_t i = 0; i < p->node_count; i++)
            if (is_shared(p, &p->nodes[i]) == (shared == 1))
                sorted[count++] = p->nodes[i];
    if (count > 0)
        memcpy(p->nodes, sorted, count * sizeof *sorted);
    free(sorted);
    return pm_ok();
}

static pm_status make_program(pm_plan *plan)
{
    const pm_graph *g = plan->graph;
    pm_tensor *inputs = calloc(g->input_count + 1, sizeof *inputs);
    if (!inputs)
        return pm_fail(PM_NO_MEMORY, "%zu inputs", g->input_count);
    pm_status status = pm_ok();
    if (!plan->given)
        status = pm_program_lane(g, plan->rows_per_lane, inputs);
    else if (g->input_count > 0)
        memcpy(inputs, plan->given, g->input_count * sizeof *inputs);
    if (status.code == PM_OK)
        status = pm_program_create(&plan->program, g, inputs, plan->training);
    free(inputs);
    if (status.code == PM_OK)
        status = pm_program_share(plan->program);
    if (status.code == PM_OK)
        status = pm_program_fuse(plan->program, plan->training);
    if (status.code == PM_OK)
        status = pm_program_fuse_pairs(plan->program);
    if (status.code == PM_OK && plan->training)
        status = pm_plan_find_sparse(plan);
    if (status.code == PM_OK && plan->training)
        return pm_plan_add_training(plan);
    if (status.code == PM_OK)
        status = shared_first(plan->program);
    return status.code == PM_OK ? pm_program_prune(plan->program, NULL, 0) : status;
}

// Which producers are run by the lane sum that alone reads them, lane by lane into the tree's levels, so that
// what each lane contributes is never there all at once. merged (nodes): the producer's node, or the node
// itself; skipped: runs with another one.
typedef struct merging {
    uint32_t *uses, *producer; // (values)
    uint32_t *merged;          // (nodes)
    bool *skipped;             // (nodes)
} merging;

static void find_merges(const pm_graph *p, merging *m)
{
    for (size_t n = 0; n < p->node_count; n++) {
        const pm_node *node = &p->nodes[n];
        m->merged[n] = (uint32_t)n;
        for (uint32_t i = 0; i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                m->uses[node->inputs[i]]++;
        for (uint32_t i = 0; i < node->output_count; i++)
            if (node->outputs[i] != PM_NO_VALUE)
                m->producer[node->outputs[i]] = (uint32_t)n;
    }
    for (size_t n = 0; n < p->node_count; n++) {
        const pm_node *node = &p->nodes[n];
        if (!(node->op->traits & PM_TRAIT_SUMS_LANES) || m->uses[node->inputs[0]] != 1)
            continue;
        const uint32_t producer = m->producer[node->inputs[0]];
        if (producer == PM_NO_VALUE)
            continue;
        const pm_node *made = &p->nodes[producer];
        bool alone = made->op->run && made->outputs[0] == node->inputs[0];
        for (uint32_t i = 1; i < made->output_count; i++)
            alone = alone && made->outputs[i] == PM_NO_VALUE;
        if (!alone)
            continue;
        m->merged[n] = producer;
        m->skipped[producer] = true;
    }
}

static pm_status make_task(pm_plan *plan, const merging *m, size_t index)
{
    const pm_graph *p = plan->program;
    const bool sums = p->nodes[index].op->traits & PM_TRAIT_SUMS_LANES;
    const pm_node *node = &p->nodes[m->merged[index]];
    if (m->merged[index] != index) {
        pm_node *copy = pm_region_copy(plan->region, node, sizeof *node);
        uint32_t *outputs = pm_region_copy(plan->region, node->outputs, node->output_count * sizeof *outputs);
        if (!copy || !outputs)
            return pm_fail(PM_NO_MEMORY, "a task");
        outputs[0] = p->nodes[index].outputs[0];
        copy->outputs = outputs;
        node = copy;
    }
    pm_task *task = &plan->tasks[plan->task_count++];
    pm_status status =
        pm_task_make(task, p, node, sums, plan->training, plan->max_lanes, plan->most_threads, plan->region);
    task->precision = plan->precision;
    if (status.code == PM_OK)
        status = pm_task_plan(task);
    if (status.code != PM_OK)
        return pm_wrap(status, "node %.64s (%s)", node->name, node->op->name);
    task->lane_ns = pm_task_lane_ns(task);
    if (!sums)
        return status;
    task->whole = false;
    const size_t count = task->out[0]->count, level = task->part ? task->part : count;
    plan->tree_count = plan->tree_count > level ? plan->tree_count : level;
    return status;
}

static bool is_loss(const pm_plan *plan, const pm_node *node)
{
    return plan->training && node->output_count > 1 && node->outputs[1] == plan->row_loss;
}

static pm_status make_tasks(pm_plan *plan)
{
    const pm_graph *p = plan->program;
    const size_t n = p->node_count, v = p->value_count;
    merging m = {calloc(v, sizeof(uint32_t)), calloc(v, sizeof(uint32_t)), calloc(n + 1, sizeof(uint32_t)),
                 calloc(n + 1, sizeof(bool))};
    plan->tasks = calloc(n + 1, sizeof *plan->tasks);
    pm_status status = pm_fail(PM_NO_MEMORY, "a plan of %zu tasks", n);
    if (m.uses && m.producer && m.merged && m.skipped && plan->tasks) {
        status = pm_ok();
        for (size_t i = 0; i < v; i++)
            m.producer[i] = PM_NO_VALUE;
        find_merges(p, &m);
    }
    for (size_t i = 0; status.code == PM_OK && i < n; i++) {
        if (!m.skipped[i])
            status = make_task(plan, &m, i);
        if (is_loss(plan, &p->nodes[i]) || !plan->training)
            plan->forward_count = plan->task_count;
    }
    free(m.uses);
    free(m.producer);
    free(m.merged);
    free(m.skipped);
    return status;
}

// A precision that changes nothing is a mistake.
static pm_status check_pairs(const pm_plan *plan)
{
    for (size_t t = 0; t < plan->task_count; t++)
        if (plan->tasks[t].pairs)
            return pm_ok();
    return pm_fail(PM_INVALID, "precision bf16: the model has no Gemm and no Conv that it is for");
}

static pm_status make_lists(pm_plan *plan)
{
    const size_t v = plan->program->value_count, params = plan->graph->param_count;
    plan->roots = pm_region_alloc(plan->region, v * sizeof *plan->roots);
    plan->places = pm_region_alloc(plan->region, v * sizeof *plan->places);
    plan->memory = pm_region_alloc(plan->region, v * sizeof *plan->memory);
    plan->gradients = pm_region_alloc(plan->region, params * sizeof *plan->gradients);
    plan->own_gradients = pm_region_alloc(plan->region, params * sizeof *plan->own_gradients);
    plan->direct = pm_region_alloc(plan->region, plan->graph->output_count * sizeof *plan->direct);
    return plan->roots && plan->places && plan->memory && plan->gradients && plan->own_gradients &&
                   plan->direct
               ? pm_ok()
               : pm_fail(PM_NO_MEMORY, "a plan of %zu values", v);
}

static void set_initial_values(pm_plan *plan)
{
    for (size_t i = 0; i < plan->graph->param_count; i++) {
        const pm_param *param = &plan->graph->params[i];
        void **memory = &plan->memory[plan->program->param_values[i]];
        if (!plan->training)
            *memory = (void *)(uintptr_t)param->initial; // read only
        else if (param->initial && !param->sparse)
            memcpy(*memory, param->initial, param->count * sizeof(float));
    }
}

// The whole creation of either kind of plan.
static pm_status build(pm_plan **plan, const pm_plan *wanted)
{
    pm_status status = pm_blas_check();
    if (status.code != PM_OK)
        return status;
    pm_plan *p = malloc(sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a plan");
    *p = *wanted;
    p->kernels = pm_kernels_get();
    p->region = pm_region_create();
    status = p->region ? make_program(p) : pm_fail(PM_NO_MEMORY, "a plan");
    if (status.code == PM_OK)
        status = make_tasks(p);
    if (status.code == PM_OK && p->precision == PM_PRECISION_BF16)
        status = check_pairs(p);
    if (status.code == PM_OK)
        status = make_lists(p);
    if (status.code == PM_OK)
        status = pm_plan_group(p);
    if (status.code == PM_OK)
        status = pm_plan_place(p);
    if (status.code == PM_OK && p->training)
        status = pm_plan_find_events(p);
    if (status.code != PM_OK) {
        pm_plan_destroy(&p);
        return status;
    }
    set_initial_values(p);
    pm_plan_connect(p);
    *plan = p;
    return status;
}

static size_t machine_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : (size_t)1 << 32;
}

pm_status pm_plan_create_training(pm_plan **plan, const pm_graph *graph, pm_loss loss, uint32_t rows_per_lane,
                                  uint32_t max_lanes, uint32_t total_rows)
{
    const pm_plan_options options = {0};
    return pm_plan_create_training_with(plan, graph, loss, rows_per_lane, max_lanes, total_rows, &options);
}

pm_status pm_plan_create_training_with(pm_plan **plan, const pm_graph *graph, pm_loss loss,
                                       uint32_t rows_per_lane, uint32_t max_lanes, uint32_t total_rows,
                                       const pm_plan_options *options)
{
    static const uint32_t segments[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};
    if (options->threads > PM_THREADS_MAX)
        return pm_fail(PM_INVALID, "a plan for %u threads", options->threads);
    if (rows_per_lane == 0 || total_rows == 0 || max_lanes == 0 || (max_lanes & (max_lanes - 1)) ||
        max_lanes > PM_MAX_LANES || rows_per_lane > UINT32_MAX / PM_MAX_LANES / PM_MAX_LANES)
        return pm_fail(PM_INVALID, "%u rows a lane, %u lanes (a power of two up to %d), %u rows in all",
                       rows_per_lane, max_lanes, PM_MAX_LANES, total_rows);
    const size_t places = pm_loss_places(graph, loss);
    if (places > UINT32_MAX / PM_MAX_LANES / rows_per_lane)
        return pm_fail(PM_INVALID, "%u rows of %zu places a lane", rows_per_lane, places);
    size_t least = SIZE_MAX;
    pm_plan wanted = {.graph = graph,
                      .least = &least,
                      .training = true,
                      .loss = loss,
                      .precision = options->precision,
                      .rows_per_lane = rows_per_lane,
                      .max_lanes = max_lanes,
                      .row_losses = (uint32_t)places,
                      .most_threads = options->threads ? options->threads : 1,
                      .most_bytes = options->most_bytes ? options->most_bytes : machine_bytes(),
                      .loss_scale = 1 / ((float)total_rows * (float)places)};
    pm_status status = pm_fail(PM_NO_MEMORY, "no room");
    for (size_t i = 0; status.code == PM_NO_MEMORY && i < sizeof segments / sizeof segments[0]; i++) {
        wanted.segments = segments[i];
        status = build(plan, &wanted);
    }
    if (status.code == PM_NO_MEMORY && least != SIZE_MAX)
        status = pm_fail(PM_NO_MEMORY,
                         "a step needs %zu bytes even where it makes activations again, it may have %zu",
                         least, wanted.most_bytes);
    return pm_wrap(status, "training plan");
}

pm_status pm_plan_create_inference(pm_plan **plan, const pm_graph *graph, uint32_t max_rows)
{
    const pm_plan_options options = {0};
    return pm_plan_create_inference_with(plan, graph, max_rows, &options);
}

pm_status pm_plan_create_inference_with(pm_plan **plan, const pm_graph *graph, uint32_t max_rows,
                                        const pm_plan_options *options)
{
    if (max_rows == 0 || max_rows > UINT32_MAX / PM_MAX_LANES || options->threads > PM_THREADS_MAX)
        return pm_fail(PM_INVALID, "a plan of %u rows, %u threads", max_rows, options->threads);
    const pm_plan wanted = {.graph = graph,
                            .rows_per_lane = 1,
                            .max_lanes = max_rows,
                            .most_threads = options->threads ? options->threads : 1,
                            .most_bytes = options->most_bytes ? options->most_bytes : machine_bytes()};
    return pm_wrap(build(plan, &wanted), "inference plan");
}

pm_status pm_plan_create_evaluation(pm_plan **plan, const pm_graph *graph, const pm_tensor *given)
{
    const pm_plan wanted = {.graph = graph,
                            .given = given,
                            .rows_per_lane = 1,
                            .max_lanes = 1,
                            .most_threads = 1,
                            .most_bytes = machine_bytes()};
    return build(plan, &wanted);
}

void pm_plan_destroy(pm_plan **plan)
{
    if (!plan || !*plan)
        return;
    pm_arena_destroy(&(*plan)->arena);
    free((*plan)->tasks);
    pm_graph_destroy(&(*plan)->program);
    pm_region_destroy(&(*plan)->region);
    free(*plan);
    *plan = NULL;
}
