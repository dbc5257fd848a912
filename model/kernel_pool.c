// Pooling kernels; see model/kernels.h.
#include "model/kernels_variant.h"

#include <string.h>

// The part of output o's window inside the plane along one axis.
typedef struct span {
    int64_t low, high;
} span;

static span clip(int64_t o, int64_t stride, int64_t pad, int64_t kernel, int64_t extent)
{
    int64_t low = o * stride - pad, high = low + kernel;
    return (span){low < 0 ? 0 : low, high > extent ? extent : high};
}

static void max_plane(const pm_window *w, const float *x, float *y, int32_t *where)
{
    for (int64_t i = 0; i < w->out_height; i++) {
        span rows = clip(i, w->stride_h, w->pad_top, w->kernel_h, w->height);
        for (int64_t j = 0; j < w->out_width; j++) {
            span columns = clip(j, w->stride_w, w->pad_left, w->kernel_w, w->width);
            int64_t best = rows.low * w->width + columns.low;
            for (int64_t r = rows.low; r < rows.high; r++)
                for (int64_t c = columns.low; c < columns.high; c++) {
                    float v = x[r * w->width + c];
                    best = v > x[best] || v != v ? r * w->width + c : best;
                }
            y[i * w->out_width + j] = x[best];
            if (where)
                where[i * w->out_width + j] = (int32_t)best;
        }
    }
}

// The common 2x2 window with stride 2 and no padding; NaN wins as above.
static void max_plane_2x2(const pm_window *w, const float *x, float *y, int32_t *where)
{
    for (int64_t i = 0; i < w->out_height; i++) {
        const float *top = x + 2 * i * w->width, *bottom = top + w->width;
        int32_t start = (int32_t)(2 * i * w->width), width = (int32_t)w->width;
        float *out = y + i * w->out_width;
        for (int64_t j = 0; j < w->out_width; j++) {
            float best = top[2 * j], b = top[2 * j + 1], c = bottom[2 * j], d = bottom[2 * j + 1];
            int32_t place = start + 2 * (int32_t)j, index = place;
            bool take = (b > best) | (b != b);
            best = take ? b : best;
            index = take ? place + 1 : index;
            take = (c > best) | (c != c);
            best = take ? c : best;
            index = take ? place + width : index;
            take = (d > best) | (d != d);
            best = take ? d : best;
            index = take ? place + width + 1 : index;
            out[j] = best;
            if (where)
                where[i * w->out_width + j] = index;
        }
    }
}

static void max_pool(const pm_window *w, const float *x, float *y, int32_t *where)
{
    const int64_t area = w->height * w->width, out_area = w->out_height * w->out_width;
    const bool small = w->kernel_h == 2 && w->kernel_w == 2 && w->stride_h == 2 && w->stride_w == 2 &&
                       !w->pad_top && !w->pad_left && !w->pad_bottom && !w->pad_right;
    for (int64_t c = 0; c < w->channels; c++)
        (small ? max_plane_2x2 : max_plane)(w, x + c * area, y + c * out_area,
                                            where ? where + c * out_area : NULL);
}

static void max_pool_backward(const pm_window *w, const int32_t *where, const float *dy, float *dx)
{
    const int64_t area = w->height * w->width, out_area = w->out_height * w->out_width;
    memset(dx, 0, (size_t)(w->channels * area) * sizeof *dx);
    for (int64_t c = 0; c < w->channels; c++, dx += area, dy += out_area, where += out_area)
        for (int64_t o = 0; o < out_area; o++)
            dx[where[o]] += dy[o];
}

static float divisor(const pm_window *w, span rows, span columns)
{
    int64_t seen = (rows.high - rows.low) * (columns.high - columns.low);
    return (float)(w->count_include_pad ? w->kernel_h * w->kernel_w : seen);
}

static void average_pool(const pm_window *w, const float *x, float *y)
{
    for (int64_t c = 0; c < w->channels; c++, x += w->height * w->width)
        for (int64_t i = 0; i < w->out_height; i++) {
            span rows = clip(i, w->stride_h, w->pad_top, w->kernel_h, w->height);
            for (int64_t j = 0; j < w->out_width; j++) {
                span columns = clip(j, w->stride_w, w->pad_left, w->kernel_w, w->width);
                float sum = 0;
                for (int64_t r = rows.low; r < rows.high; r++)
                    for (int64_t k = columns.low; k < columns.high; k++)
                        sum += x[r * w->width + k];
                *y++ = sum / divisor(w, rows, columns);
            }
        }
}

static void average_pool_backward(const pm_window *w, const float *dy, float *dx)
{
    const int64_t area = w->height * w->width;
    memset(dx, 0, (size_t)(w->channels * area) * sizeof *dx);
    for (int64_t c = 0; c < w->channels; c++, dx += area)
        for (int64_t i = 0; i < w->out_height; i++) {
            span rows = clip(i, w->stride_h, w->pad_top, w->kernel_h, w->height);
            for (int64_t j = 0; j < w->out_width; j++) {
                span columns = clip(j, w->stride_w, w->pad_left, w->kernel_w, w->width);
                float share = *dy++ / divisor(w, rows, columns);
                for (int64_t r = rows.low; r < rows.high; r++)
                    for (int64_t k = columns.low; k < columns.high; k++)
                        dx[r * w->width + k] += share;
            }
        }
}

void PM_KERNEL(fill_pool)(pm_kernels *table)
{
    table->max_pool = max_pool;
    table->max_pool_backward = max_pool_backward;
    table->average_pool = average_pool;
    table->average_pool_backward = average_pool_backward;
}
