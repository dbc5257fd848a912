#include "core/arena.h"
#include "model/plan_view.h"

#include "tests/unit/graphs.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 64, LANES = 8, MOST = 5 };
#define CE PM_LOSS_SOFTMAX_CROSS_ENTROPY

static pm_plan *make_training(const pm_graph *graph, uint32_t lanes, uint32_t threads)
{
    pm_plan *plan = NULL;
    const pm_plan_options options = {.threads = threads};
    NETS_OK(pm_plan_create_training_with(&plan, graph, CE, ROWS, lanes, ROWS * LANES, &options));
    return plan;
}

static double step(pm_plan *plan, const pm_graph *graph, uint32_t lanes)
{
    pm_step step = {.seed = 4, .step = 3, .lane_count = lanes};
    nets_fill(plan, graph, CE, ROWS, 0, lanes);
    NETS_OK(pm_plan_step(plan, &step));
    return step.loss;
}

// A step of one thread and of several has the same bits, for every number of lanes.
static void check_training(pm_graph *graph)
{
    for (uint32_t count = 2; count <= MOST; count++) {
        pm_threads *threads = NULL;
        NETS_OK(pm_threads_create(&threads, count));
        for (uint32_t lanes = 1; lanes <= LANES; lanes *= 2) {
            pm_plan *one = make_training(graph, lanes, 1), *several = make_training(graph, lanes, MOST);
            NETS_OK(pm_plan_set_threads(several, threads));
            cr_assert_eq(step(one, graph, lanes), step(several, graph, lanes));
            for (size_t i = 0; i < pm_graph_param_count(graph); i++)
                cr_assert_eq(memcmp(pm_plan_gradient(one, i), pm_plan_gradient(several, i),
                                    pm_graph_param(graph, i)->count * sizeof(float)),
                             0, "%u threads, %u lanes: the gradient of %s differs", count, lanes,
                             pm_graph_param(graph, i)->name);
            pm_plan_destroy(&one);
            pm_plan_destroy(&several);
        }
        pm_threads_destroy(&threads);
    }
    pm_graph_destroy(&graph);
}

Test(plan_run, threads_change_no_bit_of_a_step_of_a_perceptron)
{
    check_training(nets_mlp());
}

Test(plan_run, threads_change_no_bit_of_a_step_of_an_image_net)
{
    check_training(nets_cnn());
}

Test(plan_run, threads_change_no_bit_of_a_step_of_branches_and_normalizations)
{
    check_training(graphs_branches());
}

// Gradients of large weights are made in parts.
Test(plan_run, threads_change_no_bit_of_sums_that_are_made_in_parts)
{
    check_training(nets_graph(false, CE,
                              NETS_LAYERS({.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 700},
                                          {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 300},
                                          {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 5})));
}

static void check_inference(pm_graph *graph)
{
    enum { REQUEST = 500 };
    const size_t inputs = pm_graph_input_count(graph), outputs = pm_graph_output_count(graph);
    float *x = malloc(REQUEST * inputs * sizeof *x), *y = malloc(REQUEST * outputs * sizeof *y),
          *z = malloc(REQUEST * outputs * sizeof *z);
    pm_plan *one = NULL, *several = NULL;
    pm_threads *threads = NULL;
    for (size_t i = 0; i < REQUEST * inputs; i++)
        x[i] = nets_number(i / inputs, i % inputs);
    NETS_OK(pm_threads_create(&threads, 3));
    NETS_OK(pm_plan_create_inference(&one, graph, REQUEST));
    NETS_OK(pm_plan_create_inference_with(&several, graph, REQUEST, &(pm_plan_options){.threads = 3}));
    NETS_OK(pm_plan_set_threads(several, threads));
    for (int prepared = 0; prepared < 2; prepared++) {
        for (uint32_t rows = REQUEST; rows > 0; rows /= 2) {
            memset(z, 0, REQUEST * outputs * sizeof *z);
            NETS_OK(pm_plan_infer(one, x, rows, y));
            NETS_OK(pm_plan_infer(several, x, rows, z));
            cr_assert_eq(memcmp(y, z, rows * outputs * sizeof *y), 0, "%u rows", rows);
        }
        NETS_OK(pm_plan_prepare(one));
        NETS_OK(pm_plan_prepare(several));
    }
    pm_plan_destroy(&one);
    pm_plan_destroy(&several);
    pm_threads_destroy(&threads);
    pm_graph_destroy(&graph);
    free(x);
    free(y);
    free(z);
}

