#include "model/replace_last.h"

#include "tests/unit/graphs.h"

#include <math.h>
#include <string.h>

enum { INPUTS = 5, OLD = 3, UNITS = 7 };

// x (N, 5) to y (N, 3) by a Gemm with the weight turned or not, or by MatMul and Add.
static pm_graph *make(bool gemm, bool turned)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(INPUTS));
    const uint32_t w = turned ? graphs_param(g, "head.weight", GRAPHS_SHAPE(OLD, INPUTS))
                              : graphs_param(g, "head.weight", GRAPHS_SHAPE(INPUTS, OLD));
    const uint32_t b = graphs_param(g, "head.bias", GRAPHS_SHAPE(OLD));
    const pm_tensor none = {.type = PM_TYPE_NONE};
    uint32_t y, product = PM_NO_VALUE;
    NETS_OK(pm_graph_add_value(g, "y", &none, &y));
    const pm_attribute attribute = pm_attribute_int("transB", turned);
    if (gemm) {
        NETS_OK(pm_graph_add_node(g, &(pm_node){.op = pm_operator_find("", "Gemm", 13),
                                                .name = "head",
                                                .inputs = (const uint32_t[]){x, w, b},
                                                .input_count = 3,
                                                .outputs = &y,
                                                .output_count = 1,
                                                .attributes = &attribute,
                                                .attribute_count = 1}));
    } else {
        NETS_OK(pm_graph_add_value(g, "product", &none, &product));
        NETS_OK(pm_graph_add_node(g, &(pm_node){.op = pm_operator_find("", "MatMul", 13),
                                                .name = "product",
                                                .inputs = (const uint32_t[]){x, w},
                                                .input_count = 2,
                                                .outputs = &product,
                                                .output_count = 1}));
        NETS_OK(pm_graph_add_node(g, &(pm_node){.op = pm_operator_find("", "Add", 13),
                                                .name = "head",
                                                .inputs = (const uint32_t[]){b, product},
                                                .input_count = 2,
                                                .outputs = &y,
                                                .output_count = 1}));
    }
    NETS_OK(pm_graph_add_output(g, y));
    NETS_OK(pm_program_check_rows(g));
    NETS_OK(pm_graph_finish(g));
    return g;
}

Test(replace_last, the_layer_gets_new_weights_and_as_many_outputs)
{
    for (int form = 0; form < 3; form++) {
        pm_graph *g = make(form < 2, form == 1);
        NETS_OK(pm_graph_replace_last(g, 3, UNITS));
        cr_assert_eq(pm_graph_output_count(g), UNITS);
        cr_assert_str_eq(pm_graph_output_name(g), "y");
        const pm_param *w = pm_graph_param(g, 0), *b = pm_graph_param(g, 1);
        cr_assert_str_eq(w->name, "head.weight");
        cr_assert_eq(w->shape[form == 1 ? 0 : 1], UNITS);
        cr_assert(w->count == UNITS * INPUTS && b->count == UNITS && b->shape[0] == UNITS);
        const double limit = sqrt(6.0 / (INPUTS + UNITS));
        double most = 0;
        for (size_t i = 0; i < w->count; i++)
            most = fmax(most, fabs((double)w->initial[i]));
        cr_assert(most <= limit && most > 0.7 * limit, "%g of %g", most, limit);
        const float x[INPUTS] = {1, 2, 3, 4, 5};
        float y[UNITS];
        pm_plan *plan = NULL;
        NETS_OK(pm_plan_create_inference(&plan, g, 1));
        NETS_OK(pm_plan_infer(plan, x, 1, y));
        for (size_t u = 0; u < UNITS; u++) {
            double sum = 0;
            for (size_t i = 0; i < INPUTS; i++)
                sum += (double)x[i] * (double)w->initial[form == 1 ? u * INPUTS + i : i * UNITS + u];
            cr_assert_float_eq(y[u], sum, 1e-5);
        }
        pm_plan_destroy(&plan);
        pm_graph_destroy(&g);
    }
}

Test(replace_last, an_output_that_is_made_otherwise_is_refused)
{
    pm_graph *g = nets_graph(true, PM_LOSS_MEAN_SQUARED_ERROR,
                             NETS_LAYERS({.op = PM_OP_GEMM, .units = 3}, {.op = PM_OP_TANH}));
    pm_status status = pm_graph_replace_last(g, 3, UNITS);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "output is not made by a Gemm"), "%s", status.message);
    pm_graph_destroy(&g);
}
