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

enum { BLOCK = 4 }; // outputs of a 2x2 window side by side

typedef float floats __attribute__((vector_size(BLOCK * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t ints
    __attribute__((vector_size(BLOCK * sizeof(int32_t)), aligned(sizeof(int32_t)), may_alias));

static inline ints choose(ints mask, ints yes, ints no)
{
    return (mask & yes) | (~mask & no);
}

// The larger of each pair, the first where they are equal; NaN wins as above.
static inline floats larger(floats first, floats second)
{
    return (floats)choose((second > first) | (second != second), (ints)second, (ints)first);
}

// BLOCK outputs of the common 2x2 window with stride 2 and no padding. Written as vectors because compilers
// make branches of it that are mispredicted half of the time.
static inline void max_block_2x2(const float *top, int32_t width, float *y, int32_t *where, int32_t start)
{
    const floats *upper = (const floats *)top, *lower = (const floats *)(top + width);
    const floats *upper_rest = (const floats *)(top + BLOCK),
                 *lower_rest = (const floats *)(top + width + BLOCK);
    const floats a = __builtin_shufflevector(*upper, *upper_rest, 0, 2, 4, 6);
    const floats b = __builtin_shufflevector(*upper, *upper_rest, 1, 3, 5, 7);
    const floats c = __builtin_shufflevector(*lower, *lower_rest, 0, 2, 4, 6);
    const floats d = __builtin_shufflevector(*lower, *lower_rest, 1, 3, 5, 7);
    const floats largest = larger(larger(larger(a, b), c), d);
    *(floats *)y = largest;
    if (!where)
        return;
    const ints zero = {0}, one = zero + 1, below = zero + width;
    const ints place = choose(c == largest, below, below + 1);
    *(ints *)where =
        start + (ints){0, 2, 4, 6} + choose(a == largest, zero, choose(b == largest, one, place));
}

// A row of outputs in blocks; the last block overlaps the one before it instead of leaving a tail.
static void max_row_2x2(const float *top, int32_t width, float *y, int32_t *where, int32_t start,
                        int32_t outputs)
{
    for (int32_t done = 0; done < outputs; done += BLOCK) {
        const int32_t at = done + BLOCK <= outputs ? done : outputs - BLOCK;
        max_block_2x2(top + 2 * at, width, y + at, where ? where + at : NULL, start + 2 * at);
    }
}

static void max_plane_2x2(const pm_window *w, const float *x, float *y, int32_t *where)
{
    const int32_t width = (int32_t)w->width, outputs = (int32_t)w->out_width;
    for (int32_t i = 0; i < (int32_t)w->out_height; i++)
        max_row_2x2(x + 2 * (int64_t)i * width, width, y + (int64_t)i * outputs,
                    where ? where + (int64_t)i * outputs : NULL, 2 * i * width, outputs);
}

static bool is_plain_2x2(const pm_window *w)
{
    return w->out_width >= BLOCK && w->kernel_h == 2 && w->kernel_w == 2 && w->stride_h == 2 &&
           w->stride_w == 2 && !w->pad_top && !w->pad_left && !w->pad_bottom && !w->pad_right;
}

static void max_pool(const pm_window *w, const float *x, float *y, int32_t *where)
{
    const int64_t area = w->height * w->width, out_area = w->out_height * w->out_width;
    const bool small = is_plain_2x2(w);
    for (int64_t c = 0; c < w->channels; c++)
        (small ? max_plane_2x2 : max_plane)(w, x + c * area, y + c * out_area,
                                            where ? where + c * out_area : NULL);
}

typedef int32_t places
    __attribute__((vector_size(VECTOR * sizeof(int32_t)), aligned(sizeof(int32_t)), may_alias));

// VECTOR channels of one output whose window begins at x.
static inline __attribute__((always_inline)) void max_window(const pm_channel_pool *p, const float *x,
                                                             int32_t start, float *y, int32_t *where)
{
    vector best = *(const vector *)x;
    places at = {0};
    for (size_t i = 1; i < p->kernel_h * p->kernel_w; i++) {
        const size_t pixel = i / p->kernel_w * p->width + i % p->kernel_w;
        const vector v = *(const vector *)(x + pixel * p->stride);
        const places take = (places)((v > best) | (v != v));
        best = (vector)((take & (places)v) | (~take & (places)best));
        at = (take & (int32_t)pixel) | (~take & at);
    }
    *(vector *)y = best;
    if (where)
        *(places *)where = at + start;
}

// The common window, known to the compiler.
// Windows of 2 x 2; indexed: indices are wanted. Both are known where this is inlined.
static inline __attribute__((always_inline)) void max_channels_2x2(const bool indexed,
                                                                   const pm_channel_pool *p)
{
    pm_channel_pool known = *p;
    known.kernel_h = known.kernel_w = 2;
    for (size_t o = 0; o < p->outputs; o++)
        for (size_t c = 0; c < p->channels; c += VECTOR)
            max_window(&known, p->x + 2 * o * p->stride + c, p->first + 2 * (int32_t)o,
                       p->y + o * p->stride + c, indexed ? p->where + o * p->stride + c : NULL);
}

static void max_channels(const pm_channel_pool *p)
{
    if (p->kernel_h == 2 && p->kernel_w == 2) {
        if (p->where)
            max_channels_2x2(true, p);
        else
            max_channels_2x2(false, p);
        return;
    }
    for (size_t o = 0; o < p->outputs; o++)
        for (size_t c = 0; c < p->channels; c += VECTOR)
            max_window(p, p->x + o * p->kernel_w * p->stride + c, p->first + (int32_t)(o * p->kernel_w),
                       p->y + o * p->stride + c, p->where ? p->where + o * p->stride + c : NULL);
}

// One of the two rows under a row of outputs: each output's gradient where its largest was, zero elsewhere.
// Each element is written once, in blocks that overlap as those of the forward pass.
static inline void spread_row_2x2(const int32_t *where, const float *dy, float *dx, int32_t start,
                                  int32_t outputs)
{
    const floats zero = {0};
    for (int32_t done = 0; done < outputs; done += BLOCK) {
        const int32_t at = done + BLOCK <= outputs ? done : outputs - BLOCK;
        const ints left = start + 2 * at + (ints){0, 2, 4, 6}, place = *(const ints *)(where + at);
        const floats d = *(const floats *)(dy + at);
        const floats even = (floats)choose(place == left, (ints)d, (ints)zero);
        const floats odd = (floats)choose(place == left + 1, (ints)d, (ints)zero);
        *(floats *)(dx + 2 * at) = __builtin_shufflevector(even, odd, 0, 4, 1, 5);
        *(floats *)(dx + 2 * at + BLOCK) = __builtin_shufflevector(even, odd, 2, 6, 3, 7);
    }
}

static void spread_plane_2x2(const pm_window *w, const int32_t *where, const float *dy, float *dx)
{
    const int32_t width = (int32_t)w->width, outputs = (int32_t)w->out_width, rows = (int32_t)w->out_height;
    const size_t left = (size_t)(width - 2 * outputs) * sizeof *dx; // what no window sees
    for (int32_t row = 0; row < 2 * rows; row++) {
        const int32_t o = row / 2 * outputs;
        spread_row_2x2(where + o, dy + o, dx + (int64_t)row * width, row * width, outputs);
        memset(dx + (int64_t)row * width + 2 * outputs, 0, left);
    }
    memset(dx + 2 * (int64_t)rows * width, 0, (size_t)(w->height - 2 * rows) * (size_t)width * sizeof *dx);
}

static void max_pool_backward(const pm_window *w, const int32_t *where, const float *dy, float *dx)
{
    const int64_t area = w->height * w->width, out_area = w->out_height * w->out_width;
    if (is_plain_2x2(w)) {
        for (int64_t c = 0; c < w->channels; c++, dx += area, dy += out_area, where += out_area)
            spread_plane_2x2(w, where, dy, dx);
        return;
    }
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
    table->max_channels = max_channels;
    table->max_pool_backward = max_pool_backward;
    table->average_pool = average_pool;
    table->average_pool_backward = average_pool_backward;
}
