// Convolutions with stride 1 to few channels. The passes are panel products that read a padded copy of the
// image at one offset for each window element, so that nothing is unrolled:
//   y[o][q]  = sum over k of weight[o][k] * padded[offset[k] + q]
// where k runs over (channel, window row, window column) and q over pixels of the padded width; the columns
// past the output's width are computed and left out. The input's gradient is the same with flipped weights
// over the output's gradient.
#include "model/conv.h"

#include "core/arena.h"

#include <string.h>

bool pm_conv_is_direct(const pm_window *w)
{
    return w->stride_h == 1 && w->stride_w == 1 && w->pad_top < w->kernel_h && w->pad_bottom < w->kernel_h &&
           w->pad_left < w->kernel_w && w->pad_right < w->kernel_w;
}

pm_window pm_conv_backward_window(const pm_window *w)
{
    pm_window back = *w;
    back.channels = w->out_channels;
    back.height = w->out_height;
    back.width = w->out_width;
    back.out_channels = w->channels;
    back.out_height = w->height;
    back.out_width = w->width;
    back.pad_top = w->kernel_h - 1 - w->pad_top;
    back.pad_bottom = w->kernel_h - 1 - w->pad_bottom;
    back.pad_left = w->kernel_w - 1 - w->pad_left;
    back.pad_right = w->kernel_w - 1 - w->pad_right;
    return back;
}

// Extents of a direct pass, in elements.
typedef struct extents {
    size_t depth, outputs;      // window elements of all channels; output channels
    size_t gap;                 // zeros before each row, which pad the end of the row above as well
    size_t padded_width, plane; // of the padded image
    size_t pixels;              // from the first output pixel to the last, at the padded width
    size_t columns;             // pixels rounded up to whole panels
    size_t padded_count;        // the padded image with what the last panel reads beyond it
} extents;

static extents direct_extents(const pm_kernels *kernels, const pm_window *w)
{
    extents e = {.depth = (size_t)(w->channels * w->kernel_h * w->kernel_w),
                 .outputs = (size_t)w->out_channels};
    e.gap = (size_t)(w->pad_left > w->pad_right ? w->pad_left : w->pad_right);
    e.padded_width = (size_t)w->width + e.gap;
    e.plane = e.padded_width * (size_t)(w->height + w->pad_top + w->pad_bottom);
    e.pixels = (size_t)(w->out_height - 1) * e.padded_width + (size_t)w->out_width;
    e.columns = (e.pixels + kernels->panel - 1) / kernels->panel * kernels->panel;
    // The last row's end is padded by what follows.
    e.padded_count = (size_t)w->channels * e.plane + 2 * e.gap + kernels->panel;
    return e;
}

// The scratch of one direct pass.
typedef struct views {
    float *padded, *wide, *packed;
    size_t *element_offsets; // (depth): of each window element in the padded image
    size_t *row_offsets;
} views;

// Carves the views out of memory and returns the bytes taken; with no memory only the bytes count.
// wide_count, packed_count: floats; row_count: row offsets.
static size_t carve(unsigned char *memory, const extents *e, size_t wide_count, size_t packed_count,
                    size_t row_count, views *v)
{
    size_t padded = pm_align(e->padded_count * sizeof(float)), wide = pm_align(wide_count * sizeof(float));
    size_t packed = pm_align(packed_count * sizeof(float)), elements = pm_align(e->depth * sizeof(size_t));
    if (memory) {
        v->padded = (float *)(void *)memory;
        v->wide = (float *)(void *)(memory + padded);
        v->packed = (float *)(void *)(memory + padded + wide);
        v->element_offsets = (size_t *)(void *)(memory + padded + wide + packed);
        v->row_offsets = (size_t *)(void *)(memory + padded + wide + packed + elements);
    }
    return padded + wide + packed + elements + pm_align(row_count * sizeof(size_t));
}

static size_t carve_correlation(unsigned char *memory, const extents *e, bool flip, views *v)
{
    return carve(memory, e, e->outputs * e->columns, flip ? e->outputs * e->depth : 0, e->outputs, v);
}

static void set_element_offsets(const pm_window *w, const extents *e, size_t *offsets)
{
    for (size_t c = 0; c < (size_t)w->channels; c++)
        for (size_t i = 0; i < (size_t)w->kernel_h; i++)
            for (size_t j = 0; j < (size_t)w->kernel_w; j++)
                *offsets++ = c * e->plane + i * e->padded_width + j + e->gap - (size_t)w->pad_left;
}

