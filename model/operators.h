#pragma once
// The operators this room knows: their ONNX names, attributes, inputs, and the inference of output shapes.
#include "model/graph_impl.h"

typedef enum pm_operator_id {
    PM_OPERATOR_GEMM,
    PM_OPERATOR_CONV,
    PM_OPERATOR_MAX_POOL,
    PM_OPERATOR_AVERAGE_POOL,
    PM_OPERATOR_BATCH_NORMALIZATION,
    PM_OPERATOR_FLATTEN,
    PM_OPERATOR_RELU,
    PM_OPERATOR_SIGMOID,
    PM_OPERATOR_TANH,
    PM_OPERATOR_SOFTMAX,
    PM_OPERATOR_DROPOUT,
    PM_OPERATOR_COUNT
} pm_operator_id;

typedef struct pm_attribute_spec {
    const char *name;
    pm_attribute_type type;
} pm_attribute_spec;

typedef struct pm_operator {
    pm_operator_id id;
    const char *name;   // ONNX operator
    const char *prefix; // node and parameter names: "conv" gives conv1, conv1.weight
    uint32_t min_inputs, max_inputs;
    uint32_t statistic_inputs; // bit i: input i is a running statistic
    bool backward_reads_input, backward_reads_output;
    bool element_wise; // output element i depends on input element i alone: may work in place
    pm_attribute_spec attributes[PM_MAX_ATTRIBUTES + 1]; // ends with a NULL name

    // Checks inputs and attributes of node; gives rank and shape of its output.
    pm_status (*infer)(const pm_graph *graph, const pm_node *node, pm_value *output);
} pm_operator;

const pm_operator *pm_operator_get(pm_operator_id id);

// By ONNX name; NULL when unknown.
const pm_operator *pm_operator_find(const char *name);

// The sliding window of Conv and the pools over one (channels, height, width) image.
typedef struct pm_window {
    int64_t channels, height, width;
    int64_t kernel_h, kernel_w, stride_h, stride_w;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t out_channels, out_height, out_width; // out_channels = channels for pools
    bool count_include_pad;                      // AveragePool: divide by the whole window
} pm_window;

// Reads and checks the window of a Conv or pool node; PM_INVALID or PM_UNSUPPORTED says what does not fit.
pm_status pm_node_window(const pm_graph *graph, const pm_node *node, pm_window *window) PM_CHECKED;
