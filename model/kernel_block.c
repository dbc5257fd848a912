// Kernels of what Transformer blocks are made of: erf, Gelu, layer normalization, the softmax of attention;
// see model/kernels.h.
#include "model/kernel_math.h"
#include "model/kernels_variant.h"

#include <math.h>

static void error_function(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = pm_erf(x[i]);
}

static void gelu(const float *x, float *y, float *slope, size_t n)
{
    if (!slope) {
#pragma GCC ivdep
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * pm_normal_area(x[i], pm_exp(-0.5f * x[i] * x[i]));
        return;
    }
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        const float z = x[i], bell = pm_exp(-0.5f * z * z), area = pm_normal_area(z, bell);
        y[i] = z * area;
        slope[i] = area + z * (bell * 0.398942280f); // 1 / sqrt(2 pi)
    }
}

static void multiply(const float *x, const float *y, float *z, size_t n)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        z[i] = x[i] * y[i];
}

static inline float add_up(float *sums)
{
#pragma GCC unroll 8
    for (size_t half = PM_SUMS / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (size_t i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

// In the order of PM_SUMS, as all sums over a row here.
static float sum_of(const float *x, size_t c)
{
    float sums[PM_SUMS] = {0};
    size_t j = 0;
    for (; j + PM_SUMS <= c; j += PM_SUMS)
        for (size_t i = 0; i < PM_SUMS; i++)
            sums[i] += x[j + i];
    for (size_t i = 0; j + i < c; i++)
        sums[i] += x[j + i];
    return add_up(sums);
}

static float squares_of(const float *x, float mean, size_t c)
{
    float sums[PM_SUMS] = {0};
    size_t j = 0;
    for (; j + PM_SUMS <= c; j += PM_SUMS)
        for (size_t i = 0; i < PM_SUMS; i++) {
            const float low = x[j + i] - mean;
            sums[i] += low * low;
        }
    for (size_t i = 0; j + i < c; i++) {
        const float low = x[j + i] - mean;
        sums[i] += low * low;
    }
    return add_up(sums);
}

static void layer_norm(const pm_layer_norm *n, const float *x, float *y, float *means, float *inverses)
{
    const size_t c = n->columns;
    for (size_t r = 0; r < n->rows; r++, x += c, y += c) {
        const float mean = sum_of(x, c) / (float)c;
        const float inverse = 1.0f / sqrtf(squares_of(x, mean, c) / (float)c + n->epsilon);
        if (n->bias)
            for (size_t j = 0; j < c; j++)
                y[j] = (x[j] - mean) * inverse * n->scale[j] + n->bias[j];
        else
            for (size_t j = 0; j < c; j++)
                y[j] = (x[j] - mean) * inverse * n->scale[j];
        if (means)
            means[r] = mean;
        if (inverses)
            inverses[r] = inverse;
    }
}

// The sums of s and of s * z over a row, where s = dy * scale and z is what was scaled.
static void row_sums(const pm_layer_norm *n, const float *x, const float *dy, float mean, float inverse,
                     float *plain, float *weighted)
{
    float sums[PM_SUMS] = {0}, products[PM_SUMS] = {0};
    const size_t c = n->columns;
    size_t j = 0;
    for (; j + PM_SUMS <= c; j += PM_SUMS)
        for (size_t i = 0; i < PM_SUMS; i++) {
            const float s = dy[j + i] * n->scale[j + i];
            sums[i] += s;
            products[i] += s * ((x[j + i] - mean) * inverse);
        }
    for (size_t i = 0; j + i < c; i++) {
        const float s = dy[j + i] * n->scale[j + i];
        sums[i] += s;
        products[i] += s * ((x[j + i] - mean) * inverse);
    }
    *plain = add_up(sums);
    *weighted = add_up(products);
}

static void layer_norm_backward(const pm_layer_norm *n, const float *x, const float *dy, const float *means,
                                const float *inverses, float *dx, float *dscale, float *dbias)
{
    const size_t c = n->columns;
    if (dscale)
        memset(dscale, 0, c * sizeof *dscale);
    if (dbias)
        memset(dbias, 0, c * sizeof *dbias);
    for (size_t r = 0; r < n->rows; r++, x += c, dy += c, dx = dx ? dx + c : NULL) {
        const float mean = means[r], inverse = inverses[r];
        for (size_t j = 0; dscale && j < c; j++)
            dscale[j] += dy[j] * ((x[j] - mean) * inverse);
        for (size_t j = 0; dbias && j < c; j++)
            dbias[j] += dy[j];
        if (!dx)
            continue;
        float plain, weighted;
        row_sums(n, x, dy, mean, inverse, &plain, &weighted);
        plain /= (float)c;
        weighted /= (float)c;
#pragma GCC ivdep
        for (size_t j = 0; j < c; j++)
            dx[j] = inverse * (dy[j] * n->scale[j] - plain - (x[j] - mean) * inverse * weighted);
    }
}

// Columns that are looked at of a row of which seen are visible: whole vectors, where there are as many.
static size_t looked_at(size_t seen, size_t columns)
{
    const size_t whole = (seen + PM_SUMS - 1) / PM_SUMS * PM_SUMS;
    return whole < columns ? whole : columns;
}

// Of whole vectors side by side: not unrolled, the comparisons stay vectors.
static float largest(const float *x, size_t c)
{
    float tops[PM_SUMS];
    for (size_t i = 0; i < PM_SUMS; i++)
        tops[i] = -INFINITY;
    size_t j = 0;
    for (; j + PM_SUMS <= c; j += PM_SUMS)
#pragma GCC unroll 1
        for (size_t i = 0; i < PM_SUMS; i++)
            tops[i] = x[j + i] > tops[i] ? x[j + i] : tops[i];
    for (size_t i = 0; j + i < c; i++)
        tops[i] = x[j + i] > tops[i] ? x[j + i] : tops[i];
#pragma GCC unroll 8
    for (size_t half = PM_SUMS / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (size_t i = 0; i < half; i++)
            tops[i] = tops[i + half] > tops[i] ? tops[i + half] : tops[i];
    return tops[0];
}

// e^(x - top) for seen of c columns, 0 for the others; returns 1 / their sum.
static float shares_of(float *x, size_t seen, size_t c, float top)
{
    for (size_t j = 0; j < c; j++)
        x[j] = pm_exp(x[j] - top);
    memset(x + seen, 0, (c - seen) * sizeof *x);
    return 1.0f / sum_of(x, c);
}

static void attend(const pm_attend *a, float *scores)
{
    for (size_t r = 0; r < a->rows; r++, scores += a->stride) {
        const size_t seen = a->visible ? a->visible[r] : a->columns, c = looked_at(seen, a->columns);
        const float *mask = a->mask ? a->mask + r * a->mask_stride : NULL;
        for (size_t j = seen; j < c; j++)
            scores[j] = -INFINITY;
        for (size_t j = 0; j < c; j++)
            scores[j] *= a->scale;
        for (size_t j = 0; mask && j < seen; j++)
            scores[j] += mask[j];
        const float share = shares_of(scores, seen, c, largest(scores, c));
        for (size_t j = 0; j < c; j++)
            scores[j] *= share;
        memset(scores + c, 0, (a->columns - c) * sizeof *scores);
    }
}

static void attend_backward(const pm_attend *a, const float *shares, float *dshares)
{
    for (size_t r = 0; r < a->rows; r++, shares += a->stride, dshares += a->stride) {
        const size_t seen = a->visible ? a->visible[r] : a->columns, c = looked_at(seen, a->columns);
        float sums[PM_SUMS] = {0};
        size_t j = 0;
        memset(dshares + seen, 0, (a->columns - seen) * sizeof *dshares);
        for (; j + PM_SUMS <= c; j += PM_SUMS)
            for (size_t i = 0; i < PM_SUMS; i++)
                sums[i] += shares[j + i] * dshares[j + i];
        for (size_t i = 0; j + i < c; i++)
            sums[i] += shares[j + i] * dshares[j + i];
        const float dot = add_up(sums);
        for (j = 0; j < c; j++)
            dshares[j] = shares[j] * (dshares[j] - dot) * a->scale;
    }
}

void PM_KERNEL(fill_block)(pm_kernels *table)
{
    table->error_function = error_function;
    table->gelu = gelu;
    table->multiply = multiply;
    table->layer_norm = layer_norm;
    table->layer_norm_backward = layer_norm_backward;
    table->attend = attend;
    table->attend_backward = attend_backward;
}
