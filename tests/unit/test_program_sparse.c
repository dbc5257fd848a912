// Training plans of tables that are read by rows, against the same plans with dense gradients.
#include "model/program_sparse.h"

#include "tests/unit/graphs.h"

#include <string.h>

enum { VOCABULARY = 23, WIDTH = 5, ROWS = 3, LANES = 8, READS = 4 };

static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY;

static uint32_t column(pm_graph *g, uint32_t x, int64_t first, int64_t last)
{
    char from[16], to[16], axis[16];
    snprintf(from, sizeof from, "from%d", (int)g->value_count);
    snprintf(to, sizeof to, "to%d", (int)g->value_count);
    snprintf(axis, sizeof axis, "axis%d", (int)g->value_count);
    const uint32_t inputs[] = {x, graphs_integers(g, from, &first, 1), graphs_integers(g, to, &last, 1),
                               graphs_integers(g, axis, (const int64_t[]){1}, 1)};
    return graphs_node(g, "Slice", inputs, 4);
}

// x (N, 6): four ids of a table, read in one Gather or in two, and two numbers.
static pm_graph *make_graph(bool sparse, bool twice)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(6));
    const uint32_t table = graphs_param(g, "table", GRAPHS_SHAPE(VOCABULARY, WIDTH));
    const uint32_t weight = graphs_param(g, "weight", GRAPHS_SHAPE(READS * WIDTH + 2, 3));
    const pm_attribute to = pm_attribute_int("to", PM_TYPE_I64), axis = pm_attribute_int("axis", 1);
    uint32_t parts[3], count = 0;
    for (int64_t i = 0; i < (twice ? 2 : 1); i++) {
        const int64_t first = twice ? 2 * i : 0;
        const uint32_t part = column(g, x, first, twice ? first + 2 : READS);
        const uint32_t ids = graphs_node_with(g, "Cast", &part, 1, &to, 1);
        parts[count++] =
            graphs_node(g, "Flatten", GRAPHS_VALUES(graphs_node(g, "Gather", GRAPHS_VALUES(table, ids))));
    }
    parts[count++] = column(g, x, READS, 6);
    const uint32_t joined = graphs_node_with(g, "Concat", parts, count, &axis, 1);
    graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(graphs_node(g, "Tanh", &joined, 1), weight)));
    g->params[0].sparse = sparse;
    return g;
}

// Ids of few rows, one of them from the end and one out of range, and numbers.
static void fill(pm_plan *plan, uint32_t first, uint32_t lanes)
{
    for (uint32_t r = 0; r < lanes * ROWS; r++) {
        const uint64_t row = first * ROWS + r;
        float *x = pm_plan_input(plan) + 6 * r;
        for (uint32_t i = 0; i < 6; i++)
            x[i] = i < READS ? (float)(row * 7 + i * i * 3) -
                                   VOCABULARY * (float)((row * 7 + i * i * 3) / VOCABULARY)
                             : nets_number(row, i);
        if (row % 5 == 1)
            x[0] = -2;
        if (row % 7 == 2)
            x[1] = VOCABULARY;
        ((int32_t *)pm_plan_target(plan))[r] = (int32_t)(row % 3);
    }
}

typedef struct reader {
    pm_plan *plan;
    const float *table;
    uint32_t known, before, after;
} reader;

static pm_status on_rows_known(void *ctx)
{
    reader *r = ctx;
    cr_assert_eq(r->before, 0);
    r->known++;
    return pm_ok();
}

static pm_status on_before(void *ctx, size_t param)
{
    reader *r = ctx;
    size_t count = 0;
    const uint32_t *ids = pm_plan_rows(r->plan, param, &count);
    r->before++;
    cr_assert_eq(ids == NULL, param != 0);
    cr_assert_leq(count, pm_plan_most_rows(r->plan, param));
    for (size_t i = 0; i < count; i++) {
        cr_assert(i == 0 || ids[i] > ids[i - 1]);
        memcpy(pm_plan_param(r->plan, param) + i * WIDTH, r->table + ids[i] * WIDTH, WIDTH * sizeof(float));
    }
    return pm_ok();
}

static pm_status on_after(void *ctx, size_t param)
{
    (void)param;
    ((reader *)ctx)->after++;
    return pm_ok();
}

