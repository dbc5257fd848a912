#include "model/program_fuse.h"

#include "model/plan_view.h"
#include "tests/unit/graphs.h"

#include <math.h>
#include <string.h>

enum { ROWS = 4, WIDTH = 10, FEATURES = 3 * WIDTH * WIDTH, CHANNELS_MAX = 16, CLASSES = 7 };

// Of images: what a convolution sums as it is, and what it makes tiles of.
static const int64_t CHANNELS[] = {3, CHANNELS_MAX};

// Convolution, rectifier, pool, product, rectifier. apart: what is between them is read by others too, so
// that nothing can be joined.
static pm_graph *image_net(bool apart, int64_t channels)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(channels, WIDTH, WIDTH));
    const pm_attribute pads[] = {pm_attribute_ints("pads", (const int64_t[]){1, 1, 1, 1}, 4)};
    const pm_attribute window[] = {pm_attribute_ints("kernel_shape", (const int64_t[]){2, 2}, 2),
                                   pm_attribute_ints("strides", (const int64_t[]){2, 2}, 2)};
    const uint32_t conv =
        graphs_node_with(g, "Conv",
                         GRAPHS_VALUES(x, graphs_param(g, "weight", GRAPHS_SHAPE(32, channels, 3, 3)),
                                       graphs_param(g, "bias", GRAPHS_SHAPE(32))),
                         pads, 1);
    const uint32_t relu = graphs_node(g, "Relu", GRAPHS_VALUES(conv));
    const uint32_t pool = graphs_node_with(g, "MaxPool", GRAPHS_VALUES(relu), window, 2);
    const uint32_t flat = graphs_node(g, "Flatten", GRAPHS_VALUES(pool));
    const uint32_t gemm = graphs_node(
        g, "Gemm",
        GRAPHS_VALUES(flat, graphs_param(g, "matrix", GRAPHS_SHAPE(32 * WIDTH * WIDTH / 4, CLASSES)),
                      graphs_param(g, "row", GRAPHS_SHAPE(CLASSES))));
    const uint32_t y = graphs_node(g, "Relu", GRAPHS_VALUES(gemm));
    NETS_OK(pm_graph_add_output(g, y));
    if (apart) {
        NETS_OK(pm_graph_add_output(g, conv));
        NETS_OK(pm_graph_add_output(g, relu));
        NETS_OK(pm_graph_add_output(g, gemm));
    }
    NETS_OK(pm_graph_finish(g));
    return g;
}

static bool has(const pm_plan *plan, const char *op)
{
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        if (strcmp(pm_plan_task(plan, t).op, op) == 0)
            return true;
    return false;
}

static void fill(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = nets_number(99, i);
}

static float input[ROWS * CHANNELS_MAX * WIDTH * WIDTH], outputs[4][ROWS * 32 * WIDTH * WIDTH],
    joined[ROWS * CLASSES];

static void check_answers(int64_t channels)
{
    pm_graph *graphs[] = {image_net(false, channels), image_net(true, channels)};
    pm_plan *plans[2] = {NULL, NULL};
    fill(input, ROWS * pm_graph_input_count(graphs[0]));
    for (size_t i = 0; i < 2; i++)
        NETS_OK(pm_plan_create_inference(&plans[i], graphs[i], ROWS));
    cr_assert(!has(plans[0], "Relu") && !has(plans[0], "MaxPool") && has(plans[0], "ConvPool"));
    cr_assert(has(plans[1], "Relu") && has(plans[1], "MaxPool"));
    for (int prepared = 0; prepared < 2; prepared++) {
        NETS_OK(pm_plan_infer(plans[0], input, ROWS, joined));
        NETS_OK(pm_plan_run(plans[1], (const void *const[]){input}, ROWS,
                            (void *const[]){outputs[0], outputs[1], outputs[2], outputs[3]}));
        cr_assert(memcmp(joined, outputs[0], sizeof joined) == 0);
        for (size_t i = 0; i < 2; i++)
            NETS_OK(pm_plan_prepare(plans[i]));
    }
    for (size_t i = 0; i < 2; i++) {
        pm_plan_destroy(&plans[i]);
        pm_graph_destroy(&graphs[i]);
    }
}

Test(program_fuse, answers_keep_their_bits)
{
    for (size_t i = 0; i < 2; i++)
        check_answers(CHANNELS[i]);
}

// A step of the joined graph and of the one apart, which alone has tasks of the operator, gives the same.
static void check_steps(pm_graph *const graphs[2], const char *apart)
{
    pm_plan *plans[2] = {NULL, NULL};
    double losses[2];
    for (size_t i = 0; i < 2; i++) {
        NETS_OK(
            pm_plan_create_training(&plans[i], graphs[i], PM_LOSS_SOFTMAX_CROSS_ENTROPY, ROWS / 2, 2, ROWS));
        fill(pm_plan_input(plans[i]), ROWS * pm_graph_input_count(graphs[i]));
        for (int32_t r = 0; r < ROWS; r++)
            ((int32_t *)pm_plan_target(plans[i]))[r] = r;
        pm_step step = {.seed = 1, .lane_count = 2};
        NETS_OK(pm_plan_step(plans[i], &step));
        losses[i] = step.loss;
    }
    cr_assert(!has(plans[0], apart) && has(plans[1], apart));
    cr_assert_eq(losses[0], losses[1]);
    for (size_t p = 0; p < pm_graph_param_count(graphs[0]); p++)
        cr_assert(memcmp(pm_plan_gradient(plans[0], p), pm_plan_gradient(plans[1], p),
                         pm_graph_param(graphs[0], p)->count * sizeof(float)) == 0,
                  "gradient of %s", pm_graph_param(graphs[0], p)->name);
    for (size_t i = 0; i < 2; i++)
        pm_plan_destroy(&plans[i]);
}

