#include "model/plan.h"

#include "tests/unit/blocks.h"
#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = BLOCKS_ROWS };

static const pm_precision F32 = PM_PRECISION_F32;
static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY, MSE = PM_LOSS_MEAN_SQUARED_ERROR;

Test(plan, block_sums_combine_bit_for_bit_in_a_dense_net)
{
    blocks_check(nets_mlp(), CE, F32);
}

Test(plan, block_sums_combine_bit_for_bit_in_a_net_of_all_image_operators)
{
    blocks_check(nets_cnn(), CE, F32);
}

Test(plan, block_sums_combine_bit_for_bit_under_mean_squared_error)
{
    blocks_check(nets_graph(true, MSE,
                            NETS_LAYERS({.op = PM_OP_GEMM, .units = 130}, {.op = PM_OP_SIGMOID},
                                        {.op = PM_OP_BATCH_NORMALIZATION}, {.op = PM_OP_GEMM, .units = 3})),
                 MSE, F32);
}

Test(plan, block_sums_combine_bit_for_bit_in_a_graph_with_branches)
{
    blocks_check(graphs_branches(), CE, F32);
    blocks_check(graphs_branches(), MSE, F32);
}

Test(plan, block_sums_combine_bit_for_bit_in_wide_layers)
{
    // Wide enough that a weight gradient is made of several chunks.
    blocks_check(nets_graph(false, CE,
                            NETS_LAYERS({.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 700},
                                        {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 300},
                                        {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 10})),
                 CE, F32);
}

Test(plan, the_largest_block_a_plan_can_run_does_not_change_a_smaller_one)
{
    pm_graph *graph = nets_cnn();
    pm_step a, b;
    size_t count = 0;
    float *tight = blocks_run(graph, CE, F32, 2, 2, 2, &a, &count),
          *roomy = blocks_run(graph, CE, F32, 8, 2, 2, &b, &count);
    cr_assert(memcmp(tight, roomy, count * sizeof *tight) == 0);
    cr_assert_eq(a.loss, b.loss);
    free(tight);
    free(roomy);
    pm_graph_destroy(&graph);
}

// Each operator between two trained layers, so that its input gradient is seen in the first one's weights.
#define CHECK_BETWEEN_CONVOLUTIONS(...)                                                                      \
    gradients_check(nets_graph(false, CE,                                                                    \
                               NETS_LAYERS({.op = PM_OP_CONV, .channels = 4, .kernel = 3}, __VA_ARGS__,      \
                                           {.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 5})),          \
                    CE)

Test(plan, gradient_of_gemm_agrees_with_finite_differences)
{
    gradients_check(
        nets_graph(true, CE, NETS_LAYERS({.op = PM_OP_GEMM, .units = 9}, {.op = PM_OP_GEMM, .units = 4})),
        CE);
}

Test(plan, gradient_of_mean_squared_error_agrees_with_finite_differences)
{
    gradients_check(nets_graph(true, MSE,
                               NETS_LAYERS({.op = PM_OP_GEMM, .units = 9}, {.op = PM_OP_TANH},
                                           {.op = PM_OP_GEMM, .units = 4})),
                    MSE);
}

Test(plan, gradient_of_convolution_agrees_with_finite_differences)
{
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_CONV, .channels = 5, .kernel = 3, .stride = 2, .pad = 2});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_CONV, .channels = 3, .kernel = 1});
}

Test(plan, gradient_of_element_wise_operators_agrees_with_finite_differences)
{
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_RELU});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_SIGMOID});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_TANH});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_DROPOUT, .ratio = 0.4});
}

Test(plan, gradient_of_pools_agrees_with_finite_differences)
{
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_MAX_POOL, .kernel = 2});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_MAX_POOL, .kernel = 3, .stride = 2, .pad = 1});
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_AVERAGE_POOL, .kernel = 3, .stride = 1, .pad = 1});
}

Test(plan, gradient_of_batch_normalization_agrees_with_finite_differences)
{
    CHECK_BETWEEN_CONVOLUTIONS({.op = PM_OP_BATCH_NORMALIZATION}, {.op = PM_OP_TANH});
}

Test(plan, gradient_of_softmax_agrees_with_finite_differences)
{
    gradients_check(nets_graph(true, MSE, NETS_LAYERS({.op = PM_OP_GEMM, .units = 6}, {.op = PM_OP_SOFTMAX})),
                    MSE);
}

