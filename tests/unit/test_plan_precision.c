#include "model/plan.h"

#include "tests/unit/blocks.h"

#include <math.h>

static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY, MSE = PM_LOSS_MEAN_SQUARED_ERROR;

Test(plan_precision, block_sums_combine_bit_for_bit_in_bf16)
{
    blocks_check(nets_mlp(), CE, PM_PRECISION_BF16);
    blocks_check(nets_cnn(), CE, PM_PRECISION_BF16);
    blocks_check(nets_graph(false, CE,
                            NETS_LAYERS({.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 2000},
                                        {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 300},
                                        {.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 10})),
                 CE, PM_PRECISION_BF16);
}

Test(plan_precision, bf16_rounds_products_and_convolutions_and_little_else)
{
    pm_graph *graphs[] = {nets_mlp(), nets_cnn()};
    for (size_t g = 0; g < 2; g++) {
        pm_step step[2];
        float *gradients[2];
        size_t count = 0;
        for (size_t i = 0; i < 2; i++) {
            const pm_precision precision = i ? PM_PRECISION_BF16 : PM_PRECISION_F32;
            gradients[i] = blocks_run(graphs[g], CE, precision, 8, 0, 8, &step[i], &count);
        }
        double apart = 0, size = 0;
        for (size_t i = 0; i < count; i++) {
            const double x = (double)gradients[0][i], y = (double)gradients[1][i];
            apart += (x - y) * (x - y);
            size += x * x;
        }
        cr_assert(apart > 0, "nothing is rounded");
        cr_assert(sqrt(apart) < 0.03 * sqrt(size), "gradients are %g of their length apart",
                  sqrt(apart / size));
        cr_assert(fabs(step[1].loss - step[0].loss) < 0.01 * step[0].loss);
        free(gradients[0]);
        free(gradients[1]);
        pm_graph_destroy(&graphs[g]);
    }
}

Test(plan_precision, bf16_of_a_graph_without_products_is_refused)
{
    pm_plan *plan = NULL;
    pm_graph *graph = nets_graph(true, MSE, NETS_LAYERS({.op = PM_OP_BATCH_NORMALIZATION}));
    pm_status status = pm_plan_create_training_with(&plan, graph, MSE, 4, 1, 4,
                                                    &(pm_plan_options){.precision = PM_PRECISION_BF16});
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "precision bf16"), "%s", status.message);
    pm_graph_destroy(&graph);
}
