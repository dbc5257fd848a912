#include "model/kernels.h"

#include "tests/unit/kernels.h"

static float dy[MAX];

Test(kernels, element_wise_kernels_agree_with_their_twins)
{
    EACH_TABLE(fast)
    {
        EACH_LENGTH(n)
        {
            fill(x, n, 1, 12);
            fill(dy, n, 2, 1);
#define CHECK(kernel)                                                                                        \
    fast->kernel(x, got, n);                                                                                 \
    plain->kernel(x, wanted, n);                                                                             \
    expect_near(fast, #kernel, got, wanted, n, 5e-7);                                                        \
    memcpy(y, wanted, sizeof y);                                                                             \
    fast->kernel##_backward(y, dy, got, n);                                                                  \
    plain->kernel##_backward(y, dy, wanted, n);                                                              \
    expect_near(fast, #kernel " backward", got, wanted, n, 5e-7)
            CHECK(relu);
            CHECK(sigmoid);
            CHECK(tanh);
#undef CHECK
        }
    }
}

Test(kernels, sigmoid_and_tanh_saturate_and_keep_nan)
{
    const float far[] = {-1000, -100, -88.5f, 88.5f, 100, 1000, INFINITY, -INFINITY};
    EACH_TABLE(fast)
    {
        fast->tanh(far, got, 8);
        plain->tanh(far, wanted, 8);
        expect_near(fast, "tanh", got, wanted, 8, 1e-6);
        fast->sigmoid(far, got, 8);
        plain->sigmoid(far, wanted, 8);
        expect_near(fast, "sigmoid", got, wanted, 8, 1e-6);
        const float nan = NAN;
        fast->tanh(&nan, got, 1);
        fast->sigmoid(&nan, got + 1, 1);
        fast->relu(&nan, got + 2, 1);
        cr_assert(isnan(got[0]) && isnan(got[1]) && isnan(got[2]));
    }
    (void)plain;
}

Test(kernels, small_tanh_keeps_its_relative_precision)
{
    EACH_TABLE(fast)
    {
        for (size_t i = 0; i < 1000; i++)
            x[i] = (float)(exp(-12 * (double)i / 1000) * (i % 2 ? 1 : -1));
        fast->tanh(x, got, 1000);
        plain->tanh(x, wanted, 1000);
        for (size_t i = 0; i < 1000; i++)
            cr_assert(fabs((double)got[i] / (double)wanted[i] - 1) < 4e-7, "tanh %g: %.9g, wanted %.9g",
                      (double)x[i], (double)got[i], (double)wanted[i]);
    }
}

Test(kernels, an_element_has_the_same_bits_at_every_position)
{
    EACH_TABLE(fast)
    {
        fill(x, 512, 3, 9);
        fast->tanh(x, y, 512);
        fast->sigmoid(x, z, 512);
        for (size_t i = 0; i < 512; i++)
            for (size_t n = 1; n < 40 && i + n <= 512; n += 6) {
                fast->tanh(x + i, got, n);
                cr_assert(memcmp(got, y + i, n * sizeof *got) == 0);
                fast->sigmoid(x + i, got, n);
                cr_assert(memcmp(got, z + i, n * sizeof *got) == 0);
            }
    }
    (void)plain;
}

Test(kernels, dropout_draws_are_those_of_philox)
{
    pm_dropout dropout = {.key = {{0x1234, 0x9876}}, .step = 0x100000003ull, .lane = 5, .ratio = 0.3f};
    uint8_t mask[MAX], plain_mask[MAX];
    EACH_TABLE(fast)
    {
        EACH_LENGTH(n)
        {
            fill(x, n, 4, 1);
            fast->dropout(&dropout, x, got, mask, n);
            plain->dropout(&dropout, x, wanted, plain_mask, n);
            cr_assert(memcmp(mask, plain_mask, n) == 0, "%zu", n);
            expect_near(fast, "dropout", got, wanted, n, 1e-6);
            fast->dropout_backward(dropout.ratio, mask, x, got, n);
            plain->dropout_backward(dropout.ratio, mask, x, wanted, n);
            expect_near(fast, "dropout backward", got, wanted, n, 1e-6);
        }
        size_t kept = 0;
        fast->dropout(&dropout, x, got, mask, MAX);
        for (size_t i = 0; i < MAX; i++)
            kept += mask[i];
        cr_assert(kept > 0.66 * MAX && kept < 0.74 * MAX, "%zu kept", kept);
    }
}

Test(kernels, rows_agree_with_their_twins)
{
    double loss[64], plain_loss[64];
    uint8_t correct[64], plain_correct[64];
    int32_t classes[64];
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows <= 20; rows += 3)
            for (size_t c = 1; c <= 70; c += 7) {
                size_t n = rows * c;
                fill(x, n, rows * 100 + c, 10);
                fill(dy, n, 5, 1);
                for (size_t r = 0; r < rows; r++)
                    classes[r] = (int32_t)(r * 5 % c);
                fast->softmax(x, got, rows, c);
                plain->softmax(x, wanted, rows, c);
                expect_near(fast, "softmax", got, wanted, n, 1e-6);
                memcpy(y, wanted, sizeof y);
                fast->softmax_backward(y, dy, got, rows, c);
                plain->softmax_backward(y, dy, wanted, rows, c);
                expect_near(fast, "softmax backward", got, wanted, n, 1e-6);
                fast->cross_entropy(x, classes, 0.5f, got, loss, correct, rows, c);
                plain->cross_entropy(x, classes, 0.5f, wanted, plain_loss, plain_correct, rows, c);
                expect_near(fast, "cross entropy gradient", got, wanted, n, 1e-6);
                cr_assert(memcmp(correct, plain_correct, rows) == 0);
                for (size_t r = 0; r < rows; r++)
                    cr_assert_float_eq(loss[r], plain_loss[r], 1e-5);
                for (size_t i = 0; i < n; i++)
                    z[i] = fabsf(dy[i]);
                fast->soft_cross_entropy(x, z, 0.5f, got, loss, correct, rows, c);
                plain->soft_cross_entropy(x, z, 0.5f, wanted, plain_loss, plain_correct, rows, c);
                for (size_t r = 0; r < rows; r++) // rounding grows with the weights' sum
                    expect_near(fast, "soft cross entropy gradient", got + r * c, wanted + r * c, c,
                                1e-5 * (double)c);
                cr_assert(memcmp(correct, plain_correct, rows) == 0);
                for (size_t r = 0; r < rows; r++)
                    cr_assert_float_eq(loss[r], plain_loss[r], 1e-5 * (1 + fabs(plain_loss[r])) * (double)c);
                fast->squared_error(x, dy, 0.5f, got, loss, rows, c);
                plain->squared_error(x, dy, 0.5f, wanted, plain_loss, rows, c);
                expect_near(fast, "squared error gradient", got, wanted, n, 1e-6);
                for (size_t r = 0; r < rows; r++)
                    cr_assert_float_eq(loss[r], plain_loss[r], 1e-4);
                fast->sum_rows(x, rows, c, got);
                plain->sum_rows(x, rows, c, wanted);
                expect_near(fast, "sum of rows", got, wanted, c, 1e-5);
                memcpy(got, x, sizeof got);
                memcpy(wanted, x, sizeof wanted);
                fast->add_row(got, dy, rows, c);
                plain->add_row(wanted, dy, rows, c);
                expect_near(fast, "add row", got, wanted, n, 0);
            }
    }
}

