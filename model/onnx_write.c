// From a graph to an ONNX ModelProto.
#include "model/onnx.h"
#include "model/operators.h"
#include "model/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_attribute(pm_wire_out *out, const pm_attribute *attribute)
{
    size_t mark = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, attribute->name);
    if (attribute->type == PM_ATTRIBUTE_FLOAT) {
        pm_wire_put_float(out, ONNX_ATTRIBUTE_F, attribute->f);
        pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_FLOAT);
    } else if (attribute->type == PM_ATTRIBUTE_INT) {
        pm_wire_put_int(out, ONNX_ATTRIBUTE_I, attribute->i);
        pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_INT);
    } else {
        for (uint32_t i = 0; i < attribute->int_count; i++)
            pm_wire_put_int(out, ONNX_ATTRIBUTE_INTS, attribute->ints[i]);
        pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_INTS);
    }
    pm_wire_end(out, mark);
}

static void write_node(pm_wire_out *out, const char *op, const char *name, const char *input,
                       const char *output, const pm_graph *graph, const pm_node *node)
{
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_NODE);
    pm_wire_put_text(out, ONNX_NODE_INPUT, input);
    for (uint32_t i = 1; node && i < node->input_count; i++)
        pm_wire_put_text(out, ONNX_NODE_INPUT, graph->values[node->inputs[i]].name);
    pm_wire_put_text(out, ONNX_NODE_OUTPUT, output);
    pm_wire_put_text(out, ONNX_NODE_NAME, name);
    pm_wire_put_text(out, ONNX_NODE_OP_TYPE, op);
    for (uint32_t i = 0; node && i < node->attribute_count; i++)
        write_attribute(out, &node->attributes[i]);
    pm_wire_end(out, mark);
}

// Nodes without Dropout: a reader of its output reads its input instead.
static void write_nodes(pm_wire_out *out, const pm_graph *graph)
{
    const char *value = graph->values[graph->input].name, *last = graph->values[graph->output].name;
    size_t written = 0, keep = graph->node_count;
    while (keep > 0 && graph->nodes[keep - 1].op->id == PM_OPERATOR_DROPOUT)
        keep--; // what comes before a final Dropout gives the output's name
    for (size_t i = 0; i < keep; i++) {
        const pm_node *node = &graph->nodes[i];
        if (node->op->id == PM_OPERATOR_DROPOUT)
            continue;
        const char *output = i + 1 == keep ? last : graph->values[node->output].name;
        write_node(out, node->op->name, node->name, value, output, graph, node);
        value = output;
        written++;
    }
    if (written == 0)
        write_node(out, "Identity", "identity", value, last, graph, NULL);
}

static void write_entry(pm_wire_out *out, const char *key, const char *value)
{
    size_t mark = pm_wire_begin(out, ONNX_TENSOR_EXTERNAL_DATA);
    pm_wire_put_text(out, ONNX_ENTRY_KEY, key);
    pm_wire_put_text(out, ONNX_ENTRY_VALUE, value);
    pm_wire_end(out, mark);
}

static void write_initializer(pm_wire_out *out, const pm_param *param, const char *weights_file,
                              uint64_t offset)
{
    char number[32];
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    for (uint32_t i = 0; i < param->rank; i++)
        pm_wire_put_int(out, ONNX_TENSOR_DIMS, param->shape[i]);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, ONNX_FLOAT);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, param->name);
    write_entry(out, "location", weights_file);
    snprintf(number, sizeof number, "%" PRIu64, offset);
    write_entry(out, "offset", number);
    snprintf(number, sizeof number, "%zu", param->count * sizeof(float));
    write_entry(out, "length", number);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_LOCATION, ONNX_LOCATION_EXTERNAL);
    pm_wire_end(out, mark);
}

// A ValueInfoProto of float, the first extent named "N".
static void write_value(pm_wire_out *out, uint32_t number, const pm_value *value)
{
    size_t info = pm_wire_begin(out, number);
    pm_wire_put_text(out, ONNX_VALUE_NAME, value->name);
    size_t type = pm_wire_begin(out, ONNX_VALUE_TYPE), tensor = pm_wire_begin(out, ONNX_TYPE_TENSOR);
    pm_wire_put_int(out, ONNX_TENSOR_TYPE_ELEM, ONNX_FLOAT);
    size_t shape = pm_wire_begin(out, ONNX_TENSOR_TYPE_SHAPE);
    for (uint32_t i = 0; i < value->rank; i++) {
        size_t extent = pm_wire_begin(out, ONNX_SHAPE_DIM);
        if (value->shape[i] == PM_BATCH)
            pm_wire_put_text(out, ONNX_DIM_PARAM, "N");
        else
            pm_wire_put_int(out, ONNX_DIM_VALUE, value->shape[i]);
        pm_wire_end(out, extent);
    }
    pm_wire_end(out, shape);
    pm_wire_end(out, tensor);
    pm_wire_end(out, type);
    pm_wire_end(out, info);
}

pm_status pm_graph_write_onnx(const pm_graph *graph, const char *weights_file, const uint64_t *offsets,
                              pm_buffer **onnx)
{
    pm_wire_out out = {0};
    pm_wire_put_int(&out, ONNX_MODEL_IR_VERSION, ONNX_IR_VERSION);
    pm_wire_put_text(&out, ONNX_MODEL_PRODUCER_NAME, "paramill");
    size_t mark = pm_wire_begin(&out, ONNX_MODEL_GRAPH);
    write_nodes(&out, graph);
    pm_wire_put_text(&out, ONNX_GRAPH_NAME, "paramill");
    for (size_t i = 0; i < graph->param_count; i++)
        write_initializer(&out, &graph->params[i], weights_file, offsets[i]);
    write_value(&out, ONNX_GRAPH_INPUT, &graph->values[graph->input]);
    write_value(&out, ONNX_GRAPH_OUTPUT, &graph->values[graph->output]);
    pm_wire_end(&out, mark);
    mark = pm_wire_begin(&out, ONNX_MODEL_OPSET_IMPORT);
    pm_wire_put_text(&out, ONNX_OPSET_DOMAIN, "");
    pm_wire_put_int(&out, ONNX_OPSET_VERSION, ONNX_OPSET);
    pm_wire_end(&out, mark);
    pm_buffer *buffer = out.failed ? NULL : pm_buffer_copy(out.data, out.size);
    free(out.data);
    if (!buffer)
        return pm_fail(PM_NO_MEMORY, "an ONNX model");
    *onnx = buffer;
    return pm_ok();
}
