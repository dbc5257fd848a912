// The gradient of every operator that has one, against central differences of a small graph's loss: x (N, 12)
// through a Gemm to features in a range where the operator is smooth, through the operator, to a loss.
#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

static const pm_loss MSE = PM_LOSS_MEAN_SQUARED_ERROR;

typedef struct net {
    pm_graph *graph;
    uint32_t features; // (N, 12), tanh of a trained product: in (-1, 1)
} net;

static net open_net(int64_t opset)
{
    pm_graph *g = graphs_create();
    g->opset = opset;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(12)), w = graphs_param(g, "w", GRAPHS_SHAPE(12, 12));
    return (net){g, graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w))))};
}

static uint32_t number(pm_graph *g, const char *name, float value)
{
    const pm_tensor tensor = {
        .type = PM_TYPE_F32, .count = 1, .data = pm_region_copy(g->region, &value, sizeof value)};
    uint32_t made = PM_NO_VALUE;
    NETS_OK(pm_graph_add_constant(g, name, &tensor, &made));
    return made;
}

// An output of (N, ...) as (N, 12) or whatever is left; its shape is made by the plan.
static void check(net n, uint32_t output)
{
    const uint32_t flat = graphs_node(n.graph, "Flatten", GRAPHS_VALUES(output));
    const pm_tensor t = n.graph->values[flat].tensor;
    cr_assert_eq(t.rank, 2);
    gradients_check(graphs_finish(n.graph, flat), MSE);
}

// The output's shape of one row where inference leaves it open.
static uint32_t shaped(net n, uint32_t value, const int64_t *shape, size_t rank)
{
    pm_tensor tensor = graphs_tensor(PM_TYPE_F32, shape, rank);
    n.graph->values[value].tensor = tensor;
    n.graph->values[value].batched = true;
    return value;
}

// op(scale * features + shift)
static void check_unary(const char *op, float scale, float shift)
{
    net n = open_net(17);
    const uint32_t s = number(n.graph, "scale", scale), d = number(n.graph, "shift", shift);
    const uint32_t moved = graphs_node(
        n.graph, "Add", GRAPHS_VALUES(graphs_node(n.graph, "Mul", GRAPHS_VALUES(n.features, s)), d));
    check(n, graphs_node(n.graph, op, GRAPHS_VALUES(moved)));
}