Test(plan, gradients_of_whole_nets_agree_with_finite_differences)
{
    gradients_check(nets_mlp(), CE);
    gradients_check(nets_cnn(), CE);
    gradients_check(graphs_branches(), CE);
}

// --- inference

static void check_rows_alone(pm_graph *graph, bool prepare)
{
    enum { BATCH = 37 };
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, BATCH));
    if (prepare)
        NETS_OK(pm_plan_prepare(plan));
    size_t inputs = pm_graph_input_count(graph), outputs = pm_graph_output_count(graph);
    float *x = malloc(BATCH * inputs * sizeof *x), *y = malloc(BATCH * outputs * sizeof *y);
    float *part = malloc(BATCH * outputs * sizeof *part);
    for (size_t i = 0; i < BATCH * inputs; i++)
        x[i] = nets_number(9, i);
    NETS_OK(pm_plan_infer(plan, x, BATCH, y));
    for (uint32_t rows = 1; rows < BATCH; rows++)
        for (uint32_t first = 0; first + rows <= BATCH; first += 5) {
            NETS_OK(pm_plan_infer(plan, x + first * inputs, rows, part));
            cr_assert(memcmp(part, y + first * outputs, rows * outputs * sizeof *y) == 0, "%u rows from %u",
                      rows, first);
        }
    free(x);
    free(y);
    free(part);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, a_row_has_the_same_bits_alone_and_in_any_batch)
{
    check_rows_alone(nets_mlp(), false);
    check_rows_alone(nets_mlp(), true);
    check_rows_alone(nets_cnn(), false);
    check_rows_alone(nets_cnn(), true);
    check_rows_alone(graphs_branches(), false);
    check_rows_alone(graphs_branches(), true);
    check_rows_alone(
        nets_graph(false, CE,
                   NETS_LAYERS({.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 200}, {.op = PM_OP_RELU},
                               {.op = PM_OP_GEMM, .units = 1}, {.op = PM_OP_SIGMOID})),
        true);
}

Test(plan, preparing_changes_no_bit)
{
    enum { BATCH = 19 };
    pm_graph *graphs[] = {nets_mlp(), nets_cnn(), graphs_branches()};
    for (size_t g = 0; g < 3; g++) {
        pm_plan *plain = NULL, *prepared = NULL;
        NETS_OK(pm_plan_create_inference(&plain, graphs[g], BATCH));
        NETS_OK(pm_plan_create_inference(&prepared, graphs[g], BATCH));
        NETS_OK(pm_plan_prepare(prepared));
        size_t inputs = pm_graph_input_count(graphs[g]), outputs = pm_graph_output_count(graphs[g]);
        float *x = malloc(BATCH * inputs * sizeof *x), *y = malloc(2 * BATCH * outputs * sizeof *y);
        for (size_t i = 0; i < BATCH * inputs; i++)
            x[i] = nets_number(9, i);
        NETS_OK(pm_plan_infer(plain, x, BATCH, y));
        NETS_OK(pm_plan_infer(prepared, x, BATCH, y + BATCH * outputs));
        cr_assert(memcmp(y, y + BATCH * outputs, BATCH * outputs * sizeof *y) == 0);
        free(x);
        free(y);
        pm_plan_destroy(&plain);
        pm_plan_destroy(&prepared);
        pm_graph_destroy(&graphs[g]);
    }
}

