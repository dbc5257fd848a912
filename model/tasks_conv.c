// The tasks of Conv. With stride 1, which is nearly always, all three passes are panel products that read a
// padded copy of the image at one offset for each window element, so that nothing is unrolled:
//   y[o][q]  = sum over k of weight[o][k] * padded[offset[k] + q]
// where k runs over (channel, window row, window column) and q over pixels of the padded width; the columns
// past the output's width are computed and left out. The input's gradient is the same with flipped weights
// over the output's gradient; the weight's gradient sums padded[offset[k] + q] * dy[q][o] over q. Other
// strides unroll each image to (channels * window, pixels) and go through BLIS.
#include "model/tasks.h"

#include <string.h>

static size_t conv_depth(const pm_window *w)
{
    return (size_t)(w->channels * w->kernel_h * w->kernel_w);
}

static size_t conv_pixels(const pm_window *w)
{
    return (size_t)(w->out_height * w->out_width);
}

static bool is_direct(const pm_window *w)
{
    return w->stride_h == 1 && w->stride_w == 1 && w->pad_top < w->kernel_h && w->pad_bottom < w->kernel_h &&
           w->pad_left < w->kernel_w && w->pad_right < w->kernel_w;
}

// The window of the input's gradient: a correlation over the output's gradient that gives the input's shape.
static pm_window backward_window(const pm_window *w)
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
    size_t padded_width, plane; // of the padded image
    size_t pixels;              // from the first output pixel to the last, at the padded width
    size_t columns;             // pixels rounded up to whole panels
    size_t padded_count;        // the padded image with what the last panel reads beyond it
} extents;

