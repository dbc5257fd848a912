// Convolutions with the output channels side by side: any stride, no column computed in vain where the
// channels fill whole panels. All passes are panel products that read a padded copy of the image in place,
// pixel p (its offset in the padded image) and window element k (its step from there):
//   y[p][o]         = sum over k of padded[offset[p] + step[k]] * weight[k][o]
//   weight'[k][o]   = sum over p of padded[step[k] + offset[p]] * dy[p][o]
// The input's gradient, for stride 1, is the first with flipped weights over the output's gradient. Where
// pm_conv_is_tiled, the first is made in tiles instead (model/kernels.h: pm_tiles).
#include "model/conv.h"

#include "core/arena.h"

#include <string.h>

// Output pixels that are made together: whole rows of the output, so that what they give stays in cache until
// it is turned over into planes.
enum { FORWARD_PIXELS = 64, TILED_PIXELS = 256, WEIGHT_PIXELS = 1024 };

typedef struct extents {
    size_t depth, outputs;      // elements of an output channel's weight; output channels
    size_t stride;              // output channels rounded up to whole panels
    size_t width, height, area; // of the output
    size_t rows, pixels;        // of the output that are made together
    size_t padded_width, plane; // of the padded image
    size_t padded_count;        // 0: nothing is padded, the image is read in place
    size_t pooled;              // pixels of the pool over the output; 0: no pool
    bool pairs;                 // channels are bfloat16, two in a word
    size_t tiles, columns;      // tiles that are made together, of a row; 0: not tiled
    size_t inner;               // tiled: channels rounded up to whole panels
} extents;

static extents extents_of(const pm_kernels *kernels, const pm_window *w, size_t pixels, bool pairs)
{
    const size_t channels = (size_t)(pairs ? (w->channels + 1) / 2 : w->channels);
    extents e = {.depth = channels * (size_t)(w->kernel_h * w->kernel_w),
                 .outputs = (size_t)w->out_channels,
                 .pairs = pairs,
                 .width = (size_t)w->out_width,
                 .height = (size_t)w->out_height};
    e.stride = (e.outputs + kernels->panel - 1) / kernels->panel * kernels->panel;
    e.area = e.width * e.height;
    e.rows = e.width < pixels ? pixels / e.width : 1;
    e.rows = e.rows < e.height ? e.rows : e.height;
    e.pixels = e.rows * e.width;
    e.padded_width = (size_t)(w->width + w->pad_left + w->pad_right);
    e.plane = e.padded_width * (size_t)(w->height + w->pad_top + w->pad_bottom);
    const bool padded = w->pad_left || w->pad_right || w->pad_top || w->pad_bottom;
    e.padded_count = padded || pairs ? channels * e.plane : 0;
    return e;
}

// The padded image has what the tiles at the ends of odd rows and columns see, too.
static void set_tiles(const pm_kernels *kernels, const pm_window *w, extents *e)
{
    const size_t channels = (size_t)w->channels;
    e->depth = PM_TILE * channels;
    e->columns = (e->width + 1) / 2;
    e->tiles = (e->rows + 1) / 2 * e->columns;
    e->inner = (channels + kernels->panel - 1) / kernels->panel * kernels->panel;
    e->padded_width = 2 * e->columns + 2;
    e->plane = e->padded_width * ((size_t)w->out_height + 3);
    e->padded_count = channels * e->plane;
}

static extents extents_unpooled(const pm_kernels *kernels, const pm_window *w, bool pairs)
{
    const bool tiled = !pairs && pm_conv_is_tiled(w);
    extents e = extents_of(kernels, w, tiled ? TILED_PIXELS : FORWARD_PIXELS, pairs);
    if (!tiled)
        return e;
    e.rows += e.rows % 2;
    e.pixels = e.rows * e.width;
    set_tiles(kernels, w, &e);
    return e;
}

// For a pool over the output: rows in whole windows, none that no window sees.
static extents extents_pooled(const pm_kernels *kernels, const pm_window *w, const pm_window *pool,
                              bool pairs)
{
    extents e = extents_unpooled(kernels, w, pairs);
    if (!pool)
        return e;
    const size_t window = (size_t)pool->kernel_h;
    e.height = (size_t)pool->out_height * window;
    e.rows = e.rows < window ? window : e.rows / window * window;
    e.pixels = e.rows * e.width;
    e.pooled = (size_t)(pool->out_height * pool->out_width);
    if (e.tiles)
        set_tiles(kernels, w, &e);
    return e;
}

