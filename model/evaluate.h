#pragma once
// One evaluation of an ONNX model on given inputs, whose shapes and types are theirs, not a batch's: what the
// conformance suite asks for. The graph is planned as one lane; every refusal comes before anything runs.
#include "core/buffer.h"
#include "model/region.h"
#include "model/tensor.h"

// Reads a TensorProto, whose bytes are hostile, into region. PM_CORRUPT, PM_UNSUPPORTED (the type) or
// PM_INVALID.
pm_status pm_tensor_read_onnx(const void *bytes, size_t size, pm_region *region,
                              pm_tensor *tensor) PM_CHECKED;

// Calls each for every node of the model's graph, in order, the names cut at 63 bytes. Nodes of functions and
// of branches are left out. False when the bytes are no model.
bool pm_onnx_each_operator(const void *bytes, size_t size,
                           void (*each)(void *ctx, const char *domain, const char *op), void *ctx);

// PM_UNSUPPORTED when an input or output of the model's graph is declared as something else than a tensor.
pm_status pm_onnx_check_ports(const void *bytes, size_t size) PM_CHECKED;

// Runs the model (see pm_graph_read_onnx for its refusals) on inputs, in the order of the graph's inputs that
// are no initializers. What steers shapes is taken from the inputs before the graph is planned. *outputs:
// (*output_count), elements and all in region.
pm_status pm_evaluate_onnx(const void *bytes, size_t size, const pm_tensor *inputs, size_t input_count,
                           pm_region *region, pm_tensor **outputs, size_t *output_count) PM_CHECKED;

// Writes the model that was evaluated so, for exactly these types and shapes, with everything inside it.
// outputs: what it gave. The caller owns *onnx.
pm_status pm_onnx_rewrite(const void *bytes, size_t size, const pm_tensor *inputs, size_t input_count,
                          const pm_tensor *outputs, size_t output_count, pm_buffer **onnx) PM_CHECKED;
