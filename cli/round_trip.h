#pragma once
// A case of the conformance suite as this engine writes it, for another runtime to run.
//
//   FOLDER/model.onnx      the model as exported
//   FOLDER/tensors.json    {"inputs": [{"type": "float32", "shape": [2, 3], "file": "input_0"}, ...],
//                           "outputs": [...]}; inputs in the order of the model's
//   FOLDER/input_0, ...    elements, dense, little-endian
#include "model/tensor.h"

// Makes the folder, which must not be there, and everything in it.
pm_status pm_round_trip_write(const char *folder, const void *model, size_t size, const pm_tensor *inputs,
                              size_t input_count, const pm_tensor *outputs, size_t output_count) PM_CHECKED;
