#pragma once
// Tensors whose elements lie in another file than the model (ONNX's external data:
// https://github.com/onnx/onnx/blob/main/docs/ExternalData.md). Both are hostile: the file must lie in the
// model's folder or below, reached without links, and hold what the model says.
#include "model/onnx_tensor.h"

// The most that the external data of one model may take, in bytes.
#define PM_ONNX_EXTERNAL_MAX ((size_t)1 << 33)

// Sets tensor->data (graph's region) of the TensorProto message, whose type and shape tensor has, and adds
// the file to the graph's. *left: bytes the model may still take, counted down. PM_INVALID names the tensor
// and what is wrong with its place; PM_CORRUPT when the file is too short.
pm_status pm_onnx_external_read(pm_wire message, const char *name, const char *folder, pm_graph *graph,
                                pm_tensor *tensor, size_t *left) PM_CHECKED;
