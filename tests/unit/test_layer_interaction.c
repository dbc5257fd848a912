#include "tests/unit/gradients.h"

enum { NUMBERS = 3, TABLES = 2, WIDTH = 4, VOCABULARY = 50, FEATURES = NUMBERS + TABLES };

static const pm_loss MSE = PM_LOSS_MEAN_SQUARED_ERROR;

static pm_status try_graph(pm_graph **graph, uint32_t numbers, uint32_t units, bool sparse)
{
    static pm_layer bottom[] = {{.op = PM_OP_GEMM, .units = WIDTH}, {.op = PM_OP_TANH}};
    pm_layer layers[] = {{.op = PM_OP_DOT_INTERACTION,
                          .numbers = numbers,
                          .vocabulary = VOCABULARY,
                          .units = units,
                          .sparse = sparse,
                          .layers = bottom,
                          .layer_count = 2}};
    int64_t shape[] = {FEATURES};
    char name[] = "x";
    const pm_job job = {
        .seed = 7,
        .loss = MSE,
        .model = {
            .input_name = name, .input_shape = shape, .input_rank = 1, .layers = layers, .layer_count = 1}};
    return pm_graph_from_job(graph, &job);
}

static pm_graph *make_graph(bool sparse)
{
    pm_graph *graph = NULL;
    NETS_OK(try_graph(&graph, NUMBERS, WIDTH, sparse));
    return graph;
}

static const float *param(const pm_graph *graph, const char *name)
{
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        if (strcmp(pm_graph_param(graph, i)->name, name) == 0)
            return pm_graph_param(graph, i)->initial;
    cr_assert_fail("no parameter %s", name);
    return NULL;
}

Test(layer_interaction, gives_the_vector_of_the_numbers_and_every_two_vectors_product)
{
    pm_graph *graph = make_graph(false);
    pm_plan *plan = NULL;
    const float x[FEATURES] = {0.5f, -1, 2, 31, 7};
    float y[WIDTH + 3];
    double v[3][WIDTH];
    cr_assert_eq(pm_graph_output_count(graph), WIDTH + 3);
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    for (int k = 0; k < WIDTH; k++) {
        double sum = 0;
        for (int i = 0; i < NUMBERS; i++)
            sum += (double)x[i] * (double)param(graph, "gemm1.weight")[k * NUMBERS + i];
        v[0][k] = tanh(sum);
        v[1][k] = (double)param(graph, "interaction1.table1.rows.weight")[31 * WIDTH + k];
        v[2][k] = (double)param(graph, "interaction1.table2.rows.weight")[7 * WIDTH + k];
        cr_assert_float_eq(y[k], v[0][k], 1e-5);
    }
    for (int i = 0, pair = WIDTH; i < 3; i++)
        for (int j = 0; j < i; j++, pair++) {
            double product = 0;
            for (int k = 0; k < WIDTH; k++)
                product += v[i][k] * v[j][k];
            cr_assert_float_eq(y[pair], product, 1e-5);
        }
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(layer_interaction, has_a_gradient)
{
    gradients_check(make_graph(false), MSE);
}

Test(layer_interaction, its_tables_are_sparse_where_the_layer_says_so)
{
    for (int sparse = 0; sparse < 2; sparse++) {
        pm_graph *graph = make_graph(sparse);
        int tables = 0;
        for (size_t i = 0; i < pm_graph_param_count(graph); i++)
            tables += pm_graph_param(graph, i)->sparse;
        cr_assert_eq(tables, sparse ? TABLES : 0);
        pm_graph_destroy(&graph);
    }
}

Test(layer_interaction, shapes_that_do_not_fit_are_refused)
{
    pm_graph *graph = NULL;
    pm_status status = try_graph(&graph, FEATURES, WIDTH, false);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "categories"), "%s", status.message);
    status = try_graph(&graph, NUMBERS, WIDTH + 1, false);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "its layers have to give 5 numbers"), "%s", status.message);
}
