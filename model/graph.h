#pragma once
// The model graph: a directed acyclic graph of nodes named and attributed as ONNX operators, over values that
// are inputs, constants, parameters (initializers that are trained, and running statistics) or outputs of
// nodes. It holds no activations and runs nothing; model/plan.h makes it run. A graph is immutable once made
// and may be shared by threads.
#include "core/buffer.h"
#include "core/digest.h"
#include "core/job.h"
#include "core/status.h"
#include "model/tensor.h"

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
    bool frozen;          // stays as it is: no gradient is computed for it
    bool sparse;          // a table of rows, of which a step reads and changes some (see pm_plan_rows)
    double momentum;      // STATISTIC: weight of the old value; new = momentum * old + (1 - momentum) * batch
    const float *initial; // count values; NULL when the graph was read from an ONNX file with external data
} pm_param;

// An input or output; everything in it is owned by the graph. Shapes are those of one row: without the batch
// dimension.
typedef struct pm_port {
    const char *name;
    pm_type type;
    const int64_t *shape; // rank extents
    uint32_t rank;
    size_t count; // product of shape
} pm_port;

// Builds the graph of job->model, or reads it from the ONNX file that job->model.onnx names: with one float32
// input and output, and of job->model.digest (see pm_graph_digest_onnx) where that is set. From layers: the
// last value is named "logits" when the loss is softmax cross-entropy, "output" otherwise. Parameters are
// named "KINDn.ROLE", n counting the layers of a kind from 1: gemm1.weight (out, in), gemm1.bias,
// conv1.weight (out, in, height, width), batchnorm1.scale, .bias, .mean, .var. Initial weights are a pure
// function of (job->seed, name): of Gemm, MatMul and Conv He uniform, +-sqrt(6 / fan_in), where the next
// activation is Relu or Gelu (He et al. 2015), else Glorot uniform, +-sqrt(6 / (fan_in + fan_out)) (Glorot
// and Bengio 2010). In a model with Attention or Transformer layers matrices are normal with deviation 0.02,
// those whose outputs a Transformer adds to its input 0.02 / sqrt(2 Transformers) (Radford et al. 2019,
// GPT-2). LSTM and GRU begin uniform in +-1 / sqrt(units). Biases and running means are 0, scales and running
// variances 1. The graph is of opset 17 where it has a LayerNormalization, of 13 else. PM_INVALID names layer
// and operator when shapes do not fit. The caller owns *graph.
// With replace_last an ONNX file's last layer is made anew, uniform as above (model/replace_last.h).
pm_status pm_graph_from_job(pm_graph **graph, const pm_job *job) PM_CHECKED;

// Frees the graph and sets *graph to NULL; NULL is allowed. No plan made from it may be left.
void pm_graph_destroy(pm_graph **graph);

size_t pm_graph_param_count(const pm_graph *graph);

// The parameter at index < pm_graph_param_count; the order is that of first use by the forward pass.
const pm_param *pm_graph_param(const pm_graph *graph, size_t index);

size_t pm_graph_inputs(const pm_graph *graph);
size_t pm_graph_outputs(const pm_graph *graph);

// The ports at index < pm_graph_inputs, pm_graph_outputs.
const pm_port *pm_graph_input(const pm_graph *graph, size_t index);
const pm_port *pm_graph_output(const pm_graph *graph, size_t index);

// The first input and output, which is all that many models have. Extents and elements of one row.
const char *pm_graph_input_name(const pm_graph *graph);
const char *pm_graph_output_name(const pm_graph *graph);
const int64_t *pm_graph_input_shape(const pm_graph *graph, uint32_t *rank);
const int64_t *pm_graph_output_shape(const pm_graph *graph, uint32_t *rank);
size_t pm_graph_input_count(const pm_graph *graph);
size_t pm_graph_output_count(const pm_graph *graph);

// The inference graph as an ONNX ModelProto (opset 13 or the newer one it was read with, ir_version 8, batch
// dimension "N"; a model of an older opset with an operator that has no form in opset 13 keeps its own):
// Dropout is left out, BatchNormalization uses its running statistics, and each parameter is external data of
// weights_file (a name relative to the model file) at offsets[param], float32 little-endian; other constants
// are inline. The caller owns *onnx.
pm_status pm_graph_write_onnx(const pm_graph *graph, const char *weights_file, const uint64_t *offsets,
                              pm_buffer **onnx) PM_CHECKED;

// What reading the model changed or found that the user should know, one sentence each: equal parameters that
// the exporter had merged, a batch normalization that it had folded.
size_t pm_graph_notes(const pm_graph *graph);
const char *pm_graph_note(const pm_graph *graph, size_t index);

// Reads an ONNX ModelProto, opset 7 to 17, whose inputs have the batch as their first extent and fixed ones
// after it. The bytes are hostile: PM_CORRUPT when they are not a protobuf message, PM_UNSUPPORTED names
// node, domain and opset of what is known but not built, PM_INVALID what does not fit together: a missing
// input, a cycle, a name given twice, shapes. Float32 initializers are parameters, inline (pm_param.initial)
// or external (initial is NULL: bind them, see pm_plan_bind); scalars, other types and settings of operators
// are constants. Functions and branches of If whose condition follows from constants and shapes are inlined.
// Forms of training become those of inference, of which a training plan makes its own. float16 and bfloat16
// are storage: what is in them is read as float32; inputs and outputs keep their types. A parameter that an
// Identity gives a second name is two parameters (see pm_graph_note). The caller owns *graph.
pm_status pm_graph_read_onnx(pm_graph **graph, const void *bytes, size_t size) PM_CHECKED;

// The same with external data of any type, which are read from files in folder (the model's) or below it, at
// most 8 GiB of them: PM_INVALID when a path leads elsewhere, PM_IO when a file cannot be opened, PM_CORRUPT
// when it is too short. output: the name of the value that becomes the graph's one output, be it one of the
// model's or between its nodes, of which only those that it follows from are read; NULL: the outputs are the
// model's.
//
// Linear models, scalers and the like of ai.onnx.ml, which scikit-learn's exporter writes, become operators
// of the default domain, coefficients parameters. What such a model makes of the scores Z, which end in a
// softmax or sigmoid, is there before that under the name "Z.logits".
pm_status pm_graph_read_onnx_in(pm_graph **graph, const void *bytes, size_t size, const char *folder,
                                const char *output) PM_CHECKED;

// The same for a file at path, of at most 2 GiB, and the folder that it lies in. The file is mapped: tensors
// are found in it and copied once.
pm_status pm_graph_load_onnx(pm_graph **graph, const char *path, const char *output) PM_CHECKED;

// The SHA-256 of the file at path that the graph was loaded from; where it had external data, that of the
// lines "SHA256  NAME\n" of the model (NAME is "model") and of each data file, in order of first use.
pm_status pm_graph_digest_onnx(const pm_graph *graph, const char *path, char hex[PM_DIGEST_HEX]) PM_CHECKED;