Test(op_gradients, functions_of_one_input)
{
    static const struct {
        const char *op;
        float scale, shift;
    } cases[] = {{"Abs", 1, 2},        {"Neg", 1, 0},        {"Acos", 0.8f, 0},
                 {"Acosh", 1, 3},      {"Asin", 0.8f, 0},    {"Asinh", 1, 0},
                 {"Atan", 1, 0},       {"Atanh", 0.8f, 0},   {"Celu", 1, -1.5f},
                 {"Cos", 1, 0},        {"Cosh", 1, 0},       {"Elu", 1, -1.5f},
                 {"Erf", 1, 0},        {"Exp", 1, 0},        {"HardSigmoid", 1, 0},
                 {"HardSwish", 1, 0},  {"LeakyRelu", 1, -2}, {"Log", 1, 2},
                 {"Reciprocal", 1, 2}, {"Selu", 1, -1.5f},   {"Sigmoid", 1, 0},
                 {"Sin", 1, 0},        {"Sinh", 1, 0},       {"Softplus", 1, 0},
                 {"Softsign", 1, 2},   {"Sqrt", 1, 2},       {"Tan", 1, 0},
                 {"Tanh", 1, 0},       {"Shrink", 1, 3},     {"ThresholdedRelu", 1, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_unary(cases[i].op, cases[i].scale, cases[i].shift);
}

static void check_binary(const char *op, bool reverse, float shift)
{
    net n = open_net(17);
    const uint32_t p = graphs_node(
        n.graph, "Add",
        GRAPHS_VALUES(graphs_param(n.graph, "p", GRAPHS_SHAPE(12)), number(n.graph, "shift", shift)));
    const uint32_t f =
        graphs_node(n.graph, "Add", GRAPHS_VALUES(n.features, number(n.graph, "lift", reverse ? 2 : 0)));
    const uint32_t a = reverse ? p : f, b = reverse ? f : p;
    check(n, shaped(n, graphs_node(n.graph, op, GRAPHS_VALUES(a, b)), GRAPHS_SHAPE(1, 12)));
}

Test(op_gradients, functions_of_two_inputs_with_broadcasting)
{
    check_binary("Add", false, 0);
    check_binary("Sub", true, 0);
    check_binary("Mul", false, 0);
    check_binary("Div", false, 2);
    check_binary("Div", true, 2);
    check_binary("Pow", true, 2);
    check_binary("Max", false, 2);
    check_binary("Min", false, -2);
    check_binary("PRelu", false, 0.5f);
    check_binary("Mean", false, 0);
    check_binary("Sum", false, 0);
}

static void check_reduction(const char *op)
{
    net n = open_net(17);
    const uint32_t lifted =
        graphs_node(n.graph, "Add", GRAPHS_VALUES(n.features, number(n.graph, "lift", 2)));
    const uint32_t shape = graphs_integers(n.graph, "shape", (const int64_t[]){-1, 3, 4}, 3);
    const uint32_t cube =
        shaped(n, graphs_node(n.graph, "Reshape", GRAPHS_VALUES(lifted, shape)), GRAPHS_SHAPE(1, 3, 4));
    const int64_t axis = -1;
    const pm_attribute axes = pm_attribute_ints("axes", &axis, 1);
    const bool sum = strcmp(op, "ReduceSum") == 0;
    const uint32_t y =
        sum ? graphs_node(n.graph, op, GRAPHS_VALUES(cube, graphs_integers(n.graph, "axes", &axis, 1)))
            : graphs_node_with(n.graph, op, GRAPHS_VALUES(cube), &axes, 1);
    check(n, shaped(n, y, GRAPHS_SHAPE(1, 3, 1)));
}

Test(op_gradients, reductions)
{
    static const char *const ops[] = {"ReduceL1",        "ReduceL2",  "ReduceLogSum", "ReduceLogSumExp",
                                      "ReduceMax",       "ReduceMin", "ReduceMean",   "ReduceProd",
                                      "ReduceSumSquare", "ReduceSum"};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        check_reduction(ops[i]);
}

static uint32_t cube_of(net n)
{
    const uint32_t shape = graphs_integers(n.graph, "cube", (const int64_t[]){-1, 3, 4}, 3);
    return shaped(n, graphs_node(n.graph, "Reshape", GRAPHS_VALUES(n.features, shape)),
                  GRAPHS_SHAPE(1, 3, 4));
}

Test(op_gradients, moves)
{
    net n = open_net(17);
    const pm_attribute perm = pm_attribute_ints("perm", (const int64_t[]){0, 2, 1}, 3);
    check(n, graphs_node_with(n.graph, "Transpose", GRAPHS_VALUES(cube_of(n)), &perm, 1));

    n = open_net(17);
    uint32_t cube = cube_of(n);
    const uint32_t starts = graphs_integers(n.graph, "starts", (const int64_t[]){2, -1}, 2);
    const uint32_t ends = graphs_integers(n.graph, "ends", (const int64_t[]){-9, -4}, 2);
    const uint32_t axes = graphs_integers(n.graph, "axes", (const int64_t[]){1, 2}, 2);
    const uint32_t steps = graphs_integers(n.graph, "steps", (const int64_t[]){-1, -2}, 2);
    check(n, shaped(n, graphs_node(n.graph, "Slice", GRAPHS_VALUES(cube, starts, ends, axes, steps)),
                    GRAPHS_SHAPE(1, 3, 2)));

    n = open_net(17);
    cube = cube_of(n);
    const uint32_t pads = graphs_integers(n.graph, "pads", (const int64_t[]){0, 1, 2, 0, 0, -1}, 6);
    check(n, shaped(n, graphs_node(n.graph, "Pad", GRAPHS_VALUES(cube, pads)), GRAPHS_SHAPE(1, 4, 5)));

    n = open_net(17);
    cube = cube_of(n);
    const uint32_t repeats = graphs_integers(n.graph, "repeats", (const int64_t[]){1, 2, 1}, 3);
    check(n, shaped(n, graphs_node(n.graph, "Tile", GRAPHS_VALUES(cube, repeats)), GRAPHS_SHAPE(1, 6, 4)));

    n = open_net(17);
    cube = cube_of(n);
    const pm_attribute along = pm_attribute_int("axis", 1);
    check(n, graphs_node_with(n.graph, "Concat", GRAPHS_VALUES(cube, cube), &along, 1));

    n = open_net(17);
    cube = cube_of(n);
    const uint32_t k = graphs_integers(n.graph, "k", (const int64_t[]){1}, 1);
    check(n, shaped(n, graphs_node(n.graph, "Trilu", GRAPHS_VALUES(cube, k)), GRAPHS_SHAPE(1, 3, 4)));
}

Test(op_gradients, choices_and_clips)
{
    net n = open_net(17);
    const uint32_t zero = number(n.graph, "zero", 0.01f), p = graphs_param(n.graph, "p", GRAPHS_SHAPE(12));
    const uint32_t high = graphs_node(n.graph, "Greater", GRAPHS_VALUES(p, zero));
    check(n, graphs_node(n.graph, "Where", GRAPHS_VALUES(high, n.features, p)));

    n = open_net(17);
    const uint32_t low = number(n.graph, "low", -3), top = number(n.graph, "top", 3);
    check(n,
          shaped(n, graphs_node(n.graph, "Clip", GRAPHS_VALUES(n.features, low, top)), GRAPHS_SHAPE(1, 12)));
}

Test(op_gradients, gathers)
{
    net n = open_net(17);
    const pm_attribute along = pm_attribute_int("axis", 1);
    const uint32_t picked = graphs_integers(n.graph, "picked", (const int64_t[]){2, 0, -1, 2}, 4);
    check(n, graphs_node_with(n.graph, "Gather", GRAPHS_VALUES(cube_of(n), picked), &along, 1));
}

Test(op_gradients, softmaxes_and_normalizations)
{
    net n = open_net(17);
    check(n, shaped(n, graphs_node(n.graph, "LogSoftmax", GRAPHS_VALUES(n.features)), GRAPHS_SHAPE(1, 12)));

    n = open_net(17);
    const uint32_t scale = graphs_param(n.graph, "scale", GRAPHS_SHAPE(4));
    const uint32_t bias = graphs_param(n.graph, "bias", GRAPHS_SHAPE(4));
    check(n, shaped(n, graphs_node(n.graph, "LayerNormalization", GRAPHS_VALUES(cube_of(n), scale, bias)),
                    GRAPHS_SHAPE(1, 3, 4)));

    n = open_net(17);
    const uint32_t factor = graphs_param(n.graph, "factor", GRAPHS_SHAPE(3));
    const uint32_t shift = graphs_param(n.graph, "offset", GRAPHS_SHAPE(3));
    check(n,
          shaped(n, graphs_node(n.graph, "InstanceNormalization", GRAPHS_VALUES(cube_of(n), factor, shift)),
                 GRAPHS_SHAPE(1, 3, 4)));
}

Test(op_gradients, matrix_products_of_any_rank)
{
    net n = open_net(17);
    uint32_t cube = cube_of(n);
    const uint32_t w = graphs_param(n.graph, "m", GRAPHS_SHAPE(4, 5));
    check(n, shaped(n, graphs_node(n.graph, "MatMul", GRAPHS_VALUES(cube, w)), GRAPHS_SHAPE(1, 3, 5)));

    n = open_net(17);
    cube = cube_of(n);
    const pm_attribute perm = pm_attribute_ints("perm", (const int64_t[]){0, 2, 1}, 3);
    const uint32_t flipped = graphs_node_with(n.graph, "Transpose", GRAPHS_VALUES(cube), &perm, 1);
    check(n, shaped(n, graphs_node(n.graph, "MatMul", GRAPHS_VALUES(cube, flipped)), GRAPHS_SHAPE(1, 3, 3)));
}

Test(op_gradients, convolutions_and_pools_of_one_axis)
{
    net n = open_net(17);
    const uint32_t w = graphs_param(n.graph, "k", GRAPHS_SHAPE(6, 1, 2)),
                   b = graphs_param(n.graph, "b", GRAPHS_SHAPE(6));
    const pm_attribute grouped[] = {pm_attribute_int("group", 3),
                                    pm_attribute_ints("dilations", (const int64_t[]){2}, 1),
                                    pm_attribute_ints("pads", (const int64_t[]){1, 0}, 2)};
    check(n, shaped(n, graphs_node_with(n.graph, "Conv", GRAPHS_VALUES(cube_of(n), w, b), grouped, 3),
                    GRAPHS_SHAPE(1, 6, 3)));

    n = open_net(17);
    const uint32_t t = graphs_param(n.graph, "k", GRAPHS_SHAPE(3, 2, 3)),
                   c = graphs_param(n.graph, "b", GRAPHS_SHAPE(2));
    const pm_attribute strided = pm_attribute_ints("strides", (const int64_t[]){2}, 1);
    check(n,
          shaped(n, graphs_node_with(n.graph, "ConvTranspose", GRAPHS_VALUES(cube_of(n), t, c), &strided, 1),
                 GRAPHS_SHAPE(1, 2, 9)));

    static const char *const pools[] = {"MaxPool", "AveragePool"};
    for (size_t i = 0; i < 2; i++) {
        n = open_net(17);
        const pm_attribute kernel[] = {pm_attribute_ints("kernel_shape", (const int64_t[]){3}, 1),
                                       pm_attribute_ints("pads", (const int64_t[]){1, 1}, 2)};
        check(n, shaped(n, graphs_node_with(n.graph, pools[i], GRAPHS_VALUES(cube_of(n)), kernel, 2),
                        GRAPHS_SHAPE(1, 3, 4)));
    }
    n = open_net(17);
    check(n, shaped(n, graphs_node(n.graph, "GlobalAveragePool", GRAPHS_VALUES(cube_of(n))),
                    GRAPHS_SHAPE(1, 3, 1)));
}

// The batch first, as (rows, steps, features).
static void check_recurrent(const char *op, int64_t gates)
{
    net n = open_net(17);
    const uint32_t w = graphs_param(n.graph, "win", GRAPHS_SHAPE(1, gates * 5, 4));
    const uint32_t r = graphs_param(n.graph, "rec", GRAPHS_SHAPE(1, gates * 5, 5));
    const uint32_t b = graphs_param(n.graph, "bin", GRAPHS_SHAPE(1, 2 * gates * 5));
    const pm_attribute layout[] = {pm_attribute_int("layout", 1), pm_attribute_int("hidden_size", 5)};
    check(n, shaped(n, graphs_node_with(n.graph, op, GRAPHS_VALUES(cube_of(n), w, r, b), layout, 2),
                    GRAPHS_SHAPE(1, 3, 1, 5)));
}

Test(op_gradients, recurrent_cells)
{
    check_recurrent("RNN", 1);
    check_recurrent("GRU", 3);
    check_recurrent("LSTM", 4);
}

static uint32_t indices_of(net n, const char *name, const int64_t *values, const int64_t *shape, size_t rank)
{
    pm_tensor tensor = graphs_tensor(PM_TYPE_I64, shape, rank);
    tensor.data = pm_region_copy(n.graph->region, values, tensor.count * sizeof *values);
    uint32_t value = PM_NO_VALUE;
    NETS_OK(pm_graph_add_constant(n.graph, name, &tensor, &value));
    return value;
}

Test(op_gradients, gathers_and_scatters_of_single_places_of_a_parameter)
{
    net n = open_net(17);
    uint32_t p = graphs_param(n.graph, "p", GRAPHS_SHAPE(4, 12));
    const int64_t first[] = {3, 1, 0, 2, 2, 1, 0, 3, 1, 1, 0, 2}, places[] = {1, -1};
    uint32_t i = indices_of(n, "i", first, GRAPHS_SHAPE(1, 12));
    check(n, graphs_node(
                 n.graph, "Mul",
                 GRAPHS_VALUES(n.features, graphs_node(n.graph, "GatherElements", GRAPHS_VALUES(p, i)))));
    n = open_net(17);
    p = graphs_param(n.graph, "p", GRAPHS_SHAPE(4, 12));
    i = indices_of(n, "i", places, GRAPHS_SHAPE(2, 1));
    const uint32_t rows = graphs_node(n.graph, "GatherND", GRAPHS_VALUES(p, i));
    const int64_t axis = 0;
    const uint32_t sum =
        graphs_node(n.graph, "ReduceSum", GRAPHS_VALUES(rows, graphs_integers(n.graph, "axes", &axis, 1)));
    check(n, shaped(n, graphs_node(n.graph, "Mul", GRAPHS_VALUES(n.features, sum)), GRAPHS_SHAPE(1, 12)));

    n = open_net(17);
    p = graphs_param(n.graph, "p", GRAPHS_SHAPE(1, 12));
    const uint32_t u = graphs_param(n.graph, "u", GRAPHS_SHAPE(1, 2));
    i = indices_of(n, "i", places, GRAPHS_SHAPE(1, 2));
    const pm_attribute along = pm_attribute_int("axis", 1);
    const uint32_t s = graphs_node_with(n.graph, "ScatterElements", GRAPHS_VALUES(p, i, u), &along, 1);
    check(n, graphs_node(n.graph, "Mul", GRAPHS_VALUES(n.features, s)));
}

Test(op_gradients, running_sums)
{
    net n = open_net(17);
    const int64_t axis = 1;
    const uint32_t at = graphs_integers(n.graph, "axis", &axis, 1);
    const pm_attribute flags[] = {pm_attribute_int("exclusive", 1), pm_attribute_int("reverse", 1)};
    check(n, shaped(n, graphs_node_with(n.graph, "CumSum", GRAPHS_VALUES(n.features, at), flags, 2),
                    GRAPHS_SHAPE(1, 12)));
}

Test(op_gradients, expansions_casts_and_blocks)
{
    net n = open_net(17);
    const uint32_t wide = graphs_integers(n.graph, "wide", (const int64_t[]){1, 2, 12}, 3);
    const uint32_t p = graphs_param(n.graph, "p", GRAPHS_SHAPE(1, 12));
    const uint32_t e =
        shaped(n, graphs_node(n.graph, "Expand", GRAPHS_VALUES(p, wide)), GRAPHS_SHAPE(1, 2, 12));
    const int64_t axis = 1;
    const uint32_t one = graphs_integers(n.graph, "one", &axis, 1);
    const uint32_t row =
        shaped(n, graphs_node(n.graph, "Unsqueeze", GRAPHS_VALUES(n.features, one)), GRAPHS_SHAPE(1, 1, 12));
    check(n, shaped(n, graphs_node(n.graph, "Mul", GRAPHS_VALUES(row, e)), GRAPHS_SHAPE(1, 2, 12)));

    n = open_net(17);
    const uint32_t shape = graphs_integers(n.graph, "shape", (const int64_t[]){-1, 4, 1, 3}, 4);
    const uint32_t deep = shaped(n, graphs_node(n.graph, "Reshape", GRAPHS_VALUES(n.features, shape)),
                                 GRAPHS_SHAPE(1, 4, 1, 3));
    const pm_attribute two = pm_attribute_int("blocksize", 2);
    check(n, shaped(n, graphs_node_with(n.graph, "DepthToSpace", GRAPHS_VALUES(deep), &two, 1),
                    GRAPHS_SHAPE(1, 1, 2, 6)));
}

// The loss node as the graph's output: one number for each row, held against a target by its square.
Test(op_gradients, losses_that_are_nodes)
{
    static const int64_t classes[] = {1, 0, 3};
    net n = open_net(17);
    const uint32_t t = indices_of(n, "t", classes, GRAPHS_SHAPE(3));
    const uint32_t weight = number(n.graph, "half", 0.5f);
    const pm_attribute none = {.name = "reduction", .type = PM_ATTRIBUTE_STRING, .s = "none"};
    const uint32_t loss = shaped(
        n, graphs_node_with(n.graph, "SoftmaxCrossEntropyLoss", GRAPHS_VALUES(n.features, t), &none, 1),
        GRAPHS_SHAPE(1));
    const uint32_t scaled =
        shaped(n, graphs_node(n.graph, "Mul", GRAPHS_VALUES(loss, weight)), GRAPHS_SHAPE(1));
    check(n, shaped(n, graphs_node(n.graph, "Flatten", GRAPHS_VALUES(scaled)), GRAPHS_SHAPE(1, 1)));
}
