#pragma once
// The inside of a pm_graph, for the files of this room only.
#include "model/graph.h"

#include <stdbool.h>

enum {
    PM_BATCH = -1, // first extent of every activation
    PM_MAX_INPUTS = 5,
    PM_MAX_ATTRIBUTES = 8,
    PM_MAX_NAME = 256,
    PM_MAX_NODES = 65536,
    PM_NO_PARAM = -1,
};

// Largest activation of one row and largest parameter, in elements.
#define PM_MAX_ROW_COUNT ((size_t)1 << 28)
#define PM_MAX_PARAM_COUNT ((size_t)1 << 33)

typedef enum pm_attribute_type {
    PM_ATTRIBUTE_INT,
    PM_ATTRIBUTE_FLOAT,
    PM_ATTRIBUTE_INTS,
    PM_ATTRIBUTE_STRING
} pm_attribute_type;

// A named attribute of a node, as in ONNX; name points to static text.
typedef struct pm_attribute {
    const char *name;
    pm_attribute_type type;
    int64_t i;
    float f;
    int64_t ints[PM_MAX_RANK];
    uint32_t int_count;
} pm_attribute;

struct pm_operator;

typedef struct pm_node {
    const struct pm_operator *op;
    char *name;                     // unique in the graph
    uint32_t inputs[PM_MAX_INPUTS]; // values: the activation first, then parameters
    uint32_t input_count;
    uint32_t output; // value
    pm_attribute attributes[PM_MAX_ATTRIBUTES];
    uint32_t attribute_count;
} pm_node;

typedef struct pm_value {
    char *name; // unique in the graph
    uint32_t rank;
    int64_t shape[PM_MAX_RANK]; // activations: shape[0] is PM_BATCH
    size_t count;               // elements; of one row for activations
    int64_t param;              // index into params, or PM_NO_PARAM
} pm_value;

struct pm_graph {
    pm_node *nodes; // in the order of execution
    size_t node_count, node_capacity;
    pm_value *values;
    size_t value_count, value_capacity;
    pm_param *params; // name and shape point into values' own copies
    uint32_t *param_values;
    size_t param_count, param_capacity;
    uint32_t input, output; // values
};

// An empty graph; NULL when out of memory.
pm_graph *pm_graph_create(void);

// Appends a value; shape has rank extents. The name is copied.
pm_status pm_graph_add_value(pm_graph *graph, const char *name, const int64_t *shape, uint32_t rank,
                             uint32_t *value) PM_CHECKED;

// Appends a parameter and its value; takes over initial (malloc, may be NULL), also on failure.
pm_status pm_graph_add_param(pm_graph *graph, const char *name, const int64_t *shape, uint32_t rank,
                             float *initial, uint32_t *value) PM_CHECKED;

// Appends the node with its inputs and attributes set: infers and adds its output value under output_name,
// and marks the statistics among its parameters. The node's name is copied.
pm_status pm_graph_add_node(pm_graph *graph, const pm_node *node, const char *output_name) PM_CHECKED;

// Completes the graph (parameter pointers are stable from here on).
void pm_graph_finish(pm_graph *graph, uint32_t output);

// Product of extents with an upper limit; false when an extent is not positive or the limit is passed.
bool pm_shape_count(const int64_t *shape, uint32_t rank, size_t limit, size_t *count);

// "(1, 28, 28)" into text.
const char *pm_shape_text(const int64_t *shape, uint32_t rank, char *text, size_t size);

const pm_attribute *pm_node_attribute(const pm_node *node, const char *name);
int64_t pm_node_int(const pm_node *node, const char *name, int64_t otherwise);
float pm_node_float(const pm_node *node, const char *name, float otherwise);

// Sets an attribute; there is room for PM_MAX_ATTRIBUTES.
void pm_node_set_int(pm_node *node, const char *name, int64_t value);
void pm_node_set_float(pm_node *node, const char *name, float value);
void pm_node_set_ints(pm_node *node, const char *name, const int64_t *values, uint32_t count);
