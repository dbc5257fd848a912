// What is frozen: no gradient, no hook, and statistics that training normalizes by.
#include "tests/unit/gradients.h"

#include <string.h>

static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY;

static pm_graph *frozen_graph(const pm_layer *layers, size_t count, const char *pattern)
{
    int64_t shape[] = {2, 9, 8};
    char name[] = "x";
    pm_job_rate rates[] = {{(char *)(uintptr_t)pattern, 0}};
    pm_job job = {.seed = 7, .loss = CE, .optimizer = {.rates = rates, .rate_count = 1}};
    job.model = (pm_job_model){.input_name = name,
                               .input_shape = shape,
                               .input_rank = 3,
                               .layers = (pm_layer *)(uintptr_t)layers,
                               .layer_count = (uint32_t)count};
    pm_graph *graph = NULL;
    NETS_OK(pm_graph_from_job(&graph, &job));
    return graph;
}

#define LAYERS                                                                                               \
    NETS_LAYERS({.op = PM_OP_CONV, .channels = 3, .kernel = 3}, {.op = PM_OP_BATCH_NORMALIZATION},           \
                {.op = PM_OP_TANH}, {.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 4})

typedef struct heard {
    const pm_graph *graph;
    const pm_plan *plan;
    uint32_t before, after;
} heard;

static pm_status on_before(void *ctx, size_t param)
{
    (void)param;
    ((heard *)ctx)->before++;
    return pm_ok();
}

static pm_status on_after(void *ctx, size_t param)
{
    heard *h = ctx;
    h->after++;
    cr_assert_not(pm_graph_param(h->graph, param)->frozen);
    cr_assert_not_null(pm_plan_gradient(h->plan, param));
    return pm_ok();
}

Test(freezing, what_is_frozen_has_no_gradient_and_no_hook)
{
    pm_graph *graph = frozen_graph(LAYERS, "conv1.*");
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, CE, 2, 2, 4));
    nets_fill(plan, graph, CE, 2, 0, 2);
    heard h = {graph, plan, 0, 0};
    const pm_step_hooks hooks = {.before_param = on_before, .after_gradient = on_after, .ctx = &h};
    pm_step step = {.lane_count = 2, .hooks = &hooks};
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert_eq(h.before, 6, "statistics are not read");
    cr_assert_eq(h.after, 6, "two of eight are frozen");
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        cr_assert_eq(pm_plan_gradient(plan, i) == NULL, pm_graph_param(graph, i)->frozen);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

// With frozen statistics a training step computes what inference does.
Test(freezing, frozen_statistics_normalize_in_training)
{
    pm_graph *graph = frozen_graph(LAYERS, "batchnorm1.[mv]*");
    pm_plan *plan = NULL, *inference = NULL;
    float logits[4 * 4];
    NETS_OK(pm_plan_create_training(&plan, graph, CE, 2, 2, 4));
    NETS_OK(pm_plan_create_inference(&inference, graph, 4));
    nets_fill(plan, graph, CE, 2, 0, 2);
    for (size_t i = 0; i < 3; i++) {
        pm_plan_param(plan, 4)[i] = 0.1f * (float)i;
        pm_plan_param(plan, 5)[i] = 0.5f + (float)i;
    }
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        NETS_OK(pm_plan_bind(inference, i, pm_plan_param(plan, i)));
    NETS_OK(pm_plan_infer(inference, pm_plan_input(plan), 4, logits));
    double loss = 0;
    for (int r = 0; r < 4; r++) {
        double sum = 0;
        for (int k = 0; k < 4; k++)
            sum += exp((double)logits[4 * r + k]);
        loss += log(sum) - (double)logits[4 * r + ((const int32_t *)pm_plan_target(plan))[r]];
    }
    pm_step step = {.lane_count = 2};
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert_float_eq(step.loss, loss, 1e-5 * loss);
    pm_plan_destroy(&inference);
    pm_plan_destroy(&plan);
    gradients_check(graph, CE);
}

Test(freezing, a_statistic_that_no_gradient_reaches_is_to_be_frozen_too)
{
    pm_graph *graph = frozen_graph(LAYERS, "[cb]*1.[wbs]*");
    pm_plan *plan = NULL;
    pm_status status = pm_plan_create_training(&plan, graph, CE, 2, 2, 4);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "batchnorm1.mean") && strstr(status.message, "freeze it as well"), "%s",
              status.message);
    pm_graph_destroy(&graph);
}
