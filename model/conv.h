#pragma once
// Convolution of a batch of images, by the ways there are to do it: forward, gradient of the input, gradient
// of the weight.
#include "model/kernels.h"

typedef struct pm_conv {
    const pm_window *window;
    size_t images;
    const float *x;      // (images, channels, height, width); for the input's gradient (images, outputs)
    const float *weight; // (out_channels, channels, kernel_h, kernel_w)
    const float *bias;   // (out_channels); NULL: none
    float *y;            // (images, outputs); for a gradient what it is of
    void *scratch;
} pm_conv;

// --- directly on padded images: stride 1, pads smaller than the kernel (conv_direct.c)

bool pm_conv_is_direct(const pm_window *w);

// Bytes of scratch for each pass.
size_t pm_conv_direct_bytes(const pm_kernels *kernels, const pm_window *w);
size_t pm_conv_direct_input_bytes(const pm_kernels *kernels, const pm_window *w);
size_t pm_conv_direct_weight_bytes(const pm_kernels *kernels, const pm_window *w);

void pm_conv_direct(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_direct_input(const pm_kernels *kernels, const pm_conv *c);

// dy (images, outputs)
void pm_conv_direct_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy);

// --- by unrolling each image to (channels * window, pixels): any window (conv_unrolled.c)

size_t pm_conv_unrolled_bytes(const pm_window *w);
void pm_conv_unrolled(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_unrolled_input(const pm_kernels *kernels, const pm_conv *c);
void pm_conv_unrolled_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy);
