// What a graph's outputs are for each row, found by making it for one row and for two, and what a node's are,
// found by making it alone.
#include "model/program.h"
#include "model/task.h"

#include <stdlib.h>

// The outputs' values (outputs) in a program of rows rows, which checks types and shapes of everything.
static pm_status try_rows(const pm_graph *graph, uint32_t rows, pm_value *outputs)
{
    pm_graph *program = NULL;
    pm_tensor *inputs = calloc(graph->input_count + 1, sizeof *inputs);
    pm_status status = inputs ? pm_program_lane(graph, rows, inputs) : pm_fail(PM_NO_MEMORY, "inputs");
    if (status.code == PM_OK)
        status = pm_program_create(&program, graph, inputs, false);
    for (size_t i = 0; status.code == PM_OK && i < graph->output_count; i++)
        outputs[i] = program->values[program->outputs[i]];
    free(inputs);
    pm_graph_destroy(&program);
    return status;
}

// Whether the second shape is the first for twice as many rows, along the first extent. A graph that writes
// its batch into a Reshape is found out here.
static bool follows_rows(const pm_value *one, const pm_value *two)
{
    pm_tensor wanted = one->tensor;
    if (wanted.rank > 0 && !one->shared)
        wanted.shape[0] *= 2;
    return pm_shape_equal(&wanted, &two->tensor);
}

// Takes the outputs' types and shapes from the program of one row.
static pm_status set_outputs(pm_graph *graph, const pm_value *one, const pm_value *two)
{
    for (size_t i = 0; i < graph->output_count; i++) {
        char text[2][128];
        pm_value *v = &graph->values[graph->outputs[i]];
        if (!follows_rows(&one[i], &two[i]))
            return pm_fail(PM_UNSUPPORTED, "output %.64s has shape %s for one row and %s for two", v->name,
                           pm_shape_text(one[i].tensor.shape, one[i].tensor.rank, text[0], sizeof text[0]),
                           pm_shape_text(two[i].tensor.shape, two[i].tensor.rank, text[1], sizeof text[1]));
        if (v->tensor.type != PM_TYPE_NONE)
            continue; // an input or a constant
        v->tensor = one[i].tensor;
        v->tensor.data = NULL;
        v->batched = !one[i].shared && v->tensor.rank > 0 && v->tensor.shape[0] == 1;
    }
    return pm_ok();
}

pm_status pm_program_check_rows(pm_graph *graph)
{
    const size_t count = graph->output_count;
    pm_value *outputs = calloc(2 * count + 1, sizeof *outputs); // for one row, then for two
    pm_status status = outputs ? try_rows(graph, 1, outputs) : pm_fail(PM_NO_MEMORY, "outputs");
    if (status.code == PM_OK)
        status = try_rows(graph, 2, outputs + count);
    if (status.code == PM_OK)
        status = set_outputs(graph, outputs, outputs + count);
    free(outputs);
    return status;
}

// The node alone in a program of its own.
static pm_status lower_alone(pm_graph *alone, const pm_graph *source, const pm_node *node, uint32_t *inputs,
                             uint32_t *outputs)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < node->input_count && status.code == PM_OK; i++) {
        inputs[i] = PM_NO_VALUE;
        if (node->inputs[i] == PM_NO_VALUE)
            continue;
        const pm_value *v = &source->values[node->inputs[i]];
        pm_tensor tensor = v->tensor;
        tensor.data = v->constant ? tensor.data : NULL;
        status = v->constant ? pm_graph_add_constant(alone, NULL, &tensor, &inputs[i])
                             : pm_graph_add_value(alone, NULL, &tensor, &inputs[i]);
    }
    for (uint32_t i = 0; i < node->output_count; i++)
        outputs[i] = PM_NO_VALUE;
    pm_node mapped = *node;
    mapped.inputs = inputs;
    return status.code == PM_OK ? node->op->lower(alone, false, &mapped, outputs) : status;
}

pm_status pm_program_shapes(const pm_graph *source, const pm_node *node, pm_tensor *outputs)
{
    if (node->op->infer != pm_infer_lowered)
        return pm_program_infer(source, node, outputs);
    pm_graph *alone = pm_graph_create();
    uint32_t *values = calloc(node->input_count + node->output_count + 1, sizeof *values);
    uint32_t *made = values ? values + node->input_count : NULL;
    pm_status status =
        alone && values ? pm_ok() : pm_fail(PM_NO_MEMORY, "the shapes of node %.64s", node->name);
    if (status.code == PM_OK)
        status = lower_alone(alone, source, node, values, made);
    for (uint32_t i = 0; i < node->output_count && status.code == PM_OK; i++) {
        outputs[i] = made[i] == PM_NO_VALUE ? (pm_tensor){0} : alone->values[made[i]].tensor;
        outputs[i].data = NULL;
    }
    free(values);
    pm_graph_destroy(&alone);
    return status;
}
