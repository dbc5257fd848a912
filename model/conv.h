#pragma once
// Convolution of a batch of images, by the ways there are to do it: forward, gradient of the input, gradient
// of the weight.
#include "model/kernels.h"

typedef struct pm_conv {
    const pm_window *window;
    size_t images;
    const float *x;        // (images, channels, height, width); for the input's gradient (images, outputs)
    const float *weight;   // (out_channels, channels, kernel_h, kernel_w)
    const float *packed;   // weight as pm_conv_channels_pack leaves it; NULL: not packed
    const float *bias;     // (out_channels); NULL: none
    bool relu;             // the rectifier over the forward pass's y
    bool pairs;            // by channels, forward, not packed: operands are rounded to bfloat16
    const pm_window *pool; // by channels: the largest of whole windows over that, side by side; NULL: no pool
    float *y;              // (images, outputs) or pooled; for a gradient what it is of
    int32_t *where;        // as y: the index in its plane of each largest; NULL when not wanted
    void *scratch;
} pm_conv;

// The window of the input's gradient for stride 1 and pads smaller than the kernel: a correlation over the
// output's gradient that gives the input's shape; and its weights, flipped (in, out * window) of weight (out,
// in * window).
pm_window pm_conv_backward_window(const pm_window *w);
void pm_conv_flip_weight(const pm_window *w, const float *weight, float *flipped);

// --- with output channels side by side: any window (conv_channels.c)

// Whether the forward pass computes less that way than with pixels side by side.
bool pm_conv_by_channels(const pm_kernels *kernels, const pm_window *w);

// Floats of packed weights, and packing them.
size_t pm_conv_channels_packed(const pm_kernels *kernels, const pm_window *w);
void pm_conv_channels_pack(const pm_kernels *kernels, const pm_window *w, const float *weight, float *packed);

// Bytes of scratch for each pass.
size_t pm_conv_channels_bytes(const pm_kernels *kernels, const pm_window *w, const pm_window *pool,
                              bool pairs);
size_t pm_conv_channels_input_bytes(const pm_kernels *kernels, const pm_window *w);
size_t pm_conv_channels_weight_bytes(const pm_kernels *kernels, const pm_window *w);

void pm_conv_channels(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_channels_input(const pm_kernels *kernels, const pm_conv *c); // where pm_conv_is_direct

// dy (images, outputs)
void pm_conv_channels_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy);

// --- by channels, minimal filtering (pm_tiles) of 3 x 3 windows with stride 1 and enough channels
// (conv_tiles.c)

bool pm_conv_is_tiled(const pm_window *w);

// packed (PM_TILE, panels, channels, panel)
void pm_conv_tiles_pack(const pm_kernels *kernels, const pm_window *w, const float *weight, float *packed);

// --- gradients of operands rounded to bfloat16: any window (conv_pairs.c)

size_t pm_conv_pairs_input_bytes(const pm_kernels *kernels, const pm_window *w);
size_t pm_conv_pairs_weight_bytes(const pm_kernels *kernels, const pm_window *w);
void pm_conv_pairs_input(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_pairs_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy);

// --- with pixels side by side on padded images: stride 1, pads smaller than the kernel (conv_direct.c)

bool pm_conv_is_direct(const pm_window *w);

size_t pm_conv_direct_bytes(const pm_kernels *kernels, const pm_window *w);
size_t pm_conv_direct_input_bytes(const pm_kernels *kernels, const pm_window *w);
void pm_conv_direct(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_direct_input(const pm_kernels *kernels, const pm_conv *c);

// --- by unrolling each image to (channels * window, pixels): any window (conv_unrolled.c)

size_t pm_conv_unrolled_bytes(const pm_kernels *kernels, const pm_window *w);
void pm_conv_unrolled(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_unrolled_input(const pm_kernels *kernels, const pm_conv *c);
