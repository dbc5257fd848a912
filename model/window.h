#pragma once
// The sliding window of a Conv or pool node.
#include "model/kernels.h"
#include "model/operators.h"

enum { PM_MAX_WINDOW = 1 << 20 }; // kernel, stride and pad extents

// Reads an attribute of exactly count integers, each at least low and small enough for safe sums; out stays
// as it is where the node has no such attribute.
pm_status pm_window_ints(const pm_node *node, const char *name, uint32_t count, int64_t low,
                         int64_t *out) PM_CHECKED;

// Reads the window of node over images x (N, channels, height, width). weight (out, in, height, width) is
// NULL for pools, whose kernel_shape then must be given. PM_INVALID or PM_UNSUPPORTED says what does not fit.
pm_status pm_window_read(const pm_node *node, const pm_tensor *x, const pm_tensor *weight,
                         pm_window *window) PM_CHECKED;

// (images, out_channels, out_height, out_width)
pm_tensor pm_window_output(const pm_window *window, int64_t images);

// The node's attributes and one more list of integers, in region; NULL when out of memory. *count: how many.
const pm_attribute *pm_window_attributes(const pm_node *node, const char *name, const pm_tensor *shape,
                                         pm_region *region, uint32_t *count);

// The tensor (float32, without data) whose shape pm_window_attributes wrote down.
pm_tensor pm_window_shape(const pm_node *node, const char *name);
