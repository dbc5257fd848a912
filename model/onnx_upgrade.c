#include "model/onnx_upgrade.h"

#include "model/onnx.h"

#include <string.h>

static const struct {
    const char *op;
    int64_t until; // the last opset where it is an attribute
    pm_onnx_move move;
} MOVES[] = {
    {"Dropout", 11, {"ratio", 1}},  {"Clip", 10, {"min", 1}},     {"Clip", 10, {"max", 2}},
    {"Pad", 10, {"pads", 1}},       {"Pad", 10, {"value", 2}},    {"ReduceSum", 12, {"axes", 1}},
    {"Slice", 9, {"starts", 1}},    {"Slice", 9, {"ends", 2}},    {"Slice", 9, {"axes", 3}},
    {"Split", 12, {"split", 1}},    {"Squeeze", 12, {"axes", 1}}, {"TopK", 9, {"k", 1}},
    {"Unsqueeze", 12, {"axes", 1}},
};

const pm_onnx_move *pm_onnx_find_move(const char *op, const char *attribute, int64_t opset)
{
    for (size_t i = 0; i < sizeof MOVES / sizeof MOVES[0]; i++)
        if (opset <= MOVES[i].until && strcmp(MOVES[i].op, op) == 0 &&
            strcmp(MOVES[i].move.attribute, attribute) == 0)
            return &MOVES[i].move;
    return NULL;
}

static bool is_softmax(const char *op)
{
    return strcmp(op, "Softmax") == 0 || strcmp(op, "LogSoftmax") == 0;
}

bool pm_onnx_softmax_changes(const pm_graph *graph, const pm_node *node)
{
    if (graph->opset >= ONNX_OPSET || !is_softmax(node->op->name))
        return false;
    const pm_tensor *x = &graph->values[node->inputs[0]].tensor;
    const int64_t axis = pm_node_int(node, "axis", 1);
    return axis != -1 && (x->type == PM_TYPE_NONE || axis != (int64_t)x->rank - 1);
}

bool pm_onnx_is_old_resize(const pm_node *node)
{
    return strcmp(node->op->name, "Upsample") == 0 ||
           (strcmp(node->op->name, "Resize") == 0 && node->op->until != 0);
}

// Up to opset 6 the slope of a PRelu lies along the channels, from then on along the last axis.
static bool prelu_stays(const pm_value *x, const pm_value *slope)
{
    return !slope->batched && (slope->tensor.count == 1 || x->tensor.rank == 2);
}

static bool can_upgrade(const pm_graph *graph, const pm_node *node)
{
    const char *op = node->op->name;
    if (pm_onnx_is_old_resize(node) || strcmp(op, "Scatter") == 0)
        return true;
    const pm_operator *new_form = pm_operator_find(node->op->domain, op, ONNX_OPSET);
    if (!new_form || node->op->domain[0])
        return new_form != NULL;
    if (strcmp(op, "PRelu") == 0 && new_form != node->op)
        return prelu_stays(&graph->values[node->inputs[0]], &graph->values[node->inputs[1]]);
    bool moves = is_softmax(op);
    for (uint32_t i = 0; i < node->attribute_count; i++)
        moves = moves || pm_onnx_find_move(op, node->attributes[i].name, graph->opset);
    // Another entry of the table is another form: known here, or there is nothing to move.
    return new_form == node->op || moves || node->attribute_count == 0;
}

bool pm_onnx_can_upgrade(const pm_graph *graph)
{
    for (size_t i = 0; i < graph->node_count; i++)
        if (!can_upgrade(graph, &graph->nodes[i]))
            return false;
    return true;
}

const pm_tensor *pm_onnx_attribute_tensor(const pm_attribute *attribute, pm_region *region)
{
    const bool list = attribute->type == PM_ATTRIBUTE_INTS || attribute->type == PM_ATTRIBUTE_FLOATS;
    const bool number = attribute->type == PM_ATTRIBUTE_FLOAT || attribute->type == PM_ATTRIBUTE_FLOATS;
    const int64_t *ints = list ? attribute->ints : &attribute->i;
    const float *floats = list ? attribute->floats : &attribute->f;
    const bool scalar = attribute->type == PM_ATTRIBUTE_FLOAT;
    pm_tensor tensor = {.type = number ? PM_TYPE_F32 : PM_TYPE_I64,
                        .rank = scalar ? 0 : 1,
                        .count = list ? attribute->count : 1};
    if (!scalar)
        tensor.shape[0] = (int64_t)tensor.count;
    tensor.data = pm_region_copy(region, number ? (const void *)floats : ints, pm_tensor_bytes(&tensor));
    return tensor.data ? pm_region_copy(region, &tensor, sizeof tensor) : NULL;
}
