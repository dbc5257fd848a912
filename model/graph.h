#pragma once
// The model graph: nodes named and attributed as ONNX operators, values with inferred shapes, and parameters
// (ONNX initializers). It holds no activations and runs nothing; model/plan.h makes it run. A graph is
// immutable once made and may be shared by threads.
#include "core/buffer.h"
#include "core/job.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pm_graph pm_graph;

typedef enum pm_param_kind {
    PM_PARAM_TRAINED,
    PM_PARAM_STATISTIC // BatchNormalization running mean or variance: no gradient, pushed as batch statistic
} pm_param_kind;

// One parameter; everything in it is owned by the graph.
typedef struct pm_param {
    const char *name;     // "conv1.weight"
    const int64_t *shape; // rank extents
    uint32_t rank;
    size_t count; // product of shape
    pm_param_kind kind;
    double momentum;      // STATISTIC: weight of the old value; new = momentum * old + (1 - momentum) * batch
    const float *initial; // count values; NULL when the graph was read from an ONNX file with external data
} pm_param;

// Builds the graph of job->model. The last value is named "logits" when the loss is softmax cross-entropy,
// "output" otherwise. Parameters are named "KINDn.ROLE", n counting the layers of a kind from 1: gemm1.weight
// (out, in), gemm1.bias, conv1.weight (out, in, height, width), batchnorm1.scale, .bias, .mean, .var. Initial
// weights are a pure function of (job->seed, name): He uniform, +-sqrt(6 / fan_in), where the next activation
// is Relu (He et al. 2015), else Glorot uniform, +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010);
// biases and running means are 0, scales and running variances 1. PM_INVALID names layer and operator when
// shapes do not fit. The caller owns *graph.
pm_status pm_graph_from_job(pm_graph **graph, const pm_job *job) PM_CHECKED;

// Frees the graph and sets *graph to NULL; NULL is allowed. No plan made from it may be left.
void pm_graph_destroy(pm_graph **graph);

size_t pm_graph_param_count(const pm_graph *graph);

// The parameter at index < pm_graph_param_count; the order is that of first use by the forward pass.
const pm_param *pm_graph_param(const pm_graph *graph, size_t index);

const char *pm_graph_input_name(const pm_graph *graph);
const char *pm_graph_output_name(const pm_graph *graph);

// Extents of one row, without the batch dimension.
const int64_t *pm_graph_input_shape(const pm_graph *graph, uint32_t *rank);
const int64_t *pm_graph_output_shape(const pm_graph *graph, uint32_t *rank);

// Elements of one row.
size_t pm_graph_input_count(const pm_graph *graph);
size_t pm_graph_output_count(const pm_graph *graph);

// The inference graph as an ONNX ModelProto (opset 13, ir_version 8, batch dimension "N"): Dropout is left
// out, BatchNormalization uses its running statistics, and each parameter is external data of weights_file (a
// name relative to the model file) at offsets[param], float32 little-endian. The caller owns *onnx.
pm_status pm_graph_write_onnx(const pm_graph *graph, const char *weights_file, const uint64_t *offsets,
                              pm_buffer **onnx) PM_CHECKED;

// Reads an ONNX ModelProto made of Gemm, Conv, MaxPool, AveragePool, BatchNormalization, Flatten, Relu,
// Sigmoid, Tanh, Softmax, Dropout and Identity in a chain from one float input (first extent: the batch) to
// one output, opset 13 to
// 17. The bytes are hostile: PM_CORRUPT when they are not a protobuf message, PM_UNSUPPORTED names node,
// domain and opset of what is known but not built, PM_INVALID what does not fit together. Initializers are
// float32 inline (pm_param.initial) or external (initial is NULL: bind them, see pm_plan_bind). The caller
// owns *graph.
pm_status pm_graph_read_onnx(pm_graph **graph, const void *bytes, size_t size) PM_CHECKED;