Test(kernels, channels_agree_with_their_twins)
{
    EACH_TABLE(fast)
    {
        for (size_t images = 1; images <= 5; images += 2)
            for (size_t channels = 1; channels <= 7; channels += 3)
                for (size_t area = 1; area <= 100; area += 11) {
                    size_t n = images * channels * area, stride = channels * area;
                    fill(x, n, area, 3);
                    fill(z, 2 * channels, 6, 1);
                    fast->sum_channels(x, images, channels, area, got);
                    plain->sum_channels(x, images, channels, area, wanted);
                    expect_near(fast, "sum of channels", got, wanted, channels, 1e-5);
                    memcpy(got, x, sizeof got);
                    memcpy(wanted, x, sizeof wanted);
                    fast->add_channel(got, z, channels, area);
                    plain->add_channel(wanted, z, channels, area);
                    expect_near(fast, "add channel", got, wanted, stride, 0);
                }
    }
}

static void check_window(const pm_kernels *fast, const pm_kernels *plain, const pm_window *w)
{
    static float columns[1 << 16], plain_columns[1 << 16];
    static int32_t where[MAX], plain_where[MAX];
    size_t image = (size_t)(w->channels * w->height * w->width);
    size_t output = (size_t)(w->channels * w->out_height * w->out_width);
    size_t unrolled = output * (size_t)(w->kernel_h * w->kernel_w);
    fill(x, image, 8, 1);
    fast->unroll(w, x, columns);
    plain->unroll(w, x, plain_columns);
    expect_near(fast, "unroll", columns, plain_columns, unrolled, 0);
    fast->unroll_backward(w, columns, got);
    plain->unroll_backward(w, columns, wanted);
    expect_near(fast, "unroll backward", got, wanted, image, 1e-6);
    if (w->pad_top >= w->kernel_h || w->pad_left >= w->kernel_w)
        return;
    fill(dy, output, 9, 1);
    fast->max_pool(w, x, got, where);
    plain->max_pool(w, x, wanted, plain_where);
    expect_near(fast, "max pool", got, wanted, output, 0);
    cr_assert(memcmp(where, plain_where, output * sizeof *where) == 0);
    fast->max_pool_backward(w, where, dy, got);
    plain->max_pool_backward(w, where, dy, wanted);
    expect_near(fast, "max pool backward", got, wanted, image, 0);
    fast->average_pool(w, x, got);
    plain->average_pool(w, x, wanted);
    expect_near(fast, "average pool", got, wanted, output, 1e-6);
    fast->average_pool_backward(w, dy, got);
    plain->average_pool_backward(w, dy, wanted);
    expect_near(fast, "average pool backward", got, wanted, image, 1e-6);
}