static double run(pm_plan *plan, const pm_graph *graph, uint32_t first, uint32_t lanes)
{
    reader r = {.plan = plan, .table = pm_graph_param(graph, 0)->initial};
    const bool sparse = pm_graph_param(graph, 0)->sparse;
    const pm_step_hooks hooks = {.before_param = sparse ? on_before : NULL,
                                 .after_gradient = on_after,
                                 .rows_known = on_rows_known,
                                 .ctx = &r};
    pm_step step = {.seed = 3, .first_lane = first, .lane_count = lanes, .hooks = &hooks};
    fill(plan, first, lanes);
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert_eq(r.known, sparse ? 1 : 0);
    cr_assert_eq(r.after, 2);
    return step.loss;
}

static pm_plan *make_plan(const pm_graph *graph, uint32_t lanes)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, CE, ROWS, lanes, ROWS * LANES));
    return plan;
}

// The table's gradient, all rows of it.
static void spread(const pm_plan *plan, float *all)
{
    size_t count = 0;
    const uint32_t *ids = pm_plan_rows(plan, 0, &count);
    memset(all, 0, VOCABULARY * WIDTH * sizeof *all);
    for (size_t i = 0; i < count; i++)
        memcpy(all + ids[i] * WIDTH, pm_plan_gradient(plan, 0) + i * WIDTH, WIDTH * sizeof *all);
}

static void compare(bool twice, uint32_t first, uint32_t lanes)
{
    pm_graph *dense = make_graph(false, twice), *sparse = make_graph(true, twice);
    pm_plan *a = make_plan(dense, LANES), *b = make_plan(sparse, LANES);
    float all[VOCABULARY * WIDTH];
    const double loss = run(a, dense, first, lanes);
    cr_assert_eq(run(b, sparse, first, lanes), loss);
    cr_assert_arr_eq(pm_plan_gradient(a, 1), pm_plan_gradient(b, 1), (READS * WIDTH + 2) * 3 * sizeof(float));
    spread(b, all);
    for (size_t i = 0; i < VOCABULARY * WIDTH; i++)
        if (twice)
            cr_assert_float_eq(all[i], pm_plan_gradient(a, 0)[i], 1e-7, "element %zu", i);
        else
            cr_assert_eq(all[i], pm_plan_gradient(a, 0)[i], "element %zu", i);
    pm_plan_destroy(&a);
    pm_plan_destroy(&b);
    pm_graph_destroy(&dense);
    pm_graph_destroy(&sparse);
}

Test(program_sparse, the_gradient_of_rows_has_the_bits_of_the_dense_one)
{
    for (uint32_t lanes = 1; lanes <= LANES; lanes *= 2)
        compare(false, LANES - lanes, lanes);
}

Test(program_sparse, two_gathers_of_a_table_share_its_rows)
{
    compare(true, 0, LANES);
    compare(true, 3, 1);
}

// left + right where both have a row, a copy where one has it.
static void merge(float *all, bool *has, const pm_plan *plan)
{
    size_t count = 0;
    const uint32_t *ids = pm_plan_rows(plan, 0, &count);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < WIDTH; j++) {
            const float g = pm_plan_gradient(plan, 0)[i * WIDTH + j];
            all[ids[i] * WIDTH + j] = has[ids[i]] ? all[ids[i] * WIDTH + j] + g : g;
        }
        has[ids[i]] = true;
    }
}

Test(program_sparse, blocks_of_lanes_add_up_to_the_same_bits)
{
    for (int twice = 0; twice < 2; twice++) {
        pm_graph *graph = make_graph(true, twice);
        pm_plan *whole = make_plan(graph, LANES), *half = make_plan(graph, LANES / 2);
        float all[VOCABULARY * WIDTH], parts[VOCABULARY * WIDTH] = {0};
        bool has[VOCABULARY] = {0};
        run(whole, graph, 0, LANES);
        spread(whole, all);
        for (uint32_t i = 0; i < 2; i++) {
            run(half, graph, i * LANES / 2, LANES / 2);
            merge(parts, has, half);
        }
        cr_assert_arr_eq(parts, all, sizeof all);
        pm_plan_destroy(&whole);
        pm_plan_destroy(&half);
        pm_graph_destroy(&graph);
    }
}

// An embedding of the job's layers.
static pm_graph *make_embedding(const pm_layer *layers, size_t count)
{
    int64_t shape[] = {7};
    char name[] = "ids";
    const pm_job job = {.seed = 7,
                        .loss = CE,
                        .model = {.input_name = name,
                                  .input_shape = shape,
                                  .input_rank = 1,
                                  .layers = (pm_layer *)(uintptr_t)layers,
                                  .layer_count = (uint32_t)count}};
    pm_graph *graph = NULL;
    NETS_OK(pm_graph_from_job(&graph, &job));
    return graph;
}

