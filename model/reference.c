#include "model/reference.h"

#include <float.h>
#include <math.h>
#include <string.h>
static void relu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > 0 || isnan(x[i]) ? x[i] : 0;
}

static void relu_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = y[i] > 0 ? dy[i] : 0;
}

static void sigmoid(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(1 / (1 + exp(-(double)x[i])));
}

static void sigmoid_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)((double)dy[i] * (double)y[i] * (1 - (double)y[i]));
}

static void tanh_(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (float)tanh((double)x[i]);
}

static void tanh_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)((double)dy[i] * (1 - (double)y[i] * (double)y[i]));
}

static void error_function(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (float)erf((double)x[i]);
}

static void gelu(const float *x, float *y, float *slope, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double z = (double)x[i], area = 0.5 * erfc(-z * M_SQRT1_2);
        y[i] = (float)(z * area);
        if (slope)
            slope[i] = (float)(area + z * exp(-z * z / 2) * M_SQRT1_2 * M_2_SQRTPI / 2);
    }
}

static void multiply(const float *x, const float *y, float *z, size_t n)
{
    for (size_t i = 0; i < n; i++)
        z[i] = x[i] * y[i];
}

static void layer_norm(const pm_layer_norm *n, const float *x, float *y, float *means, float *inverses)
{
    const size_t c = n->columns;
    for (size_t r = 0; r < n->rows; r++) {
        double mean = 0, variance = 0;
        for (size_t j = 0; j < c; j++)
            mean += (double)x[r * c + j] / (double)c;
        for (size_t j = 0; j < c; j++)
            variance += pow((double)x[r * c + j] - mean, 2) / (double)c;
        const double inverse = 1 / sqrt(variance + (double)n->epsilon);
        for (size_t j = 0; j < c; j++)
            y[r * c + j] = (float)(((double)x[r * c + j] - mean) * inverse * (double)n->scale[j] +
                                   (n->bias ? (double)n->bias[j] : 0));
        if (means)
            means[r] = (float)mean;
        if (inverses)
            inverses[r] = (float)inverse;
    }
}

static void layer_norm_backward(const pm_layer_norm *n, const float *x, const float *dy, const float *means,
                                const float *inverses, float *dx, float *dscale, float *dbias)
{
    const size_t c = n->columns;
    for (size_t j = 0; j < c; j++) {
        double scale = 0, bias = 0;
        for (size_t r = 0; r < n->rows; r++) {
            scale += (double)dy[r * c + j] * ((double)x[r * c + j] - (double)means[r]) * (double)inverses[r];
            bias += (double)dy[r * c + j];
        }
        if (dscale)
            dscale[j] = (float)scale;
        if (dbias)
            dbias[j] = (float)bias;
    }
    for (size_t r = 0; r < n->rows && dx; r++) {
        const double mean = (double)means[r], inverse = (double)inverses[r];
        double plain = 0, weighted = 0;
        for (size_t j = 0; j < c; j++) {
            const double s = (double)dy[r * c + j] * (double)n->scale[j];
            plain += s / (double)c;
            weighted += s * ((double)x[r * c + j] - mean) * inverse / (double)c;
        }
        for (size_t j = 0; j < c; j++)
            dx[r * c + j] = (float)(inverse * ((double)dy[r * c + j] * (double)n->scale[j] - plain -
                                               ((double)x[r * c + j] - mean) * inverse * weighted));
    }
}

static void attend(const pm_attend *a, float *scores)
{
    for (size_t r = 0; r < a->rows; r++) {
        float *row = scores + r * a->stride;
        const size_t seen = a->visible ? a->visible[r] : a->columns;
        double top = -INFINITY, sum = 0;
        for (size_t j = 0; j < a->columns; j++) {
            row[j] = row[j] * a->scale + (a->mask ? a->mask[r * a->mask_stride + j] : 0);
            top = j < seen && (double)row[j] > top ? (double)row[j] : top;
        }
        for (size_t j = 0; j < seen; j++)
            sum += exp((double)row[j] - top);
        for (size_t j = 0; j < a->columns; j++)
            row[j] = j < seen ? (float)(exp((double)row[j] - top) / sum) : 0;
    }
}

