#include "model/conv.h"

#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Every way of a convolution against the loops that say what is meant, over windows of all kinds: channels
// that fill panels and that do not, strides, uneven pads, images smaller and larger than what is made at
// once.
static const pm_window WINDOWS[] = {
    {.channels = 1,
     .height = 9,
     .width = 9,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 1,
     .pad_left = 1,
     .pad_bottom = 1,
     .pad_right = 1,
     .out_channels = 32},
    {.channels = 3,
     .height = 7,
     .width = 12,
     .kernel_h = 3,
     .kernel_w = 5,
     .stride_h = 1,
     .stride_w = 1,
     .pad_top = 2,
     .pad_left = 1,
     .pad_bottom = 0,
     .pad_right = 3,
     .out_channels = 5},
    {.channels = 5,
     .height = 6,
     .width = 6,
     .kernel_h = 1,
     .kernel_w = 1,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 40},
    {.channels = 2,
     .height = 40,
     .width = 70,
     .kernel_h = 3,
     .kernel_w = 3,
     .stride_h = 2,
     .stride_w = 3,
     .pad_top = 1,
     .pad_left = 0,
     .pad_bottom = 2,
     .pad_right = 1,
     .out_channels = 19},
    {.channels = 4,
     .height = 5,
     .width = 4,
     .kernel_h = 5,
     .kernel_w = 4,
     .stride_h = 1,
     .stride_w = 1,
     .out_channels = 64},
};
enum { WINDOW_COUNT = sizeof WINDOWS / sizeof WINDOWS[0], IMAGES = 3 };

typedef struct example {
    pm_window w;
    size_t in, out, weights; // elements of an image, of its output, of the weight
    float *x, *weight, *bias, *dy;
    double *y, *dx, *dweight; // wanted
} example;

