#pragma once
// Sliding windows of one to three spatial axes with dilations and groups: any convolution or pool. Fewer axes
// than three are three with leading extents of 1. See window.h for the plain windows over images, which have
// faster kernels.
#include "model/compose.h"

typedef struct pm_window3 {
    size_t group, channels, out_channels; // channels of x; out_channels = channels for pools
    size_t in[3], kernel[3], out[3], in_area, kernel_area, out_area;
    int64_t stride[3], dilation[3], begin[3];
} pm_window3;

// As a node has it: the number of spatial axes, and for each (and each end) a number.
typedef struct pm_window_spec {
    uint32_t axes;
    int64_t kernel[3], strides[3], dilations[3], begin[3], end[3];
    bool ceil;
} pm_window_spec;

// Reads the node's window over x (N, channels, spatial axes): kernel_shape, or weight's (NULL: none),
// strides, dilations, pads, auto_pad, ceil_mode. out (axes): spatial extents of the output.
pm_status pm_window_spec_read(const pm_node *node, const pm_tensor *x, const pm_tensor *weight,
                              pm_window_spec *spec, int64_t *out) PM_CHECKED;

// The window as attributes of a node of ours (and back), with one shape more.
enum { PM_WINDOW3_ATTRIBUTES = 7 };
void pm_window3_attributes(const pm_window_spec *spec, int64_t group, const pm_tensor *shape,
                           pm_attribute attributes[PM_WINDOW3_ATTRIBUTES]);
pm_window3 pm_window3_read(const pm_node *node, const pm_tensor *x, const pm_tensor *y);
extern const pm_attribute_spec PM_WINDOW3_SPECS[];

// The tensor (float32) whose shape is attribute "shape".
pm_tensor pm_window3_shape(const pm_node *node);

// Unrolled columns (channels of a group * kernel area, output area) of one image's group.
void pm_window3_unroll(const pm_window3 *w, const float *image, size_t channels, float *columns);

// The reverse: adds columns to image.
void pm_window3_fold(const pm_window3 *w, const float *columns, size_t channels, float *image);

// The input pixel under output pixel o and window pixel k, or SIZE_MAX in the padding.
size_t pm_window3_pixel(const pm_window3 *w, size_t o, size_t k);