Test(plan, a_bound_parameter_is_read_where_it_lies)
{
    pm_graph *graph = nets_graph(true, CE, NETS_LAYERS({.op = PM_OP_GEMM, .units = 2}));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    float weight[22] = {0}, x[11] = {0}, y[2];
    x[3] = 2;
    weight[3] = 5;
    NETS_OK(pm_plan_prepare(plan));
    NETS_OK(pm_plan_bind(plan, 0, weight));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    cr_assert_eq(y[0], 10);
    weight[3] = 6;
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    cr_assert_eq(y[0], 12);
    NETS_OK(pm_plan_prepare(plan));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    cr_assert_eq(y[0], 12);
    cr_assert_eq(pm_plan_bind(plan, 9, weight).code, PM_INVALID);
    cr_assert_eq(pm_plan_infer(plan, x, 2, y).code, PM_INVALID);
    cr_assert_eq(pm_plan_infer(plan, x, 0, y).code, PM_INVALID);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, inference_normalizes_with_running_statistics)
{
    pm_graph *graph = nets_graph(true, MSE, NETS_LAYERS({.op = PM_OP_BATCH_NORMALIZATION, .epsilon = 0.5}));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    float scale[11], bias[11], mean[11], variance[11], x[11], y[11];
    for (size_t i = 0; i < 11; i++) {
        scale[i] = 2;
        bias[i] = 1;
        mean[i] = (float)i;
        variance[i] = 3.5f;
        x[i] = 4;
    }
    const float *values[] = {scale, bias, mean, variance};
    for (size_t i = 0; i < 4; i++)
        NETS_OK(pm_plan_bind(plan, i, values[i]));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    for (size_t i = 0; i < 11; i++)
        cr_assert_float_eq(y[i], 4 - (float)i + 1, 1e-5f);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, a_bound_parameter_reaches_what_follows_from_it)
{
    pm_graph *graph = graphs_branches();
    pm_plan *plan = NULL, *fresh = NULL;
    float head[30], x[6], before[5], after[5], wanted[5];
    size_t index = 0;
    while (strcmp(pm_graph_param(graph, index)->name, "head") != 0)
        index++;
    for (size_t i = 0; i < 30; i++)
        head[i] = nets_number(8, i);
    for (size_t i = 0; i < 6; i++)
        x[i] = nets_number(9, i);
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    NETS_OK(pm_plan_prepare(plan));
    NETS_OK(pm_plan_infer(plan, x, 1, before));
    NETS_OK(pm_plan_bind(plan, index, head));
    NETS_OK(pm_plan_infer(plan, x, 1, after));
    NETS_OK(pm_plan_create_inference(&fresh, graph, 1));
    NETS_OK(pm_plan_bind(fresh, index, head));
    NETS_OK(pm_plan_infer(fresh, x, 1, wanted));
    cr_assert(memcmp(before, wanted, sizeof wanted) != 0 && memcmp(after, wanted, sizeof wanted) == 0);
    pm_plan_destroy(&plan);
    pm_plan_destroy(&fresh);
    pm_graph_destroy(&graph);
}

Test(plan, inputs_and_outputs_of_any_number_are_where_the_caller_says)
{
    pm_graph *g = graphs_create();
    pm_plan *plan = NULL;
    const uint32_t a = graphs_input(g, "a", GRAPHS_SHAPE(2)), b = graphs_input(g, "b", GRAPHS_SHAPE(2));
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(a, b));
    const uint32_t shape = graphs_node(g, "Shape", GRAPHS_VALUES(sum));
    const uint32_t back = graphs_integers(g, "back", (const int64_t[]){1, 2, 1}, 3);
    const uint32_t seen = graphs_node(g, "Reshape", GRAPHS_VALUES(sum, back));
    NETS_OK(pm_graph_add_output(g, sum));
    NETS_OK(pm_graph_add_output(g, seen));
    NETS_OK(pm_graph_add_output(g, b));
    graphs_finish(g, shape);
    cr_assert(pm_graph_inputs(g) == 2 && pm_graph_outputs(g) == 4);
    cr_assert(pm_graph_output(g, 1)->rank == 2 && pm_graph_output(g, 3)->type == PM_TYPE_I64);
    NETS_OK(pm_plan_create_inference(&plan, g, 3));
    NETS_OK(pm_plan_prepare(plan));
    const float x[] = {1, 2, 3, 4, 5, 6}, y[] = {10, 20, 30, 40, 50, 60};
    float sums[6], views[6], copies[6];
    int64_t shapes[6];
    NETS_OK(pm_plan_run(plan, (const void *const[]){x, y}, 3, (void *const[]){sums, views, copies, shapes}));
    for (size_t i = 0; i < 6; i++) {
        cr_assert_eq(sums[i], x[i] + y[i]);
        cr_assert_eq(views[i], sums[i]);
        cr_assert_eq(copies[i], y[i]);
        cr_assert_eq(shapes[i], i % 2 ? 2 : 1);
    }
    cr_assert_eq(pm_plan_infer(plan, x, 3, sums).code, PM_INVALID);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}

Test(plan, what_a_graph_does_along_its_batch_it_does_inside_a_lane)
{
    pm_graph *g = graphs_create();
    pm_plan *plan = NULL;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(2));
    const pm_attribute batch = pm_attribute_int("axis", 0);
    graphs_finish(g, graphs_node_with(g, "Softmax", GRAPHS_VALUES(x), &batch, 1));
    NETS_OK(pm_plan_create_inference(&plan, g, 3));
    const float rows[] = {1, 2, 3, 4, 5, 6};
    float y[6];
    NETS_OK(pm_plan_infer(plan, rows, 3, y));
    for (size_t i = 0; i < 6; i++)
        cr_assert_eq(y[i], 1);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&g);
}

