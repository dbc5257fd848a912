// Convolutions by unrolled images and products.
#include "model/conv.h"

#include "core/arena.h"
#include "model/product.h"

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

static size_t columns_bytes(const pm_window *w)
{
    return pm_align(depth_of(w) * pixels_of(w) * sizeof(float));
}

// The image's columns, then what a product needs.
size_t pm_conv_unrolled_bytes(const pm_kernels *kernels, const pm_window *w)
{
    const size_t outputs = (size_t)w->out_channels, depth = depth_of(w), pixels = pixels_of(w);
    const size_t forward =
        pm_product_fixed_bytes(kernels, &(pm_product){.m = outputs, .n = pixels, .k = depth});
    const size_t backward = pm_product_fixed_bytes(
        kernels, &(pm_product){.transpose_a = true, .m = depth, .n = pixels, .k = outputs});
    return columns_bytes(w) + (forward > backward ? forward : backward);
}

void pm_conv_unrolled(const pm_kernels *kernels, const pm_conv *c)
{
    const pm_window *w = c->window;
    const size_t outputs = (size_t)w->out_channels, depth = depth_of(w), pixels = pixels_of(w);
    float *columns = c->scratch;
    void *product = (unsigned char *)c->scratch + columns_bytes(w);
    for (size_t i = 0; i < c->images; i++) {
        float *y = c->y + i * outputs * pixels;
        kernels->unroll(w, c->x + i * image_count(w), columns);
        pm_product_run_fixed(kernels,
                             &(pm_product){.m = outputs,
                                           .n = pixels,
                                           .k = depth,
                                           .a = c->weight,
                                           .a_stride = depth,
                                           .b = columns,
                                           .b_stride = pixels,
                                           .c = y,
                                           .c_stride = pixels},
                             product);
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
    void *product = (unsigned char *)c->scratch + columns_bytes(w);
    for (size_t i = 0; i < c->images; i++) {
        pm_product_run_fixed(kernels,
                             &(pm_product){.transpose_a = true,
                                           .m = depth,
                                           .n = pixels,
                                           .k = outputs,
                                           .a = c->weight,
                                           .a_stride = depth,
                                           .b = c->x + i * outputs * pixels,
                                           .b_stride = pixels,
                                           .c = columns,
                                           .c_stride = pixels},
                             product);
        kernels->unroll_backward(w, columns, c->y + i * image_count(w));
    }
}
