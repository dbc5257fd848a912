#pragma once
// Initializers of a hostile ONNX model, for onnx_read.c.
#include "model/operators.h"
#include "model/wire.h"

// Bytes inside the model.
typedef struct pm_onnx_text {
    const unsigned char *bytes;
    size_t size;
} pm_onnx_text;

typedef struct pm_onnx_tensor {
    pm_onnx_text name;
    pm_wire message; // the whole TensorProto
    bool used;       // by some node
} pm_onnx_tensor;

// Copies text into out (PM_MAX_NAME bytes); PM_INVALID when it is empty, too long or holds control
// characters.
pm_status pm_onnx_name(pm_onnx_text text, const char *what, char *out) PM_CHECKED;

// Byte order; for sorting and finding.
int pm_onnx_text_compare(pm_onnx_text a, pm_onnx_text b);

bool pm_onnx_text_is(pm_onnx_text text, const char *word);

// Reads the tensor's shape and values and adds it as a parameter. *value: its value in the graph.
pm_status pm_onnx_add_param(pm_graph *graph, const pm_onnx_tensor *tensor, uint32_t *value) PM_CHECKED;