static float *numbers(size_t count, uint64_t stream)
{
    float *x = calloc(count + 1, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = nets_number(stream, i);
    return x;
}

// Adds what one output makes of its window, forward and backward.
static void make_output(example *e, size_t image, int64_t o, int64_t row, int64_t column)
{
    const pm_window *w = &e->w;
    const size_t at = image * e->out + (size_t)((o * w->out_height + row) * w->out_width + column);
    e->y[at] = (double)e->bias[o];
    for (int64_t c = 0; c < w->channels; c++)
        for (int64_t i = 0; i < w->kernel_h; i++)
            for (int64_t j = 0; j < w->kernel_w; j++) {
                const int64_t r = row * w->stride_h + i - w->pad_top,
                              s = column * w->stride_w + j - w->pad_left;
                if (r < 0 || r >= w->height || s < 0 || s >= w->width)
                    continue;
                const size_t from = image * e->in + (size_t)((c * w->height + r) * w->width + s);
                const size_t k = (size_t)(((o * w->channels + c) * w->kernel_h + i) * w->kernel_w + j);
                e->y[at] += (double)e->x[from] * (double)e->weight[k];
                e->dx[from] += (double)e->dy[at] * (double)e->weight[k];
                e->dweight[k] += (double)e->dy[at] * (double)e->x[from];
            }
}

static example make_example(pm_window w)
{
    w.out_height = (w.height + w.pad_top + w.pad_bottom - w.kernel_h) / w.stride_h + 1;
    w.out_width = (w.width + w.pad_left + w.pad_right - w.kernel_w) / w.stride_w + 1;
    example e = {.w = w,
                 .in = (size_t)(w.channels * w.height * w.width),
                 .out = (size_t)(w.out_channels * w.out_height * w.out_width),
                 .weights = (size_t)(w.out_channels * w.channels * w.kernel_h * w.kernel_w)};
    e.x = numbers(IMAGES * e.in, 1);
    e.weight = numbers(e.weights, 2);
    e.bias = numbers((size_t)w.out_channels, 3);
    e.dy = numbers(IMAGES * e.out, 4);
    e.y = calloc(IMAGES * e.out, sizeof(double));
    e.dx = calloc(IMAGES * e.in, sizeof(double));
    e.dweight = calloc(e.weights, sizeof(double));
    for (size_t image = 0; image < IMAGES; image++)
        for (int64_t o = 0; o < w.out_channels; o++)
            for (int64_t row = 0; row < w.out_height; row++)
                for (int64_t column = 0; column < w.out_width; column++)
                    make_output(&e, image, o, row, column);
    return e;
}

static void free_example(example *e)
{
    void *all[] = {e->x, e->weight, e->bias, e->dy, e->y, e->dx, e->dweight};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void expect_near(const pm_kernels *kernels, const char *what, const float *got, const double *wanted,
                        size_t count, bool relu)
{
    for (size_t i = 0; i < count; i++) {
        const double value = relu && wanted[i] < 0 ? 0 : wanted[i];
        cr_assert(fabs((double)got[i] - value) <= 1e-4 * (1 + fabs(value)),
                  "%s %s, element %zu: %.9g, wanted %.9g", kernels->name, what, i, (double)got[i], value);
    }
}

typedef void (*pass)(const pm_kernels *kernels, const pm_conv *c);

static void check_forward(const pm_kernels *kernels, const example *e, const char *what, pass run,
                          size_t bytes, bool packs)
{
    float *got = calloc(IMAGES * e->out, sizeof *got);
    float *packed = packs ? calloc(pm_conv_channels_packed(kernels, &e->w), sizeof *packed) : NULL;
    void *scratch = malloc(bytes + 1);
    if (packs)
        pm_conv_channels_pack(kernels, &e->w, e->weight, packed);
    for (int relu = 0; relu < 2; relu++) {
        memset(scratch, 0xff, bytes);
        run(kernels, &(pm_conv){.window = &e->w,
                                .images = IMAGES,
                                .x = e->x,
                                .weight = e->weight,
                                .packed = packed,
                                .bias = e->bias,
                                .relu = relu,
                                .y = got,
                                .scratch = scratch});
        expect_near(kernels, what, got, e->y, IMAGES * e->out, relu);
    }
    free(got);
    free(packed);
    free(scratch);
}

static void check_input(const pm_kernels *kernels, const example *e, const char *what, pass run, size_t bytes)
{
    float *got = calloc(IMAGES * e->in, sizeof *got);
    void *scratch = malloc(bytes + 1);
    memset(scratch, 0xff, bytes);
    run(kernels, &(pm_conv){.window = &e->w,
                            .images = IMAGES,
                            .x = e->dy,
                            .weight = e->weight,
                            .y = got,
                            .scratch = scratch});
    expect_near(kernels, what, got, e->dx, IMAGES * e->in, false);
    free(got);
    free(scratch);
}

Test(conv_channels, every_way_gives_what_the_loops_give)
{
    const pm_kernels *tables[3];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < WINDOW_COUNT; i++) {
        example e = make_example(WINDOWS[i]);
        for (size_t t = 0; t < table_count; t++) {
            const pm_kernels *k = tables[t];
            check_forward(k, &e, "by channels", pm_conv_channels, pm_conv_channels_bytes(k, &e.w, NULL),
                          false);
            check_forward(k, &e, "packed", pm_conv_channels, pm_conv_channels_bytes(k, &e.w, NULL), true);
            check_forward(k, &e, "unrolled", pm_conv_unrolled, pm_conv_unrolled_bytes(&e.w), false);
            check_input(k, &e, "input, unrolled", pm_conv_unrolled_input, pm_conv_unrolled_bytes(&e.w));
            if (!pm_conv_is_direct(&e.w))
                continue;
            check_forward(k, &e, "by pixels", pm_conv_direct, pm_conv_direct_bytes(k, &e.w), false);
            check_input(k, &e, "input by pixels", pm_conv_direct_input, pm_conv_direct_input_bytes(k, &e.w));
            check_input(k, &e, "input by channels", pm_conv_channels_input,
                        pm_conv_channels_input_bytes(k, &e.w));
        }
        free_example(&e);
    }
}

Test(conv_channels, the_weights_gradient_is_what_the_loops_give)
{
    const pm_kernels *tables[3];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < WINDOW_COUNT; i++) {
        example e = make_example(WINDOWS[i]);
        float *got = calloc(e.weights, sizeof *got);
        for (size_t t = 0; t < table_count; t++) {
            const size_t bytes = pm_conv_channels_weight_bytes(tables[t], &e.w);
            void *scratch = malloc(bytes);
            memset(scratch, 0xff, bytes);
            pm_conv_channels_weight(
                tables[t],
                &(pm_conv){.window = &e.w, .images = IMAGES, .x = e.x, .y = got, .scratch = scratch}, e.dy);
            expect_near(tables[t], "weight", got, e.dweight, e.weights, false);
            free(scratch);
        }
        free(got);
        free_example(&e);
    }
}

Test(conv_channels, both_direct_ways_give_the_same_bits)
{
    const pm_kernels *kernels = pm_kernels_get();
    for (size_t i = 0; i < WINDOW_COUNT; i++) {
        example e = make_example(WINDOWS[i]);
        if (pm_conv_is_direct(&e.w)) {
            float *y[2] = {calloc(IMAGES * e.out, sizeof(float)), calloc(IMAGES * e.out, sizeof(float))};
            void *scratch[2] = {malloc(pm_conv_channels_bytes(kernels, &e.w, NULL)),
                                malloc(pm_conv_direct_bytes(kernels, &e.w))};
            for (size_t way = 0; way < 2; way++)
                (way ? pm_conv_direct : pm_conv_channels)(kernels, &(pm_conv){.window = &e.w,
                                                                              .images = IMAGES,
                                                                              .x = e.x,
                                                                              .weight = e.weight,
                                                                              .bias = e.bias,
                                                                              .y = y[way],
                                                                              .scratch = scratch[way]});
            cr_assert(memcmp(y[0], y[1], IMAGES * e.out * sizeof(float)) == 0, "window %zu", i);
            for (size_t way = 0; way < 2; way++) {
                free(y[way]);
                free(scratch[way]);
            }
        }
        free_example(&e);
    }
}