static extents direct_extents(const pm_kernels *kernels, const pm_window *w)
{
    extents e = {.depth = conv_depth(w), .outputs = (size_t)w->out_channels};
    e.padded_width = (size_t)(w->width + w->pad_left + w->pad_right);
    e.plane = e.padded_width * (size_t)(w->height + w->pad_top + w->pad_bottom);
    e.pixels = (size_t)(w->out_height - 1) * e.padded_width + (size_t)w->out_width;
    e.columns = (e.pixels + kernels->panel - 1) / kernels->panel * kernels->panel;
    e.padded_count = (size_t)w->channels * e.plane + kernels->panel;
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

static size_t carve_weight_gradient(unsigned char *memory, const pm_kernels *kernels, const extents *e,
                                    views *v)
{
    size_t outputs = (e->outputs + kernels->panel - 1) / kernels->panel * kernels->panel;
    return carve(memory, e, e->depth * outputs, e->pixels * kernels->panel, e->pixels, v);
}

static void set_element_offsets(const pm_window *w, const extents *e, size_t *offsets)
{
    for (size_t c = 0; c < (size_t)w->channels; c++)
        for (size_t i = 0; i < (size_t)w->kernel_h; i++)
            for (size_t j = 0; j < (size_t)w->kernel_w; j++)
                *offsets++ = c * e->plane + i * e->padded_width + j;
}

// The borders are zeroed once for many images: pad_image writes the inside only.
static void clear_padded(const extents *e, float *padded)
{
    memset(padded, 0, e->padded_count * sizeof *padded);
}

static void pad_image(const pm_window *w, const extents *e, const float *image, float *padded)
{
    size_t width = (size_t)w->width;
    padded += (size_t)w->pad_top * e->padded_width + (size_t)w->pad_left;
    for (size_t c = 0; c < (size_t)w->channels; c++, padded += e->plane)
        for (size_t y = 0; y < (size_t)w->height; y++, image += width)
            memcpy(padded + y * e->padded_width, image, width * sizeof *image);
}

// y (out, height, width) of one image; weight (out, depth), bias may be NULL.
static void correlate(const pm_kernels *kernels, const pm_window *w, const extents *e, const views *v,
                      const float *image, const float *weight, const float *bias, float *y)
{
    pad_image(w, e, image, v->padded);
    for (size_t q = 0; q < e->columns; q += kernels->panel)
        kernels->panel_product(&(pm_panel){.rows = e->outputs,
                                           .columns = kernels->panel,
                                           .depth = e->depth,
                                           .a = weight,
                                           .a_offsets = v->row_offsets,
                                           .b = v->padded + q,
                                           .b_offsets = v->element_offsets,
                                           .c = v->wide + q,
                                           .c_stride = e->columns});
    const size_t width = (size_t)w->out_width;
    for (size_t o = 0; o < e->outputs; o++) {
        const float add = bias ? bias[o] : 0;
        for (size_t r = 0; r < (size_t)w->out_height; r++, y += width) {
            const float *from = v->wide + o * e->columns + r * e->padded_width;
            for (size_t x = 0; x < width; x++)
                y[x] = from[x] + add;
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

static void direct_forward(pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    const extents e = direct_extents(plan->kernels, w);
    const float *weight = pm_task_param(plan, task, 1);
    const float *bias = task->node->input_count > 2 ? pm_task_param(plan, task, 2) : NULL;
    views v = {0};
    (void)carve_correlation(task->scratch, &e, false, &v);
    start_correlation(w, &e, &v);
    for (size_t r = 0; r < plan->rows; r++)
        correlate(plan->kernels, w, &e, &v, task->x + r * task->x_count, weight, bias,
                  task->y + r * task->y_count);
}

// flipped (in, out * window) of weight (out, in * window).
static void flip_weight(const pm_window *w, const float *weight, float *flipped)
{
    const size_t area = (size_t)(w->kernel_h * w->kernel_w), inputs = (size_t)w->channels;
    for (size_t c = 0; c < inputs; c++)
        for (size_t o = 0; o < (size_t)w->out_channels; o++)
            for (size_t i = 0; i < area; i++)
                *flipped++ = weight[(o * inputs + c) * area + (area - 1 - i)];
}

static void direct_input_gradient(pm_plan *plan, pm_task *task)
{
    const pm_window back = backward_window(&task->window);
    const extents e = direct_extents(plan->kernels, &back);
    views v = {0};
    (void)carve_correlation(task->backward_scratch, &e, true, &v);
    start_correlation(&back, &e, &v);
    flip_weight(&task->window, pm_task_param(plan, task, 1), v.packed);
    for (size_t r = 0; r < plan->rows; r++)
        correlate(plan->kernels, &back, &e, &v, task->dy + r * task->y_count, v.packed, NULL,
                  task->dx + r * task->x_count);
}

// The outputs [first, first + panel) of one image's gradient as (pixels, panel), zero between the rows of the
// output.
static void pack_gradient(const pm_kernels *kernels, const pm_window *w, const extents *e, const float *dy,
                          size_t first, float *packed)
{
    const size_t panel = kernels->panel, width = (size_t)w->out_width, area = width * (size_t)w->out_height;
    const size_t count = e->outputs - first < panel ? e->outputs - first : panel;
    const size_t gap = (e->padded_width - width) * panel;
    for (size_t y = 0; y < (size_t)w->out_height; y++) {
        float *row = packed + y * e->padded_width * panel;
        kernels->pack_panel(dy + first * area + y * width, count, width, area, row);
        if (y + 1 < (size_t)w->out_height)
            memset(row + width * panel, 0, gap * sizeof *row);
    }
}

static void direct_weight_partial(const pm_plan *plan, const pm_task *task, uint32_t lane, float *partial)
{
    const pm_kernels *kernels = plan->kernels;
    const pm_window *w = &task->window;
    const extents e = direct_extents(kernels, w);
    const size_t stride = (e.outputs + kernels->panel - 1) / kernels->panel * kernels->panel;
    views v = {0};
    (void)carve_weight_gradient(task->backward_scratch, kernels, &e, &v);
    set_element_offsets(w, &e, v.element_offsets);
    for (size_t q = 0; q < e.pixels; q++)
        v.row_offsets[q] = q * kernels->panel;
    clear_padded(&e, v.padded);
    for (size_t i = 0; i < plan->rows_per_lane; i++) {
        const size_t row = lane * (size_t)plan->rows_per_lane + i;
        pad_image(w, &e, task->x + row * task->x_count, v.padded);
        for (size_t first = 0; first < e.outputs; first += kernels->panel) {
            pack_gradient(kernels, w, &e, task->dy + row * task->y_count, first, v.packed);
            kernels->panel_product(&(pm_panel){.rows = e.depth,
                                               .columns = kernels->panel,
                                               .depth = e.pixels,
                                               .a = v.padded,
                                               .a_offsets = v.element_offsets,
                                               .b = v.packed,
                                               .b_offsets = v.row_offsets,
                                               .c = v.wide + first,
                                               .c_stride = stride,
                                               .accumulate = i > 0});
        }
    }
    for (size_t o = 0; o < e.outputs; o++)
        for (size_t k = 0; k < e.depth; k++)
            partial[o * e.depth + k] = v.wide[k * stride + o];
}

static void conv_size(const pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    task->tree_count = (size_t)w->out_channels * conv_depth(w);
    if (!is_direct(w)) {
        task->scratch_bytes = conv_depth(w) * conv_pixels(w) * sizeof(float);
        task->backward_scratch_bytes = plan->training ? task->scratch_bytes : 0;
        return;
    }
    const pm_window back = backward_window(w);
    const extents forward = direct_extents(plan->kernels, w), backward = direct_extents(plan->kernels, &back);
    task->scratch_bytes = carve_correlation(NULL, &forward, false, NULL);
    size_t input = carve_correlation(NULL, &backward, true, NULL);
    size_t weight = carve_weight_gradient(NULL, plan->kernels, &forward, NULL);
    task->backward_scratch_bytes = !plan->training ? 0 : input > weight ? input : weight;
}

static void conv_forward(pm_plan *plan, pm_task *task)
{
    if (is_direct(&task->window)) {
        direct_forward(plan, task);
        return;
    }
    const pm_window *w = &task->window;
    const size_t channels = (size_t)w->out_channels, depth = conv_depth(w), pixels = conv_pixels(w);
    for (size_t r = 0; r < plan->rows; r++) {
        float *y = task->y + r * task->y_count;
        float *columns = task->scratch;
        plan->kernels->unroll(w, task->x + r * task->x_count, columns);
        pm_product_run(&(pm_product){.m = channels,
                                     .n = pixels,
                                     .k = depth,
                                     .a = pm_task_param(plan, task, 1),
                                     .a_stride = depth,
                                     .b = columns,
                                     .b_stride = pixels,
                                     .c = y,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        if (task->node->input_count > 2)
            plan->kernels->add_channel(y, pm_task_param(plan, task, 2), channels, pixels);
    }
}

typedef struct lane_part {
    const pm_plan *plan;
    const pm_task *task;
} lane_part;

static void conv_weight_partial(const void *ctx, uint32_t lane, float *partial)
{
    const lane_part *part = ctx;
    const pm_task *task = part->task;
    if (is_direct(&task->window)) {
        direct_weight_partial(part->plan, task, lane, partial);
        return;
    }
    const size_t depth = conv_depth(&task->window), pixels = conv_pixels(&task->window);
    for (size_t i = 0; i < part->plan->rows_per_lane; i++) {
        size_t row = lane * (size_t)part->plan->rows_per_lane + i;
        float *columns = task->backward_scratch;
        part->plan->kernels->unroll(&task->window, task->x + row * task->x_count, columns);
        pm_product_run(&(pm_product){.transpose_b = true,
                                     .m = (size_t)task->window.out_channels,
                                     .n = depth,
                                     .k = pixels,
                                     .a = task->dy + row * task->y_count,
                                     .a_stride = pixels,
                                     .b = columns,
                                     .b_stride = pixels,
                                     .c = partial,
                                     .c_stride = depth,
                                     .accumulate = i > 0,
                                     .fixed_shape = true});
    }
}

static void conv_bias_partial(const void *ctx, uint32_t lane, float *partial)
{
    const lane_part *part = ctx;
    const pm_task *task = part->task;
    const size_t rows = part->plan->rows_per_lane;
    part->plan->kernels->sum_channels(task->dy + lane * rows * task->y_count, rows,
                                      (size_t)task->window.out_channels, conv_pixels(&task->window), partial);
}

static void conv_input_gradient(pm_plan *plan, pm_task *task)
{
    const pm_window *w = &task->window;
    const size_t depth = conv_depth(w), pixels = conv_pixels(w);
    float *columns = task->backward_scratch;
    if (is_direct(w)) {
        direct_input_gradient(plan, task);
        return;
    }
    for (size_t r = 0; r < plan->rows; r++) {
        pm_product_run(&(pm_product){.transpose_a = true,
                                     .m = depth,
                                     .n = pixels,
                                     .k = (size_t)w->out_channels,
                                     .a = pm_task_param(plan, task, 1),
                                     .a_stride = depth,
                                     .b = task->dy + r * task->y_count,
                                     .b_stride = pixels,
                                     .c = columns,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        plan->kernels->unroll_backward(w, columns, task->dx + r * task->x_count);
    }
}

static pm_status conv_backward(pm_plan *plan, pm_task *task)
{
    lane_part part = {.plan = plan, .task = task};
    pm_plan_tree_sum(plan, pm_task_gradient(plan, task, 1), task->tree_count, conv_weight_partial, &part);
    pm_status status = pm_plan_gradient_done(plan, task, 1);
    if (status.code == PM_OK && task->node->input_count > 2) {
        pm_plan_tree_sum(plan, pm_task_gradient(plan, task, 2), (size_t)task->window.out_channels,
                         conv_bias_partial, &part);
        status = pm_plan_gradient_done(plan, task, 2);
    }
    if (status.code == PM_OK && task->dx)
        conv_input_gradient(plan, task);
    return status;
}

const pm_task_kind PM_TASK_CONV = {conv_size, conv_forward, conv_backward, NULL};