static void attend_backward(const pm_attend *a, const float *shares, float *dshares)
{
    for (size_t r = 0; r < a->rows; r++) {
        const float *p = shares + r * a->stride;
        float *d = dshares + r * a->stride;
        const size_t seen = a->visible ? a->visible[r] : a->columns;
        double dot = 0;
        for (size_t j = 0; j < seen; j++)
            dot += (double)p[j] * (double)d[j];
        for (size_t j = 0; j < a->columns; j++)
            d[j] = j < seen ? (float)((double)p[j] * ((double)d[j] - dot) * (double)a->scale) : 0;
    }
}

static void dropout(const pm_dropout *d, const float *x, float *y, uint8_t *mask, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        // 64 elements share 16 blocks of four words: see kernel_element.c.
        uint32_t block = (uint32_t)(i / 64 * 16 + i % 16), word = (uint32_t)(i % 64 / 16), out[4];
        uint32_t counter[4] = {block, d->lane, (uint32_t)d->step, (uint32_t)(d->step >> 32)};
        pm_philox(d->key, counter, out);
        mask[i] = (double)out[word] >= floor((double)d->ratio * 4294967296.0);
        y[i] = mask[i] ? x[i] * (1 / (1 - d->ratio)) : 0;
    }
}

static void dropout_backward(float ratio, const uint8_t *mask, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = mask[i] ? dy[i] / (1 - ratio) : 0;
}

static void add(float *sum, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += x[i];
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void add_row(float *y, const float *row, size_t rows, size_t c)
{
    for (size_t i = 0; i < rows * c; i++)
        y[i] += row[i % c];
}

static void sum_rows(const float *x, size_t rows, size_t c, float *sum)
{
    for (size_t j = 0; j < c; j++) {
        double total = 0;
        for (size_t r = 0; r < rows; r++)
            total += (double)x[r * c + j];
        sum[j] = (float)total;
    }
}

// log of the sum of e^x over a row.
static double log_sum(const float *x, size_t c)
{
    double top = -INFINITY, total = 0;
    for (size_t j = 0; j < c; j++)
        top = fmax(top, (double)x[j]);
    for (size_t j = 0; j < c; j++)
        total += exp((double)x[j] - top);
    return top + log(total);
}

static void softmax(const float *x, float *y, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j++)
            y[r * c + j] = (float)exp((double)x[r * c + j] - log_sum(x + r * c, c));
}

static void softmax_backward(const float *y, const float *dy, float *dx, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j++) {
            double sum = 0;
            for (size_t k = 0; k < c; k++)
                sum += (double)dy[r * c + k] * (double)y[r * c + k] * ((k == j) - (double)y[r * c + j]);
            dx[r * c + j] = (float)sum;
        }
}

static void cross_entropy(const float *x, const int32_t *target, float scale, float *dx, double *loss,
                          uint8_t *correct, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, x += c, dx += c) {
        size_t best = 0;
        double all = log_sum(x, c);
        for (size_t j = 0; j < c; j++) {
            best = x[j] > x[best] ? j : best;
            dx[j] = (float)((double)scale * (exp((double)x[j] - all) - (j == (size_t)target[r])));
        }
        loss[r] = all - (double)x[target[r]];
        correct[r] = best == (size_t)target[r];
    }
}

static void soft_cross_entropy(const float *x, const float *target, float scale, float *dx, double *loss,
                               uint8_t *correct, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, x += c, target += c, dx += c) {
        size_t best = 0, aim = 0;
        double all = log_sum(x, c), weight = 0;
        loss[r] = 0;
        for (size_t j = 0; j < c; j++) {
            best = x[j] > x[best] ? j : best;
            aim = target[j] > target[aim] ? j : aim;
            weight += (double)target[j];
            loss[r] += (double)target[j] * (all - (double)x[j]);
        }
        for (size_t j = 0; j < c; j++)
            dx[j] = (float)((double)scale * (weight * exp((double)x[j] - all) - (double)target[j]));
        correct[r] = best == aim;
    }
}

