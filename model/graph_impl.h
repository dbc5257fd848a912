#pragma once
// The inside of a pm_graph, for the files of this room only. The same structure holds a model as it was
// written down (the source) and, inside a plan, the program made of it, where every value has a type and a
// concrete shape: that of one lane.
#include "model/graph.h"
#include "model/region.h"

#include <stdbool.h>

enum {
    PM_MAX_NAME = 256,
    PM_MAX_NODES = 65536,
    PM_MAX_NODE_VALUES = 4096, // inputs, or outputs, of a node
    PM_NO_PARAM = -1,
};

#define PM_NO_VALUE UINT32_MAX // an optional input or output that is left out

// Largest activation of one lane and largest parameter, in elements.
#define PM_MAX_ROW_COUNT ((size_t)1 << 28)
#define PM_MAX_PARAM_COUNT ((size_t)1 << 33)

typedef enum pm_attribute_type {
    PM_ATTRIBUTE_INT,
    PM_ATTRIBUTE_FLOAT,
    PM_ATTRIBUTE_STRING,
    PM_ATTRIBUTE_TENSOR,
    PM_ATTRIBUTE_INTS,
    PM_ATTRIBUTE_FLOATS,
    PM_ATTRIBUTE_STRINGS // counted only
} pm_attribute_type;

// A named attribute of a node, as in ONNX. name is static text; the lists are the graph's.
typedef struct pm_attribute {
    const char *name;
    pm_attribute_type type;
    int64_t i;
    float f;
    const char *s;
    const pm_tensor *tensor;
    const int64_t *ints;
    const float *floats;
    uint32_t count; // of ints, floats, strings
} pm_attribute;

struct pm_operator;

typedef struct pm_node {
    const struct pm_operator *op;
    const char *name;       // unique in a source; in a program that of the source's node it comes from
    const uint32_t *inputs; // values, or PM_NO_VALUE
    uint32_t input_count;
    const uint32_t *outputs; // values, or PM_NO_VALUE
    uint32_t output_count;
    const pm_attribute *attributes;
    uint32_t attribute_count;
} pm_node;

typedef struct pm_value {
    const char *name; // unique in a source; NULL for what only a program has
    // In a source: known for inputs, constants, parameters and what a builder made; type is PM_TYPE_NONE
    // else. data: the elements of a constant or of a parameter with initial values.
    pm_tensor tensor;
    bool batched;  // shape[0], 1 here, stands for the batch
    bool constant; // tensor.data is the value for ever
    bool weight;   // in a source: a constant that becomes a parameter where a node computes with it
    bool shared;   // in a program: follows from parameters and constants alone, so it is one for all lanes
    int64_t param; // index into params, or PM_NO_PARAM
} pm_value;

struct pm_graph {
    pm_region *region; // names, lists, constants
    pm_node *nodes;    // in an order of execution
    size_t node_count, node_capacity;
    pm_value *values;
    size_t value_count, value_capacity;
    pm_param *params;
    uint32_t *param_values;
    size_t param_count, param_capacity;
    uint32_t *inputs, *outputs; // values
    size_t input_count, output_count;
    pm_port *input_ports, *output_ports; // set by pm_graph_finish
    int64_t opset;                       // of the default domain
    const char **notes, **files;         // for the user; of external data that were read; in region
    size_t note_count, file_count;
};

// An empty graph; NULL when out of memory.
pm_graph *pm_graph_create(void);

// Appends a value; the name (which may be NULL) is copied, tensor->data is not.
pm_status pm_graph_add_value(pm_graph *graph, const char *name, const pm_tensor *tensor,
                             uint32_t *value) PM_CHECKED;

// Appends a constant with data in tensor->data, which the graph's region owns.
pm_status pm_graph_add_constant(pm_graph *graph, const char *name, const pm_tensor *tensor,
                                uint32_t *value) PM_CHECKED;

// Makes a parameter of a float32 value without a producer (its data become the initial values).
pm_status pm_graph_make_param(pm_graph *graph, uint32_t value) PM_CHECKED;

// Appends the node, whose inputs, outputs (values without a producer), attributes and name are copied; no
// inference happens here. Marks the statistics among its inputs.
pm_status pm_graph_add_node(pm_graph *graph, const pm_node *node) PM_CHECKED;

pm_status pm_graph_add_input(pm_graph *graph, uint32_t value) PM_CHECKED;
pm_status pm_graph_add_output(pm_graph *graph, uint32_t value) PM_CHECKED;

// Completes a source whose inputs and outputs have types and shapes: parameters and ports are stable from
// here on.
pm_status pm_graph_finish(pm_graph *graph) PM_CHECKED;

// Keeps a sentence that the user should read; see pm_graph_note.
pm_status pm_graph_add_note(pm_graph *graph, const char *format, ...) PM_CHECKED
    __attribute__((format(printf, 2, 3)));

// Keeps the name of a file that the model's tensors were read from, once.
pm_status pm_graph_add_file(pm_graph *graph, const char *name) PM_CHECKED;

// "(N, 28, 28)" of a value into text.
const char *pm_value_text(const pm_value *value, char *text, size_t size);

// --- attributes

const pm_attribute *pm_node_attribute(const pm_node *node, const char *name);
int64_t pm_node_int(const pm_node *node, const char *name, int64_t otherwise);
float pm_node_float(const pm_node *node, const char *name, float otherwise);
const char *pm_node_string(const pm_node *node, const char *name, const char *otherwise);

// The list of integers, or NULL (*count 0) when it is not given.
const int64_t *pm_node_ints(const pm_node *node, const char *name, uint32_t *count);

// Attributes for a node about to be added; name is static, lists are copied when the node is.
pm_attribute pm_attribute_int(const char *name, int64_t value);
pm_attribute pm_attribute_float(const char *name, float value);
pm_attribute pm_attribute_ints(const char *name, const int64_t *values, uint32_t count);