Test(plan_run, threads_change_no_bit_of_an_answer)
{
    check_inference(nets_mlp());
    check_inference(nets_cnn());
    check_inference(graphs_branches());
}

Test(plan_run, a_plan_takes_as_many_threads_as_it_was_made_for)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    pm_threads *threads = NULL;
    NETS_OK(pm_threads_create(&threads, 3));
    NETS_OK(pm_plan_create_inference_with(&plan, graph, 4, &(pm_plan_options){.threads = 2}));
    cr_assert_eq(pm_plan_set_threads(plan, threads).code, PM_INVALID);
    NETS_OK(pm_plan_set_threads(plan, NULL));
    pm_plan_destroy(&plan);
    cr_assert_eq(
        pm_plan_create_inference_with(&plan, graph, 4, &(pm_plan_options){.threads = PM_THREADS_MAX + 1})
            .code,
        PM_INVALID);
    pm_threads_destroy(&threads);
    pm_graph_destroy(&graph);
}

// A gradient is made in the caller's memory or stays in the plan's, with the same bits. Returns how many are
// made in the caller's.
static size_t check_bound(const pm_graph *graph)
{
    size_t count_bound = 0;
    for (uint32_t lanes = 1; lanes <= LANES; lanes *= 2) {
        const size_t count = pm_graph_param_count(graph);
        pm_plan *plain = make_training(graph, LANES, 1), *bound = make_training(graph, LANES, 1);
        float **memory = calloc(count, sizeof *memory);
        count_bound = 0;
        for (size_t i = 0; i < count; i++) {
            const size_t bytes = pm_align(pm_graph_param(graph, i)->count * sizeof(float));
            memory[i] = aligned_alloc(PM_ALIGN, bytes);
            memset(memory[i], 0xff, bytes);
            pm_plan_bind_gradient(bound, i, memory[i]);
            count_bound += pm_plan_gradient(bound, i) == memory[i];
        }
        for (int again = 0; again < 2; again++) { // then in its own
            cr_assert_eq(step(plain, graph, lanes), step(bound, graph, lanes));
            for (size_t i = 0; i < count; i++) {
                cr_assert_eq(memcmp(pm_plan_gradient(plain, i), pm_plan_gradient(bound, i),
                                    pm_graph_param(graph, i)->count * sizeof(float)),
                             0, "%u lanes: the gradient of %s differs", lanes,
                             pm_graph_param(graph, i)->name);
                pm_plan_bind_gradient(bound, i, NULL);
                cr_assert_neq(pm_plan_gradient(bound, i), memory[i]);
            }
        }
        pm_plan_destroy(&plain);
        pm_plan_destroy(&bound);
        for (size_t i = 0; i < count; i++)
            free(memory[i]);
        free(memory);
    }
    return count_bound;
}

Test(plan_run, gradients_are_made_where_the_caller_wants_them)
{
    pm_graph *graphs[] = {nets_mlp(), nets_cnn(), graphs_branches()};
    for (size_t i = 0; i < sizeof graphs / sizeof graphs[0]; i++) {
        cr_assert_eq(check_bound(graphs[i]), pm_graph_param_count(graphs[i]));
        pm_graph_destroy(&graphs[i]);
    }
}

// x (w + v), and a parameter of no influence, whose gradient is zero.
Test(plan_run, a_gradient_that_no_task_makes_stays_in_the_plans_memory)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(6));
    const uint32_t w = graphs_param(g, "w", GRAPHS_SHAPE(6, 5)), v = graphs_param(g, "v", GRAPHS_SHAPE(6, 5));
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(w, v));
    graphs_param(g, "u", GRAPHS_SHAPE(3));
    graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, sum)));
    cr_assert_eq(check_bound(g), 2);
    pm_graph_destroy(&g);
}