static void squared_error(const float *x, const float *target, float scale, float *dx, double *loss,
                          size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++) {
        loss[r] = 0;
        for (size_t j = 0; j < c; j++) {
            double difference = (double)x[r * c + j] - (double)target[r * c + j];
            loss[r] += difference * difference / (double)c;
            dx[r * c + j] = (float)(2 * difference * (double)scale / (double)c);
        }
    }
}

static void add_channel(float *y, const float *bias, size_t channels, size_t area)
{
    for (size_t i = 0; i < channels * area; i++)
        y[i] += bias[i / area];
}

static void sum_channels(const float *x, size_t images, size_t channels, size_t area, float *sum)
{
    for (size_t c = 0; c < channels; c++) {
        double total = 0;
        for (size_t i = 0; i < images * area; i++)
            total += (double)x[(i / area * channels + c) * area + i % area];
        sum[c] = (float)total;
    }
}

// Where element i of channel c of all images is.
static size_t in_plane(const pm_planes *p, size_t c, size_t i)
{
    return i / p->area * p->stride + c * p->area + i % p->area;
}

static void moments(const pm_planes *p, const float *x, float *mean, float *variance)
{
    const size_t count = p->images * p->area;
    for (size_t c = 0; c < p->channels; c++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < count; i++)
            sum += (double)x[in_plane(p, c, i)];
        for (size_t i = 0; i < count; i++)
            squares += pow((double)x[in_plane(p, c, i)] - sum / (double)count, 2);
        mean[c] = (float)(sum / (double)count);
        variance[c] = (float)(squares / (double)count);
    }
}

static void norm(const pm_norm *n, const float *x, float *y)
{
    for (size_t c = 0; c < n->planes.channels; c++)
        for (size_t i = 0; i < n->planes.images * n->planes.area; i++) {
            const size_t at = in_plane(&n->planes, c, i);
            const float value = x[at] * n->factor[c] + n->offset[c];
            y[at] = n->relu && value < 0 ? 0 : value;
        }
}

static double norm_dy(const pm_norm *n, size_t c, float x, float dy)
{
    return !n->relu || x * n->factor[c] + n->offset[c] > 0 ? (double)dy : 0;
}

static void norm_sums(const pm_norm *n, const float *x, const float *dy, float *sum_dy, float *sum_dy_x)
{
    for (size_t c = 0; c < n->planes.channels; c++) {
        double sum = 0, products = 0;
        for (size_t i = 0; i < n->planes.images * n->planes.area; i++) {
            const size_t at = in_plane(&n->planes, c, i);
            const double d = norm_dy(n, c, x[at], dy[at]);
            sum += d;
            products += d * ((double)x[at] - (double)n->mean[c]) * (double)n->inverse[c];
        }
        sum_dy[c] = (float)sum;
        sum_dy_x[c] = (float)products;
    }
}

static void norm_backward(const pm_norm *n, const float *x, const float *dy, const float *mean_dy,
                          const float *mean_dy_x, float *dx)
{
    for (size_t c = 0; c < n->planes.channels; c++)
        for (size_t i = 0; i < n->planes.images * n->planes.area; i++) {
            const size_t at = in_plane(&n->planes, c, i);
            const double normal = ((double)x[at] - (double)n->mean[c]) * (double)n->inverse[c];
            dx[at] = (float)((double)n->factor[c] * (norm_dy(n, c, x[at], dy[at]) - (double)mean_dy[c] -
                                                     normal * (double)mean_dy_x[c]));
        }
}

