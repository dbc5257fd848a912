#include "model/program.h"

#include "tests/unit/graphs.h"

#include <string.h>

static pm_graph *programmed(const pm_graph *graph, uint32_t rows, bool training)
{
    pm_graph *program = NULL;
    pm_tensor inputs[4];
    NETS_OK(pm_program_lane(graph, rows, inputs));
    NETS_OK(pm_program_create(&program, graph, inputs, training));
    return program;
}

static bool has(const pm_graph *program, const char *op)
{
    for (size_t i = 0; i < program->node_count; i++)
        if (strcmp(program->nodes[i].op->name, op) == 0)
            return true;
    return false;
}

Test(program, shapes_of_shapes_fold_away)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(3, 4));
    const uint32_t turns = graphs_integers(g, "turns", (const int64_t[]){1, 4, 1}, 3);
    const uint32_t shape = graphs_node(g, "Shape", GRAPHS_VALUES(x));
    const uint32_t ratio =
        graphs_node(g, "Div", GRAPHS_VALUES(graphs_node(g, "Mul", GRAPHS_VALUES(shape, turns)), turns));
    graphs_finish(g, graphs_node(g, "Reshape", GRAPHS_VALUES(x, ratio)));
    pm_graph *p = programmed(g, 5, false);
    cr_assert_eq(p->node_count, 1);
    const pm_tensor *y = &p->values[p->outputs[0]].tensor;
    cr_assert(y->rank == 3 && y->shape[0] == 5 && y->shape[1] == 3 && y->shape[2] == 4);
    pm_graph_destroy(&p);
    pm_graph_destroy(&g);
}

Test(program, a_shape_that_depends_on_data_is_refused_with_the_node)
{
    pm_graph *g = graphs_create(), *p = NULL;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    pm_tensor shape = graphs_tensor(PM_TYPE_I64, GRAPHS_SHAPE(2)), inputs[2];
    const int64_t wanted[] = {2, 6};
    uint32_t value = PM_NO_VALUE, output = PM_NO_VALUE;
    const pm_tensor unknown = {0};
    NETS_OK(pm_graph_add_value(g, "steer", &shape, &value));
    NETS_OK(pm_graph_add_input(g, value));
    NETS_OK(pm_graph_add_value(g, "y", &unknown, &output));
    NETS_OK(pm_graph_add_node(g, &(pm_node){.op = pm_operator_find("", "Reshape", 13),
                                            .name = "steered",
                                            .inputs = (const uint32_t[]){x, value},
                                            .input_count = 2,
                                            .outputs = &output,
                                            .output_count = 1}));
    NETS_OK(pm_graph_add_output(g, output));
    NETS_OK(pm_program_lane(g, 3, inputs));
    pm_status status = pm_program_create(&p, g, inputs, false);
    cr_assert_eq(status.code, PM_UNSUPPORTED);
    cr_assert(strstr(status.message, "steered") && strstr(status.message, "steer)"), "%s", status.message);
    inputs[1].data = wanted; // known when the program is made
    NETS_OK(pm_program_create(&p, g, inputs, false));
    cr_assert_eq(p->values[p->outputs[0]].tensor.shape[1], 6);
    pm_graph_destroy(&p);
    pm_graph_destroy(&g);
}

Test(program, training_and_inference_differ_in_what_they_contain)
{
    pm_graph *g = nets_cnn(), *training = programmed(g, 3, true), *inference = programmed(g, 1, false);
    cr_assert(has(training, "DropoutTrain") && has(training, "BatchNormTrain") &&
              has(training, "MaxPoolWhere"));
    cr_assert(!has(inference, "DropoutTrain") && !has(inference, "Dropout") && has(inference, "MaxPool"));
    pm_graph_destroy(&training);
    pm_graph_destroy(&inference);
    pm_graph_destroy(&g);
}

Test(program, what_follows_from_parameters_alone_is_shared)
{
    pm_graph *g = graphs_branches(), *p = programmed(g, 3, false);
    size_t shared = 0;
    for (size_t i = 0; i < p->node_count; i++)
        shared += p->values[p->nodes[i].outputs[0]].shared;
    cr_assert_eq(shared, 1); // Tanh of the head
    pm_graph_destroy(&p);
    pm_graph_destroy(&g);
}

Test(program, pruning_keeps_what_is_asked_for_alone)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(4));
    const uint32_t kept = graphs_node(g, "Tanh", GRAPHS_VALUES(x)),
                   lost = graphs_node(g, "Relu", GRAPHS_VALUES(x));
    (void)graphs_node(g, "Neg", GRAPHS_VALUES(lost));
    graphs_finish(g, graphs_node(g, "Sigmoid", GRAPHS_VALUES(x)));
    pm_graph *p = programmed(g, 2, false);
    cr_assert_eq(p->node_count, 4);
    const uint32_t keep = p->nodes[kept - x - 1].outputs[0];
    NETS_OK(pm_program_prune(p, &keep, 1));
    cr_assert(p->node_count == 2 && has(p, "Tanh") && has(p, "Sigmoid"));
    pm_graph_destroy(&p);
    pm_graph_destroy(&g);
}
