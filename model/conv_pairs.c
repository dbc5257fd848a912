// Gradients of convolutions whose operands are rounded to bfloat16; the forward pass is in conv_channels.c.
// Both are panel products in pairs with the channels of what is made side by side.
//
// The weight's gradient goes over pairs of neighbouring output pixels:
//   weight'[k][o] = sum over p of padded[step[k] + offset[p]] * dy[p][o]
// Rows of the padded image are cut into stride_w phases, so that the pixels that a window element sees are
// neighbours in one of them.
//
// The input's gradient goes over pairs of output channels. Pixels of x whose places differ by a stride see
// the same window elements, every stride-th, so each phase is a correlation over dy of its own:
//   dx[phase + p][c] = sum over k of padded_dy[offset[p] + step[k]] * weight[k][c]
#include "model/conv.h"

#include "core/arena.h"

#include <string.h>

// What is made or gone over together: pixels of x, pairs of pixels of y.
enum { INPUT_PIXELS = 64, WEIGHT_PAIRS = 512 };

// Carves pieces of so many 32-bit words, or of 64-bit ones from wide on, out of memory; with no memory only
// the bytes count.
static size_t carve(unsigned char *memory, const size_t *words, size_t count, size_t wide, void **places)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        places[i] = memory ? memory + total : NULL;
        total += pm_align(words[i] * (i < wide ? sizeof(uint32_t) : sizeof(size_t)));
    }
    return total;
}

// --- the weight's gradient

typedef struct weight_extents {
    size_t depth, outputs, stride;     // window elements of all channels; output channels, in whole panels
    size_t width, rows, pairs, images; // pairs of a row; rows, pairs and images that are gone over together
    size_t phase, line, plane, image;  // halves: of a phase of a row, of a row, of a channel, of an image
} weight_extents;

static weight_extents weight_extents_of(const pm_kernels *kernels, const pm_window *w)
{
    weight_extents e = {.depth = (size_t)(w->channels * w->kernel_h * w->kernel_w),
                        .outputs = (size_t)w->out_channels,
                        .width = (size_t)(w->out_width + 1) / 2};
    const size_t height = (size_t)w->out_height, stride = (size_t)w->stride_w;
    e.stride = (e.outputs + kernels->panel - 1) / kernels->panel * kernels->panel;
    e.rows = e.width < WEIGHT_PAIRS ? WEIGHT_PAIRS / e.width : 1;
    e.images = e.rows > height ? e.rows / height : 1;
    e.rows = e.rows < height ? e.rows : height;
    e.pairs = e.rows * e.width;
    e.phase = ((size_t)(w->width + w->pad_left + w->pad_right) + stride - 1) / stride + 1;
    e.line = stride * e.phase;
    e.plane = (size_t)(w->height + w->pad_top + w->pad_bottom) * e.line;
    e.image = ((size_t)w->channels * e.plane + 1) / 2 * 2;
    return e;
}

typedef struct weight_views {
    uint16_t *padded;       // (images, image)
    uint16_t *plane;        // (height, width), or rows of dy
    uint32_t *dy;           // (outputs, images, pairs)
    float *packed, *wide;   // (images, pairs, panel); (depth, stride)
    size_t *steps;          // (depth): of each window element
    size_t *offsets, *rows; // (images, pairs): of each pair; of packed panels
} weight_views;

