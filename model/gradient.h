#pragma once
// The gradient as a graph: the nodes of a program are visited backward, and each operator's rule appends the
// nodes that make the gradients of its inputs from those of its outputs (reverse accumulation). What several
// readers contribute is added lane by lane, and each parameter's gradient is the tree sum over the lanes of
// that. Nothing is made that no parameter needs.
#include "model/operators.h"

// Appends the backward nodes to program, starting from the gradient (seed) of one of its values. gradients
// (program params): the value that holds each parameter's gradient, or statistic; PM_NO_VALUE where the
// parameter has no influence on start. PM_INVALID when no parameter has any.
pm_status pm_gradient_build(pm_graph *program, uint32_t start, uint32_t seed, uint32_t *gradients) PM_CHECKED;

// --- for the operators' rules

// The gradient of the node's output; PM_NO_VALUE when it has none.
uint32_t pm_gradient_of(const pm_gradient *g, const pm_node *node, uint32_t output);

// Whether the gradient of the node's input is asked for.
bool pm_gradient_wants(const pm_gradient *g, const pm_node *node, uint32_t input);

// Contributes value to the gradient of the node's input.
pm_status pm_gradient_give(pm_gradient *g, const pm_node *node, uint32_t input, uint32_t value) PM_CHECKED;

// Gives the statistic at the node's input (a parameter) its value: the sum over lanes of a stacked one.
pm_status pm_gradient_give_statistic(pm_gradient *g, const pm_node *node, uint32_t input,
                                     uint32_t value) PM_CHECKED;

// What to append: inputs and attributes are lists of their own.
typedef struct pm_recipe {
    const char *domain, *op;
    const uint32_t *inputs;
    uint32_t input_count;
    const pm_attribute *attributes;
    uint32_t attribute_count;
    uint32_t output_count; // 0 means 1
} pm_recipe;

#define PM_VALUES(...)                                                                                       \
    .inputs = (const uint32_t[]){__VA_ARGS__},                                                               \
    .input_count = sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define PM_ATTRIBUTES(...)                                                                                   \
    .attributes = (const pm_attribute[]){__VA_ARGS__},                                                       \
    .attribute_count = sizeof((const pm_attribute[]){__VA_ARGS__}) / sizeof(pm_attribute)

// Appends a node named after node, or what its operator is made of; outputs is (output_count).
pm_status pm_recipe_add(pm_graph *program, const pm_node *node, pm_recipe recipe,
                        uint32_t *outputs) PM_CHECKED;

// Appends a node of one output for the rule of node and gives that to the node's input.
pm_status pm_gradient_give_recipe(pm_gradient *g, const pm_node *node, uint32_t input,
                                  pm_recipe recipe) PM_CHECKED;

// The same, summed down to the input's shape where broadcasting had widened it.
pm_status pm_gradient_give_summed(pm_gradient *g, const pm_node *node, uint32_t input,
                                  uint32_t value) PM_CHECKED;

// Where the node ends with the rectifier: replaces the gradient of its output by that of what it rectifies.
pm_status pm_gradient_through_relu(pm_gradient *g, const pm_node *node, uint32_t *dy) PM_CHECKED;

// The program being extended. Adding nodes moves its values and nodes: keep indices, not pointers.
pm_graph *pm_gradient_program(pm_gradient *g);
