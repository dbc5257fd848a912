#include "model/plan_view.h"
#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

enum { ROWS = 5, WIDTH = 21, OUTPUTS = 6 };

static uint32_t number(pm_graph *g, const char *name, double value)
{
    const pm_tensor tensor = {
        .type = PM_TYPE_F32,
        .count = 1,
        .data = pm_region_copy(g->region, &(float){(float)value}, sizeof(float)),
    };
    uint32_t constant = PM_NO_VALUE;
    NETS_OK(pm_graph_add_constant(g, name, &tensor, &constant));
    return constant;
}

// x (1 + erf(x / sqrt 2)) / 2 with the factors in an order; apart: erf is read by others, too.
static pm_graph *gelu_net(int order, bool apart)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_node(g, "Gemm",
                                   GRAPHS_VALUES(graphs_input(g, "x", GRAPHS_SHAPE(WIDTH)),
                                                 graphs_param(g, "weight", GRAPHS_SHAPE(WIDTH, OUTPUTS))));
    const uint32_t scaled = order == 1 ? graphs_node(g, "Mul", GRAPHS_VALUES(x, number(g, "root", M_SQRT1_2)))
                                       : graphs_node(g, "Div", GRAPHS_VALUES(x, number(g, "root", M_SQRT2)));
    const uint32_t erf = graphs_node(g, "Erf", GRAPHS_VALUES(scaled));
    const uint32_t area = graphs_node(g, "Add", GRAPHS_VALUES(number(g, "one", 1), erf));
    const uint32_t half = number(g, "half", 0.5);
    uint32_t y = PM_NO_VALUE;
    if (order == 0)
        y = graphs_node(g, "Mul", GRAPHS_VALUES(graphs_node(g, "Mul", GRAPHS_VALUES(x, area)), half));
    else if (order == 1)
        y = graphs_node(g, "Mul", GRAPHS_VALUES(graphs_node(g, "Mul", GRAPHS_VALUES(half, x)), area));
    else
        y = graphs_node(g, "Mul", GRAPHS_VALUES(x, graphs_node(g, "Mul", GRAPHS_VALUES(area, half))));
    NETS_OK(pm_graph_add_output(g, y));
    if (apart)
        NETS_OK(pm_graph_add_output(g, erf));
    NETS_OK(pm_graph_finish(g));
    return g;
}

static size_t count_of(const pm_plan *plan, const char *op)
{
    size_t count = 0;
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        count += strcmp(pm_plan_task(plan, t).op, op) == 0;
    return count;
}

static float input[ROWS * WIDTH], erfs[ROWS * OUTPUTS];

static void fill(void)
{
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        input[i] = 3 * nets_number(5, i);
}

Test(program_fuse_block, gelu_is_found_in_any_order_of_its_factors)
{
    fill();
    for (int order = 0; order < 3; order++) {
        pm_graph *graphs[] = {gelu_net(order, false), gelu_net(order, true)};
        pm_plan *plans[2] = {NULL, NULL};
        float y[2][ROWS * OUTPUTS];
        for (size_t i = 0; i < 2; i++)
            NETS_OK(pm_plan_create_inference(&plans[i], graphs[i], ROWS));
        cr_assert(count_of(plans[0], "Gelu") == 1 && count_of(plans[0], "Erf") == 0, "order %d", order);
        cr_assert(count_of(plans[0], "Mul") == 0 && count_of(plans[0], "Add") == 0, "order %d", order);
        cr_assert(count_of(plans[1], "Gelu") == 0 && count_of(plans[1], "Erf") == 1, "order %d", order);
        NETS_OK(pm_plan_infer(plans[0], input, ROWS, y[0]));
        NETS_OK(pm_plan_run(plans[1], (const void *const[]){input}, ROWS, (void *const[]){y[1], erfs}));
        for (size_t i = 0; i < ROWS * OUTPUTS; i++)
            cr_assert_float_eq(y[0][i], y[1][i], 1e-6);
        for (size_t i = 0; i < 2; i++)
            pm_plan_destroy(&plans[i]);
        pm_graph_destroy(&graphs[1]);
        gradients_check(graphs[0], PM_LOSS_SOFTMAX_CROSS_ENTROPY);
    }
}

