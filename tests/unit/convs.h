#pragma once
// Convolutions of all kinds of windows, and the loops that say what is meant.
#include "model/conv.h"
#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Channels that fill panels and that do not, odd and even ones, strides, some longer than the window, uneven
// pads, images smaller and larger than what is made at once.
static const pm_window CONVS[] = {
    {.channels = 1,
     .height = 9,
     .width = 9,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 1,
     .pad_left = 1,
     .pad_bottom = 1,
     .pad_right = 1,
     .out_channels = 32},
    {.channels = 3,
     .height = 7,
     .width = 12,
     .kernel_h = 3,
     .kernel_w = 5,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 2,
     .pad_left = 1,
     .pad_bottom = 0,
     .pad_right = 3,
     .out_channels = 5},
    {.channels = 5,
     .height = 6,
     .width = 6,
     .kernel_h = 1,
     .kernel_w = 1,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 40},
    {.channels = 2,
     .height = 40,
     .width = 70,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 2,
     .stride_w = 3,
     .pad_top = 1,
     .pad_left = 0,
     .pad_bottom = 2,
     .pad_right = 1,
     .out_channels = 19},
    {.channels = 4,
     .height = 5,
     .width = 4,
     .kernel_h = 5,
     .kernel_w = 4,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 64},
    {.channels = 6,
     .height = 14,
     .width = 14,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 2,
     .stride_w = 2,
     .pad_top = 1,
     .pad_left = 1,
     .pad_bottom = 1,
     .pad_right = 1,
     .out_channels = 37},
    {.channels = 8,
     .height = 8,
     .width = 11,
     .kernel_h = 1,
     .kernel_w = 2,
     .stride_h = 2,
     .stride_w = 3,
     .out_channels = 33},
    {.channels = 13,
     .height = 9,
     .width = 16,
     .kernel_h = 2,
     .kernel_w = 2,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 33},
    {.channels = 16,
     .height = 14,
     .width = 14,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 1,
     .pad_left = 1,
     .pad_bottom = 1,
     .pad_right = 1,
     .out_channels = 32},
    {.channels = 19,
     .height = 21,
     .width = 19,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 0,
     .pad_left = 2,
     .pad_bottom = 1,
     .pad_right = 0,
     .out_channels = 37},
    {.channels = 33,
     .height = 3,
     .width = 3,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 16},
};
enum { CONVS_COUNT = sizeof CONVS / sizeof CONVS[0], CONVS_IMAGES = 3 };

typedef struct convs_example {
    pm_window w;
    size_t in, out, weights; // elements of an image, of its output, of the weight
    float *x, *weight, *bias, *dy;
    double *y, *dx, *dweight; // wanted
} convs_example;

static inline float *convs_numbers(size_t count, uint64_t stream)
{
    float *x = calloc(count + 1, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = nets_number(stream, i);
    return x;
}

// To bfloat16 and back.
static inline void convs_round(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t pair = 0;
        pm_reference_kernels()->round_pairs(x + i, NULL, &pair, 1);
        pair <<= 16;
        memcpy(&x[i], &pair, sizeof pair);
    }
}

// Adds what one output makes of its window, forward and backward.
static inline void convs_make_output(convs_example *e, size_t image, int64_t o, int64_t row, int64_t column)
{
    const pm_window *w = &e->w;
    const size_t at = image * e->out + (size_t)((o * w->out_height + row) * w->out_width + column);
    e->y[at] = (double)e->bias[o];
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++) {
                const int64_t r = row * w->stride_h + i - w->pad_top,
                              s = column * w->stride_w + j - w->pad_left;
                if (r < 0 || r >= w->height || s < 0 || s >= w->width)
                    continue;
                const size_t from = image * e->in + (size_t)((c * w->height + r) * w->width + s);
                const size_t k = (size_t)(((o * w->channels + c) * w->kernel_h + i) * w->kernel_w + j);
                e->y[at] += (double)e->x[from] * (double)e->weight[k];
                e->dx[from] += (double)e->dy[at] * (double)e->weight[k];
                e->dweight[k] += (double)e->dy[at] * (double)e->x[from];
            }
}

// Of random numbers; rounded to bfloat16, so that products in pairs round nothing.
static inline convs_example convs_make(pm_window w, bool rounded)
{
    w.out_height = (w.height + w.pad_top + w.pad_bottom - w.kernel_h) / w.stride_h + 1;
    w.out_width = (w.width + w.pad_left + w.pad_right - w.kernel_w) / w.stride_w + 1;
    convs_example e = {.w = w,
                       .in = (size_t)(w.channels * w.height * w.width),
                       .out = (size_t)(w.out_channels * w.out_height * w.out_width),
                       .weights = (size_t)(w.out_channels * w.channels * w.kernel_h * w.kernel_w)};
    e.x = convs_numbers(CONVS_IMAGES * e.in, 1);
    e.weight = convs_numbers(e.weights, 2);
    e.bias = convs_numbers((size_t)w.out_channels, 3);
    e.dy = convs_numbers(CONVS_IMAGES * e.out, 4);
    if (rounded) {
        convs_round(e.x, CONVS_IMAGES * e.in);
        convs_round(e.weight, e.weights);
        convs_round(e.dy, CONVS_IMAGES * e.out);
    }
    e.y = calloc(CONVS_IMAGES * e.out, sizeof(double));
    e.dx = calloc(CONVS_IMAGES * e.in, sizeof(double));
    e.dweight = calloc(e.weights, sizeof(double));
    for (size_t image = 0; image < CONVS_IMAGES; image++)
        for (int64_t o = 0; o < w.out_channels; o++)
            for (int64_t row = 0; row < w.out_height; row++)
                for (int64_t column = 0; column < w.out_width; column++)
                    convs_make_output(&e, image, o, row, column);
    return e;
}

static inline void convs_free(convs_example *e)
{
    void *all[] = {e->x, e->weight, e->bias, e->dy, e->y, e->dx, e->dweight};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static inline void convs_expect_near(const pm_kernels *kernels, const char *what, const float *got,
                                     const double *wanted, size_t count, bool relu)
{
    for (size_t i = 0; i < count; i++) {
        const double value = relu && wanted[i] < 0 ? 0 : wanted[i];
        cr_assert(fabs((double)got[i] - value) <= 1e-4 * (1 + fabs(value)),
                  "%s %s, element %zu: %.9g, wanted %.9g", kernels->name, what, i, (double)got[i], value);
    }
}
