#include "model/plan_view.h"

#include "tests/unit/graphs.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 700 };

// Each row alone gives the bits that it has among all: the last block of a group is cut, others are whole.
static void check_rows(pm_graph *graph)
{
    const size_t inputs = pm_graph_input_count(graph), outputs = pm_graph_output_count(graph);
    float *x = malloc(ROWS * inputs * sizeof *x), *y = malloc(ROWS * outputs * sizeof *y), alone[64];
    pm_plan *all = NULL, *one = NULL;
    cr_assert_leq(outputs, 64);
    for (size_t i = 0; i < ROWS * inputs; i++)
        x[i] = nets_number(i / inputs, i % inputs);
    NETS_OK(pm_plan_create_inference(&all, graph, ROWS));
    NETS_OK(pm_plan_create_inference(&one, graph, 1));
    for (uint32_t rows = ROWS; rows > 0; rows /= 3) {
        NETS_OK(pm_plan_infer(all, x, rows, y));
        for (uint32_t r = 0; r < rows; r += 1 + rows / 50) {
            NETS_OK(pm_plan_infer(one, x + r * inputs, 1, alone));
            cr_assert(memcmp(alone, y + r * outputs, outputs * sizeof *y) == 0, "row %u of %u", r, rows);
        }
        if (rows == ROWS)
            NETS_OK(pm_plan_prepare(all));
    }
    pm_plan_destroy(&one);
    pm_plan_destroy(&all);
    pm_graph_destroy(&graph);
    free(x);
    free(y);
}

Test(plan_groups, rows_keep_their_bits_in_blocks_of_an_image_net)
{
    check_rows(nets_cnn());
}

Test(plan_groups, rows_keep_their_bits_in_blocks_of_a_graph_with_branches)
{
    check_rows(graphs_branches());
}

Test(plan_groups, what_is_handed_on_inside_a_group_has_memory_for_a_block_only)
{
    pm_graph *graph =
        nets_graph(false, PM_LOSS_SOFTMAX_CROSS_ENTROPY,
                   NETS_LAYERS({.op = PM_OP_CONV, .channels = 32, .kernel = 3}, {.op = PM_OP_RELU},
                               {.op = PM_OP_CONV, .channels = 8, .kernel = 3}, {.op = PM_OP_TANH},
                               {.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 2}));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, ROWS));
    const size_t row = 32 * 7 * 6 * sizeof(float), kept = 8 * 5 * 4 * sizeof(float);
    size_t first = 0, between = 0;
    for (size_t t = 0; t < pm_plan_tasks(plan); t++) {
        const pm_task_view task = pm_plan_task(plan, t);
        const pm_value_view v = pm_plan_value(plan, task.outputs[0]);
        if (strcmp(task.node, "conv1") == 0)
            first = v.bytes;
        if (strcmp(task.node, "flatten1") == 0)
            between = v.bytes;
    }
    cr_assert_lt(first, 200 * row);
    cr_assert_eq(first % row, 0);
    cr_assert_eq(between, ROWS * kept); // what the Gemm reads is there for all rows
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

// A weight that is made of parameters between two image operators does not part them.
Test(plan_groups, what_follows_from_parameters_alone_is_made_first)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(2, 5, 5));
    const uint32_t y = graphs_node(g, "Relu", GRAPHS_VALUES(x));
    const uint32_t w = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_param(g, "w", GRAPHS_SHAPE(3, 2, 2, 2))));
    graphs_finish(g, graphs_node(g, "Conv", GRAPHS_VALUES(y, w)));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, g, 3));
    cr_assert_str_eq(pm_plan_task(plan, 0).op, "Tanh");
    cr_assert(pm_plan_task(plan, 0).once);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}
