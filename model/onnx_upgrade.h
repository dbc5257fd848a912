#pragma once
// From the forms of operators in opsets 7 to 12 to those of opset 13, for models that are written: settings
// that were attributes and are inputs by then, operators that changed their name or meaning. The changes are
// those of ONNX's changelog (https://github.com/onnx/onnx/blob/main/docs/Changelog.md).
#include "model/operators.h"

// An attribute that becomes the input at a place.
typedef struct pm_onnx_move {
    const char *attribute;
    uint32_t input;
} pm_onnx_move;

// Whether every node of a graph below opset 13 has a form there that this room reads.
bool pm_onnx_can_upgrade(const pm_graph *graph);

// The move of the attribute of an operator at the opset; NULL when it stays where it is.
const pm_onnx_move *pm_onnx_find_move(const char *op, const char *attribute, int64_t opset);

// Whether the node is one of those whose default axis and its meaning changed in opset 13 from "all from axis
// on" to "along axis", and it is not known that both are the same here.
bool pm_onnx_softmax_changes(const pm_graph *graph, const pm_node *node);

// Whether the node is an Upsample or the Resize of opset 10, which in opset 13 are a Resize with asymmetric
// coordinates, cut to the lower neighbour.
bool pm_onnx_is_old_resize(const pm_node *node);

// The attribute's value as a tensor: a number of float32 or a list, in region; NULL when out of memory.
const pm_tensor *pm_onnx_attribute_tensor(const pm_attribute *attribute, pm_region *region);
