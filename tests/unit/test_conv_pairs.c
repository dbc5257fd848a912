#include "model/conv.h"

#include "tests/unit/convs.h"

typedef enum pass { FORWARD, INPUT, WEIGHT } pass;

static float *run(const pm_kernels *kernels, const convs_example *e, pass which, size_t *count)
{
    const size_t counts[] = {CONVS_IMAGES * e->out, CONVS_IMAGES * e->in, e->weights};
    const size_t bytes = which == FORWARD ? pm_conv_channels_bytes(kernels, &e->w, NULL, true)
                         : which == INPUT ? pm_conv_pairs_input_bytes(kernels, &e->w)
                                          : pm_conv_pairs_weight_bytes(kernels, &e->w);
    void *scratch = malloc(bytes + 1);
    float *got = malloc((counts[which] + 1) * sizeof *got);
    pm_conv conv = {.window = &e->w,
                    .images = CONVS_IMAGES,
                    .x = which == INPUT ? e->dy : e->x,
                    .weight = e->weight,
                    .bias = e->bias,
                    .pairs = true,
                    .y = got,
                    .scratch = scratch};
    *count = counts[which];
    memset(scratch, 0xff, bytes); // NaN, wherever it is read before it is written
    memset(got, 0xff, *count * sizeof *got);
    if (which == FORWARD)
        pm_conv_channels(kernels, &conv);
    else if (which == INPUT)
        pm_conv_pairs_input(kernels, &conv);
    else
        pm_conv_pairs_weight(kernels, &conv, e->dy);
    free(scratch);
    return got;
}

Test(conv_pairs, rounded_operands_give_what_the_loops_give)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], true);
        const double *wanted[] = {e.y, e.dx, e.dweight};
        for (size_t t = 0; t < table_count; t++)
            for (pass which = FORWARD; which <= WEIGHT; which++) {
                size_t count = 0;
                float *got = run(tables[t], &e, which, &count);
                convs_expect_near(tables[t], "in pairs", got, wanted[which], count, false);
                free(got);
            }
        convs_free(&e);
    }
}

Test(conv_pairs, operands_are_rounded_and_all_kernels_give_the_same_bits)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    const size_t table_count = pm_kernels_all(tables);
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example raw = convs_make(CONVS[i], false), rounded = convs_make(CONVS[i], true);
        for (pass which = FORWARD; which <= WEIGHT; which++) {
            size_t count = 0;
            float *wanted = run(tables[0], &rounded, which, &count);
            for (size_t t = 0; t < table_count; t++) {
                float *got = run(tables[t], &raw, which, &count);
                cr_assert(memcmp(got, wanted, count * sizeof *got) == 0, "%s, window %zu, pass %d",
                          tables[t]->name, i, (int)which);
                free(got);
            }
            free(wanted);
        }
        convs_free(&raw);
        convs_free(&rounded);
    }
}

Test(conv_pairs, an_image_has_the_same_bits_among_any_others)
{
    const pm_kernels *kernels = pm_kernels_get();
    for (size_t i = 0; i < CONVS_COUNT; i++) {
        convs_example e = convs_make(CONVS[i], false);
        for (pass which = FORWARD; which <= INPUT; which++) {
            const size_t bytes = which == FORWARD ? pm_conv_channels_bytes(kernels, &e.w, NULL, true)
                                                  : pm_conv_pairs_input_bytes(kernels, &e.w);
            const size_t in = which == FORWARD ? e.in : e.out, out = which == FORWARD ? e.out : e.in;
            size_t count = 0;
            float *all = run(kernels, &e, which, &count), *one = malloc(out * sizeof *one);
            void *scratch = malloc(bytes);
            (which == FORWARD ? pm_conv_channels
                              : pm_conv_pairs_input)(kernels, &(pm_conv){.window = &e.w,
                                                                         .images = 1,
                                                                         .x = (which ? e.dy : e.x) + in,
                                                                         .weight = e.weight,
                                                                         .bias = e.bias,
                                                                         .pairs = true,
                                                                         .y = one,
                                                                         .scratch = scratch});
            cr_assert(memcmp(one, all + out, out * sizeof *one) == 0);
            free(all);
            free(one);
            free(scratch);
        }
        convs_free(&e);
    }
}