Test(kernels, windows_of_many_shapes_agree_with_their_twins)
{
    EACH_TABLE(fast)
    {
        for (int64_t kernel_h = 1; kernel_h <= 5; kernel_h += 1)
            for (int64_t kernel_w = 1; kernel_w <= 5; kernel_w += 2)
                for (int64_t stride = 1; stride <= 3; stride++)
                    for (int64_t pad = 0; pad <= 3; pad++)
                        for (int64_t size = 5; size <= 20; size += 5) {
                            pm_window w = {.channels = 2,
                                           .height = size,
                                           .width = size + 1,
                                           .kernel_h = kernel_h,
                                           .kernel_w = kernel_w,
                                           .stride_h = stride,
                                           .stride_w = 4 - stride,
                                           .pad_top = pad,
                                           .pad_left = pad,
                                           .pad_bottom = pad / 2,
                                           .count_include_pad = pad == 2};
                            w.out_channels = 2;
                            w.out_height = (size + pad + pad / 2 - kernel_h) / stride + 1;
                            w.out_width = (size + 1 + pad - kernel_w) / (4 - stride) + 1;
                            check_window(fast, plain, &w);
                        }
        pm_window half = {.channels = 3,
                          .out_channels = 3,
                          .height = 11,
                          .width = 21,
                          .kernel_h = 2,
                          .kernel_w = 2,
                          .stride_h = 2,
                          .stride_w = 2,
                          .out_height = 5,
                          .out_width = 10};
        check_window(fast, plain, &half);
    }
}

static float before[MAX];

