// Kernels of minimal filtering: what goes into a tile's products and what comes out of them; see
// model/kernels.h.
#include "model/kernels_variant.h"

static inline __attribute__((always_inline)) vector at(const float *x)
{
    return *(const vector *)x;
}

// VECTOR channels of the 4 x 4 pixels from x on, row floats from row to row: their differences and sums along
// columns, then along rows, plane floats from one to the next.
static inline __attribute__((always_inline)) void tile_in(const float *x, size_t row, size_t pixel, float *y,
                                                          size_t plane)
{
    vector d[4][4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++, x += pixel) {
        const vector a = at(x), b = at(x + row), c = at(x + 2 * row), e = at(x + 3 * row);
        d[0][j] = a - c;
        d[1][j] = b + c;
        d[2][j] = c - b;
        d[3][j] = b - e;
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++, y += 4 * plane) {
        *(vector *)y = d[i][0] - d[i][2];
        *(vector *)(y + plane) = d[i][1] + d[i][2];
        *(vector *)(y + 2 * plane) = d[i][2] - d[i][1];
        *(vector *)(y + 3 * plane) = d[i][1] - d[i][3];
    }
}

static void tiles_in(const pm_tiles *t, const float *image, float *tiles)
{
    const size_t columns = (t->width + 1) / 2, rows = (t->height + 1) / 2;
    const size_t row = (2 * columns + 2) * t->stride, plane = rows * columns * t->stride;
    for (size_t i = 0; i < rows; i++, image += 2 * row)
        for (size_t j = 0; j < columns; j++, tiles += t->stride)
            for (size_t c = 0; c < t->channels; c += VECTOR)
                tile_in(image + 2 * j * t->stride + c, row, t->stride, tiles + c, plane);
}

static inline __attribute__((always_inline)) vector finished(vector x, const float *bias, bool relu)
{
    const vector zero = {0};
    typedef int32_t mask __attribute__((vector_size(sizeof(vector))));
    x += at(bias);
    return relu ? (vector)(~(mask)(x < zero) & (mask)x) : x;
}

// VECTOR channels of the outputs of a tile; width, height: 1 or 2 of them along each axis.
static inline __attribute__((always_inline)) void tile_out(const pm_tiles *t, const float *x, size_t plane,
                                                           const float *bias, float *y, size_t width,
                                                           size_t height)
{
    vector s[2][4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++, x += plane) {
        const vector a = at(x), b = at(x + 4 * plane), c = at(x + 8 * plane), d = at(x + 12 * plane);
        s[0][j] = a + b + c;
        s[1][j] = b - c - d;
    }
    for (size_t i = 0; i < height; i++, y += t->width * t->stride) {
        *(vector *)y = finished(s[i][0] + s[i][1] + s[i][2], bias, t->relu);
        if (width > 1)
            *(vector *)(y + t->stride) = finished(s[i][1] - s[i][2] - s[i][3], bias, t->relu);
    }
}

static void tiles_out(const pm_tiles *t, const float *tiles, const float *bias, float *image)
{
    const size_t columns = (t->width + 1) / 2, rows = (t->height + 1) / 2;
    const size_t plane = rows * columns * t->stride;
    for (size_t i = 0; i < rows; i++, image += 2 * t->width * t->stride)
        for (size_t j = 0; j < columns; j++, tiles += t->stride)
            for (size_t c = 0; c < t->channels; c += VECTOR) {
                float *y = image + 2 * j * t->stride + c;
                if (2 * i + 1 < t->height && 2 * j + 1 < t->width)
                    tile_out(t, tiles + c, plane, bias + c, y, 2, 2);
                else
                    tile_out(t, tiles + c, plane, bias + c, y, 2 * j + 1 < t->width ? 2 : 1,
                             2 * i + 1 < t->height ? 2 : 1);
            }
}

void PM_KERNEL(fill_tiles)(pm_kernels *table)
{
    table->tiles_in = tiles_in;
    table->tiles_out = tiles_out;
}
