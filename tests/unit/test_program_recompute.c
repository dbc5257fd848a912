#include "model/program_recompute.h"

#include "model/plan_view.h"
#include "tests/unit/graphs.h"

#include <string.h>

enum { ROWS = 16, LANES = 2 };
#define CE PM_LOSS_SOFTMAX_CROSS_ENTROPY

// A deep net of cheap activations: the more of them are made again, the less memory.
static pm_graph *deep(void)
{
    pm_layer layers[48];
    size_t count = 0;
    for (int i = 0; i < 11; i++) {
        layers[count++] = (pm_layer){.op = PM_OP_CONV, .channels = 8, .kernel = 3, .pad = 1};
        layers[count++] = (pm_layer){.op = i % 3 ? PM_OP_TANH : PM_OP_BATCH_NORMALIZATION};
        if (i % 4 == 2)
            layers[count++] = (pm_layer){.op = PM_OP_DROPOUT, .ratio = 0.3f};
        layers[count++] = (pm_layer){.op = PM_OP_RELU};
    }
    layers[count++] = (pm_layer){.op = PM_OP_FLATTEN};
    layers[count++] = (pm_layer){.op = PM_OP_GEMM, .units = 5};
    return nets_graph(false, CE, layers, count);
}

static pm_status make(pm_plan **plan, const pm_graph *graph, size_t most_bytes)
{
    const pm_plan_options options = {.most_bytes = most_bytes};
    return pm_plan_create_training_with(plan, graph, CE, ROWS, LANES, ROWS * LANES, &options);
}

static double run(pm_plan *plan, const pm_graph *graph)
{
    pm_step step = {.seed = 4, .step = 3, .lane_count = LANES};
    nets_fill(plan, graph, CE, ROWS, 0, LANES);
    NETS_OK(pm_plan_step(plan, &step));
    return step.loss;
}

static void check_same_bits(pm_plan *a, pm_plan *b, const pm_graph *graph)
{
    cr_assert_eq(run(a, graph), run(b, graph));
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        cr_assert_eq(memcmp(pm_plan_gradient(a, i), pm_plan_gradient(b, i),
                            pm_graph_param(graph, i)->count * sizeof(float)),
                     0, "the gradient of %s differs", pm_graph_param(graph, i)->name);
}

// Down to the least memory the plan can do with; the least, as a part of what keeping everything takes.
static double check_budgets(pm_graph *graph)
{
    pm_plan *whole = NULL, *plan = NULL;
    NETS_OK(make(&whole, graph, (size_t)1 << 32));
    cr_assert_eq(pm_plan_segments(whole), 1);
    const size_t all = pm_plan_peak(whole);
    size_t least = all;
    for (size_t budget = all; budget > 0; budget -= all / 64) {
        const pm_status status = make(&plan, graph, budget);
        if (status.code != PM_OK) {
            cr_assert_eq(status.code, PM_NO_MEMORY, "%s", status.message);
            break;
        }
        least = pm_plan_peak(plan);
        cr_assert_leq(least, budget);
        check_same_bits(whole, plan, graph);
        pm_plan_destroy(&plan);
    }
    pm_plan_destroy(&whole);
    pm_graph_destroy(&graph);
    return (double)least / (double)all;
}

Test(program_recompute, a_deep_net_does_with_half_of_the_memory_and_gives_the_same_bits)
{
    const double part = check_budgets(deep());
    cr_assert_lt(part, 0.5, "%g of the memory", part);
}

Test(program_recompute, branches_views_and_masks_are_made_again_bit_for_bit)
{
    cr_assert_leq(check_budgets(graphs_branches()), 1);
    cr_assert_leq(check_budgets(nets_cnn()), 1);
    cr_assert_leq(check_budgets(nets_mlp()), 1);
}

// Counts the tasks of the operator.
static size_t count_tasks(const pm_plan *plan, const char *op)
{
    size_t count = 0;
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        count += strcmp(pm_plan_task(plan, t).op, op) == 0;
    return count;
}

Test(program_recompute, no_forward_node_is_run_more_than_twice)
{
    pm_graph *graph = deep();
    pm_plan *whole = NULL, *plan = NULL;
    NETS_OK(make(&whole, graph, (size_t)1 << 32));
    NETS_OK(make(&plan, graph, pm_plan_peak(whole) / 2));
    cr_assert_gt(pm_plan_segments(plan), 1);
    cr_assert_gt(count_tasks(plan, "Conv"), count_tasks(whole, "Conv"));
    cr_assert_lt(count_tasks(plan, "Conv"), 2 * count_tasks(whole, "Conv"));
    pm_plan_destroy(&whole);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