static size_t carve_weight(unsigned char *memory, const pm_kernels *kernels, const pm_window *w,
                           const weight_extents *e, weight_views *v)
{
    const size_t pairs = e->images * e->pairs;
    const size_t words[] = {e->images * e->image / 2,
                            (size_t)(w->height * w->width + 1) / 2 + e->pairs,
                            e->outputs * pairs,
                            pairs * kernels->panel,
                            e->depth * e->stride,
                            e->depth,
                            pairs,
                            pairs};
    void *p[8];
    const size_t bytes = carve(memory, words, 8, 5, p);
    if (memory)
        *v = (weight_views){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
    return bytes;
}

static void set_weight_places(const pm_kernels *kernels, const pm_window *w, const weight_extents *e,
                              const weight_views *v)
{
    const size_t stride = (size_t)w->stride_w;
    size_t *step = v->steps, *offset = v->offsets;
    for (size_t c = 0; c < (size_t)w->channels; c++)
        for (size_t i = 0; i < (size_t)w->kernel_h; i++)
            for (size_t j = 0; j < (size_t)w->kernel_w; j++)
                *step++ = c * e->plane + i * e->line + j % stride * e->phase + j / stride;
    for (size_t image = 0; image < e->images; image++)
        for (size_t y = 0; y < e->rows; y++)
            for (size_t x = 0; x < e->width; x++)
                *offset++ = image * e->image + y * (size_t)w->stride_h * e->line + 2 * x;
    for (size_t p = 0; p < e->images * e->pairs; p++)
        v->rows[p] = p * kernels->panel;
    memset(v->padded, 0, e->images * e->image * sizeof *v->padded);
}

// Every stride-th element of a row, from the first on.
static void spread(const uint16_t *from, size_t count, size_t stride, uint16_t *to)
{
    for (size_t i = 0; stride == 2 && i < count; i++)
        to[i] = from[2 * i];
    for (size_t i = 0; stride != 2 && i < count; i++)
        to[i] = from[stride * i];
}

// A row, cut into the phases that window elements see.
static void pad_row(const pm_window *w, const weight_extents *e, const uint16_t *from, uint16_t *to)
{
    const size_t width = (size_t)w->width, stride = (size_t)w->stride_w, left = (size_t)w->pad_left;
    if (stride == 1) {
        memcpy(to + left, from, width * sizeof *from);
        return;
    }
    for (size_t first = 0; first < stride && first < width; first++) {
        const size_t at = left + first;
        if (at % stride < (size_t)w->kernel_w)
            spread(from + first, (width - first + stride - 1) / stride, stride,
                   to + at % stride * e->phase + at / stride);
    }
}

static void pad_phases(const pm_kernels *kernels, const pm_window *w, const weight_extents *e,
                       const float *image, uint16_t *plane, uint16_t *padded)
{
    const size_t width = (size_t)w->width, count = (size_t)w->height * width;
    for (size_t c = 0; c < (size_t)w->channels; c++, image += count, padded += e->plane) {
        kernels->round(image, plane, count);
        const uint16_t *from = plane;
        uint16_t *to = padded + (size_t)w->pad_top * e->line;
        for (int64_t y = w->pad_top; y < w->height + w->pad_top; y++, from += width, to += e->line)
            if (y % w->stride_h < w->kernel_h)
                pad_row(w, e, from, to);
    }
}

// Pairs of the rows of one output channel of one image.
static void pair_pixels(const pm_kernels *kernels, const pm_window *w, size_t rows, const float *dy,
                        uint16_t *halves, uint32_t *pairs)
{
    const size_t width = (size_t)w->out_width;
    uint16_t *to = (uint16_t *)(void *)pairs;
    if (width % 2 == 0) {
        kernels->round(dy, to, rows * width);
        return;
    }
    kernels->round(dy, halves, rows * width);
    for (size_t y = 0; y < rows; y++, halves += width, to += width + 1) {
        for (size_t x = 0; x < width; x++)
            to[x] = halves[x];
        to[width] = 0;
    }
}

size_t pm_conv_pairs_weight_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const weight_extents e = weight_extents_of(kernels, w);
    return carve_weight(NULL, kernels, w, &e, NULL);
}

// Adds what rows of count images make: their padded images and dy are in v.
static void add_weight(const pm_kernels *kernels, const weight_extents *e, const weight_views *v,
                       const uint16_t *a, size_t pairs, bool accumulate)
{
    const size_t panel = kernels->panel;
    for (size_t first = 0; first < e->outputs; first += panel) {
        kernels->pack_panel((const float *)(const void *)(v->dy + first * pairs),
                            e->outputs - first < panel ? e->outputs - first : panel, pairs, pairs, v->packed);
        kernels->panel_product(&(pm_panel){.rows = e->depth,
                                           .columns = panel,
                                           .depth = pairs,
                                           .pairs = true,
                                           .a = a,
                                           .a_offsets = v->steps,
                                           .a_steps = v->offsets,
                                           .b = v->packed,
                                           .b_offsets = v->rows,
                                           .c = v->wide + first,
                                           .c_stride = e->stride,
                                           .accumulate = accumulate});
    }
}

