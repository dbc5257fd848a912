// Kernels over rows: bias, softmax, losses; see model/kernels.h.
#include "model/kernel_math.h"
#include "model/kernels_variant.h"

#include <math.h>

static void add_row(float *y, const float *row, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j++)
            y[r * c + j] += row[j];
}

static void sum_rows(const float *x, size_t rows, size_t c, float *sum)
{
    memset(sum, 0, c * sizeof *sum);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < c; j++)
            sum[j] += x[r * c + j];
}

static float largest(const float *x, size_t c)
{
    float top = x[0];
    for (size_t j = 1; j < c; j++)
        top = x[j] > top ? x[j] : top;
    return top;
}

// y = e^(x - max), returns the sum of y in the order of PM_SUMS.
static float exponentials(const float *x, float *y, size_t c)
{
    const float top = largest(x, c);
    for (size_t j = 0; j < c; j++)
        y[j] = pm_exp(x[j] - top);
    float sums[PM_SUMS] = {0};
    for (size_t j = 0; j < c; j++)
        sums[j % PM_SUMS] += y[j];
    for (size_t half = PM_SUMS / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

static void softmax(const float *x, float *y, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, x += c, y += c) {
        float total = exponentials(x, y, c);
        for (size_t j = 0; j < c; j++)
            y[j] /= total;
    }
}

static void softmax_backward(const float *y, const float *dy, float *dx, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, y += c, dy += c, dx += c) {
        float dot = 0;
        for (size_t j = 0; j < c; j++)
            dot += y[j] * dy[j];
        for (size_t j = 0; j < c; j++)
            dx[j] = y[j] * (dy[j] - dot);
    }
}

static void cross_entropy(const float *x, const int32_t *target, float scale, float *dx, double *loss,
                          uint8_t *correct, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, x += c, dx += c) {
        size_t class = (size_t)target[r], best = 0;
        bool finite = true;
        for (size_t j = 0; j < c; j++) {
            best = x[j] > x[best] ? j : best;
            finite = finite && isfinite(x[j]);
        }
        float total = exponentials(x, dx, c), factor = scale / total;
        loss[r] = finite ? log((double)total) - ((double)x[class] - (double)x[best]) : (double)NAN;
        correct[r] = best == class;
        for (size_t j = 0; j < c; j++)
            dx[j] *= factor;
        dx[class] -= scale;
    }
}

static void soft_cross_entropy(const float *x, const float *target, float scale, float *dx, double *loss,
                               uint8_t *correct, size_t rows, size_t c)
{
    for (size_t r = 0; r < rows; r++, x += c, target += c, dx += c) {
        size_t best = 0, aim = 0;
        bool finite = true;
        float weight = 0;
        double aimed = 0;
        for (size_t j = 0; j < c; j++) {
            best = x[j] > x[best] ? j : best;
            aim = target[j] > target[aim] ? j : aim;
            finite = finite && isfinite(x[j]);
            weight += target[j];
        }
        for (size_t j = 0; j < c; j++)
            aimed += (double)target[j] * ((double)x[j] - (double)x[best]);
        float total = exponentials(x, dx, c), factor = scale * weight / total;
        loss[r] = finite ? (double)weight * log((double)total) - aimed : (double)NAN;
        correct[r] = best == aim;
        for (size_t j = 0; j < c; j++)
            dx[j] = dx[j] * factor - scale * target[j];
    }
}

static void squared_error(const float *x, const float *target, float scale, float *dx, double *loss,
                          size_t rows, size_t c)
{
    const float factor = 2 * scale / (float)c;
    for (size_t r = 0; r < rows; r++, x += c, target += c, dx += c) {
        double sum = 0;
        for (size_t j = 0; j < c; j++) {
            float difference = x[j] - target[j];
            sum += (double)difference * (double)difference;
            dx[j] = factor * difference;
        }
        loss[r] = sum / (double)c;
    }
}

void PM_KERNEL(fill_row)(pm_kernels *table)
{
    table->add_row = add_row;
    table->sum_rows = sum_rows;
    table->softmax = softmax;
    table->softmax_backward = softmax_backward;
    table->cross_entropy = cross_entropy;
    table->soft_cross_entropy = soft_cross_entropy;
    table->squared_error = squared_error;
}
