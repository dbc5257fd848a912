#pragma once
// Names, tensors and attributes of a hostile ONNX model, for onnx_read.c.
#include "model/operators.h"
#include "model/wire.h"

// Bytes inside the model.
typedef struct pm_onnx_text {
    const unsigned char *bytes;
    size_t size;
} pm_onnx_text;

// Copies text into out (PM_MAX_NAME bytes); PM_INVALID when it is empty, too long or holds control
// characters.
pm_status pm_onnx_name(pm_onnx_text text, const char *what, char *out) PM_CHECKED;

// Byte order; for sorting and finding.
int pm_onnx_text_compare(pm_onnx_text a, pm_onnx_text b);

bool pm_onnx_text_is(pm_onnx_text text, const char *word);

// Reads a TensorProto; the elements are copied into region. name is for messages. *external: the data lie in
// another file, and tensor->data is NULL.
pm_status pm_onnx_tensor_read(pm_wire message, const char *name, pm_region *region, pm_tensor *tensor,
                              bool *external) PM_CHECKED;

// A call of a function, for the attributes inside it that refer to the call's.
typedef struct pm_onnx_call {
    pm_wire node, function;           // the calling NodeProto, the FunctionProto with its defaults
    const struct pm_onnx_call *outer; // in which the node stands; NULL: in no function
} pm_onnx_call;

// Reads the attributes of a NodeProto that specs lists; PM_UNSUPPORTED names any other. One that refers to an
// attribute which the call (NULL: there is none) does not have is left out. The list and what is in it lie in
// region.
pm_status pm_onnx_attributes_read(pm_wire node, const pm_onnx_call *call, const pm_attribute_spec *specs,
                                  pm_region *region, pm_attribute **attributes, uint32_t *count) PM_CHECKED;

// Reads the value of a Constant node.
pm_status pm_onnx_constant_read(pm_wire node, const pm_onnx_call *call, pm_region *region,
                                pm_tensor *tensor) PM_CHECKED;

// The GraphProto of a node's attribute; false when it has none of that name.
bool pm_onnx_attribute_graph(pm_wire node, const char *name, pm_wire *graph);

// Reads a model whose inputs (that are no initializers) are exactly these: their types and shapes are taken
// from them, and all initializers are constants. Nothing is inferred yet. The caller owns *graph.
pm_status pm_onnx_graph_read(pm_graph **graph, const void *bytes, size_t size, const pm_tensor *inputs,
                             size_t input_count) PM_CHECKED;