// The scratch of a pass.
typedef struct views {
    float *padded;
    float *wide;     // forward: (pixels, stride); weight: (depth, stride)
    float *packed;   // forward: weights that were not packed before; weight: (pixels, panel) of dy
    size_t *steps;   // (depth): of each window element
    size_t *offsets; // (pixels): of each pixel that is made
    size_t *rows;    // of packed panels: (depth), or (pixels)
    float *pooled;   // (pooled, stride)
    int32_t *where;
    uint32_t *plane; // (height, width): a plane of pairs
    float *turned;   // tiled: (plane, inner): the padded image, channels side by side
    float *tiled;    // (PM_TILE, tiles, inner)
    float *products; // (PM_TILE, tiles, stride)
    float *bias;     // (stride)
} views;

// Carves the views out of memory and returns the bytes taken; with no memory only the bytes count.
static size_t carve(unsigned char *memory, const extents *e, size_t wide, size_t packed, size_t rows,
                    views *v)
{
    const size_t bytes[] = {e->padded_count * sizeof(float),
                            wide * sizeof(float),
                            packed * sizeof(float),
                            e->depth * sizeof(size_t),
                            e->pixels * sizeof(size_t),
                            rows * sizeof(size_t),
                            e->pooled * e->stride * sizeof(float),
                            e->pooled * e->stride * sizeof(int32_t),
                            (e->pairs ? e->plane : 0) * sizeof(uint32_t),
                            (e->tiles ? e->plane : 0) * e->inner * sizeof(float),
                            PM_TILE * e->tiles * e->inner * sizeof(float),
                            PM_TILE * e->tiles * e->stride * sizeof(float),
                            (e->tiles ? e->stride : 0) * sizeof(float)};
    enum { COUNT = sizeof bytes / sizeof *bytes };
    void *places[COUNT] = {0};
    size_t total = 0;
    for (size_t i = 0; i < COUNT; i++) {
        places[i] = memory ? memory + total : NULL;
        total += pm_align(bytes[i]);
    }
    if (memory)
        *v = (views){places[0], places[1], places[2], places[3],  places[4],  places[5], places[6],
                     places[7], places[8], places[9], places[10], places[11], places[12]};
    return total;
}

static void set_places(const pm_window *w, const extents *e, const views *v)
{
    size_t *step = v->steps, *offset = v->offsets;
    const size_t channels = e->depth / (size_t)(w->kernel_h * w->kernel_w), unit = e->pairs ? 2 : 1;
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < (size_t)w->kernel_h; i++)
            for (size_t j = 0; j < (size_t)w->kernel_w; j++)
                *step++ = unit * (c * e->plane + i * e->padded_width + j);
    for (size_t y = 0; y < e->rows; y++)
        for (size_t x = 0; x < e->width; x++)
            *offset++ = unit * (y * (size_t)w->stride_h * e->padded_width + x * (size_t)w->stride_w);
    memset(v->padded, 0, e->padded_count * sizeof *v->padded);
}

// Rows are short: in fours, the last of which overlap, they are copied sooner than memcpy looks at their
// length.
static void copy_row(const float *from, size_t width, float *to)
{
    if (width < 4) {
        for (size_t x = 0; x < width; x++)
            to[x] = from[x];
        return;
    }
    for (size_t x = 0; x + 4 < width; x += 4)
        memcpy(to + x, from + x, 4 * sizeof *from);
    memcpy(to + width - 4, from + width - 4, 4 * sizeof *from);
}

// The padded image. Its borders are zeroed once for many.
static const float *pad(const pm_window *w, const extents *e, const float *image, float *padded)
{
    if (e->padded_count == 0)
        return image;
    const size_t width = (size_t)w->width;
    float *to = padded + (size_t)w->pad_top * e->padded_width + (size_t)w->pad_left;
    for (size_t c = 0; c < (size_t)w->channels; c++, to += e->plane)
        for (size_t y = 0; y < (size_t)w->height; y++, image += width)
            copy_row(image, width, to + y * e->padded_width);
    return padded;
}

