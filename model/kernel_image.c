// Kernels over images: channel sums, unrolling for convolution; see model/kernels.h.
#include "model/kernels_variant.h"

#include <string.h>

// Adds the pairs of sums down to one.
static float fold(float sums[PM_SUMS])
{
    for (size_t half = PM_SUMS / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

static void add_channel(float *y, const float *bias, size_t channels, size_t area)
{
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < area; p++)
            y[c * area + p] += bias[c];
}

// Adds the plane to sums; element p goes to sum p % PM_SUMS.
static void accumulate(float sums[PM_SUMS], const float *x, size_t area)
{
    size_t p = 0;
    for (; p + PM_SUMS <= area; p += PM_SUMS)
        for (size_t i = 0; i < PM_SUMS; i++)
            sums[i] += x[p + i];
    for (size_t i = 0; p + i < area; i++)
        sums[i] += x[p + i];
}

static void sum_channels(const float *x, size_t images, size_t channels, size_t area, float *sum)
{
    for (size_t c = 0; c < channels; c++) {
        float sums[PM_SUMS] = {0};
        for (size_t i = 0; i < images; i++)
            accumulate(sums, x + (i * channels + c) * area, area);
        sum[c] = fold(sums);
    }
}

// The outputs [*low, *high) along one axis whose input o * stride + offset lies in [0, extent).
static void valid_range(int64_t offset, int64_t stride, int64_t extent, int64_t outputs, int64_t *low,
                        int64_t *high)
{
    int64_t first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    int64_t end = extent > offset ? (extent - offset + stride - 1) / stride : 0;
    *low = first < outputs ? first : outputs;
    *high = end < *low ? *low : end < outputs ? end : outputs;
}

static void unroll_row(const pm_window *w, const float *row, int64_t offset, float *out)
{
    int64_t low, high;
    valid_range(offset, w->stride_w, w->width, w->out_width, &low, &high);
    for (int64_t x = 0; x < low; x++)
        out[x] = 0;
    if (w->stride_w == 1)
        for (int64_t x = low; x < high; x++)
            out[x] = row[x + offset];
    else
        for (int64_t x = low; x < high; x++)
            out[x] = row[x * w->stride_w + offset];
    for (int64_t x = high; x < w->out_width; x++)
        out[x] = 0;
}

static void unroll(const pm_window *w, const float *image, float *columns)
{
    for (int64_t c = 0; c < w->channels; c++, image += w->height * w->width)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++)
                for (int64_t y = 0; y < w->out_height; y++, columns += w->out_width) {
                    int64_t row = y * w->stride_h + i - w->pad_top;
                    if (row < 0 || row >= w->height)
                        memset(columns, 0, (size_t)w->out_width * sizeof *columns);
                    else
                        unroll_row(w, image + row * w->width, j - w->pad_left, columns);
                }
}

static void unroll_backward(const pm_window *w, const float *columns, float *image)
{
    memset(image, 0, (size_t)(w->channels * w->height * w->width) * sizeof *image);
    for (int64_t c = 0; c < w->channels; c++, image += w->height * w->width)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++) {
                int64_t low, high, offset = j - w->pad_left;
                valid_range(offset, w->stride_w, w->width, w->out_width, &low, &high);
                for (int64_t y = 0; y < w->out_height; y++, columns += w->out_width) {
                    int64_t row = y * w->stride_h + i - w->pad_top;
                    if (row < 0 || row >= w->height)
                        continue;
                    float *out = image + row * w->width;
                    if (w->stride_w == 1)
                        for (int64_t x = low; x < high; x++)
                            out[x + offset] += columns[x];
                    else
                        for (int64_t x = low; x < high; x++)
                            out[x * w->stride_w + offset] += columns[x];
                }
            }
}

void PM_KERNEL(fill_image)(pm_kernels *table)
{
    table->add_channel = add_channel;
    table->sum_channels = sum_channels;
    table->unroll = unroll;
    table->unroll_backward = unroll_backward;
}
