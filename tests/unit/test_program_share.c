#include "model/plan_view.h"

#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

#include <string.h>

static size_t tasks_of(const pm_graph *graph, const char *op)
{
    pm_plan *plan = NULL;
    size_t count = 0;
    NETS_OK(pm_plan_create_inference(&plan, graph, 2));
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        count += strcmp(pm_plan_task(plan, t).op, op) == 0;
    pm_plan_destroy(&plan);
    return count;
}

// tanh(x w) twice, made apart from the start, and once of another input.
static pm_graph *twins(void)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4)), w = graphs_param(g, "w", GRAPHS_SHAPE(4, 4));
    const uint32_t a = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w))));
    const uint32_t b = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w))));
    const uint32_t c = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(a, w))));
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(b, c));
    return graphs_finish(g, graphs_node(g, "Mul", GRAPHS_VALUES(sum, a)));
}

Test(program_share, what_is_made_twice_is_made_once)
{
    pm_graph *graph = twins();
    cr_assert_eq(tasks_of(graph, "Gemm"), 2);
    cr_assert_eq(tasks_of(graph, "Tanh"), 2);
    pm_graph_destroy(&graph);
}

Test(program_share, gradients_sum_over_all_readers_of_what_is_shared)
{
    gradients_check(twins(), PM_LOSS_MEAN_SQUARED_ERROR);
}

Test(program_share, attributes_keep_nodes_apart)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4)), w = graphs_param(g, "w", GRAPHS_SHAPE(4, 4));
    const pm_attribute transposed = pm_attribute_int("transB", 1), twice = pm_attribute_float("alpha", 2);
    const uint32_t a = graphs_node(g, "Gemm", GRAPHS_VALUES(x, w));
    const uint32_t b = graphs_node_with(g, "Gemm", GRAPHS_VALUES(x, w), &transposed, 1);
    const uint32_t c = graphs_node_with(g, "Gemm", GRAPHS_VALUES(x, w), &twice, 1);
    graphs_finish(g, graphs_node(g, "Add", GRAPHS_VALUES(graphs_node(g, "Add", GRAPHS_VALUES(a, b)), c)));
    cr_assert_eq(tasks_of(g, "Gemm"), 3);
    pm_graph_destroy(&g);
}

Test(program_share, two_outputs_may_be_one_value)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3));
    const uint32_t a = graphs_node(g, "Tanh", GRAPHS_VALUES(x)), b = graphs_node(g, "Tanh", GRAPHS_VALUES(x));
    NETS_OK(pm_graph_add_output(g, a));
    graphs_finish(g, b);
    pm_plan *plan = NULL;
    const float in[] = {-1, 0, 1, 2, 3, 4};
    float first[6] = {9}, second[6] = {8};
    NETS_OK(pm_plan_create_inference(&plan, g, 2));
    NETS_OK(pm_plan_run(plan, (const void *const[]){in}, 2, (void *const[]){first, second}));
    cr_assert_eq(memcmp(first, second, sizeof first), 0);
    cr_assert_float_eq(first[2], 0.76159f, 1e-4);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}

Test(program_share, dropouts_draw_each_their_own)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(30)), w = graphs_param(g, "w", GRAPHS_SHAPE(30, 3));
    const uint32_t a = graphs_node(g, "Dropout", GRAPHS_VALUES(x)),
                   b = graphs_node(g, "Dropout", GRAPHS_VALUES(x));
    graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(graphs_node(g, "Add", GRAPHS_VALUES(a, b)), w)));
    pm_plan *plan = NULL;
    size_t draws = 0;
    NETS_OK(pm_plan_create_training(&plan, g, PM_LOSS_MEAN_SQUARED_ERROR, 1, 1, 1));
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        draws += strcmp(pm_plan_task(plan, t).op, "DropoutTrain") == 0;
    cr_assert_eq(draws, 2);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}