// (N, 3, 7) times a matrix, plus a row; apart: the product is read by others, too.
static pm_graph *linear_net(bool apart)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3, WIDTH / 3));
    const uint32_t product = graphs_node(
        g, "MatMul", GRAPHS_VALUES(x, graphs_param(g, "weight", GRAPHS_SHAPE(WIDTH / 3, OUTPUTS / 3))));
    g->values[product].tensor = graphs_tensor(PM_TYPE_F32, GRAPHS_SHAPE(1, 3, OUTPUTS / 3));
    g->values[product].batched = true;
    const uint32_t sum =
        graphs_node(g, "Add", GRAPHS_VALUES(graphs_param(g, "row", GRAPHS_SHAPE(OUTPUTS / 3)), product));
    NETS_OK(pm_graph_add_output(g, graphs_node(g, "Flatten", GRAPHS_VALUES(sum))));
    if (apart)
        NETS_OK(pm_graph_add_output(g, product));
    NETS_OK(pm_graph_finish(g));
    return g;
}

Test(program_fuse_block, a_product_ends_with_its_bias)
{
    pm_graph *graphs[] = {linear_net(false), linear_net(true)};
    pm_plan *plans[2] = {NULL, NULL};
    float y[2][ROWS * OUTPUTS];
    fill();
    for (size_t i = 0; i < 2; i++)
        NETS_OK(pm_plan_create_inference(&plans[i], graphs[i], ROWS));
    cr_assert(count_of(plans[0], "Add") == 0 && count_of(plans[1], "Add") == 1);
    NETS_OK(pm_plan_infer(plans[0], input, ROWS, y[0]));
    NETS_OK(pm_plan_run(plans[1], (const void *const[]){input}, ROWS, (void *const[]){y[1], erfs}));
    cr_assert(memcmp(y[0], y[1], sizeof y[0]) == 0);
    for (size_t i = 0; i < 2; i++)
        pm_plan_destroy(&plans[i]);
    pm_graph_destroy(&graphs[1]);
    gradients_check(graphs[0], PM_LOSS_SOFTMAX_CROSS_ENTROPY);
}

// LayerNormalization from the axis on; with a scale for each element, or one for all.
static pm_graph *norm_net(int64_t axis, bool one)
{
    pm_graph *g = graphs_create();
    g->opset = 17;
    const int64_t whole[] = {3, WIDTH / 3};
    const int64_t *shape = axis == 1 ? whole : whole + 1;
    const size_t rank = axis == 1 ? 2 : 1;
    const pm_attribute attribute = pm_attribute_int("axis", axis);
    const uint32_t scale =
        one ? graphs_param(g, "scale", GRAPHS_SHAPE(1)) : graphs_param(g, "scale", shape, rank);
    const uint32_t inputs[] = {graphs_input(g, "x", whole, 2), scale, graphs_param(g, "bias", shape, rank)};
    const uint32_t y = graphs_node_with(g, "LayerNormalization", inputs, 3, &attribute, 1);
    g->values[y].tensor = graphs_tensor(PM_TYPE_F32, GRAPHS_SHAPE(1, 3, WIDTH / 3));
    const uint32_t flat = graphs_node(g, "Flatten", GRAPHS_VALUES(y));
    const uint32_t head =
        graphs_node(g, "Gemm", GRAPHS_VALUES(flat, graphs_param(g, "weight", GRAPHS_SHAPE(WIDTH, OUTPUTS))));
    return graphs_finish(g, head);
}

Test(program_fuse_block, layer_normalization_is_one_pass_where_nothing_is_broadcast)
{
    for (int64_t axis = 1; axis <= 2; axis++)
        for (int one = 0; one < 2; one++) {
            pm_graph *graph = norm_net(axis, one);
            pm_plan *plan = NULL;
            NETS_OK(pm_plan_create_inference(&plan, graph, ROWS));
            cr_assert_eq(count_of(plan, "LayerNorm"), !one, "axis %d", (int)axis);
            pm_plan_destroy(&plan);
            gradients_check(graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY);
        }
}