void pm_conv_pairs_weight(const pm_kernels *kernels, const pm_conv *c, const float *dy)
{
    const pm_window *w = c->window;
    const weight_extents e = weight_extents_of(kernels, w);
    const size_t height = (size_t)w->out_height, width = (size_t)w->out_width, area = height * width,
                 image = (size_t)(w->channels * w->height * w->width);
    weight_views v = {0};
    (void)carve_weight(c->scratch, kernels, w, &e, &v);
    set_weight_places(kernels, w, &e, &v);
    for (size_t i = 0; i < c->images; i += e.images, dy += e.images * e.outputs * area) {
        const size_t images = c->images - i < e.images ? c->images - i : e.images;
        for (size_t k = 0; k < images; k++)
            pad_phases(kernels, w, &e, c->x + (i + k) * image, v.plane, v.padded + k * e.image);
        for (size_t row = 0; row < height; row += e.rows) {
            const size_t rows = height - row < e.rows ? height - row : e.rows, pairs = rows * e.width;
            for (size_t o = 0; o < e.outputs; o++)
                for (size_t k = 0; k < images; k++)
                    pair_pixels(kernels, w, rows, dy + (k * e.outputs + o) * area + row * width, v.plane,
                                v.dy + (o * images + k) * pairs);
            add_weight(kernels, &e, &v, v.padded + row * (size_t)w->stride_h * e.line, images * pairs,
                       i > 0 || row > 0);
        }
    }
    kernels->transpose(v.wide, e.depth, e.outputs, e.stride, c->y, e.depth);
}

// --- the input's gradient

// One axis of one phase: the first place in x and how many follow at the stride, the window elements that
// they see (first, then at the stride), and where the first one's last window element lies in the padded dy.
typedef struct phase_axis {
    size_t at, count, element, elements, from;
} phase_axis;

static phase_axis axis_of(int64_t phase, int64_t extent, int64_t kernel, int64_t stride, int64_t pad)
{
    const int64_t at = ((phase - pad) % stride + stride) % stride, border = (kernel - 1) / stride;
    phase_axis a = {.at = (size_t)at,
                    .count = at < extent ? (size_t)((extent - 1 - at) / stride + 1) : 0,
                    .element = (size_t)phase,
                    .elements = phase < kernel ? (size_t)((kernel - 1 - phase) / stride + 1) : 0};
    a.from = (size_t)((at + pad - phase) / stride + border + 1) - (a.elements ? a.elements : 1);
    return a;
}

// How many of dy there are along an axis with the borders that phases look into.
static size_t padded_extent(int64_t extent, int64_t outputs, int64_t kernel, int64_t stride, int64_t pad)
{
    const int64_t seen = (extent - 1 + pad) / stride + 1;
    return (size_t)((kernel - 1) / stride + (seen > outputs ? seen : outputs));
}

typedef struct input_extents {
    size_t depth, channels, stride; // pairs of all window elements; channels of x, in whole panels
    size_t pixels;                  // of x that are made together
    size_t width, plane;            // of the padded dy, in pairs
    size_t pairs;                   // of output channels
} input_extents;

static input_extents input_extents_of(const pm_kernels *kernels, const pm_window *w)
{
    input_extents e = {.channels = (size_t)w->channels, .pairs = (size_t)(w->out_channels + 1) / 2};
    e.depth = e.pairs * (size_t)(w->kernel_h * w->kernel_w);
    e.stride = (e.channels + kernels->panel - 1) / kernels->panel * kernels->panel;
    e.pixels = w->width < INPUT_PIXELS ? INPUT_PIXELS : (size_t)w->width;
    e.width = padded_extent(w->width, w->out_width, w->kernel_w, w->stride_w, w->pad_left);
    e.plane = e.width * padded_extent(w->height, w->out_height, w->kernel_h, w->stride_h, w->pad_top);
    return e;
}

