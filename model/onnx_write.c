// From a graph to an ONNX ModelProto.
#include "model/onnx.h"
#include "model/operators.h"
#include "model/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    pm_wire_out out;
    const pm_graph *graph;
    uint32_t *source;   // (values): whose value this one has, without what is left out
    const char **names; // (values): under which it is written
    bool *renamed;      // (values): has the name of an output
} writer;

static bool is_left_out(const pm_node *node)
{
    return strcmp(node->op->name, "Dropout") == 0;
}

// Inline: name and raw data where they are wanted.
static void write_tensor(pm_wire_out *out, uint32_t number, const char *name, const pm_tensor *tensor)
{
    size_t mark = pm_wire_begin(out, number);
    for (uint32_t i = 0; i < tensor->rank; i++)
        pm_wire_put_int(out, ONNX_TENSOR_DIMS, tensor->shape[i]);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, tensor->type);
    if (name)
        pm_wire_put_text(out, ONNX_TENSOR_NAME, name);
    pm_wire_put_bytes(out, ONNX_TENSOR_RAW_DATA, tensor->data, pm_tensor_bytes(tensor));
    pm_wire_end(out, mark);
}

static void write_attribute(pm_wire_out *out, const pm_attribute *attribute)
{
    static const int64_t types[] = {[PM_ATTRIBUTE_INT] = ONNX_ATTRIBUTE_TYPE_INT,
                                    [PM_ATTRIBUTE_FLOAT] = ONNX_ATTRIBUTE_TYPE_FLOAT,
                                    [PM_ATTRIBUTE_STRING] = ONNX_ATTRIBUTE_TYPE_STRING,
                                    [PM_ATTRIBUTE_TENSOR] = ONNX_ATTRIBUTE_TYPE_TENSOR,
                                    [PM_ATTRIBUTE_INTS] = ONNX_ATTRIBUTE_TYPE_INTS,
                                    [PM_ATTRIBUTE_FLOATS] = ONNX_ATTRIBUTE_TYPE_FLOATS};
    size_t mark = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, attribute->name);
    switch (attribute->type) {
    case PM_ATTRIBUTE_FLOAT:
        pm_wire_put_float(out, ONNX_ATTRIBUTE_F, attribute->f);
        break;
    case PM_ATTRIBUTE_INT:
        pm_wire_put_int(out, ONNX_ATTRIBUTE_I, attribute->i);
        break;
    case PM_ATTRIBUTE_STRING:
        pm_wire_put_text(out, ONNX_ATTRIBUTE_S, attribute->s);
        break;
    case PM_ATTRIBUTE_TENSOR:
        write_tensor(out, ONNX_ATTRIBUTE_T, NULL, attribute->tensor);
        break;
    case PM_ATTRIBUTE_FLOATS:
        for (uint32_t i = 0; i < attribute->count; i++)
            pm_wire_put_float(out, ONNX_ATTRIBUTE_FLOATS, attribute->floats[i]);
        break;
    case PM_ATTRIBUTE_INTS:
        for (uint32_t i = 0; i < attribute->count; i++)
            pm_wire_put_int(out, ONNX_ATTRIBUTE_INTS, attribute->ints[i]);
        break;
    }
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, types[attribute->type]);
    pm_wire_end(out, mark);
}

static const char *name_of(const writer *w, uint32_t value)
{
    return value == PM_NO_VALUE ? "" : w->names[w->source[value]];
}

static void write_node(writer *w, const pm_node *node)
{
    pm_wire_out *out = &w->out;
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_NODE);
    for (uint32_t i = 0; i < node->input_count; i++)
        pm_wire_put_text(out, ONNX_NODE_INPUT, name_of(w, node->inputs[i]));
    for (uint32_t i = 0; i < node->output_count; i++)
        pm_wire_put_text(out, ONNX_NODE_OUTPUT, name_of(w, node->outputs[i]));
    pm_wire_put_text(out, ONNX_NODE_NAME, node->name);
    pm_wire_put_text(out, ONNX_NODE_OP_TYPE, node->op->name);
    for (uint32_t i = 0; i < node->attribute_count; i++)
        write_attribute(out, &node->attributes[i]);
    pm_wire_end(out, mark);
}

static void write_identity(writer *w, const char *node, const char *input, const char *output)
{
    size_t mark = pm_wire_begin(&w->out, ONNX_GRAPH_NODE);
    pm_wire_put_text(&w->out, ONNX_NODE_INPUT, input);
    pm_wire_put_text(&w->out, ONNX_NODE_OUTPUT, output);
    pm_wire_put_text(&w->out, ONNX_NODE_NAME, node);
    pm_wire_put_text(&w->out, ONNX_NODE_OP_TYPE, "Identity");
    pm_wire_end(&w->out, mark);
}