// The same with each two channels rounded to pairs.
static const float *pad_pairs(const pm_kernels *kernels, const pm_window *w, const extents *e,
                              const float *image, const views *v)
{
    const size_t width = (size_t)w->width, count = width * (size_t)w->height;
    const size_t first = (size_t)w->pad_top * e->padded_width + (size_t)w->pad_left;
    const bool padded = e->plane != count;
    float *to = v->padded;
    for (int64_t c = 0; c < w->channels; c += 2, image += 2 * count, to += e->plane) {
        uint32_t *plane = padded ? v->plane : (uint32_t *)(void *)to;
        kernels->round_pairs(image, c + 1 < w->channels ? image + count : NULL, plane, count);
        for (size_t y = 0; padded && y < (size_t)w->height; y++)
            memcpy(to + first + y * e->padded_width, plane + y * width, width * sizeof *plane);
    }
    return v->padded;
}

static size_t image_count(const pm_window *w)
{
    return (size_t)(w->channels * w->height * w->width);
}

bool pm_conv_by_channels(const pm_kernels *kernels, const pm_window *w)
{
    const extents e = extents_of(kernels, w, FORWARD_PIXELS, false);
    const size_t columns = (e.area + kernels->panel - 1) / kernels->panel * kernels->panel;
    return e.stride * e.area <= e.outputs * columns;
}

size_t pm_conv_channels_packed(const pm_kernels *kernels, const pm_window *w)
{
    const extents e = extents_unpooled(kernels, w, false);
    return e.depth * e.stride;
}

void pm_conv_channels_pack(const pm_kernels *kernels, const pm_window *w, const float *weight, float *packed)
{
    const extents e = extents_unpooled(kernels, w, false);
    if (e.tiles) {
        pm_conv_tiles_pack(kernels, w, weight, packed);
        return;
    }
    for (size_t first = 0; first < e.outputs; first += kernels->panel)
        kernels->pack_panel(weight + first * e.depth,
                            e.outputs - first < kernels->panel ? e.outputs - first : kernels->panel, e.depth,
                            e.depth, packed + first * e.depth);
}

// more: floats of scratch beyond what a pass over packed weights needs.
static size_t carve_forward(unsigned char *memory, const extents *e, size_t more, views *v)
{
    return carve(memory, e, e->pixels * e->stride, more, e->depth, v);
}

// The weights in pairs of channels, as pm_conv_channels_pack; rows: (panel, depth).
static void pack_pairs(const pm_kernels *kernels, const pm_window *w, const extents *e, const float *weight,
                       float *packed, uint32_t *rows)
{
    const size_t area = (size_t)(w->kernel_h * w->kernel_w), channels = (size_t)w->channels;
    for (size_t first = 0; first < e->outputs; first += kernels->panel) {
        const size_t left = e->outputs - first, count = left < kernels->panel ? left : kernels->panel;
        for (size_t o = 0; o < count; o++)
            for (size_t c = 0; c < channels; c += 2) {
                const float *from = weight + ((first + o) * channels + c) * area;
                kernels->round_pairs(from, c + 1 < channels ? from + area : NULL,
                                     rows + o * e->depth + c / 2 * area, area);
            }
        kernels->pack_panel((const float *)(const void *)rows, count, e->depth, e->depth,
                            packed + first * e->depth);
    }
}

// Floats of scratch for weights that are packed by the pass.
static size_t packing_count(const pm_kernels *kernels, const extents *e)
{
    return e->depth * (e->stride + (e->pairs ? kernels->panel : 0));
}

size_t pm_conv_channels_bytes(const pm_kernels *kernels, const pm_window *w, const pm_window *pool,
                              bool pairs)
{
    const extents e = extents_pooled(kernels, w, pool, pairs);
    return carve_forward(NULL, &e, packing_count(kernels, &e), NULL);
}