// The place in the image of window element (i, j) of output (y, x); -1 in the padding.
static int64_t place(const pm_window *w, int64_t y, int64_t x, int64_t i, int64_t j)
{
    int64_t row = y * w->stride_h + i - w->pad_top, column = x * w->stride_w + j - w->pad_left;
    return row < 0 || row >= w->height || column < 0 || column >= w->width ? -1 : row * w->width + column;
}

static void unroll(const pm_window *w, const float *image, float *columns)
{
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++)
                for (int64_t y = 0; y < w->out_height; y++)
                    for (int64_t x = 0; x < w->out_width; x++) {
                        int64_t at = place(w, y, x, i, j);
                        *columns++ = at < 0 ? 0 : image[c * w->height * w->width + at];
                    }
}

static void unroll_backward(const pm_window *w, const float *columns, float *image)
{
    memset(image, 0, (size_t)(w->channels * w->height * w->width) * sizeof *image);
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++)
                for (int64_t y = 0; y < w->out_height; y++)
                    for (int64_t x = 0; x < w->out_width; x++, columns++) {
                        int64_t at = place(w, y, x, i, j);
                        if (at >= 0)
                            image[c * w->height * w->width + at] += *columns;
                    }
}

static void max_pool(const pm_window *w, const float *x, float *y, int32_t *where)
{
    const int64_t area = w->height * w->width, outputs = w->out_height * w->out_width;
    for (int64_t o = 0; o < w->channels * outputs; o++) {
        const float *plane = x + o / outputs * area;
        int64_t best = -1;
        for (int64_t k = 0; k < w->kernel_h * w->kernel_w; k++) {
            int64_t at =
                place(w, o % outputs / w->out_width, o % w->out_width, k / w->kernel_w, k % w->kernel_w);
            if (at >= 0 && (best < 0 || plane[at] > plane[best] || isnan(plane[at])))
                best = at;
        }
        y[o] = plane[best];
        if (where)
            where[o] = (int32_t)best;
    }
}

static void max_channels(const pm_channel_pool *p)
{
    for (size_t o = 0; o < p->outputs; o++)
        for (size_t c = 0; c < p->channels; c++) {
            size_t best = o * p->kernel_w;
            for (size_t i = 0; i < p->kernel_h * p->kernel_w; i++) {
                const size_t pixel = o * p->kernel_w + i / p->kernel_w * p->width + i % p->kernel_w;
                const float v = p->x[pixel * p->stride + c];
                best = v > p->x[best * p->stride + c] || v != v ? pixel : best;
            }
            p->y[o * p->stride + c] = p->x[best * p->stride + c];
            if (p->where)
                p->where[o * p->stride + c] = p->first + (int32_t)best;
        }
}

static void max_pool_backward(const pm_window *w, const int32_t *where, const float *dy, float *dx)
{
    const int64_t area = w->height * w->width, outputs = w->out_height * w->out_width;
    memset(dx, 0, (size_t)(w->channels * area) * sizeof *dx);
    for (int64_t o = 0; o < w->channels * outputs; o++)
        dx[o / outputs * area + where[o]] += dy[o];
}

// Adds output o's share of the mean, forwards (dx NULL) or backwards.
static void average_one(const pm_window *w, int64_t o, const float *x, float *y, const float *dy, float *dx)
{
    const int64_t area = w->height * w->width, outputs = w->out_height * w->out_width,
                  plane = o / outputs * area;
    double sum = 0;
    int64_t places[1024], count = 0;
    for (int64_t k = 0; k < w->kernel_h * w->kernel_w && count < 1024; k++) {
        int64_t at = place(w, o % outputs / w->out_width, o % w->out_width, k / w->kernel_w, k % w->kernel_w);
        if (at >= 0)
            places[count++] = plane + at;
    }
    double divisor = (double)(w->count_include_pad ? w->kernel_h * w->kernel_w : count);
    for (int64_t k = 0; k < count; k++) {
        if (dx)
            dx[places[k]] += (float)((double)dy[o] / divisor);
        else
            sum += (double)x[places[k]];
    }
    if (!dx)
        y[o] = (float)(sum / divisor);
}