Test(plan, buffers_share_memory)
{
    pm_graph *graph = nets_cnn();
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 64));
    cr_assert_lt(4 * pm_plan_bytes(plan), 3 * pm_plan_bytes_unshared(plan));
    pm_plan_destroy(&plan);
    NETS_OK(pm_plan_create_training(&plan, graph, CE, 256, 1, 256));
    cr_assert_lt(pm_plan_bytes(plan), pm_plan_bytes_unshared(plan));
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

// --- steps and hooks

typedef struct hook_log {
    size_t before[64], after[64];
    size_t before_count, after_count;
    pm_code fail_before;
} hook_log;

static pm_status log_before(void *ctx, size_t param)
{
    hook_log *log = ctx;
    log->before[log->before_count++] = param;
    return log->fail_before ? pm_fail(log->fail_before, "told to") : pm_ok();
}

static pm_status log_after(void *ctx, size_t param)
{
    hook_log *log = ctx;
    log->after[log->after_count++] = param;
    return pm_ok();
}

Test(plan, hooks_see_each_parameter_once_in_order_of_need)
{
    pm_graph *graph = nets_cnn();
    pm_plan *plan = NULL;
    hook_log log = {0};
    pm_step_hooks hooks = {.before_param = log_before, .after_gradient = log_after, .ctx = &log};
    NETS_OK(pm_plan_create_training(&plan, graph, CE, ROWS, 1, ROWS));
    nets_fill(plan, graph, CE, ROWS, 0, 1);
    pm_step step = {.lane_count = 1, .hooks = &hooks};
    NETS_OK(pm_plan_step(plan, &step));
    size_t trained = 0, seen[64] = {0};
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        if (pm_graph_param(graph, i)->kind == PM_PARAM_TRAINED)
            cr_assert_eq(log.before[trained++], i);
    cr_assert_eq(log.before_count, trained);
    cr_assert_eq(log.after_count, pm_graph_param_count(graph));
    for (size_t i = 0; i < log.after_count; i++)
        seen[log.after[i]]++;
    for (size_t i = 0; i < log.after_count; i++)
        cr_assert_eq(seen[i], 1);
    cr_assert_str_eq(pm_graph_param(graph, log.after[0])->name, "gemm2.weight");
    log = (hook_log){.fail_before = PM_TIMEOUT};
    cr_assert_eq(pm_plan_step(plan, &step).code, PM_TIMEOUT);
    cr_assert_eq(log.after_count, 0);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, a_loss_that_is_not_finite_names_step_and_first_node_and_calls_no_gradient_hook)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    hook_log log = {0};
    pm_step_hooks hooks = {.after_gradient = log_after, .ctx = &log};
    NETS_OK(pm_plan_create_training(&plan, graph, CE, ROWS, 1, ROWS));
    nets_fill(plan, graph, CE, ROWS, 0, 1);
    pm_plan_param(plan, 2)[4] = NAN;
    pm_step step = {.step = 412, .lane_count = 1, .hooks = &hooks};
    pm_status status = pm_plan_step(plan, &step);
    cr_assert_eq(status.code, PM_NOT_FINITE);
    cr_assert(strstr(status.message, "step 412") && strstr(status.message, "gemm2"), "%s", status.message);
    cr_assert_eq(log.after_count, 0);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, statistics_are_sums_of_lane_means_and_population_variances)
{
    pm_graph *graph = nets_graph(true, MSE, NETS_LAYERS({.op = PM_OP_BATCH_NORMALIZATION}));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, MSE, ROWS, 4, 4 * ROWS));
    nets_fill(plan, graph, MSE, ROWS, 0, 4);
    pm_step step = {.lane_count = 4};
    NETS_OK(pm_plan_step(plan, &step));
    for (size_t c = 0; c < 11; c++) {
        double means = 0, variances = 0;
        for (size_t lane = 0; lane < 4; lane++) {
            double mean = 0, variance = 0;
            for (size_t r = 0; r < ROWS; r++)
                mean += (double)pm_plan_input(plan)[(lane * ROWS + r) * 11 + c] / ROWS;
            for (size_t r = 0; r < ROWS; r++)
                variance += pow((double)pm_plan_input(plan)[(lane * ROWS + r) * 11 + c] - mean, 2) / ROWS;
            means += mean;
            variances += variance;
        }
        cr_assert_str_eq(pm_graph_param(graph, 2)->name, "batchnorm1.mean");
        cr_assert_float_eq((double)pm_plan_gradient(plan, 2)[c], means, 1e-5);
        cr_assert_float_eq((double)pm_plan_gradient(plan, 3)[c], variances, 1e-5);
    }
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, dropout_changes_with_seed_step_and_lane)
{
    pm_graph *graph =
        nets_graph(true, MSE, NETS_LAYERS({.op = PM_OP_GEMM, .units = 64}, {.op = PM_OP_DROPOUT}));
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, MSE, ROWS, 1, ROWS));
    nets_fill(plan, graph, MSE, ROWS, 0, 1);
    pm_step steps[] = {{.seed = 1, .step = 1, .lane_count = 1},
                       {.seed = 1, .step = 1, .lane_count = 1},
                       {.seed = 2, .step = 1, .lane_count = 1},
                       {.seed = 1, .step = 2, .lane_count = 1},
                       {.seed = 1, .step = 1, .first_lane = 1, .lane_count = 1}};
    for (size_t i = 0; i < 5; i++)
        NETS_OK(pm_plan_step(plan, &steps[i]));
    cr_assert_eq(steps[0].loss, steps[1].loss);
    for (size_t i = 2; i < 5; i++)
        cr_assert_neq(steps[0].loss, steps[i].loss, "%zu", i);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan, steps_that_do_not_fit_are_refused)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    cr_assert_eq(pm_plan_create_training(&plan, graph, CE, 1, 3, 1).code, PM_INVALID);
    cr_assert_eq(pm_plan_create_training(&plan, graph, CE, 0, 1, 1).code, PM_INVALID);
    cr_assert_eq(pm_plan_create_inference(&plan, graph, 0).code, PM_INVALID);
    NETS_OK(pm_plan_create_training(&plan, graph, CE, ROWS, 4, 4 * ROWS));
    nets_fill(plan, graph, CE, ROWS, 0, 4);
    const uint32_t blocks[][2] = {{0, 3}, {1, 2}, {0, 8}, {0, 0}};
    for (size_t i = 0; i < 4; i++) {
        pm_step step = {.first_lane = blocks[i][0], .lane_count = blocks[i][1]};
        cr_assert_eq(pm_plan_step(plan, &step).code, PM_INVALID);
    }
    pm_step step = {.lane_count = 4};
    ((int32_t *)pm_plan_target(plan))[7] = 5;
    pm_status status = pm_plan_step(plan, &step);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "row 7"), "%s", status.message);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