static void fill_operands(void)
{
    fill(x, MAX, 11, 1);
    fill(y, MAX, 12, 1);
    fill(z, MAX, 13, 1);
    fill(before, MAX, 14, 1);
}

Test(kernels, panel_products_agree_with_their_twin)
{
    size_t a_offsets[40], a_steps[40], b_offsets[40];
    fill_operands();
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows <= 20; rows++)
            for (size_t columns = 1; columns <= 3 * fast->panel; columns += 5)
                for (size_t depth = 1; depth <= 40; depth += 13) {
                    for (size_t i = 0; i < 40; i++) {
                        a_offsets[i] = i * 43;
                        a_steps[i] = i * 29 % 41;
                        b_offsets[i] = i * 51 % 97; // rows of b may overlap, as those of an image do
                    }
                    memcpy(got, before, sizeof got);
                    memcpy(wanted, before, sizeof wanted);
                    pm_panel p = {.rows = rows,
                                  .columns = columns,
                                  .depth = depth,
                                  .a = x,
                                  .a_offsets = a_offsets,
                                  .a_steps = columns % 2 ? a_steps : NULL,
                                  .b = y,
                                  .b_offsets = b_offsets,
                                  .b_stride = fast->panel,
                                  .c = got,
                                  .c_stride = 37 + columns,
                                  .accumulate = depth % 2,
                                  .bias = rows % 2 ? z : NULL,
                                  .relu = rows % 3 == 0};
                    fast->panel_product(&p);
                    p.c = wanted;
                    p.b_stride = plain->panel;
                    plain->panel_product(&p);
                    expect_near(fast, "panel product", got, wanted, MAX, 1e-6);
                }
    }
}

// The same numbers for the kernel and its twin, whose lines and panels are others.
Test(kernels, even_panel_products_agree_with_their_twin)
{
    static float lines[2][MAX], panels[2][MAX];
    fill_operands();
    EACH_TABLE(fast)
    {
        const pm_kernels *tables[] = {fast, plain};
        for (size_t rows = 1; rows <= 20; rows += rows < 9 ? 1 : 4)
            for (size_t columns = 1; columns <= 3 * fast->panel; columns += 11)
                for (size_t kind = 0; kind < 6; kind++) {
                    const size_t depth = 37, panels_apart = 1200;
                    const bool packed = kind % 3 > 0;
                    memcpy(got, before, sizeof got);
                    memcpy(wanted, before, sizeof wanted);
                    for (size_t t = 0; t < 2; t++) {
                        const size_t lines_apart = depth * tables[t]->line + 16;
                        if (kind % 3 == 1)
                            tables[t]->pack_lines(x, rows, depth, 23, lines[t], lines_apart);
                        if (kind % 3 == 2)
                            tables[t]->turn_lines(x, rows, depth, 41, lines[t], lines_apart);
                        tables[t]->pack_rows(y, depth, columns, 101, panels[t], panels_apart);
                        tables[t]->panel_product(&(pm_panel){.rows = rows,
                                                             .columns = columns,
                                                             .depth = depth,
                                                             .a = packed ? lines[t] : x,
                                                             .packed = packed,
                                                             .a_row = packed ? lines_apart : depth,
                                                             .b = panels[t],
                                                             .b_step = tables[t]->panel,
                                                             .b_stride = panels_apart,
                                                             .c = t ? wanted : got,
                                                             .c_stride = columns + 2,
                                                             .accumulate = kind / 3});
                    }
                    expect_near(fast, "even panel product", got, wanted, MAX, 1e-6);
                }
    }
}