// Pools the rows of the output from row on that are in v->wide.
static void pool_rows(const pm_kernels *kernels, const pm_conv *c, const extents *e, const views *v,
                      size_t row, size_t rows)
{
    const size_t window = (size_t)c->pool->kernel_h, outputs = (size_t)c->pool->out_width;
    for (size_t r = 0; r < rows; r += window) {
        const size_t at = (row + r) / window * outputs * e->stride;
        kernels->max_channels(&(pm_channel_pool){.channels = e->outputs,
                                                 .stride = e->stride,
                                                 .kernel_h = window,
                                                 .kernel_w = (size_t)c->pool->kernel_w,
                                                 .outputs = outputs,
                                                 .width = e->width,
                                                 .x = v->wide + r * e->width * e->stride,
                                                 .y = v->pooled + at,
                                                 .where = c->where ? v->where + at : NULL,
                                                 .first = (int32_t)((row + r) * e->width)});
    }
}

// The pooled image, turned over into planes. Indices are moved as floats are: bytes.
static void store_pooled(const pm_kernels *kernels, const pm_conv *c, const extents *e, const views *v,
                         size_t image)
{
    const size_t at = image * e->outputs * e->pooled;
    kernels->transpose(v->pooled, e->pooled, e->outputs, e->stride, c->y + at, e->pooled);
    if (c->where)
        kernels->transpose((const float *)(const void *)v->where, e->pooled, e->outputs, e->stride,
                           (float *)(void *)(c->where + at), e->pooled);
}

static void set_tiled_places(const pm_conv *c, const extents *e, const views *v)
{
    for (size_t t = 0; t < e->tiles; t++)
        v->offsets[t] = t * e->inner;
    memset(v->padded, 0, e->padded_count * sizeof *v->padded);
    memset(v->turned, 0, e->plane * e->inner * sizeof *v->turned);
    memset(v->bias, 0, e->stride * sizeof *v->bias);
    if (c->bias)
        memcpy(v->bias, c->bias, e->outputs * sizeof *v->bias);
}

// Makes rows of the output from row on in v->wide.
static void run_tiles(const pm_kernels *kernels, const pm_conv *c, const extents *e, const views *v,
                      const float *packed, size_t row, size_t rows)
{
    const size_t channels = (size_t)c->window->channels, tiles = (rows + 1) / 2 * e->columns;
    pm_tiles t = {
        .width = e->width, .height = rows, .channels = channels, .stride = e->inner, .relu = c->relu};
    kernels->tiles_in(&t, v->turned + row * e->padded_width * e->inner, v->tiled);
    for (size_t i = 0; i < PM_TILE; i++)
        kernels->panel_product(&(pm_panel){.rows = tiles,
                                           .columns = e->stride,
                                           .depth = channels,
                                           .a = v->tiled + i * tiles * e->inner,
                                           .a_offsets = v->offsets,
                                           .b = packed + i * channels * e->stride,
                                           .b_offsets = v->rows,
                                           .b_stride = channels * kernels->panel,
                                           .c = v->products + i * tiles * e->stride,
                                           .c_stride = e->stride});
    t.channels = e->outputs;
    t.stride = e->stride;
    kernels->tiles_out(&t, v->products, v->bias, v->wide);
}

static void run_forward(const pm_kernels *kernels, const pm_conv *c, const extents *e, const views *v,
                        const float *packed)
{
    const pm_window *w = c->window;
    if (e->tiles)
        set_tiled_places(c, e, v);
    else
        set_places(w, e, v);
    for (size_t k = 0; k < e->depth; k++)
        v->rows[k] = k * kernels->panel;
    pm_panel product = {.columns = e->outputs,
                        .depth = e->depth,
                        .pairs = e->pairs,
                        .a_offsets = v->offsets,
                        .a_steps = v->steps,
                        .line = w->stride_w == 1 && !e->pairs ? e->width : 0,
                        .b = packed,
                        .b_offsets = v->rows,
                        .b_stride = e->depth * kernels->panel,
                        .c = v->wide,
                        .c_stride = e->stride,
                        .bias = c->bias,
                        .relu = c->relu};
    for (size_t i = 0; i < c->images; i++) {
        const float *x = c->x + i * image_count(w);
        const float *image = e->pairs ? pad_pairs(kernels, w, e, x, v) : pad(w, e, x, v->padded);
        float *y = c->pool ? NULL : c->y + i * e->outputs * e->area;
        if (e->tiles)
            kernels->transpose(image, (size_t)w->channels, e->plane, e->plane, v->turned, e->inner);
        for (size_t row = 0; row < e->height; row += e->rows) {
            product.a = image + row * (size_t)w->stride_h * e->padded_width;
            const size_t rows = e->height - row < e->rows ? e->height - row : e->rows;
            product.rows = rows * e->width;
            if (e->tiles)
                run_tiles(kernels, c, e, v, packed, row, rows);
            else
                kernels->panel_product(&product);
            if (c->pool)
                pool_rows(kernels, c, e, v, row, rows);
            else
                kernels->transpose(v->wide, product.rows, e->outputs, e->stride, y + row * e->width, e->area);
        }
        if (c->pool)
            store_pooled(kernels, c, e, v, i);
    }
}

