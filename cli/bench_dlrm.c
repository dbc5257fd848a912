// Training steps of a DLRM in one process: threads that each own an aligned part of the batch's lanes, and
// share the tables, of which a step reads and changes the rows that its data name, and the work of the
// update.
#include "cli/bench.h"
#include "core/arena.h"
#include "core/rng.h"
#include "model/plan.h"
#include "ps/merge.h"
#include "ps/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH = 2048,
    BATCHES = 16,
    STEPS = 4,
    NUMBERS = 13,
    TABLES = 26,
    VOCABULARY = 100000,
    WIDTH = 16,
    FEATURES = NUMBERS + TABLES,
    AHEAD = 20
};

#define SKEW 1.05 // Zipf's: the k-th row is asked for as often as k to the power of -SKEW

typedef struct fleet fleet;

typedef struct member {
    fleet *fleet;
    uint32_t index;
    pm_plan *plan;
    float *inputs, *targets; // (BATCHES, rows, FEATURES), (BATCHES, rows)
    uint32_t *ids[2];        // merged rows of one table, on the way up the tree
    float *rows[2], *before; // (most rows, WIDTH)
    pm_status status;
} member;

struct fleet {
    const pm_graph *graph;
    pm_job_optimizer optimizer;
    uint32_t threads;
    member *members;
    float **values[2], **moments; // (params); of tables' values the first alone
    uint64_t step;                // that runs, or the next
    pm_threads *crew;
};

static bool is_table(const fleet *f, size_t param)
{
    return pm_graph_param(f->graph, param)->sparse;
}

static void copy_rows(const float *table, const uint32_t *ids, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch(table + (size_t)ids[i + AHEAD] * WIDTH);
        memcpy(to + i * WIDTH, table + (size_t)ids[i] * WIDTH, WIDTH * sizeof *to);
    }
}

static pm_status before_param(void *ctx, size_t param)
{
    const member *m = ctx;
    const fleet *f = m->fleet;
    size_t count;
    const uint32_t *ids = pm_plan_rows(m->plan, param, &count);
    if (ids)
        copy_rows(f->values[0][param], ids, count, pm_plan_param(m->plan, param));
    return pm_ok();
}

static void update_dense(fleet *f, size_t p, uint32_t index, uint64_t step)
{
    const size_t count = pm_graph_param(f->graph, p)->count, first = count * index / f->threads,
                 last = count * (index + 1) / f->threads;
    for (uint32_t apart = 1; apart < f->threads; apart *= 2)
        for (uint32_t i = 0; i < f->threads; i += 2 * apart) {
            float *left = (float *)(uintptr_t)pm_plan_gradient(f->members[i].plan, p); // this run's to change
            const float *right = pm_plan_gradient(f->members[i + apart].plan, p);
            for (size_t e = first; e < last; e++)
                left[e] += right[e];
        }
    pm_optimizer_apply(&f->optimizer, f->optimizer.learning_rate, step,
                       &(pm_update){.count = last - first,
                                    .gradient = pm_plan_gradient(f->members[0].plan, p) + first,
                                    .from = f->values[step % 2][p] + first,
                                    .to = f->values[(step + 1) % 2][p] + first,
                                    .moments = {f->moments[p] + first}});
}

// The threads' rows one after another: with two of them that is their tree.
static void update_table(fleet *f, size_t p, member *m, uint64_t step)
{
    pm_row_list all = {.rows = pm_plan_gradient(f->members[0].plan, p)};
    all.ids = pm_plan_rows(f->members[0].plan, p, &all.count);
    for (uint32_t i = 1; i < f->threads; i++) {
        pm_row_list more = {.rows = pm_plan_gradient(f->members[i].plan, p)};
        more.ids = pm_plan_rows(f->members[i].plan, p, &more.count);
        const size_t count = pm_rows_merge(&all, &more, WIDTH, m->ids[i % 2], m->rows[i % 2]);
        all = (pm_row_list){m->ids[i % 2], m->rows[i % 2], count};
    }
    pm_optimizer_apply_rows(&f->optimizer, f->optimizer.learning_rate, step,
                            &(pm_rows){.ids = all.ids,
                                       .count = all.count,
                                       .width = WIDTH,
                                       .gradient = all.rows,
                                       .from = m->before,
                                       .to = f->values[0][p],
                                       .moments = {f->moments[p]}});
}

static void update(fleet *f, member *m, uint64_t step)
{
    uint32_t tables = 0;
    for (size_t p = 0; p < pm_graph_param_count(f->graph); p++)
        if (!is_table(f, p))
            update_dense(f, p, m->index, step);
        else if (tables++ % f->threads == m->index)
            update_table(f, p, m, step);
}

