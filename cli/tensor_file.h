#pragma once
// A tensor from a file, as the query command takes it: an image (PNG, PGM), a NumPy array (.npy, float32,
// float64 or uint8, C order), or JSON (numbers in nested arrays). Bytes and grey levels become value / 255.
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Fills count floats. An image is made grey and averaged (or repeated) to height x width = count; other files
// must have count values. invert: 1 - value, for dark strokes on light paper. Failures name the path.
pm_status pm_tensor_file_read(const char *path, float *values, size_t height, size_t width, size_t count,
                              bool invert) PM_CHECKED;

// Fills count whole numbers from a NumPy array (.npy, int64, int32 or uint8, C order) or JSON. Failures name
// the path.
pm_status pm_tensor_file_read_whole(const char *path, int64_t *values, size_t count) PM_CHECKED;
