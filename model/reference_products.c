// The twins of products: of matrices, and of minimal filtering by the matrices that define it.
#include "model/reference.h"

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
            p->c[i * p->c_stride + j] = (float)sum;
        }
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