static void average_pool(const pm_window *w, const float *x, float *y)
{
    for (int64_t o = 0; o < w->channels * w->out_height * w->out_width; o++)
        average_one(w, o, x, y, NULL, NULL);
}

static void average_pool_backward(const pm_window *w, const float *dy, float *dx)
{
    memset(dx, 0, (size_t)(w->channels * w->height * w->width) * sizeof *dx);
    for (int64_t o = 0; o < w->channels * w->out_height * w->out_width; o++)
        average_one(w, o, NULL, NULL, dy, dx);
}

static uint16_t bfloat_of(float x)
{
    uint32_t bits, half;
    memcpy(&bits, &x, sizeof bits);
    half = bits >> 16;
    if (isnan(x))
        return (uint16_t)(half | 0x40);
    if (fabsf(x) < FLT_MIN)
        return (uint16_t)(half & 0x8000);
    const uint32_t rest = bits & 0xffff;
    return (uint16_t)(half + (rest > 0x8000 || (rest == 0x8000 && half & 1)));
}

static void round_(const float *x, uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bfloat_of(x[i]);
}

static void round_pairs(const float *first, const float *second, uint32_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bfloat_of(first[i]) | (second ? (uint32_t)bfloat_of(second[i]) << 16 : 0);
}

const pm_kernels *pm_reference_kernels(void)
{
    static const pm_kernels table = {.name = "reference",
                                     .relu = relu,
                                     .relu_backward = relu_backward,
                                     .sigmoid = sigmoid,
                                     .sigmoid_backward = sigmoid_backward,
                                     .tanh = tanh_,
                                     .tanh_backward = tanh_backward,
                                     .error_function = error_function,
                                     .gelu = gelu,
                                     .multiply = multiply,
                                     .layer_norm = layer_norm,
                                     .layer_norm_backward = layer_norm_backward,
                                     .attend = attend,
                                     .attend_backward = attend_backward,
                                     .dropout = dropout,
                                     .dropout_backward = dropout_backward,
                                     .add = add,
                                     .all_finite = all_finite,
                                     .add_row = add_row,
                                     .sum_rows = sum_rows,
                                     .softmax = softmax,
                                     .softmax_backward = softmax_backward,
                                     .cross_entropy = cross_entropy,
                                     .soft_cross_entropy = soft_cross_entropy,
                                     .squared_error = squared_error,
                                     .add_channel = add_channel,
                                     .sum_channels = sum_channels,
                                     .norm = norm,
                                     .moments = moments,
                                     .norm_sums = norm_sums,
                                     .norm_backward = norm_backward,
                                     .unroll = unroll,
                                     .unroll_backward = unroll_backward,
                                     .max_pool = max_pool,
                                     .max_channels = max_channels,
                                     .tiles_in = pm_reference_tiles_in,
                                     .tiles_out = pm_reference_tiles_out,
                                     .max_pool_backward = max_pool_backward,
                                     .average_pool = average_pool,
                                     .average_pool_backward = average_pool_backward,
                                     .panel = PM_REFERENCE_PANEL,
                                     .panel_product = pm_reference_panel_product,
                                     .transpose = pm_reference_transpose,
                                     .line = 1,
                                     .pack_lines = pm_reference_pack_lines,
                                     .pack_rows = pm_reference_pack_rows,
                                     .turn_lines = pm_reference_turn_lines,
                                     .pack_panel = pm_reference_pack_panel,
                                     .sgd = pm_reference_sgd,
                                     .momentum = pm_reference_momentum,
                                     .adagrad = pm_reference_adagrad,
                                     .adam = pm_reference_adam,
                                     .sum = pm_reference_sum,
                                     .copy = pm_reference_copy,
                                     .round = round_,
                                     .round_pairs = round_pairs};
    return &table;
}
