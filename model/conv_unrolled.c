// Convolutions by unrolled images and BLIS.
#include "model/conv.h"

#include "model/blas.h"

static size_t depth_of(const pm_window *w)
{
    return (size_t)(w->channels * w->kernel_h * w->kernel_w);
}

static size_t pixels_of(const pm_window *w)
{
    return (size_t)(w->out_height * w->out_width);
}

static size_t image_count(const pm_window *w)
{
    return (size_t)(w->channels * w->height * w->width);
}

size_t pm_conv_unrolled_bytes(const pm_window *w)
{
    return depth_of(w) * pixels_of(w) * sizeof(float);
}

void pm_conv_unrolled(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window *w = c->window;
    const size_t outputs = (size_t)w->out_channels, depth = depth_of(w), pixels = pixels_of(w);
    float *columns = c->scratch;
    for (size_t i = 0; i < c->images; i++) {
        float *y = c->y + i * outputs * pixels;
        kernels->unroll(w, c->x + i * image_count(w), columns);
        pm_product_run(&(pm_product){.m = outputs,
                                     .n = pixels,
                                     .k = depth,
                                     .a = c->weight,
                                     .a_stride = depth,
                                     .b = columns,
                                     .b_stride = pixels,
                                     .c = y,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        if (c->bias)
            kernels->add_channel(y, c->bias, outputs, pixels);
        if (c->relu)
            kernels->relu(y, y, outputs * pixels);
    }
}

void pm_conv_unrolled_input(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window *w = c->window;
    const size_t outputs = (size_t)w->out_channels, depth = depth_of(w), pixels = pixels_of(w);
    float *columns = c->scratch;
    for (size_t i = 0; i < c->images; i++) {
        pm_product_run(&(pm_product){.transpose_a = true,
                                     .m = depth,
                                     .n = pixels,
                                     .k = outputs,
                                     .a = c->weight,
                                     .a_stride = depth,
                                     .b = c->x + i * outputs * pixels,
                                     .b_stride = pixels,
                                     .c = columns,
                                     .c_stride = pixels,
                                     .fixed_shape = true});
        kernels->unroll_backward(w, columns, c->y + i * image_count(w));
    }
}