Test(kernels, a_panel_product_rectifies_as_the_rectifier_does)
{
    const size_t none[] = {0};
    const float values[] = {-1, -0.0f, 0, 1, NAN, -INFINITY, INFINITY}, one[64] = {1};
    EACH_TABLE(fast)
    {
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            memcpy(x, one, sizeof one);
            memcpy(y, one, sizeof one);
            z[0] = values[i];
            y[0] = 0;
            fast->panel_product(&(pm_panel){.rows = 1,
                                            .columns = 1,
                                            .depth = 1,
                                            .a = x,
                                            .a_offsets = none,
                                            .b = y,
                                            .b_offsets = none,
                                            .c = got,
                                            .c_stride = 1,
                                            .bias = z,
                                            .relu = true});
            z[0] += 0.0f; // as 0 + bias
            fast->relu(z, wanted, 1);
            cr_assert(memcmp(got, wanted, sizeof *got) == 0);
        }
    }
    (void)plain;
}

Test(kernels, transposing_twice_gives_the_same)
{
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows <= 40; rows += 3)
            for (size_t columns = 1; columns <= 40; columns += 3) {
                fill(x, MAX, 14, 1);
                memset(got, 0, sizeof got);
                memset(wanted, 0, sizeof wanted);
                fast->transpose(x, rows, columns, 43, got, 41);
                plain->transpose(x, rows, columns, 43, wanted, 41);
                cr_assert(memcmp(got, wanted, sizeof got) == 0);
                fast->transpose(got, columns, rows, 41, y, 43);
                for (size_t r = 0; r < rows; r++)
                    cr_assert(memcmp(y + r * 43, x + r * 43, columns * sizeof *x) == 0);
            }
    }
}

Test(kernels, a_row_of_a_panel_product_has_the_same_bits_among_any_others)
{
    size_t a_offsets[30], b_offsets[100];
    EACH_TABLE(fast)
    {
        for (size_t i = 0; i < 30; i++)
            a_offsets[i] = i * 100;
        for (size_t i = 0; i < 100; i++)
            b_offsets[i] = i * fast->panel;
        fill(x, MAX, 11, 1);
        fill(y, MAX, 12, 1);
        pm_panel p = {.rows = 30,
                      .columns = fast->panel,
                      .depth = 100,
                      .a = x,
                      .a_offsets = a_offsets,
                      .b = y,
                      .b_offsets = b_offsets,
                      .c = wanted,
                      .c_stride = fast->panel};
        fast->panel_product(&p);
        p.c = got;
        for (p.rows = 1; p.rows < 30; p.rows++)
            for (size_t first = 0; first + p.rows <= 30; first++) {
                p.a_offsets = a_offsets + first;
                fast->panel_product(&p);
                cr_assert(memcmp(got, wanted + first * fast->panel, p.rows * fast->panel * sizeof *got) == 0);
            }
    }
    (void)plain;
}

Test(kernels, packed_panels_are_transposed_and_filled_with_zeros)
{
    EACH_TABLE(fast)
    {
        for (size_t rows = 1; rows <= fast->panel; rows++) {
            fill(x, MAX, 14, 1);
            fast->pack_panel(x, rows, 19, 23, got);
            for (size_t i = 0; i < 19 * fast->panel; i++)
                cr_assert_eq(got[i], i % fast->panel < rows ? x[i % fast->panel * 23 + i / fast->panel] : 0);
        }
    }
    (void)plain;
}

Test(kernels, pools_of_channels_side_by_side_agree_with_their_twin)
{
    static int32_t where[MAX], wanted_where[MAX];
    EACH_TABLE(fast)
    {
        for (size_t channels = 1; channels <= 40; channels += 13)
            for (size_t kernel = 1; kernel <= 3; kernel++) {
                fill(x, MAX, 21, 1);
                x[kernel * 64 + channels - 1] = NAN;
                pm_channel_pool pool = {.channels = channels,
                                        .stride = 64,
                                        .kernel_h = kernel,
                                        .kernel_w = kernel,
                                        .outputs = 5,
                                        .width = 5 * kernel + 1,
                                        .x = x,
                                        .y = got,
                                        .where = where,
                                        .first = 100};
                fast->max_channels(&pool);
                pool.y = wanted;
                pool.where = wanted_where;
                plain->max_channels(&pool);
                for (size_t o = 0; o < 5; o++) {
                    cr_assert(memcmp(got + o * 64, wanted + o * 64, channels * sizeof *got) == 0);
                    cr_assert(memcmp(where + o * 64, wanted_where + o * 64, channels * sizeof *where) == 0);
                }
            }
    }
}

