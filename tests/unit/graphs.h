#pragma once
// Graphs made node by node, for the tests of model/.
#include "model/operators.h"
#include "model/program.h"
#include "tests/unit/nets.h"

#include <stdio.h>
#include <stdlib.h>

#define GRAPHS_SHAPE(...)                                                                                    \
    (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)
#define GRAPHS_VALUES(...)                                                                                   \
    (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define GRAPHS_ATTRIBUTES(...)                                                                               \
    (const pm_attribute[]){__VA_ARGS__}, sizeof((const pm_attribute[]){__VA_ARGS__}) / sizeof(pm_attribute)

static inline pm_tensor graphs_tensor(pm_type type, const int64_t *shape, size_t rank)
{
    pm_tensor tensor = {.type = type, .rank = (uint32_t)rank};
    for (size_t d = 0; d < rank; d++)
        tensor.shape[d] = shape[d];
    cr_assert(pm_shape_count(tensor.shape, tensor.rank, PM_MAX_ROW_COUNT, &tensor.count));
    return tensor;
}

static inline pm_graph *graphs_create(void)
{
    pm_graph *graph = pm_graph_create();
    cr_assert_neq(graph, NULL);
    graph->opset = 13;
    return graph;
}

// An input of rows of the shape, float32.
static inline uint32_t graphs_input(pm_graph *graph, const char *name, const int64_t *shape, size_t rank)
{
    pm_tensor tensor = {.type = PM_TYPE_F32, .rank = (uint32_t)rank + 1, .shape = {1}};
    for (size_t d = 0; d < rank; d++)
        tensor.shape[d + 1] = shape[d];
    uint32_t value = PM_NO_VALUE;
    NETS_OK(pm_graph_add_value(graph, name, &tensor, &value));
    NETS_OK(pm_graph_add_input(graph, value));
    graph->values[value].batched = true;
    return value;
}

// A parameter whose values are a function of its name and place.
static inline uint32_t graphs_param(pm_graph *graph, const char *name, const int64_t *shape, size_t rank)
{
    pm_tensor tensor = graphs_tensor(PM_TYPE_F32, shape, rank);
    float *data = pm_region_alloc(graph->region, pm_tensor_bytes(&tensor));
    for (size_t i = 0; i < tensor.count; i++)
        data[i] = 0.6f * nets_number((uint64_t)name[0] * 256 + (uint64_t)name[1], i);
    tensor.data = data;
    uint32_t value = PM_NO_VALUE;
    NETS_OK(pm_graph_add_value(graph, name, &tensor, &value));
    NETS_OK(pm_graph_make_param(graph, value));
    return value;
}

static inline uint32_t graphs_integers(pm_graph *graph, const char *name, const int64_t *values, size_t count)
{
    pm_tensor tensor = graphs_tensor(PM_TYPE_I64, GRAPHS_SHAPE((int64_t)count));
    tensor.data = pm_region_copy(graph->region, values, count * sizeof *values);
    uint32_t value = PM_NO_VALUE;
    NETS_OK(pm_graph_add_constant(graph, name, &tensor, &value));
    return value;
}

// A node of one output, whose type and shape are inferred where that needs no values.
static inline uint32_t graphs_node_with(pm_graph *graph, const char *op, const uint32_t *inputs, size_t count,
                                        const pm_attribute *attributes, size_t attribute_count)
{
    char name[64], output[64];
    snprintf(name, sizeof name, "%s%zu", op, graph->node_count);
    snprintf(output, sizeof output, "%s.y", name);
    uint32_t value = PM_NO_VALUE;
    pm_tensor tensor;
    const pm_node node = {.op = pm_operator_find("", op, graph->opset),
                          .name = name,
                          .inputs = inputs,
                          .input_count = (uint32_t)count,
                          .outputs = &value,
                          .output_count = 1,
                          .attributes = attributes,
                          .attribute_count = (uint32_t)attribute_count};
    cr_assert_neq(node.op, NULL, "%s", op);
    const pm_status inferred = pm_program_shapes(graph, &node, &tensor);
    cr_assert(inferred.code == PM_OK || inferred.code == PM_UNSUPPORTED || node.op->lower, "%s",
              inferred.message);
    if (inferred.code != PM_OK)
        tensor = (pm_tensor){0};
    NETS_OK(pm_graph_add_value(graph, output, &tensor, &value));
    NETS_OK(pm_graph_add_node(graph, &node));
    graph->values[value].batched = tensor.rank > 0 && tensor.shape[0] == 1;
    return value;
}

static inline uint32_t graphs_node(pm_graph *graph, const char *op, const uint32_t *inputs, size_t count)
{
    return graphs_node_with(graph, op, inputs, count, NULL, 0);
}

static inline pm_graph *graphs_finish(pm_graph *graph, uint32_t output)
{
    NETS_OK(pm_graph_add_output(graph, output));
    NETS_OK(pm_graph_finish(graph));
    return graph;
}

// A graph with branches, a tied and a derived weight, a Reshape and broadcasting: x (N, 6) to (N, 5).
static inline pm_graph *graphs_branches(void)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(6));
    const uint32_t w = graphs_param(g, "w", GRAPHS_SHAPE(6, 6)), c = graphs_param(g, "c", GRAPHS_SHAPE(2, 1));
    const pm_attribute transposed = pm_attribute_int("transB", 1);
    const uint32_t up = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w))));
    const uint32_t down = graphs_node_with(g, "Gemm", GRAPHS_VALUES(up, w), &transposed, 1);
    const uint32_t sum = graphs_node(g, "Add", GRAPHS_VALUES(graphs_node(g, "Relu", GRAPHS_VALUES(down)), x));
    const uint32_t pairs = graphs_integers(g, "pairs", (const int64_t[]){-1, 2, 3}, 3);
    const uint32_t scaled =
        graphs_node(g, "Mul", GRAPHS_VALUES(graphs_node(g, "Reshape", GRAPHS_VALUES(sum, pairs)), c));
    const uint32_t flat = graphs_node(g, "Flatten", GRAPHS_VALUES(scaled));
    const uint32_t head = graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_param(g, "head", GRAPHS_SHAPE(6, 5))));
    return graphs_finish(g, graphs_node(g, "Gemm", GRAPHS_VALUES(flat, head)));
}