static void fill(const fleet *f, const member *m, uint64_t step)
{
    const size_t rows = BATCH / f->threads, batch = step % BATCHES;
    memcpy(pm_plan_input(m->plan), m->inputs + batch * rows * FEATURES, rows * FEATURES * sizeof(float));
    memcpy(pm_plan_target(m->plan), m->targets + batch * rows, rows * sizeof(float));
    for (size_t p = 0; p < pm_graph_param_count(f->graph); p++)
        if (!is_table(f, p))
            memcpy(pm_plan_param(m->plan, p), f->values[step % 2][p],
                   pm_graph_param(f->graph, p)->count * sizeof(float));
}

static void run_plan(void *ctx, uint32_t index)
{
    fleet *f = ctx;
    member *m = &f->members[index];
    const pm_step_hooks hooks = {.before_param = before_param, .ctx = m};
    pm_step step = {.seed = 1, .step = f->step, .first_lane = index, .lane_count = 1, .hooks = &hooks};
    fill(f, m, f->step);
    m->status = pm_plan_step(m->plan, &step);
}

static void run_update(void *ctx, uint32_t index)
{
    fleet *f = ctx;
    update(f, &f->members[index], f->step);
}

// STEPS steps of all threads.
static pm_status run_steps(void *ctx)
{
    fleet *f = ctx;
    for (unsigned i = 0; i < STEPS; i++, f->step++) {
        pm_threads_run(f->crew, run_plan, f);
        for (uint32_t t = 0; t < f->threads; t++)
            if (f->members[t].status.code != PM_OK)
                return f->members[t].status;
        pm_threads_run(f->crew, run_update, f);
    }
    return pm_ok();
}

// --- making it

static pm_status make_graph(pm_graph **graph)
{
    static pm_layer bottom[] = {{.op = PM_OP_GEMM, .units = 512},   {.op = PM_OP_RELU},
                                {.op = PM_OP_GEMM, .units = 256},   {.op = PM_OP_RELU},
                                {.op = PM_OP_GEMM, .units = 64},    {.op = PM_OP_RELU},
                                {.op = PM_OP_GEMM, .units = WIDTH}, {.op = PM_OP_RELU}};
    static pm_layer layers[] = {{.op = PM_OP_DOT_INTERACTION,
                                 .numbers = NUMBERS,
                                 .vocabulary = VOCABULARY,
                                 .units = WIDTH,
                                 .sparse = true,
                                 .layers = bottom,
                                 .layer_count = sizeof bottom / sizeof bottom[0]},
                                {.op = PM_OP_GEMM, .units = 512},
                                {.op = PM_OP_RELU},
                                {.op = PM_OP_GEMM, .units = 256},
                                {.op = PM_OP_RELU},
                                {.op = PM_OP_GEMM, .units = 1}};
    char name[] = "x";
    int64_t shape[] = {FEATURES};
    const pm_job job = {.seed = 1,
                        .loss = PM_LOSS_BINARY_CROSS_ENTROPY,
                        .model = {.input_name = name,
                                  .input_shape = shape,
                                  .input_rank = 1,
                                  .layers = layers,
                                  .layer_count = sizeof layers / sizeof layers[0]}};
    return pm_graph_from_job(graph, &job);
}

// Multiply-adds of a row, forward and backward; the first layer's input has no gradient.
static double operations(void)
{
    const double first = NUMBERS * 512, pairs = (TABLES + 1) * (TABLES + 1) * WIDTH;
    const double rest = 512 * 256 + 256 * 64 + 64 * 16 + (16 + 27 * 13) * 512 + 512 * 256 + 256;
    return 4 * first + 6 * (rest + pairs);
}

static double *make_shares(void)
{
    double *shares = malloc(VOCABULARY * sizeof *shares), sum = 0;
    for (int k = 0; shares && k < VOCABULARY; k++)
        shares[k] = sum += pow(k + 1, -SKEW);
    for (int k = 0; shares && k < VOCABULARY; k++)
        shares[k] /= sum;
    return shares;
}

