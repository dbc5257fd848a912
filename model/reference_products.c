// The twins of products: of matrices, whole and by panels, and of minimal filtering by the matrices that
// define it.
#include "model/reference.h"

#include <math.h>
#include <string.h>

void pm_reference_product(const pm_product *p)
{
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double sum = p->accumulate ? (double)p->c[i * p->c_stride + j] : 0;
            for (size_t k = 0; k < p->k; k++) {
                float a = p->transpose_a ? p->a[k * p->a_stride + i] : p->a[i * p->a_stride + k];
                float b = p->transpose_b ? p->b[j * p->b_stride + k] : p->b[k * p->b_stride + j];
                sum += (double)a * (double)b;
            }
            sum += p->bias ? (double)p->bias[j] : 0;
            p->c[i * p->c_stride + j] = p->relu && sum < 0 ? 0 : (float)sum;
        }
}

// What a product in pairs makes of one element, rounding as it does: subnormals count as zero.
static float flushed(float x)
{
    return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}

static float bfloat(uint32_t half)
{
    const uint32_t bits = half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float add_pairs(const pm_panel *p, size_t r, size_t j, float sum)
{
    for (size_t k = 0; k < p->depth; k++) {
        const uint16_t *a = (const uint16_t *)p->a + p->a_offsets[r] + p->a_steps[k];
        const uint32_t b =
            ((const uint32_t *)
                 p->b)[p->b_offsets[k] + j / PM_REFERENCE_PANEL * p->b_stride + j % PM_REFERENCE_PANEL];
        sum = flushed(fmaf(bfloat(a[1]), bfloat(b >> 16), flushed(sum)));
        sum = flushed(fmaf(bfloat(a[0]), bfloat(b & 0xffff), sum));
    }
    return sum;
}

void pm_reference_panel_product(const pm_panel *p)
{
    const float *a = p->a, *b = p->b;
    for (size_t r = 0; r < p->rows; r++)
        for (size_t j = 0; j < p->columns; j++) {
            double sum = p->accumulate ? (double)p->c[r * p->c_stride + j] : 0;
            if (p->pairs)
                sum = (double)add_pairs(p, r, j, (float)sum);
            for (size_t k = 0; k < p->depth && !p->pairs; k++) {
                const size_t row = p->a_offsets ? p->a_offsets[r] : r * p->a_row; // lines of one row
                const size_t line = p->a_offsets ? p->b_offsets[k] : k * p->b_step;
                const size_t step = p->a_steps ? p->a_steps[k] : k;
                sum += (double)a[row + step] *
                       (double)b[line + j / PM_REFERENCE_PANEL * p->b_stride + j % PM_REFERENCE_PANEL];
            }
            sum += p->bias ? (double)p->bias[j] : 0;
            p->c[r * p->c_stride + j] = p->relu && sum < 0 ? 0 : (float)sum;
        }
}

void pm_reference_transpose(const float *x, size_t rows, size_t columns, size_t x_stride, float *y,
                            size_t y_stride)
{
    for (size_t i = 0; i < rows * columns; i++)
        y[i % columns * y_stride + i / columns] = x[i / columns * x_stride + i % columns];
}

void pm_reference_pack_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                             size_t stride)
{
    pm_reference_transpose(x, depth, rows, x_stride, lines, stride);
}

void pm_reference_turn_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                             size_t stride)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(lines + r * stride, x + r * x_stride, depth * sizeof *x);
}

void pm_reference_pack_rows(const float *x, size_t depth, size_t columns, size_t x_stride, float *panels,
                            size_t stride)
{
    for (size_t k = 0; k < depth; k++)
        for (size_t j = 0; j < (columns + PM_REFERENCE_PANEL - 1) / PM_REFERENCE_PANEL * PM_REFERENCE_PANEL;
             j++)
            panels[j / PM_REFERENCE_PANEL * stride + k * PM_REFERENCE_PANEL + j % PM_REFERENCE_PANEL] =
                j < columns ? x[k * x_stride + j] : 0;
}

void pm_reference_pack_panel(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel)
{
    for (size_t i = 0; i < depth * PM_REFERENCE_PANEL; i++)
        panel[i] =
            i % PM_REFERENCE_PANEL < rows ? x[i % PM_REFERENCE_PANEL * x_stride + i / PM_REFERENCE_PANEL] : 0;
}

static const double IN[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
static const double OUT[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};

// B' d B of each tile and channel.
void pm_reference_tiles_in(const pm_tiles *t, const float *image, float *tiles)
{
    const size_t columns = (t->width + 1) / 2, rows = (t->height + 1) / 2, width = 2 * columns + 2;
    for (size_t n = 0; n < PM_TILE * rows * columns; n++)
        for (size_t c = 0; c < t->channels; c++) {
            const size_t part = n / (rows * columns), tile = n % (rows * columns);
            const size_t top = 2 * (tile / columns), left = 2 * (tile % columns);
            double sum = 0;
            for (size_t i = 0; i < PM_TILE; i++)
                sum += IN[part / 4][i / 4] * IN[part % 4][i % 4] *
                       (double)image[((top + i / 4) * width + left + i % 4) * t->stride + c];
            tiles[n * t->stride + c] = (float)sum;
        }
}

// A' m A of each tile and channel.
void pm_reference_tiles_out(const pm_tiles *t, const float *tiles, const float *bias, float *image)
{
    const size_t columns = (t->width + 1) / 2, rows = (t->height + 1) / 2;
    for (size_t p = 0; p < t->width * t->height; p++)
        for (size_t c = 0; c < t->channels; c++) {
            const size_t y = p / t->width, x = p % t->width, tile = y / 2 * columns + x / 2;
            double sum = (double)bias[c];
            for (size_t i = 0; i < PM_TILE; i++)
                sum += OUT[y % 2][i / 4] * OUT[x % 2][i % 4] *
                       (double)tiles[(i * rows * columns + tile) * t->stride + c];
            image[p * t->stride + c] = t->relu && sum < 0 ? 0 : (float)sum;
        }
}
