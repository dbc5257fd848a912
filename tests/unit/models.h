#pragma once
// ONNX models written byte by byte, for the tests of the reader. All are over x (N, 2), most give y (N, 2).
#include "model/onnx.h"
#include "model/wire.h"
#include "tests/unit/nets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The words of text, each a field.
static inline void models_words(pm_wire_out *out, uint32_t number, const char *text)
{
    char word[64];
    for (int taken = 0; sscanf(text, "%63s%n", word, &taken) == 1; text += taken)
        pm_wire_put_text(out, number, strcmp(word, "-") == 0 ? "" : word);
}

// Opens a node whose inputs and outputs are words; to be ended, with attributes in between.
static inline size_t models_open_node(pm_wire_out *out, uint32_t field, const char *op, const char *inputs,
                                      const char *outputs)
{
    const size_t node = pm_wire_begin(out, field);
    const char *dot = strrchr(op, '.');
    models_words(out, ONNX_NODE_INPUT, inputs);
    models_words(out, ONNX_NODE_OUTPUT, outputs);
    pm_wire_put_text(out, ONNX_NODE_OP_TYPE, dot ? dot + 1 : op);
    if (dot)
        pm_wire_put_bytes(out, ONNX_NODE_DOMAIN, op, (size_t)(dot - op));
    return node;
}

static inline void models_node(pm_wire_out *out, uint32_t field, const char *op, const char *inputs,
                               const char *outputs)
{
    pm_wire_end(out, models_open_node(out, field, op, inputs, outputs));
}

static inline void models_attribute(pm_wire_out *out, uint32_t field, const char *name, int64_t type,
                                    double value)
{
    const size_t attribute = pm_wire_begin(out, field);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, name);
    if (type == ONNX_ATTRIBUTE_TYPE_FLOAT)
        pm_wire_put_float(out, ONNX_ATTRIBUTE_F, (float)value);
    else
        pm_wire_put_int(out, ONNX_ATTRIBUTE_I, (int64_t)value);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, type);
    pm_wire_end(out, attribute);
}

// An attribute that is the call's one of another name.
static inline void models_reference(pm_wire_out *out, const char *name, int64_t type, const char *to)
{
    const size_t attribute = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, name);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_REFERENCE, to);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, type);
    pm_wire_end(out, attribute);
}

static inline void models_tensor(pm_wire_out *out, const char *name, pm_type type, int64_t count,
                                 const void *data)
{
    const size_t tensor = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    pm_wire_put_int(out, ONNX_TENSOR_DIMS, count);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, type);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, name);
    pm_wire_put_bytes(out, ONNX_TENSOR_RAW_DATA, data, (size_t)count * pm_type_size(type));
    pm_wire_end(out, tensor);
}

// (N, 2); only the name when type is none.
static inline void models_port(pm_wire_out *out, uint32_t number, const char *name, pm_type type)
{
    const size_t info = pm_wire_begin(out, number);
    pm_wire_put_text(out, ONNX_VALUE_NAME, name);
    if (type != PM_TYPE_NONE) {
        const size_t at = pm_wire_begin(out, ONNX_VALUE_TYPE), tensor = pm_wire_begin(out, ONNX_TYPE_TENSOR);
        pm_wire_put_int(out, ONNX_TENSOR_TYPE_ELEM, type);
        const size_t shape = pm_wire_begin(out, ONNX_TENSOR_TYPE_SHAPE);
        for (int64_t extent = 1; extent <= 2; extent++) {
            const size_t dim = pm_wire_begin(out, ONNX_SHAPE_DIM);
            pm_wire_put_int(out, ONNX_DIM_VALUE, extent);
            pm_wire_end(out, dim);
        }
        pm_wire_end(out, shape);
        pm_wire_end(out, tensor);
        pm_wire_end(out, at);
    }
    pm_wire_end(out, info);
}

// A model: what graph and functions write, of an opset and an IR version.
typedef struct models_parts {
    void (*graph)(pm_wire_out *out);
    void (*functions)(pm_wire_out *out);
    int64_t opset, ir_version;
    pm_type input, output; // none: float32
} models_parts;

static inline void models_write(pm_wire_out *out, const models_parts *parts)
{
    pm_wire_put_int(out, ONNX_MODEL_IR_VERSION, parts->ir_version ? parts->ir_version : ONNX_IR_VERSION);
    const size_t opset = pm_wire_begin(out, ONNX_MODEL_OPSET_IMPORT);
    pm_wire_put_int(out, ONNX_OPSET_VERSION, parts->opset ? parts->opset : 15);
    pm_wire_end(out, opset);
    if (parts->functions)
        parts->functions(out);
    const size_t graph = pm_wire_begin(out, ONNX_MODEL_GRAPH);
    parts->graph(out);
    models_port(out, ONNX_GRAPH_INPUT, "x", parts->input ? parts->input : PM_TYPE_F32);
    models_port(out, ONNX_GRAPH_OUTPUT, "y", parts->output ? parts->output : PM_TYPE_F32);
    pm_wire_end(out, graph);
}

static inline pm_status models_read(pm_graph **graph, models_parts parts)
{
    pm_wire_out out = {0};
    models_write(&out, &parts);
    pm_status status = pm_graph_read_onnx(graph, out.data, out.size);
    free(out.data);
    return status;
}

static inline void models_refused(models_parts parts, pm_code code, const char *cause)
{
    pm_graph *graph = NULL;
    pm_status status = models_read(&graph, parts);
    cr_assert_eq(status.code, code, "%s", status.message);
    cr_assert(strstr(status.message, cause), "%s", status.message);
    cr_assert_eq(graph, NULL);
}

// y at x = (1, 2); takes over the graph.
static inline void models_gives(pm_graph *graph, float first, float second)
{
    pm_plan *plan = NULL;
    const float x[] = {1, 2};
    float y[2] = {0};
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    cr_assert(y[0] == first && y[1] == second, "%g %g", (double)y[0], (double)y[1]);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
