#include "model/graph.h"

#include "tests/unit/nets.h"

#include <math.h>
#include <string.h>

static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY;

Test(layers, parameters_are_named_by_kind_and_number_in_order_of_use)
{
    pm_graph *graph = nets_cnn();
    const char *names[] = {"conv1.weight",    "conv1.bias",     "batchnorm1.scale", "batchnorm1.bias",
                           "batchnorm1.mean", "batchnorm1.var", "conv2.weight",     "conv2.bias",
                           "gemm1.weight",    "gemm2.weight",   "gemm2.bias"};
    cr_assert_eq(pm_graph_param_count(graph), sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const pm_param *p = pm_graph_param(graph, i);
        cr_assert_str_eq(p->name, names[i]);
        cr_assert_eq(p->kind, i == 4 || i == 5 ? PM_PARAM_STATISTIC : PM_PARAM_TRAINED);
        cr_assert_neq(p->initial, NULL);
    }
    const pm_param *weight = pm_graph_param(graph, 6);
    cr_assert(weight->rank == 4 && weight->shape[0] == 9 && weight->shape[1] == 6 && weight->shape[2] == 3 &&
              weight->shape[3] == 3 && weight->count == 9 * 6 * 9);
    cr_assert_float_eq(pm_graph_param(graph, 4)->momentum, 0.9, 1e-6);
    cr_assert_str_eq(pm_graph_input_name(graph), "x");
    cr_assert_str_eq(pm_graph_output_name(graph), "logits");
    uint32_t rank = 0;
    const int64_t *shape = pm_graph_input_shape(graph, &rank);
    cr_assert(rank == 3 && shape[0] == 2 && shape[1] == 9 && shape[2] == 8 &&
              pm_graph_input_count(graph) == 144);
    shape = pm_graph_output_shape(graph, &rank);
    cr_assert(rank == 1 && shape[0] == 5 && pm_graph_output_count(graph) == 5);
    pm_graph_destroy(&graph);
    cr_assert_eq(graph, NULL);
    pm_graph_destroy(&graph);
}

Test(layers, initial_values_are_he_before_relu_and_glorot_otherwise)
{
    pm_graph *graph = nets_mlp();
    const double limits[] = {sqrt(6.0 / 11), sqrt(6.0 / (70 + 33)), sqrt(6.0 / (33 + 5))};
    for (size_t layer = 0; layer < 3; layer++) {
        const pm_param *weight = pm_graph_param(graph, 2 * layer),
                       *bias = pm_graph_param(graph, 2 * layer + 1);
        double top = 0, sum = 0;
        for (size_t i = 0; i < weight->count; i++) {
            top = fmax(top, fabs((double)weight->initial[i]));
            sum += (double)weight->initial[i];
        }
        cr_assert(top <= limits[layer] && top > 0.9 * limits[layer], "%s: %g of %g", weight->name, top,
                  limits[layer]);
        cr_assert_lt(fabs(sum / (double)weight->count), 0.2 * limits[layer]);
        for (size_t i = 0; i < bias->count; i++)
            cr_assert_eq(bias->initial[i], 0);
    }
    pm_graph *again = nets_mlp();
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        cr_assert(memcmp(pm_graph_param(graph, i)->initial, pm_graph_param(again, i)->initial,
                         pm_graph_param(graph, i)->count * sizeof(float)) == 0);
    pm_graph_destroy(&graph);
    pm_graph_destroy(&again);
}

static void check_refused(bool flat, const pm_layer *layers, size_t count, const char *layer,
                          const char *cause)
{
    pm_graph *graph = NULL;
    pm_status status = nets_try(&graph, flat, CE, layers, count);
    cr_assert_eq(status.code, PM_INVALID, "%s", status.message);
    cr_assert(strstr(status.message, layer) && strstr(status.message, cause), "%s", status.message);
    cr_assert_eq(graph, NULL);
}

Test(layers, what_does_not_fit_is_refused_with_layer_and_operator)
{
    check_refused(false, NETS_LAYERS({.op = PM_OP_RELU}, {.op = PM_OP_GEMM, .units = 3}), "layers[1] (Gemm)",
                  "Flatten");
    check_refused(true, NETS_LAYERS({.op = PM_OP_CONV, .channels = 3, .kernel = 3}), "layers[0] (Conv)",
                  "(N, 11)");
    check_refused(false,
                  NETS_LAYERS({.op = PM_OP_MAX_POOL, .kernel = 4}, {.op = PM_OP_MAX_POOL, .kernel = 3}),
                  "layers[1] (MaxPool)", "3x3 kernel does not fit");
    check_refused(false, NETS_LAYERS({.op = PM_OP_AVERAGE_POOL, .kernel = 2, .pad = 2}), "(AveragePool)",
                  "pads");
    check_refused(true, NETS_LAYERS({.op = PM_OP_GEMM}), "layers[0] (Gemm)", "units");
    check_refused(true, NETS_LAYERS({.op = PM_OP_GEMM, .units = 3}, {.op = PM_OP_SOFTMAX}),
                  "layers[1] (Softmax)", "remove this layer");
    check_refused(true, NETS_LAYERS({.op = PM_OP_DROPOUT, .ratio = 1}), "(Dropout)", "ratio");
    check_refused(true, NETS_LAYERS({.op = PM_OP_GEMM, .units = 4000000000u}, {.op = PM_OP_GEMM, .units = 9}),
                  "layers[0] (Gemm)", "too large");
    check_refused(false, NETS_LAYERS({.op = PM_OP_CONV, .channels = 2, .kernel = 4000000000u}),
                  "layers[0] (Conv)", "large");
}
