#include "model/losses.h"

#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

// x (N, 4) -> Gemm -> (N, 3)
static pm_graph *linear(void)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4)), w = graphs_param(g, "w", GRAPHS_SHAPE(4, 3));
    return graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(x, w)));
}

// The loss of one row whose outputs are those three, whether it is right, and the gradient of w, which is the
// output's: x is (1, 0, 0, 0).
static pm_step lossy(pm_loss loss, const float outputs[3], const void *target, size_t bytes,
                     float gradient[3])
{
    pm_graph *graph = linear();
    pm_plan *plan = NULL;
    pm_step step = {.lane_count = 1};
    NETS_OK(pm_plan_create_training(&plan, graph, loss, 1, 1, 1));
    memcpy(pm_plan_param(plan, 0), outputs, 3 * sizeof *outputs);
    const float x[] = {1, 0, 0, 0};
    memcpy(pm_plan_input(plan), x, sizeof x);
    memcpy(pm_plan_target(plan), target, bytes);
    NETS_OK(pm_plan_step(plan, &step));
    memcpy(gradient, pm_plan_gradient(plan, 0), 3 * sizeof *gradient);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
    return step;
}

static bool close_to(double a, double b)
{
    return fabs(a - b) < 1e-6;
}

Test(losses, have_names_and_every_name_finds_its_loss)
{
    for (int i = 0; i <= PM_LOSS_BPR; i++) {
        pm_loss found = PM_LOSS_MEAN_SQUARED_ERROR;
        cr_assert(pm_loss_find(pm_loss_kind_of((pm_loss)i)->name, &found) && (int)found == i);
    }
    pm_loss found;
    cr_assert(!pm_loss_find("l2", &found));
}

Test(losses, gradients_are_those_of_finite_differences)
{
    for (int i = 0; i <= PM_LOSS_BPR; i++)
        gradients_check(linear(), (pm_loss)i);
}

Test(losses, l1_is_the_mean_of_distances_with_no_slope_where_there_is_none)
{
    const float outputs[] = {1, -2, 3}, wanted[] = {0, 0, 3};
    float g[3];
    const pm_step step = lossy(PM_LOSS_L1, outputs, wanted, sizeof wanted, g);
    cr_assert(close_to(step.loss, 1) && step.correct == 0, "%g", step.loss);
    cr_assert(close_to((double)g[0], 1.0 / 3) && close_to((double)g[1], -1.0 / 3) && g[2] == 0);
}

Test(losses, binary_cross_entropy_takes_logits_however_large)
{
    const float outputs[] = {0, 1000, -1000}, wanted[] = {1, 1, 0}, wrong[] = {1, 0, 0};
    float g[3];
    pm_step step = lossy(PM_LOSS_BINARY_CROSS_ENTROPY, outputs, wanted, sizeof wanted, g);
    cr_assert(close_to(step.loss, log(2) / 3), "%g", step.loss);
    cr_assert_eq(step.correct, 0); // 0 is not on the side of 1
    cr_assert(close_to((double)g[0], -0.5 / 3) && g[1] == 0 && g[2] == 0);
    step = lossy(PM_LOSS_BINARY_CROSS_ENTROPY, outputs, wrong, sizeof wrong, g);
    cr_assert(close_to(step.loss / 1000, (1000 + log(2)) / 3000), "%g", step.loss);
}

Test(losses, bpr_compares_the_chosen_item_with_each_other_one)
{
    const float outputs[] = {0, 2, 1};
    const int32_t chosen = 1;
    float g[3];
    const pm_step step = lossy(PM_LOSS_BPR, outputs, &chosen, sizeof chosen, g);
    cr_assert(close_to(step.loss, (log1p(exp(-2)) + log1p(exp(-1))) / 2), "%g", step.loss);
    cr_assert_eq(step.correct, 1);
    cr_assert(close_to((double)(g[0] + g[1] + g[2]), 0) && close_to((double)g[0], 0.5 / (1 + exp(2))));
}
