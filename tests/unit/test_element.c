#include "tests/unit/graphs.h"

static pm_status shapes_of(pm_graph *g, const char *op, const uint32_t *inputs, uint32_t count, pm_type *type)
{
    uint32_t output = PM_NO_VALUE;
    pm_tensor tensor = {0};
    const pm_node node = {.op = pm_operator_find("", op, g->opset),
                          .name = op,
                          .inputs = inputs,
                          .input_count = count,
                          .outputs = &output,
                          .output_count = 1};
    cr_assert_not_null(node.op, "%s", op);
    const pm_status status = pm_program_shapes(g, &node, &tensor);
    *type = tensor.type;
    return status;
}

// A bool is a byte, which a loop over numbers must not see.
Test(element, only_operators_of_truths_take_bools)
{
    static const struct {
        const char *op;
        uint32_t inputs;
        bool takes;
    } cases[] = {
        {"Neg", 1, false},   {"Abs", 1, false},     {"Sign", 1, false},        {"Sqrt", 1, false},
        {"Less", 2, false},  {"Greater", 2, false}, {"LessOrEqual", 2, false}, {"GreaterOrEqual", 2, false},
        {"PRelu", 2, false}, {"Not", 1, true},      {"And", 2, true},          {"Or", 2, true},
        {"Xor", 2, true},    {"Equal", 2, true},    {"Where", 3, true}};
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4)),
                   truth = graphs_node(g, "Less", GRAPHS_VALUES(x, x));
    const uint32_t truths[] = {truth, truth, truth};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pm_type type;
        const pm_status status = shapes_of(g, cases[i].op, truths, cases[i].inputs, &type);
        cr_assert_eq(status.code == PM_OK, cases[i].takes, "%s: %s", cases[i].op, status.message);
        cr_assert(!cases[i].takes || type == PM_TYPE_BOOL, "%s", cases[i].op);
        cr_assert(cases[i].takes || strstr(status.message, "bool"), "%s: %s", cases[i].op, status.message);
    }
    pm_graph_destroy(&g);
}