typedef struct input_views {
    uint32_t *padded;               // (pairs, plane)
    uint32_t *dy;                   // (out_height, out_width)
    uint32_t *weight;               // (pairs, channels, window)
    float *packed;                  // (panels, depth, panel), phase by phase
    float *wide, *turned;           // (pixels, stride); (channels, pixels)
    size_t *steps, *rows, *offsets; // (depth), phase by phase; (depth); (pixels)
} input_views;

static size_t carve_input(unsigned char *memory, const pm_window *w, const input_extents *e, input_views *v)
{
    const size_t words[] = {e->pairs * e->plane,
                            (size_t)(w->out_height * w->out_width),
                            e->depth * e->channels,
                            e->depth * e->stride,
                            e->pixels * e->stride,
                            e->channels * e->pixels,
                            e->depth,
                            e->depth,
                            e->pixels};
    void *p[9];
    const size_t bytes = carve(memory, words, 9, 6, p);
    if (memory)
        *v = (input_views){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]};
    return bytes;
}

// A phase and where its weights and steps begin, in elements of depth.
typedef struct phase {
    phase_axis h, w;
    size_t first, depth;
} phase;

// The phases in order; false after the last one. Begin with a phase of zeros and at 0.
static bool next_phase(const pm_window *w, const input_extents *e, int64_t *at, phase *p)
{
    if (*at == w->stride_h * w->stride_w)
        return false;
    const int64_t row = *at / w->stride_w, column = *at % w->stride_w;
    *at += 1;
    p->first += p->depth;
    p->h = axis_of(row, w->height, w->kernel_h, w->stride_h, w->pad_top);
    p->w = axis_of(column, w->width, w->kernel_w, w->stride_w, w->pad_left);
    p->depth = e->pairs * p->h.elements * p->w.elements;
    return true;
}

// The later window elements first: their dy lies first.
static void pack_phase(const pm_kernels *kernels, const pm_window *w, const input_extents *e,
                       const input_views *v, const phase *p)
{
    const size_t area = (size_t)(w->kernel_h * w->kernel_w), panel = kernels->panel;
    uint32_t *packed = (uint32_t *)(void *)(v->packed + p->first * e->stride);
    size_t k = 0;
    memset(packed, 0, p->depth * e->stride * sizeof *packed);
    for (size_t o = 0; o < e->pairs; o++)
        for (size_t i = p->h.elements; i-- > 0;)
            for (size_t j = p->w.elements; j-- > 0; k++) {
                const size_t element = (p->h.element + i * (size_t)w->stride_h) * (size_t)w->kernel_w +
                                       p->w.element + j * (size_t)w->stride_w;
                v->steps[p->first + k] =
                    2 * (o * e->plane + (p->h.elements - 1 - i) * e->width + p->w.elements - 1 - j);
                for (size_t c = 0; c < e->channels; c++)
                    packed[(c / panel * p->depth + k) * panel + c % panel] =
                        v->weight[(o * e->channels + c) * area + element];
            }
}

static void pad_dy(const pm_kernels *kernels, const pm_window *w, const input_extents *e,
                   const input_views *v, const float *dy)
{
    const size_t width = (size_t)w->out_width, height = (size_t)w->out_height, area = width * height;
    uint32_t *to = v->padded + (size_t)((w->kernel_h - 1) / w->stride_h) * e->width +
                   (size_t)((w->kernel_w - 1) / w->stride_w);
    for (size_t o = 0; o < e->pairs; o++, dy += 2 * area, to += e->plane) {
        kernels->round_pairs(dy, 2 * o + 1 < (size_t)w->out_channels ? dy + area : NULL, v->dy, area);
        for (size_t y = 0; y < height; y++)
            memcpy(to + y * e->width, v->dy + y * width, width * sizeof *to);
    }
}

