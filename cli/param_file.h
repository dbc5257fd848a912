#pragma once
// A safetensors file of something float32 for each parameter of a model: its values, its gradients.
#include "model/graph.h"
#include "snapshot/safetensors.h"

// The array of parameter index, (count) floats.
typedef const float *(*pm_param_values)(const void *ctx, size_t index);

// Writes a new file at path, a tensor under each parameter's name, and the metadata key: value where key is
// not NULL. offsets: (params), where the tensors' data begin in the file; may be NULL. Failures leave no
// file.
pm_status pm_param_file_write(const char *path, const pm_graph *graph, pm_param_values values,
                              const void *ctx, const char *key, const char *value,
                              uint64_t *offsets) PM_CHECKED;