// --- threads

typedef struct trainer {
    const pm_graph *graph;
    double loss;
} trainer;

static void *train(void *ctx)
{
    trainer *t = ctx;
    pm_step step;
    size_t count = 0;
    for (int i = 0; i < 20; i++)
        free(blocks_run(t->graph, CE, F32, 4, 4, 4, &step, &count));
    t->loss = step.loss;
    return NULL;
}

Test(plan, plans_of_one_graph_run_side_by_side)
{
    pm_graph *graph = nets_cnn();
    trainer trainers[4];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        trainers[i] = (trainer){.graph = graph};
        cr_assert_eq(pthread_create(&threads[i], NULL, train, &trainers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_eq(trainers[i].loss, trainers[0].loss);
    }
    pm_graph_destroy(&graph);
}

Test(plan, a_net_learns)
{
    pm_graph *graph = nets_cnn();
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, CE, 8, 2, 16));
    nets_fill(plan, graph, CE, 8, 0, 2);
    double first = 0, last = 0;
    for (uint64_t s = 0; s < 300; s++) {
        pm_step step = {.seed = 1, .step = s, .lane_count = 2};
        NETS_OK(pm_plan_step(plan, &step));
        first = s == 0 ? step.loss : first;
        last = step.loss;
        for (size_t p = 0; p < pm_graph_param_count(graph); p++)
            for (size_t i = 0;
                 pm_graph_param(graph, p)->kind == PM_PARAM_TRAINED && i < pm_graph_param(graph, p)->count;
                 i++)
                pm_plan_param(plan, p)[i] -= 0.3f * pm_plan_gradient(plan, p)[i];
    }
    cr_assert_lt(last, 0.5 * first, "loss %g to %g", first, last);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