Test(kernels, a_pool_of_2x2_windows_spreads_gradients_over_any_plane)
{
    EACH_TABLE(fast)
    {
        for (int64_t width = 2; width <= 19; width++) {
            const pm_window w = {.channels = 2,
                                 .out_channels = 2,
                                 .height = 7,
                                 .width = width,
                                 .kernel_h = 2,
                                 .kernel_w = 2,
                                 .stride_h = 2,
                                 .stride_w = 2,
                                 .out_height = 3,
                                 .out_width = width / 2};
            int32_t where[2 * 3 * 10];
            const size_t count = (size_t)(2 * 7 * width);
            fill(x, count, 22, 1);
            fill(dy, MAX, 23, 1);
            fill(got, MAX, 24, 1);
            memcpy(wanted, got, sizeof got);
            fast->max_pool(&w, x, y, where);
            fast->max_pool_backward(&w, where, dy, got);
            plain->max_pool_backward(&w, where, dy, wanted);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, width %d", fast->name, (int)width);
        }
    }
}

Test(kernels, the_largest_of_a_window_with_nan_is_nan)
{
    pm_window half = {.channels = 1,
                      .out_channels = 1,
                      .height = 2,
                      .width = 8,
                      .kernel_h = 2,
                      .kernel_w = 2,
                      .stride_h = 2,
                      .stride_w = 2,
                      .out_height = 1,
                      .out_width = 4};
    EACH_TABLE(fast)
    {
        for (size_t i = 0; i < 16; i++) {
            fill(x, 16, 1, 1);
            x[i] = NAN;
            fast->max_pool(&half, x, got, NULL);
            plain->max_pool(&half, x, wanted, NULL);
            for (size_t o = 0; o < 4; o++)
                cr_assert((isnan(got[o]) != 0) == (o == i % 8 / 2) && isnan(got[o]) == isnan(wanted[o]));
        }
    }
}

Test(kernels, all_finite_finds_every_bad_element)
{
    EACH_TABLE(fast)
    {
        fill(x, 100, 1, 1e30f);
        cr_assert(fast->all_finite(x, 100) && plain->all_finite(x, 100));
        for (size_t i = 0; i < 100; i++) {
            float kept = x[i];
            x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
            cr_assert(!fast->all_finite(x, 100) && !plain->all_finite(x, 100));
            x[i] = kept;
        }
    }
}

Test(kernels, variants_give_the_same_bits)
{
    const pm_kernels *tables[PM_KERNEL_TABLES];
    size_t count = pm_kernels_all(tables);
    double loss[8], first_loss[8];
    uint8_t correct[8];
    int32_t classes[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    fill(x, 1024, 1, 8);
    for (size_t t = 0; t < count; t++) {
        tables[t]->tanh(x, got, 1000);
        tables[t]->sigmoid(x, got + 1000, 1000);
        tables[t]->cross_entropy(x, classes, 0.25f, got + 2000, loss, correct, 8, 100);
        tables[t]->soft_cross_entropy(x, x + 500, 0.25f, got + 3100, loss + 4, correct + 4, 4, 100);
        tables[t]->sum_channels(x, 2, 5, 100, got + 3000);
        tables[t]->moments(&(pm_planes){2, 1, 499, 500}, x, got + 3010, got + 3011);
        if (t == 0)
            memcpy(wanted, got, sizeof wanted);
        if (t == 0)
            memcpy(first_loss, loss, sizeof loss);
        cr_assert(memcmp(got, wanted, sizeof wanted) == 0, "%s", tables[t]->name);
        cr_assert(memcmp(first_loss, loss, sizeof loss) == 0, "%s", tables[t]->name);
    }
}