void pm_conv_channels(const pm_kernels *kernels, const pm_conv *c)
{
    const extents e = extents_pooled(kernels, c->window, c->pool, c->pairs);
    views v = {0};
    (void)carve_forward(c->scratch, &e, packing_count(kernels, &e), &v);
    if (c->pairs)
        pack_pairs(kernels, c->window, &e, c->weight, v.packed,
                   (uint32_t *)(void *)(v.packed + e.depth * e.stride));
    else if (!c->packed)
        pm_conv_channels_pack(kernels, c->window, c->weight, v.packed);
    run_forward(kernels, c, &e, &v, c->packed ? c->packed : v.packed);
}

size_t pm_conv_channels_input_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const pm_window back = pm_conv_backward_window(w);
    const extents e = extents_unpooled(kernels, &back, false);
    return carve_forward(NULL, &e, 2 * e.depth * e.stride, NULL);
}

void pm_conv_channels_input(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window back = pm_conv_backward_window(c->window);
    const extents e = extents_unpooled(kernels, &back, false);
    pm_conv correlation = *c;
    views v = {0};
    correlation.window = &back;
    (void)carve_forward(c->scratch, &e, 2 * e.depth * e.stride, &v);
    float *flipped = v.packed + e.depth * e.stride;
    pm_conv_flip_weight(c->window, c->weight, flipped);
    pm_conv_channels_pack(kernels, &back, flipped, v.packed);
    run_forward(kernels, &correlation, &e, &v, v.packed);
}

static size_t carve_weight(unsigned char *memory, const pm_kernels *kernels, const extents *e, views *v)
{
    return carve(memory, e, e->depth * e->stride, e->pixels * kernels->panel, e->pixels, v);
}

size_t pm_conv_channels_weight_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const extents e = extents_of(kernels, w, WEIGHT_PIXELS, false);
    return carve_weight(NULL, kernels, &e, NULL);
}

void pm_conv_channels_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy)
{
    const pm_window *w = c->window;
    const extents e = extents_of(kernels, w, WEIGHT_PIXELS, false);
    const size_t panel = kernels->panel;
    views v = {0};
    (void)carve_weight(c->scratch, kernels, &e, &v);
    set_places(w, &e, &v);
    for (size_t p = 0; p < e.pixels; p++)
        v.rows[p] = p * panel;
    for (size_t i = 0; i < c->images; i++, dy += e.outputs * e.area) {
        const float *image = pad(w, &e, c->x + i * image_count(w), v.padded);
        for (size_t row = 0; row < e.height; row += e.rows) {
            const size_t pixels = (e.height - row < e.rows ? e.height - row : e.rows) * e.width;
            for (size_t first = 0; first < e.outputs; first += panel) {
                kernels->pack_panel(dy + first * e.area + row * e.width,
                                    e.outputs - first < panel ? e.outputs - first : panel, pixels, e.area,
                                    v.packed);
                kernels->panel_product(&(pm_panel){.rows = e.depth,
                                                   .columns = panel,
                                                   .depth = pixels,
                                                   .a = image + row * (size_t)w->stride_h * e.padded_width,
                                                   .a_offsets = v.steps,
                                                   .a_steps = v.offsets,
                                                   .b = v.packed,
                                                   .b_offsets = v.rows,
                                                   .c = v.wide + first,
                                                   .c_stride = e.stride,
                                                   .accumulate = i > 0 || row > 0});
            }
        }
    }
    kernels->transpose(v.wide, e.depth, e.outputs, e.stride, c->y, e.depth);
}
