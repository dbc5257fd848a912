// Kernels of batch normalization; see model/kernels.h. Element p of a plane goes to sum p % PM_SUMS, and the
// sums are added pairwise at the end; what is beyond a plane adds 0. Two channels go side by side: one's sums
// would wait for each other.
#include "model/kernels_variant.h"

#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef float sums __attribute__((vector_size(PM_SUMS * sizeof(float)), aligned(sizeof(float)), may_alias));

enum { TOGETHER = 2 };

// The n < PM_SUMS last elements of a plane, and other behind them.
static inline void read_tail(const float *x, size_t n, float other, sums *last)
{
    *last = (sums){0} + other;
#if defined(__AVX512F__)
    *last = (sums)_mm512_mask_loadu_ps((__m512)*last, (__mmask16)((1u << n) - 1), x);
#else
    memcpy(last, x, n * sizeof *x);
#endif
}

static inline float fold(sums *s)
{
    for (size_t half = PM_SUMS / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            (*s)[i] += (*s)[i + half];
    return (*s)[0];
}

static inline __attribute__((always_inline)) void sum_planes(const size_t channels, const pm_planes *p,
                                                             const float *x, float *sum)
{
    sums s[TOGETHER] = {{0}};
    for (size_t i = 0; i < p->images; i++, x += p->stride) {
        size_t at = 0;
        for (; at + PM_SUMS <= p->area; at += PM_SUMS)
            for (size_t c = 0; c < channels; c++)
                s[c] += *(const sums *)(x + c * p->area + at);
        for (size_t c = 0; c < channels && at < p->area; c++) {
            sums last;
            read_tail(x + c * p->area + at, p->area - at, 0, &last);
            s[c] += last;
        }
    }
    for (size_t c = 0; c < channels; c++)
        sum[c] = fold(&s[c]);
}

static inline __attribute__((always_inline)) void sum_squares(const size_t channels, const pm_planes *p,
                                                              const float *x, const float *mean, float *sum)
{
    sums s[TOGETHER] = {{0}};
    for (size_t i = 0; i < p->images; i++, x += p->stride) {
        size_t at = 0;
        for (; at + PM_SUMS <= p->area; at += PM_SUMS)
            for (size_t c = 0; c < channels; c++) {
                const sums apart = *(const sums *)(x + c * p->area + at) - mean[c];
                s[c] += apart * apart;
            }
        for (size_t c = 0; c < channels && at < p->area; c++) {
            sums last;
            read_tail(x + c * p->area + at, p->area - at, mean[c], &last);
            s[c] += (last - mean[c]) * (last - mean[c]);
        }
    }
    for (size_t c = 0; c < channels; c++)
        sum[c] = fold(&s[c]);
}

static inline __attribute__((always_inline)) void some_moments(const size_t channels, const pm_planes *p,
                                                               const float *x, float *mean, float *variance)
{
    const float count = (float)p->images * (float)p->area;
    sum_planes(channels, p, x, mean);
    for (size_t c = 0; c < channels; c++)
        mean[c] /= count;
    sum_squares(channels, p, x, mean, variance);
    for (size_t c = 0; c < channels; c++)
        variance[c] /= count;
}

// Planes of one element: all channels at once, each with the one sum that is not 0.
static void row_moments(const pm_planes *p, const float *x, float *mean, float *variance)
{
    const float count = (float)p->images;
    memset(mean, 0, p->channels * sizeof *mean);
    memset(variance, 0, p->channels * sizeof *variance);
    for (size_t i = 0; i < p->images; i++)
        for (size_t c = 0; c < p->channels; c++)
            mean[c] += x[i * p->stride + c];
    for (size_t c = 0; c < p->channels; c++)
        mean[c] /= count;
    for (size_t i = 0; i < p->images; i++)
        for (size_t c = 0; c < p->channels; c++) {
            const float apart = x[i * p->stride + c] - mean[c];
            variance[c] += apart * apart;
        }
    for (size_t c = 0; c < p->channels; c++)
        variance[c] /= count;
}

static void moments(const pm_planes *p, const float *x, float *mean, float *variance)
{
    size_t c = p->area == 1 ? p->channels : 0;
    if (p->area == 1)
        row_moments(p, x, mean, variance);
    for (; c + TOGETHER <= p->channels; c += TOGETHER)
        some_moments(TOGETHER, p, x + c * p->area, mean + c, variance + c);
    for (; c < p->channels; c++)
        some_moments(1, p, x + c * p->area, mean + c, variance + c);
}

static void norm(const pm_norm *n, const float *x, float *y)
{
    const size_t area = n->planes.area;
    for (size_t i = 0; i < n->planes.images; i++, x += n->planes.stride, y += n->planes.stride)
        for (size_t c = 0; c < n->planes.channels; c++) {
            const float factor = n->factor[c], offset = n->offset[c];
            const float *from = x + c * area;
            float *to = y + c * area;
            if (n->relu)
                for (size_t at = 0; at < area; at++) {
                    const float value = from[at] * factor + offset;
                    to[at] = value < 0 ? 0 : value;
                }
            else
                for (size_t at = 0; at < area; at++)
                    to[at] = from[at] * factor + offset;
        }
}

// dy counts where the rectifier let x through.
static inline __attribute__((always_inline)) void add_norm_sums(const bool relu, const pm_norm *n, size_t c,
                                                                const sums *x, const sums *dy, sums *all,
                                                                sums *products)
{
    typedef int32_t mask __attribute__((vector_size(sizeof(sums)), may_alias));
    sums d = *dy;
    if (relu)
        d = (sums)((mask)(*x * n->factor[c] + n->offset[c] > 0) & (mask)d);
    *all += d;
    *products += d * ((*x - n->mean[c]) * n->inverse[c]);
}

static inline __attribute__((always_inline)) void some_norm_sums(const size_t channels, const bool relu,
                                                                 const pm_norm *n, size_t first,
                                                                 const float *x, const float *dy,
                                                                 float *sum_dy, float *sum_dy_x)
{
    sums s[TOGETHER] = {{0}}, products[TOGETHER] = {{0}};
    const size_t area = n->planes.area;
    x += first * area;
    dy += first * area;
    for (size_t i = 0; i < n->planes.images; i++, x += n->planes.stride, dy += n->planes.stride) {
        size_t at = 0;
        for (; at + PM_SUMS <= area; at += PM_SUMS)
            for (size_t c = 0; c < channels; c++)
                add_norm_sums(relu, n, first + c, (const sums *)(x + c * area + at),
                              (const sums *)(dy + c * area + at), &s[c], &products[c]);
        for (size_t c = 0; c < channels && at < area; c++) {
            sums last_x, last_dy;
            read_tail(x + c * area + at, area - at, n->mean[first + c], &last_x);
            read_tail(dy + c * area + at, area - at, 0, &last_dy);
            add_norm_sums(relu, n, first + c, &last_x, &last_dy, &s[c], &products[c]);
        }
    }
    for (size_t c = 0; c < channels; c++) {
        sum_dy[first + c] = fold(&s[c]);
        sum_dy_x[first + c] = fold(&products[c]);
    }
}

static void row_norm_sums(const pm_norm *n, const float *x, const float *dy, float *sum_dy, float *sum_dy_x)
{
    const size_t channels = n->planes.channels;
    memset(sum_dy, 0, channels * sizeof *sum_dy);
    memset(sum_dy_x, 0, channels * sizeof *sum_dy_x);
    for (size_t i = 0; i < n->planes.images; i++, x += n->planes.stride, dy += n->planes.stride)
        for (size_t c = 0; c < channels; c++) {
            const float got = dy[c], d = !n->relu || x[c] * n->factor[c] + n->offset[c] > 0 ? got : 0;
            sum_dy[c] += d;
            sum_dy_x[c] += d * ((x[c] - n->mean[c]) * n->inverse[c]);
        }
}

static void norm_sums(const pm_norm *n, const float *x, const float *dy, float *sum_dy, float *sum_dy_x)
{
    size_t c = n->planes.area == 1 ? n->planes.channels : 0;
    if (n->planes.area == 1)
        row_norm_sums(n, x, dy, sum_dy, sum_dy_x);
    for (; c + TOGETHER <= n->planes.channels; c += TOGETHER)
        if (n->relu)
            some_norm_sums(TOGETHER, true, n, c, x, dy, sum_dy, sum_dy_x);
        else
            some_norm_sums(TOGETHER, false, n, c, x, dy, sum_dy, sum_dy_x);
    for (; c < n->planes.channels; c++)
        some_norm_sums(1, n->relu, n, c, x, dy, sum_dy, sum_dy_x);
}

static void norm_backward(const pm_norm *n, const float *x, const float *dy, const float *mean_dy,
                          const float *mean_dy_x, float *dx)
{
    const size_t area = n->planes.area, stride = n->planes.stride;
    for (size_t i = 0; i < n->planes.images; i++, x += stride, dy += stride, dx += stride)
        for (size_t c = 0; c < n->planes.channels; c++) {
            const float factor = n->factor[c], offset = n->offset[c], mean = n->mean[c],
                        inverse = n->inverse[c], m = mean_dy[c], mx = mean_dy_x[c];
            const float *a = x + c * area, *d = dy + c * area;
            float *to = dx + c * area;
            if (n->relu)
                for (size_t at = 0; at < area; at++) {
                    const float got = d[at], through = a[at] * factor + offset > 0 ? got : 0;
                    to[at] = factor * (through - m - (a[at] - mean) * inverse * mx);
                }
            else
                for (size_t at = 0; at < area; at++)
                    to[at] = factor * (d[at] - m - (a[at] - mean) * inverse * mx);
        }
}

void PM_KERNEL(fill_norm)(pm_kernels *table)
{
    table->moments = moments;
    table->norm = norm;
    table->norm_sums = norm_sums;
    table->norm_backward = norm_backward;
}
