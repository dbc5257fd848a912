// The gradient of a weight, of so many rows that it is made by panels, against the sum written down.
#include "tests/unit/graphs.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 600, INPUTS = 340, OUTPUTS = 203, COUNT = INPUTS * OUTPUTS };

// The gradient of the lanes' step; the caller frees it. dy: of the first, NULL: not wanted.
static float *gradient_of(const pm_graph *graph, uint32_t first_lane, uint32_t lanes, float *dy)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_MEAN_SQUARED_ERROR, ROWS, 2, ROWS));
    nets_fill(plan, graph, PM_LOSS_MEAN_SQUARED_ERROR, ROWS, first_lane, lanes);
    const float *x = pm_plan_input(plan), *t = pm_plan_target(plan), *w = pm_graph_param(graph, 0)->initial;
    for (size_t r = 0; dy && r < ROWS; r++)
        for (size_t o = 0; o < OUTPUTS; o++) {
            double y = 0;
            for (size_t i = 0; i < INPUTS; i++)
                y += (double)x[r * INPUTS + i] * (double)w[i * OUTPUTS + o];
            dy[r * OUTPUTS + o] = (float)(2 * (y - (double)t[r * OUTPUTS + o]) / OUTPUTS / ROWS);
        }
    pm_step step = {.seed = 5, .first_lane = first_lane, .lane_count = lanes};
    NETS_OK(pm_plan_step(plan, &step));
    float *gradient = malloc(COUNT * sizeof *gradient);
    memcpy(gradient, pm_plan_gradient(plan, 0), COUNT * sizeof *gradient);
    pm_plan_destroy(&plan);
    return gradient;
}

// Two lanes are made in parts, one at once.
Test(op_matmul, the_gradient_of_a_weight_is_the_sum_over_the_rows_whatever_the_parts)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(INPUTS));
    const uint32_t w = graphs_param(g, "w", GRAPHS_SHAPE(INPUTS, OUTPUTS));
    pm_graph *graph = graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, w)));
    float *dy = malloc(ROWS * OUTPUTS * sizeof *dy), *turned = malloc(ROWS * sizeof *turned);
    float *one = gradient_of(graph, 0, 1, dy), *other = gradient_of(graph, 1, 1, NULL),
          *both = gradient_of(graph, 0, 2, NULL);
    for (size_t i = 0; i < COUNT; i++)
        cr_assert_eq(one[i] + other[i], both[i], "element %zu has other bits in parts", i);
    for (size_t i = 0; i < INPUTS; i++) {
        for (size_t r = 0; r < ROWS; r++)
            turned[r] = nets_number(r, i);
        for (size_t o = 0; o < OUTPUTS; o++) {
            double wanted = 0;
            for (size_t r = 0; r < ROWS; r++)
                wanted += (double)turned[r] * (double)dy[r * OUTPUTS + o];
            cr_assert_float_eq(one[i * OUTPUTS + o], wanted, 1e-5);
        }
    }
    free(turned);
    free(dy);
    free(one);
    free(other);
    free(both);
    pm_graph_destroy(&graph);
}

Test(op_matmul, a_product_with_the_left_factor_turned_over_is_made_at_once_too)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(INPUTS));
    const uint32_t p = graphs_param(g, "p", GRAPHS_SHAPE(ROWS, INPUTS));
    const uint32_t q = graphs_param(g, "q", GRAPHS_SHAPE(ROWS, OUTPUTS));
    const pm_attribute turn = pm_attribute_int("transA", 1);
    const uint32_t weight = graphs_node_with(g, "Gemm", (const uint32_t[]){p, q}, 2, &turn, 1);
    pm_graph *graph = graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, weight)));
    const float *left = pm_graph_param(graph, 0)->initial, *right = pm_graph_param(graph, 1)->initial;
    float *row = malloc(INPUTS * sizeof *row), y[OUTPUTS];
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 2));
    for (size_t i = 0; i < INPUTS; i++)
        row[i] = nets_number(9, i);
    NETS_OK(pm_plan_infer(plan, row, 1, y));
    double sums[ROWS] = {0};
    for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < INPUTS; i++)
            sums[r] += (double)row[i] * (double)left[r * INPUTS + i];
    for (size_t o = 0; o < OUTPUTS; o++) {
        double wanted = 0;
        for (size_t r = 0; r < ROWS; r++)
            wanted += sums[r] * (double)right[r * OUTPUTS + o];
        cr_assert_float_eq(y[o], wanted, 1e-3 * (1 + fabs(wanted)));
    }
    free(row);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