Test(program_sparse, a_step_needs_memory_for_its_rows_only)
{
    pm_graph *graph =
        make_embedding(NETS_LAYERS({.op = PM_OP_EMBEDDING, .vocabulary = 100000, .units = 16, .sparse = true},
                                   {.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 3}));
    cr_assert(pm_graph_param(graph, 0)->sparse);
    pm_plan *plan = make_plan(graph, 4);
    cr_assert_eq(pm_plan_most_rows(plan, 0), 4 * ROWS * 7);
    cr_assert_lt(pm_plan_bytes(plan), 1 << 17);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

static double step_of(pm_plan *plan, const pm_graph *graph, float *all)
{
    reader r = {.plan = plan, .table = pm_graph_param(graph, 0)->initial};
    const pm_step_hooks hooks = {.before_param = on_before, .ctx = &r};
    pm_step step = {.lane_count = LANES, .hooks = &hooks};
    for (int i = 0; i < 7 * ROWS * LANES; i++)
        ((int64_t *)pm_plan_input_at(plan, 0))[i] = i * i % VOCABULARY;
    NETS_OK(pm_plan_step(plan, &step));
    spread(plan, all);
    return step.loss;
}

Test(program_sparse, ids_are_found_once_where_activations_are_made_again)
{
    pm_graph *graph = make_embedding(
        NETS_LAYERS({.op = PM_OP_EMBEDDING, .vocabulary = VOCABULARY, .units = WIDTH, .sparse = true},
                    {.op = PM_OP_FLATTEN}, {.op = PM_OP_TANH}, {.op = PM_OP_GEMM, .units = 150},
                    {.op = PM_OP_TANH}, {.op = PM_OP_GEMM, .units = 150}, {.op = PM_OP_TANH},
                    {.op = PM_OP_GEMM, .units = 150}, {.op = PM_OP_TANH}, {.op = PM_OP_GEMM, .units = 3}));
    pm_plan *kept = make_plan(graph, LANES), *again = NULL;
    float a[VOCABULARY * WIDTH], b[VOCABULARY * WIDTH];
    NETS_OK(pm_plan_create_training_with(&again, graph, CE, ROWS, LANES, ROWS * LANES,
                                         &(pm_plan_options){.most_bytes = pm_plan_bytes(kept) - 1024}));
    cr_assert_gt(pm_plan_segments(again), 1);
    cr_assert_eq(step_of(kept, graph, a), step_of(again, graph, b));
    cr_assert_arr_eq(a, b, sizeof a);
    pm_plan_destroy(&kept);
    pm_plan_destroy(&again);
    pm_graph_destroy(&graph);
}

static void refuse(pm_graph *graph, const char *says)
{
    pm_plan *plan = NULL;
    pm_status status = pm_graph_check_sparse(graph, 0);
    if (status.code == PM_OK)
        status = pm_plan_create_training(&plan, graph, CE, ROWS, 1, ROWS);
    cr_assert_eq(status.code, PM_UNSUPPORTED, "%s", status.message);
    cr_assert(strstr(status.message, "table") && strstr(status.message, says), "%s", status.message);
    pm_graph_destroy(&graph);
}

Test(program_sparse, what_is_no_table_of_rows_is_refused_by_name)
{
    pm_graph *g = graphs_create();
    uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(6));
    uint32_t table = graphs_param(g, "table", GRAPHS_SHAPE(6, 4));
    graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, table)));
    g->params[0].sparse = true;
    refuse(g, "Gemm0 (Gemm)");

    g = graphs_create();
    x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    table = graphs_param(g, "table", GRAPHS_SHAPE(1, 4));
    const uint32_t fixed = graphs_integers(g, "fixed", (const int64_t[]){0}, 1);
    const uint32_t row = graphs_node(g, "Gather", GRAPHS_VALUES(table, fixed));
    graphs_finish(g, graphs_node(g, "Mul", GRAPHS_VALUES(x, row)));
    g->params[0].sparse = true;
    refuse(g, "fixed ids");

    g = graphs_create();
    x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    table = graphs_param(g, "table", GRAPHS_SHAPE(6, 4));
    const uint32_t shift = graphs_param(g, "shift", GRAPHS_SHAPE(4));
    const pm_attribute to = pm_attribute_int("to", PM_TYPE_I64);
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(x, shift));
    const uint32_t ids = graphs_node_with(g, "Cast", &sum, 1, &to, 1);
    const uint32_t rows = graphs_node(g, "Gather", GRAPHS_VALUES(table, ids));
    graphs_finish(g, graphs_node(g, "Flatten", GRAPHS_VALUES(rows)));
    g->params[0].sparse = true;
    refuse(g, "follow from parameters");
}