Test(program_fuse, steps_keep_their_bits)
{
    for (size_t c = 0; c < 2; c++) {
        pm_graph *graphs[] = {image_net(false, CHANNELS[c]), image_net(true, CHANNELS[c])};
        check_steps(graphs, "MaxPoolWhere");
        for (size_t i = 0; i < 2; i++)
            pm_graph_destroy(&graphs[i]);
    }
}

// A residual block: convolution, normalization, rectifier, convolution, normalization, plus the input,
// rectifier. apart as above.
static pm_graph *residual_net(bool apart)
{
    pm_graph *g = graphs_create();
    const pm_attribute pads[] = {pm_attribute_ints("pads", (const int64_t[]){1, 1, 1, 1}, 4)};
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3, WIDTH, WIDTH));
    static const char *const names[2][5] = {{"w1", "s1", "b1", "m1", "v1"}, {"w2", "s2", "b2", "m2", "v2"}};
    uint32_t y = x, between[4], count = 0;
    for (size_t i = 0; i < 2; i++) {
        const uint32_t conv = graphs_node_with(
            g, "Conv", GRAPHS_VALUES(y, graphs_param(g, names[i][0], GRAPHS_SHAPE(3, 3, 3, 3))), pads, 1);
        y = graphs_node(g, "BatchNormalization",
                        GRAPHS_VALUES(conv, graphs_param(g, names[i][1], GRAPHS_SHAPE(3)),
                                      graphs_param(g, names[i][2], GRAPHS_SHAPE(3)),
                                      graphs_param(g, names[i][3], GRAPHS_SHAPE(3)),
                                      graphs_param(g, names[i][4], GRAPHS_SHAPE(3))));
        y = i == 0 ? y : graphs_node(g, "Add", GRAPHS_VALUES(y, x));
        between[count++] = y;
        y = graphs_node(g, "Relu", GRAPHS_VALUES(y));
    }
    const uint32_t flat = graphs_node(g, "Flatten", GRAPHS_VALUES(y));
    const uint32_t gemm = graphs_node(
        g, "Gemm", GRAPHS_VALUES(flat, graphs_param(g, "matrix", GRAPHS_SHAPE(FEATURES, CLASSES))));
    NETS_OK(pm_graph_add_output(g, gemm));
    for (uint32_t i = 0; apart && i < count; i++)
        NETS_OK(pm_graph_add_output(g, between[i]));
    NETS_OK(pm_graph_finish(g));
    return g;
}

Test(program_fuse, normalizations_and_sums_take_the_rectifier_over_them_and_steps_keep_their_bits)
{
    pm_graph *graphs[] = {residual_net(false), residual_net(true)};
    check_steps(graphs, "Relu");
    for (size_t i = 0; i < 2; i++)
        pm_graph_destroy(&graphs[i]);
}

// Convolution and normalization over it; apart as above.
static pm_graph *norm_net(bool bias, bool apart)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3, WIDTH, WIDTH));
    const uint32_t values[] = {x, graphs_param(g, "weight", GRAPHS_SHAPE(5, 3, 3, 3)),
                               bias ? graphs_param(g, "bias", GRAPHS_SHAPE(5)) : PM_NO_VALUE};
    const uint32_t conv = graphs_node(g, "Conv", values, bias ? 3 : 2);
    const uint32_t variance = graphs_param(g, "variance", GRAPHS_SHAPE(5));
    float *spread = (float *)(uintptr_t)g->values[variance].tensor.data; // the test's own
    for (size_t i = 0; i < 5; i++)
        spread[i] = fabsf(spread[i]) + 0.1f;
    const uint32_t norm = graphs_node(g, "BatchNormalization",
                                      GRAPHS_VALUES(conv, graphs_param(g, "scale", GRAPHS_SHAPE(5)),
                                                    graphs_param(g, "offset", GRAPHS_SHAPE(5)),
                                                    graphs_param(g, "mean", GRAPHS_SHAPE(5)), variance));
    NETS_OK(pm_graph_add_output(g, norm));
    if (apart)
        NETS_OK(pm_graph_add_output(g, conv));
    NETS_OK(pm_graph_finish(g));
    return g;
}

Test(program_fuse, a_normalization_goes_into_the_weights_before_it)
{
    enum { OUTPUTS = ROWS * 5 * (WIDTH - 2) * (WIDTH - 2) };
    static float plain[OUTPUTS], folded[2][OUTPUTS];
    fill(input, ROWS * FEATURES);
    for (int bias = 0; bias < 2; bias++) {
        pm_graph *graphs[] = {norm_net(bias, false), norm_net(bias, true)};
        pm_plan *plans[2] = {NULL, NULL};
        for (size_t i = 0; i < 2; i++)
            NETS_OK(pm_plan_create_inference(&plans[i], graphs[i], ROWS));
        cr_assert(!has(plans[0], "BatchNormalization") && has(plans[1], "BatchNormalization"));
        NETS_OK(pm_plan_infer(plans[0], input, ROWS, folded[0]));
        NETS_OK(pm_plan_prepare(plans[0]));
        NETS_OK(pm_plan_infer(plans[0], input, ROWS, folded[1]));
        cr_assert(memcmp(folded[0], folded[1], sizeof folded[0]) == 0);
        NETS_OK(
            pm_plan_run(plans[1], (const void *const[]){input}, ROWS, (void *const[]){plain, outputs[0]}));
        for (size_t i = 0; i < OUTPUTS; i++)
            cr_assert(fabsf(folded[0][i] - plain[i]) <= 1e-5f * (1 + fabsf(plain[i])));
        for (size_t i = 0; i < 2; i++) {
            pm_plan_destroy(&plans[i]);
            pm_graph_destroy(&graphs[i]);
        }
    }
}