// The borders are zeroed once for many images: pad_image writes the inside only.
static void clear_padded(const extents *e, float *padded)
{
    memset(padded, 0, e->padded_count * sizeof *padded);
}

static void pad_image(const pm_window *w, const extents *e, const float *image, float *padded)
{
    size_t width = (size_t)w->width;
    padded += (size_t)w->pad_top * e->padded_width + e->gap;
    for (size_t c = 0; c < (size_t)w->channels; c++, padded += e->plane)
        for (size_t y = 0; y < (size_t)w->height; y++, image += width)
            memcpy(padded + y * e->padded_width, image, width * sizeof *image);
}

// y (out, height, width) of one image; weight (out, depth), bias may be NULL.
static void correlate(const pm_kernels *kernels, const pm_window *w, const extents *e, const views *v,
                      const float *image, const float *weight, const float *bias, bool relu, float *y)
{
    pad_image(w, e, image, v->padded);
    kernels->panel_product(&(pm_panel){.rows = e->outputs,
                                       .columns = e->columns,
                                       .depth = e->depth,
                                       .a = weight,
                                       .a_offsets = v->row_offsets,
                                       .b = v->padded,
                                       .b_offsets = v->element_offsets,
                                       .b_stride = kernels->panel,
                                       .c = v->wide,
                                       .c_stride = e->columns});
    const size_t width = (size_t)w->out_width;
    for (size_t o = 0; o < e->outputs; o++) {
        const float add = bias ? bias[o] : 0;
        for (size_t r = 0; r < (size_t)w->out_height; r++, y += width) {
            const float *from = v->wide + o * e->columns + r * e->padded_width;
            for (size_t x = 0; x < width; x++)
                y[x] = from[x] + add;
            if (relu)
                kernels->relu(y, y, width);
        }
    }
}

static void start_correlation(const pm_window *w, const extents *e, const views *v)
{
    set_element_offsets(w, e, v->element_offsets);
    for (size_t o = 0; o < e->outputs; o++)
        v->row_offsets[o] = o * e->depth;
    clear_padded(e, v->padded);
}

static size_t image_count(const pm_window *w)
{
    return (size_t)(w->channels * w->height * w->width);
}

static size_t output_count(const pm_window *w)
{
    return (size_t)(w->out_channels * w->out_height * w->out_width);
}

size_t pm_conv_direct_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const extents e = direct_extents(kernels, w);
    return carve_correlation(NULL, &e, false, NULL);
}

void pm_conv_direct(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window *w = c->window;
    const extents e = direct_extents(kernels, w);
    views v = {0};
    (void)carve_correlation(c->scratch, &e, false, &v);
    start_correlation(w, &e, &v);
    for (size_t i = 0; i < c->images; i++)
        correlate(kernels, w, &e, &v, c->x + i * image_count(w), c->weight, c->bias, c->relu,
                  c->y + i * output_count(w));
}

void pm_conv_flip_weight(const pm_window *w, const float *weight, float *flipped)
{
    const size_t area = (size_t)(w->kernel_h * w->kernel_w), inputs = (size_t)w->channels;
    for (size_t c = 0; c < inputs; c++)
        for (size_t o = 0; o < (size_t)w->out_channels; o++)
            for (size_t i = 0; i < area; i++)
                *flipped++ = weight[(o * inputs + c) * area + (area - 1 - i)];
}

size_t pm_conv_direct_input_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const pm_window back = pm_conv_backward_window(w);
    const extents e = direct_extents(kernels, &back);
    return carve_correlation(NULL, &e, true, NULL);
}

void pm_conv_direct_input(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window back = pm_conv_backward_window(c->window);
    const extents e = direct_extents(kernels, &back);
    views v = {0};
    (void)carve_correlation(c->scratch, &e, true, &v);
    start_correlation(&back, &e, &v);
    pm_conv_flip_weight(c->window, c->weight, v.packed);
    for (size_t i = 0; i < c->images; i++)
        correlate(kernels, &back, &e, &v, c->x + i * image_count(&back), v.packed, NULL, false,
                  c->y + i * output_count(&back));
}