static uint32_t draw(const double *shares, double part)
{
    uint32_t low = 0, high = VOCABULARY - 1;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (shares[middle] < part)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static pm_status make_rows(member *m, size_t rows, const double *shares)
{
    const pm_rng_key key = pm_rng_key_make(11 + m->index, "dlrm");
    m->inputs = malloc(BATCHES * rows * FEATURES * sizeof *m->inputs);
    m->targets = malloc(BATCHES * rows * sizeof *m->targets);
    if (!m->inputs || !m->targets)
        return pm_fail(PM_NO_MEMORY, "training rows");
    for (size_t r = 0; r < BATCHES * rows; r++) {
        for (size_t i = 0; i < FEATURES; i++) {
            const double uniform = pm_rng_uniform(key, r, i);
            m->inputs[r * FEATURES + i] =
                i < NUMBERS ? (float)(3.4 * uniform - 1.7) : (float)draw(shares, uniform);
        }
        m->targets[r] = pm_rng_uniform(key, r, FEATURES) < 0.25;
    }
    return pm_ok();
}

// As a shard keeps a slice: on lines of its own, and in memory that is there before the first step.
static float *make_floats(size_t count, float value)
{
    float *floats = aligned_alloc(PM_ALIGN, pm_align(count * sizeof *floats));
    for (size_t i = 0; floats && i < count; i++)
        floats[i] = value;
    return floats;
}

static pm_status make_member(fleet *f, uint32_t index, const double *shares)
{
    member *m = &f->members[index];
    const uint32_t rows = BATCH / f->threads;
    m->fleet = f;
    m->index = index;
    m->status = pm_ok();
    for (int i = 0; i < 2; i++) {
        m->ids[i] = malloc(BATCH * sizeof(uint32_t));
        m->rows[i] = make_floats(BATCH * WIDTH, 0);
    }
    m->before = make_floats(BATCH * WIDTH, 0);
    if (!m->ids[0] || !m->ids[1] || !m->rows[0] || !m->rows[1] || !m->before)
        return pm_fail(PM_NO_MEMORY, "rows of a table");
    pm_status status = make_rows(m, rows, shares);
    return status.code == PM_OK
               ? pm_plan_create_training(&m->plan, f->graph, PM_LOSS_BINARY_CROSS_ENTROPY, rows, 1, BATCH)
               : status;
}

static pm_status make_values(fleet *f)
{
    const size_t params = pm_graph_param_count(f->graph);
    float ***lists[] = {&f->values[0], &f->values[1], &f->moments};
    for (int i = 0; i < 3; i++)
        if (!(*lists[i] = calloc(params, sizeof(float *))))
            return pm_fail(PM_NO_MEMORY, "%zu parameters", params);
    for (size_t p = 0; p < params; p++) {
        const pm_param *param = pm_graph_param(f->graph, p);
        for (int i = 0; i < 3; i++)
            if (!(i == 1 && is_table(f, p)) &&
                !((*lists[i])[p] = make_floats(param->count, pm_optimizer_moment_start(&f->optimizer))))
                return pm_fail(PM_NO_MEMORY, "parameter %.64s", param->name);
        memcpy(f->values[0][p], param->initial, param->count * sizeof(float));
    }
    return pm_ok();
}

static void release(fleet *f)
{
    pm_threads_destroy(&f->crew);
    float **lists[] = {f->values[0], f->values[1], f->moments};
    for (uint32_t i = 0; f->members && i < f->threads; i++) {
        member *m = &f->members[i];
        pm_plan_destroy(&m->plan);
        void *all[] = {m->inputs, m->targets, m->ids[0], m->ids[1], m->rows[0], m->rows[1], m->before};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
            free(all[k]);
    }
    for (int i = 0; i < 3; i++) {
        for (size_t p = 0; lists[i] && p < pm_graph_param_count(f->graph); p++)
            free(lists[i][p]);
        free(lists[i]);
    }
    free(f->members);
}

static pm_status train(const pm_bench *bench, const pm_graph *graph, pm_optimizer_kind kind, uint32_t threads)
{
    fleet f = {.graph = graph,
               .optimizer = {.kind = kind, .learning_rate = 0.05, .epsilon = 1e-10},
               .threads = threads,
               .members = calloc(threads, sizeof(member))};
    double seconds = 1, *shares = make_shares();
    pm_status status = f.members && shares ? make_values(&f) : pm_fail(PM_NO_MEMORY, "a DLRM");
    for (uint32_t i = 0; i < threads && status.code == PM_OK; i++)
        status = make_member(&f, i, shares);
    if (status.code == PM_OK)
        status = pm_threads_create(&f.crew, threads);
    if (status.code == PM_OK)
        status = pm_bench_median(bench, run_steps, &f, &seconds);
    const double rows = STEPS * BATCH / seconds, rate = rows * operations();
    if (status.code == PM_OK)
        printf("training dlrm %s batch %d threads %u: %.1f us, %.0f samples/s, %.1f GFLOP/s, %.2f of "
               "multiply-adds\n",
               kind == PM_OPTIMIZER_SGD ? "sgd" : "adagrad", BATCH, threads, seconds / STEPS * 1e6, rows,
               rate * 1e-9, rate / (threads == 1 ? bench->multiply_adds : bench->multiply_adds_all));
    free(shares);
    release(&f);
    return status;
}

pm_status pm_bench_dlrm(const pm_bench *bench)
{
    static const pm_optimizer_kind kinds[] = {PM_OPTIMIZER_SGD, PM_OPTIMIZER_ADAGRAD};
    pm_graph *graph = NULL;
    pm_status status = make_graph(&graph);
    for (size_t i = 0; i < 2 && status.code == PM_OK; i++) {
        status = train(bench, graph, kinds[i], 1);
        if (status.code == PM_OK && bench->threads > 1)
            status = train(bench, graph, kinds[i], bench->threads);
    }
    pm_graph_destroy(&graph);
    return status;
}