static bool is_output(const pm_graph *graph, uint32_t value)
{
    for (size_t i = 0; i < graph->output_count; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

// Who reads the output of a node that is left out reads its input instead; when that output is the graph's,
// what it comes from takes over its name, if it has none to keep.
static void find_sources(writer *w)
{
    const pm_graph *g = w->graph;
    for (uint32_t v = 0; v < g->value_count; v++) {
        w->source[v] = v;
        w->names[v] = g->values[v].name;
        w->renamed[v] = g->values[v].param != PM_NO_PARAM || g->values[v].constant;
    }
    for (size_t i = 0; i < g->input_count; i++)
        w->renamed[g->inputs[i]] = true;
    for (size_t i = 0; i < g->output_count; i++)
        w->renamed[g->outputs[i]] = true;
    for (size_t n = 0; n < g->node_count; n++) {
        const pm_node *node = &g->nodes[n];
        if (!is_left_out(node))
            continue;
        const uint32_t output = node->outputs[0], from = w->source[node->inputs[0]];
        w->source[output] = from;
        if (!is_output(g, output) || w->renamed[from])
            continue;
        w->renamed[from] = true;
        w->names[from] = g->values[output].name;
    }
}

static void write_nodes(writer *w)
{
    const pm_graph *g = w->graph;
    for (size_t n = 0; n < g->node_count; n++) {
        const pm_node *node = &g->nodes[n];
        if (!is_left_out(node)) {
            write_node(w, node);
            continue;
        }
        const char *input = name_of(w, node->outputs[0]), *output = g->values[node->outputs[0]].name;
        if (is_output(g, node->outputs[0]) && strcmp(input, output) != 0)
            write_identity(w, node->name, input, output);
    }
}

static void write_entry(pm_wire_out *out, const char *key, const char *value)
{
    size_t mark = pm_wire_begin(out, ONNX_TENSOR_EXTERNAL_DATA);
    pm_wire_put_text(out, ONNX_ENTRY_KEY, key);
    pm_wire_put_text(out, ONNX_ENTRY_VALUE, value);
    pm_wire_end(out, mark);
}

static void write_param(pm_wire_out *out, const pm_param *param, const char *weights_file, uint64_t offset)
{
    char number[32];
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    for (uint32_t i = 0; i < param->rank; i++)
        pm_wire_put_int(out, ONNX_TENSOR_DIMS, param->shape[i]);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, PM_TYPE_F32);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, param->name);
    write_entry(out, "location", weights_file);
    snprintf(number, sizeof number, "%" PRIu64, offset);
    write_entry(out, "offset", number);
    snprintf(number, sizeof number, "%zu", param->count * sizeof(float));
    write_entry(out, "length", number);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_LOCATION, ONNX_LOCATION_EXTERNAL);
    pm_wire_end(out, mark);
}

// A ValueInfoProto, the batch named "N".
static void write_value(pm_wire_out *out, uint32_t number, const char *name, const pm_value *value)
{
    const pm_tensor *t = &value->tensor;
    size_t info = pm_wire_begin(out, number);
    pm_wire_put_text(out, ONNX_VALUE_NAME, name);
    size_t type = pm_wire_begin(out, ONNX_VALUE_TYPE), tensor = pm_wire_begin(out, ONNX_TYPE_TENSOR);
    pm_wire_put_int(out, ONNX_TENSOR_TYPE_ELEM, t->type);
    size_t shape = pm_wire_begin(out, ONNX_TENSOR_TYPE_SHAPE);
    for (uint32_t i = 0; i < t->rank; i++) {
        size_t extent = pm_wire_begin(out, ONNX_SHAPE_DIM);
        if (i == 0 && value->batched)
            pm_wire_put_text(out, ONNX_DIM_PARAM, "N");
        else
            pm_wire_put_int(out, ONNX_DIM_VALUE, t->shape[i]);
        pm_wire_end(out, extent);
    }
    pm_wire_end(out, shape);
    pm_wire_end(out, tensor);
    pm_wire_end(out, type);
    pm_wire_end(out, info);
}

static void write_graph(writer *w, const char *weights_file, const uint64_t *offsets)
{
    const pm_graph *g = w->graph;
    pm_wire_out *out = &w->out;
    size_t mark = pm_wire_begin(out, ONNX_MODEL_GRAPH);
    write_nodes(w);
    pm_wire_put_text(out, ONNX_GRAPH_NAME, "paramill");
    for (size_t i = 0; i < g->param_count; i++)
        write_param(out, &g->params[i], weights_file, offsets[i]);
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i].constant)
            write_tensor(out, ONNX_GRAPH_INITIALIZER, g->values[i].name, &g->values[i].tensor);
    for (size_t i = 0; i < g->input_count; i++)
        write_value(out, ONNX_GRAPH_INPUT, g->values[g->inputs[i]].name, &g->values[g->inputs[i]]);
    for (size_t i = 0; i < g->output_count; i++)
        write_value(out, ONNX_GRAPH_OUTPUT, g->values[g->outputs[i]].name, &g->values[g->outputs[i]]);
    pm_wire_end(out, mark);
}

pm_status pm_graph_write_onnx(const pm_graph *graph, const char *weights_file, const uint64_t *offsets,
                              pm_buffer **onnx)
{
    const size_t n = graph->value_count + 1;
    writer w = {.graph = graph,
                .source = calloc(n, sizeof(uint32_t)),
                .names = calloc(n, sizeof(char *)),
                .renamed = calloc(n, sizeof(bool))};
    pm_buffer *buffer = NULL;
    if (w.source && w.names && w.renamed) {
        find_sources(&w);
        pm_wire_put_int(&w.out, ONNX_MODEL_IR_VERSION, ONNX_IR_VERSION);
        pm_wire_put_text(&w.out, ONNX_MODEL_PRODUCER_NAME, "paramill");
        write_graph(&w, weights_file, offsets);
        size_t mark = pm_wire_begin(&w.out, ONNX_MODEL_OPSET_IMPORT);
        pm_wire_put_text(&w.out, ONNX_OPSET_DOMAIN, "");
        pm_wire_put_int(&w.out, ONNX_OPSET_VERSION, graph->opset);
        pm_wire_end(&w.out, mark);
        buffer = w.out.failed ? NULL : pm_buffer_copy(w.out.data, w.out.size);
    }
    free(w.out.data);
    free(w.source);
    free(w.names);
    free(w.renamed);
    if (!buffer)
        return pm_fail(PM_NO_MEMORY, "an ONNX model");
    *onnx = buffer;
    return pm_ok();
}