// Rows of a phase of dx (channels, height, width) from what is in v->wide, a row of the phase having count
// pixels.
static void store_rows(const pm_kernels *kernels, const pm_window *w, const input_extents *e,
                       const input_views *v, const phase *p, size_t row, size_t rows, float *dx)
{
    const size_t area = (size_t)(w->height * w->width), width = (size_t)w->width, count = p->w.count,
                 pixels = rows * count, stride = (size_t)w->stride_w;
    if (w->stride_h == 1 && stride == 1) {
        kernels->transpose(v->wide, pixels, e->channels, e->stride, dx + row * width, area);
        return;
    }
    kernels->transpose(v->wide, pixels, e->channels, e->stride, v->turned, pixels);
    const float *from = v->turned;
    for (size_t c = 0; c < e->channels; c++, dx += area)
        for (size_t r = 0; r < rows; r++, from += count) {
            float *to = dx + (p->h.at + (row + r) * (size_t)w->stride_h) * width + p->w.at;
            for (size_t x = 0; x < count; x++)
                to[x * stride] = from[x];
        }
}

static void run_phase(const pm_kernels *kernels, const pm_window *w, const input_extents *e,
                      const input_views *v, const phase *p, float *dx)
{
    if (p->depth == 0 || p->w.count == 0)
        return;
    const size_t together = e->pixels / p->w.count, begin = p->h.from * e->width + p->w.from;
    pm_panel product = {.columns = e->channels,
                        .depth = p->depth,
                        .pairs = true,
                        .a_offsets = v->offsets,
                        .a_steps = v->steps + p->first,
                        .b = v->packed + p->first * e->stride,
                        .b_offsets = v->rows,
                        .b_stride = p->depth * kernels->panel,
                        .c = v->wide,
                        .c_stride = e->stride};
    for (size_t i = 0; i < together && i < p->h.count; i++)
        for (size_t x = 0; x < p->w.count; x++)
            v->offsets[i * p->w.count + x] = 2 * (i * e->width + x);
    for (size_t row = 0; row < p->h.count; row += together) {
        const size_t rows = p->h.count - row < together ? p->h.count - row : together;
        product.a = v->padded + begin + row * e->width;
        product.rows = rows * p->w.count;
        kernels->panel_product(&product);
        store_rows(kernels, w, e, v, p, row, rows, dx);
    }
}

size_t pm_conv_pairs_input_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const input_extents e = input_extents_of(kernels, w);
    return carve_input(NULL, w, &e, NULL);
}

void pm_conv_pairs_input(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window *w = c->window;
    const input_extents e = input_extents_of(kernels, w);
    const size_t weights = (size_t)(w->channels * w->kernel_h * w->kernel_w),
                 image = (size_t)(w->channels * w->height * w->width),
                 output = (size_t)(w->out_channels * w->out_height * w->out_width);
    input_views v = {0};
    (void)carve_input(c->scratch, w, &e, &v);
    for (size_t o = 0; o < e.pairs; o++)
        kernels->round_pairs(c->weight + 2 * o * weights,
                             2 * o + 1 < (size_t)w->out_channels ? c->weight + (2 * o + 1) * weights : NULL,
                             v.weight + o * weights, weights);
    for (size_t k = 0; k < e.depth; k++)
        v.rows[k] = k * kernels->panel;
    phase p = {0};
    for (int64_t at = 0; next_phase(w, &e, &at, &p);)
        pack_phase(kernels, w, &e, &v, &p);
    memset(v.padded, 0, e.pairs * e.plane * sizeof *v.padded);
    const bool gaps = w->stride_h > w->kernel_h || w->stride_w > w->kernel_w;
    for (size_t i = 0; i < c->images; i++) {
        pad_dy(kernels, w, &e, &v, c->x + i * output);
        if (gaps)
            memset(c->y + i * image, 0, image * sizeof(float));
        p = (phase){0};
        for (int64_t at = 0; next_phase(w, &e, &at, &p);)
            run_phase(kernels, w, &e, &v, &p, c->y + i * image);
    }
}
