#include "model/gradient.h"

#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

static const pm_loss MSE = PM_LOSS_MEAN_SQUARED_ERROR;

// x (N, 4) times a parameter NAME (4, 4).
static uint32_t product(pm_graph *g, uint32_t x, const char *name)
{
    const uint32_t w = graphs_param(g, name, GRAPHS_SHAPE(4, 4));
    return graphs_node(g, "Gemm", GRAPHS_VALUES(x, w));
}

Test(gradient, what_several_nodes_read_gets_the_sum_of_their_gradients)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    const uint32_t trunk = graphs_node(g, "Tanh", GRAPHS_VALUES(product(g, x, "a")));
    const uint32_t left = graphs_node(g, "Sigmoid", GRAPHS_VALUES(product(g, trunk, "b")));
    const uint32_t right = graphs_node(g, "Tanh", GRAPHS_VALUES(product(g, trunk, "c")));
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(left, right));
    gradients_check(graphs_finish(g, graphs_node(g, "Mul", GRAPHS_VALUES(sum, trunk))), MSE);
}

Test(gradient, a_parameter_used_twice_gets_one_gradient)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    const uint32_t w = graphs_param(g, "tied", GRAPHS_SHAPE(4, 4));
    const pm_attribute transposed = pm_attribute_int("transB", 1);
    const uint32_t up = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w))));
    gradients_check(graphs_finish(g, graphs_node_with(g, "Gemm", GRAPHS_VALUES(up, w), &transposed, 1)), MSE);
}

Test(gradient, what_follows_from_parameters_alone_is_differentiated_once_for_all_lanes)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    const uint32_t a = graphs_param(g, "a", GRAPHS_SHAPE(4, 3)), b = graphs_param(g, "b", GRAPHS_SHAPE(3, 4));
    const uint32_t b0 = graphs_param(g, "c", GRAPHS_SHAPE(4));
    const uint32_t inner = graphs_node(g, "Gemm", GRAPHS_VALUES(a, b, b0)); // (4, 4), shared
    const uint32_t squashed = graphs_node(g, "Tanh", GRAPHS_VALUES(inner));
    const uint32_t shape = graphs_integers(g, "shape", (const int64_t[]){2, 8}, 2);
    const uint32_t wide = graphs_node(g, "Reshape", GRAPHS_VALUES(squashed, shape));
    const uint32_t back = graphs_integers(g, "back", (const int64_t[]){4, -1}, 2);
    const uint32_t w = graphs_node(g, "Reshape", GRAPHS_VALUES(wide, back));
    gradients_check(graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, w, b0))), MSE);
}

Test(gradient, arithmetic_with_broadcasting_agrees_with_finite_differences)
{
    static const char *const ops[] = {"Add", "Sub", "Mul", "Div"};
    static const struct {
        int64_t shape[3];
        size_t rank;
    } shapes[] = {{{0}, 0}, {{1}, 1}, {{4}, 1}, {{3, 1}, 2}, {{3, 4}, 2}, {{1, 3, 4}, 3}, {{1, 1, 4}, 3}};
    for (size_t o = 0; o < 4; o++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (int side = 0; side < 2; side++) {
                pm_graph *g = graphs_create();
                const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3, 4));
                const uint32_t scale = graphs_param(g, "s", GRAPHS_SHAPE(4));
                // Sigmoid keeps what is divided by away from 0.
                const uint32_t y =
                    graphs_node(g, "Sigmoid", GRAPHS_VALUES(graphs_node(g, "Mul", GRAPHS_VALUES(x, scale))));
                const uint32_t p = graphs_node(
                    g, "Sigmoid", GRAPHS_VALUES(graphs_param(g, "p", shapes[s].shape, shapes[s].rank)));
                gradients_check(graphs_finish(g, side ? graphs_node(g, ops[o], GRAPHS_VALUES(p, y))
                                                      : graphs_node(g, ops[o], GRAPHS_VALUES(y, p))),
                                MSE);
            }
}

Test(gradient, every_form_of_gemm_agrees_with_finite_differences)
{
    static const int64_t addends[][2] = {{1, 1}, {1, 5}, {6, 1}, {6, 5}};
    for (int form = 0; form < 16; form++) {
        const bool ta = form & 1, tb = form & 2;
        pm_graph *g = graphs_create();
        const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(5));
        const uint32_t a = graphs_param(g, "a", ta ? (const int64_t[]){4, 6} : (const int64_t[]){6, 4}, 2);
        const uint32_t b = graphs_param(g, "b", tb ? (const int64_t[]){5, 4} : (const int64_t[]){4, 5}, 2);
        const uint32_t c = graphs_param(g, "c", addends[form / 4], 2);
        const uint32_t w = graphs_node_with(
            g, "Gemm", GRAPHS_VALUES(a, b, c),
            GRAPHS_ATTRIBUTES(pm_attribute_int("transA", ta), pm_attribute_int("transB", tb),
                              pm_attribute_float("alpha", 0.5f), pm_attribute_float("beta", -1.5f)));
        const pm_attribute transposed = pm_attribute_int("transB", 1);
        gradients_check(graphs_finish(g, graphs_node_with(g, "Gemm", GRAPHS_VALUES(x, w), &transposed, 1)),
                        MSE);
    }
}

Test(gradient, softmax_over_an_inner_axis_agrees_with_finite_differences)
{
    for (int64_t axis = 1; axis < 4; axis++) {
        pm_graph *g = graphs_create();
        const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(2, 3, 4));
        const uint32_t p = graphs_param(g, "p", GRAPHS_SHAPE(2, 3, 4));
        const uint32_t y = graphs_node(g, "Mul", GRAPHS_VALUES(x, p));
        const pm_attribute along = pm_attribute_int("axis", axis);
        gradients_check(graphs_finish(g, graphs_node_with(g, "Softmax", GRAPHS_VALUES(y), &along, 1)), MSE);
    }
}

Test(gradient, a_parameter_without_influence_has_a_zero_gradient_and_is_told_last)
{
    pm_graph *g = graphs_create();
    pm_plan *plan = NULL;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    (void)product(g, x, "unused");
    graphs_finish(g, product(g, x, "w"));
    NETS_OK(pm_plan_create_training(&plan, g, MSE, 3, 2, 6));
    nets_fill(plan, g, MSE, 3, 0, 2);
    pm_step step = {.lane_count = 2};
    NETS_OK(pm_plan_step(plan, &step));
    double seen = 0;
    for (size_t i = 0; i < 16; i++) {
        cr_assert_eq(pm_plan_gradient(plan, 0)[i], 0);
        seen += fabs((double)pm_plan_gradient(plan, 1)[i]);
    }
    cr_assert_gt(seen, 0);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}

Test(gradient, a_graph_without_a_path_to_any_parameter_is_refused)
{
    pm_graph *g = graphs_create();
    pm_plan *plan = NULL;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    (void)product(g, x, "unused");
    graphs_finish(g, graphs_node(g, "Relu", GRAPHS_VALUES(x)));
    pm_status status = pm_plan_create_training(&plan, g, MSE, 3, 2, 6);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "no differentiable path"), "%s", status.message);
    pm_graph_destroy(&g);
}
