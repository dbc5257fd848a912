#include "model/conv.h"

#include "tests/unit/convs.h"

// Every way of a convolution against the loops.
typedef void (*pass)(const pm_kernels *kernels, const pm_conv *c);

static void check_forward(const pm_kernels *kernels, const convs_example *e, const char *what, pass run,
                          size_t bytes, bool packs)
{
    float *got = calloc(CONVS_IMAGES * e->out, sizeof *got);
    float *packed = packs ? calloc(pm_conv_channels_packed(kernels, &e->w), sizeof *packed) : NULL;
    void *scratch = malloc(bytes + 1);
    if (packs)
        pm_conv_channels_pack(kernels, &e->w, e->weight, packed);
    for (int relu = 0; relu < 2; relu++) {
        memset(scratch, 0xff, bytes);
        run(kernels, &(pm_conv){.window = &e->w,
                                .images = CONVS_IMAGES,
                                .x = e->x,
                                .weight = e->weight,
                                .packed = packed,
                                .bias = e->bias,
                                .relu = relu,
                                .y = got,
                                .scratch = scratch});
        convs_expect_near(kernels, what, got, e->y, CONVS_IMAGES * e->out, relu);
    }
    free(got);
    free(packed);
    free(scratch);
}

static void check_input(const pm_kernels *kernels, const convs_example *e, const char *what, pass run,
                        size_t bytes)
{
    float *got = calloc(CONVS_IMAGES * e->in, sizeof *got);
    void *scratch = malloc(bytes + 1);
    memset(scratch, 0xff, bytes);
    run(kernels, &(pm_conv){.window = &e->w,
                            .images = CONVS_IMAGES,
                            .x = e->dy,
                            .weight = e->weight,
                            .y = got,
                            .scratch = scratch});
    convs_expect_near(kernels, what, got, e->dx, CONVS_IMAGES * e->in, false);
    free(got);
    free(scratch);
}

Test(conv_channels, every_way_gives_what_the_loops_give)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], false);
        for (size_t t = 0; t < table_count; t++) {
            const pm_kernels *k = tables[t];
            check_forward(k, &e, "by channels", pm_conv_channels,
                          pm_conv_channels_bytes(k, &e.w, NULL, false), false);
            check_forward(k, &e, "packed", pm_conv_channels, pm_conv_channels_bytes(k, &e.w, NULL, false),
                          true);
            check_forward(k, &e, "unrolled", pm_conv_unrolled, pm_conv_unrolled_bytes(k, &e.w), false);
            check_input(k, &e, "input, unrolled", pm_conv_unrolled_input, pm_conv_unrolled_bytes(k, &e.w));
            if (!pm_conv_is_direct(&e.w))
                continue;
            check_forward(k, &e, "by pixels", pm_conv_direct, pm_conv_direct_bytes(k, &e.w), false);
            check_input(k, &e, "input by pixels", pm_conv_direct_input, pm_conv_direct_input_bytes(k, &e.w));
            check_input(k, &e, "input by channels", pm_conv_channels_input,
                        pm_conv_channels_input_bytes(k, &e.w));
        }
        convs_free(&e);
    }
}

Test(conv_channels, the_weights_gradient_is_what_the_loops_give)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], false);
        float *got = calloc(e.weights, sizeof *got);
        for (size_t t = 0; t < table_count; t++) {
            const size_t bytes = pm_conv_channels_weight_bytes(tables[t], &e.w);
            void *scratch = malloc(bytes);
            memset(scratch, 0xff, bytes);
            pm_conv_channels_weight(
                tables[t],
                &(pm_conv){.window = &e.w, .images = CONVS_IMAGES, .x = e.x, .y = got, .scratch = scratch},
                e.dy);
            convs_expect_near(tables[t], "weight", got, e.dweight, e.weights, false);
            free(scratch);
        }
        free(got);
        convs_free(&e);
    }
}

Test(conv_channels, both_direct_ways_give_the_same_bits)
{
    const pm_kernels *kernels = pm_kernels_get();
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], false);
        if (pm_conv_is_direct(&e.w) && !pm_conv_is_tiled(&e.w)) {
            float *y[2] = {calloc(CONVS_IMAGES * e.out, sizeof(float)),
                           calloc(CONVS_IMAGES * e.out, sizeof(float))};
            void *scratch[2] = {malloc(pm_conv_channels_bytes(kernels, &e.w, NULL, false)),
                                malloc(pm_conv_direct_bytes(kernels, &e.w))};
            for (size_t way = 0; way < 2; way++)
                (way ? pm_conv_direct : pm_conv_channels)(kernels, &(pm_conv){.window = &e.w,
                                                                              .images = CONVS_IMAGES,
                                                                              .x = e.x,
                                                                              .weight = e.weight,
                                                                              .bias = e.bias,
                                                                              .y = y[way],
                                                                              .scratch = scratch[way]});
            cr_assert(memcmp(y[0], y[1], CONVS_IMAGES * e.out * sizeof(float)) == 0, "window %zu", i);
            for (size_t way = 0; way < 2; way++) {
                free(y[way]);
                free(scratch[way]);
            }
        }
        convs_free(&e);
    }
}

Test(conv_channels, an_image_has_the_same_bits_alone_and_among_others)
{
    const pm_kernels *kernels = pm_kernels_get();
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], false);
        float *together = calloc(CONVS_IMAGES * e.out, sizeof(float)), *alone = calloc(e.out, sizeof(float));
        void *scratch = malloc(pm_conv_channels_bytes(kernels, &e.w, NULL, false));
        pm_conv conv = {.window = &e.w,
                        .images = CONVS_IMAGES,
                        .x = e.x,
                        .weight = e.weight,
                        .bias = e.bias,
                        .y = together,
                        .scratch = scratch};
        pm_conv_channels(kernels, &conv);
        conv.images = 1;
        conv.y = alone;
        for (size_t image = 0; image < CONVS_IMAGES; image++) {
            conv.x = e.x + image * e.in;
            pm_conv_channels(kernels, &conv);
            cr_assert(memcmp(alone, together + image * e.out, e.out * sizeof(float)) == 0,
                      "window %zu, image %zu", i, image);
        }
        free(together);
        free(alone);
        free(scratch);
        convs_free(&e);
    }
}
