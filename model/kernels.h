#pragma once
// The kernel table: plain loops over float32, compiled once for each instruction set (x86-64-v4, -v3,
// baseline; on other machines once, "plain") from the same source, chosen at run time. No kernel's result for
// an element depends on its position, alignment or neighbours, reductions run in a written order, and nothing
// is contracted: the variants give the same bits. Each kernel has a plain twin in model/reference.h.
#include "core/rng.h"
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whose dropout mask: a pure function of these and the element's index in the lane.
typedef struct pm_dropout {
    pm_rng_key key; // of (seed, node)
    uint64_t step;
    uint32_t lane;
    float ratio;
} pm_dropout;

// The sliding window of convolutions and pools over one (channels, height, width) image.
typedef struct pm_window {
    int64_t channels, height, width;
    int64_t kernel_h, kernel_w, stride_h, stride_w;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t out_channels, out_height, out_width; // out_channels = channels for pools
    bool count_include_pad;                      // AveragePool: divide by the whole window
} pm_window;

// c (rows, columns) = or += sum over k < depth of a[a_offsets[row] + a_steps[k]] * b[b_offsets[k] + column],
// then
// += bias[column], then the rectifier: a matrix product whose operands lie where they are, packed or inside a
// padded image. b is in panels of pm_kernels.panel columns, each read to its full width, or to half of it
// where no more columns are left and a_steps is NULL.
//
// In pairs, a and b hold bfloat16 (pm_kernels.round_pairs): element k of a row or column is two of them side
// by side, the first as the lower half of a 32-bit word, and what is added for it is the product of the
// second ones, then that of the first ones. Products of two bfloat16 are exact in float32.
typedef struct pm_panel {
    size_t rows, columns, depth; // any number of columns; depth in pairs
    bool pairs;
    const void *a;           // float; in pairs uint16_t, a pair begins at any of them
    const size_t *a_offsets; // (rows), in elements of a; NULL: a and b lie evenly, not in pairs
    const size_t *a_steps;   // (depth); NULL: 0, 1, 2 ..., not in pairs
    size_t line;   // with steps, not in pairs: in each line of the rows a_offsets rise by 1; 0: unknown
    bool packed;   // evenly: a is packed in lines of pm_kernels.line rows
    size_t a_row;  // evenly: from row to row of a, or from line to line
    const void *b; // float; in pairs uint32_t
    const size_t *b_offsets; // (depth); not evenly
    size_t b_step;           // evenly: from row to row of b
    size_t b_stride;         // from panel to panel
    float *c;
    size_t c_stride;
    bool accumulate;
    const float *bias; // (columns); NULL: none
    bool relu;         // NaN stays NaN
} pm_panel;

// One row of outputs of a pool over pixels whose channels lie side by side. Channels up to the next whole
// vector are read and written, too.
typedef struct pm_channel_pool {
    size_t channels, stride;   // from pixel to pixel, of x, y and where alike
    size_t kernel_h, kernel_w; // windows side by side
    size_t outputs, width;     // pixels of a row of y, of x
    const float *x;            // (kernel_h, width, stride)
    float *y;                  // (outputs, stride)
    int32_t *where;            // (outputs, stride); NULL when not wanted
    int32_t first;             // the index of x's first pixel in its plane
} pm_channel_pool;

// Minimal filtering of 3 x 3 windows side by side (Winograd, "Arithmetic Complexity of Computations", 1980;
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): the 2 x 2 outputs of a tile are
// made from 16 products for each channel instead of 36, of sums of 4 x 4 pixels with sums of the weights. NaN
// reaches the outputs that see it and no others; where an infinite pixel is, some of them are NaN instead of
// infinite.
typedef struct pm_tiles {
    size_t width, height;    // outputs; where they are odd the last tiles give one instead of two
    size_t channels, stride; // side by side; stride: from pixel to pixel, from tile to tile
    bool relu;               // over what comes out; NaN stays NaN
} pm_tiles;

// Products of a tile.
enum { PM_TILE = 16 };

// Rows that are normalized over their columns, then scaled and moved.
typedef struct pm_layer_norm {
    size_t rows, columns;
    const float *scale, *bias; // (columns); bias may be NULL
    float epsilon;
} pm_layer_norm;

// Rows of the scores of attention.
typedef struct pm_attend {
    size_t rows, columns, stride; // stride: from row to row
    float scale;
    const float *mask; // added to the scaled scores; NULL: none
    size_t mask_stride;
    const uint32_t *visible; // (rows): columns from here on have no share; at least 1. NULL: all are seen
} pm_attend;

// Some channels of a batch of images: planes of area elements side by side, stride elements from image to
// image.
typedef struct pm_planes {
    size_t images, channels, area, stride;
} pm_planes;

// Batch normalization of planes: y = x * factor + offset, then the rectifier where relu.
typedef struct pm_norm {
    pm_planes planes;
    const float *factor, *offset; // (channels): scale * inverse, bias - mean * factor
    const float *mean, *inverse;  // (channels): of the batch, 1 / sqrt(variance + epsilon); backward
    bool relu;                    // NaN stays NaN
} pm_norm;

enum { PM_MOMENTS_MAX = 2 };

// The arrays of an update of parameters, each of count floats, none overlapping another. Moments are changed
// in place.
typedef struct pm_update {
    size_t count;
    bool decays; // weight decay is for it
    const float *gradient;
    const float *from;
    float *to;
    float *moments[PM_MOMENTS_MAX];
} pm_update;

// What is the same for all elements of a step.
typedef struct pm_update_rule {
    float rate;  // over the bias of the first moment, of Adam
    float decay; // added to the gradient
    float momentum, epsilon;
    float beta1, rest1, beta2, rest2; // of Adam, as below; rest = 1 - beta
    float root;                       // square root of the bias of the second moment
    float scale;                      // of the old value: 1, or 1 - rate * weight_decay
} pm_update_rule;

// Lanes of running sums in a reduction over contiguous elements: element i goes to sum i % PM_SUMS, and the
// sums are added pairwise at the end.
enum { PM_SUMS = 16 };

// Tables that may run on a CPU.
enum { PM_KERNEL_TABLES = 4 };

typedef struct pm_kernels {
    const char *name; // "avx512bf16", "avx512", "avx2", "sse2", "plain"
    const char *base; // the same but for products in pairs: "avx512" of "avx512bf16"

    // Element-wise over n elements; y may be x, dx may be dy.
    void (*relu)(const float *x, float *y, size_t n); // NaN stays NaN
    void (*relu_backward)(const float *y, const float *dy, float *dx, size_t n);
    void (*sigmoid)(const float *x, float *y, size_t n);
    void (*sigmoid_backward)(const float *y, const float *dy, float *dx, size_t n);
    void (*tanh)(const float *x, float *y, size_t n);
    void (*tanh_backward)(const float *y, const float *dy, float *dx, size_t n);
    void (*error_function)(const float *x, float *y, size_t n);
    // y = x * P(X < x) of a normal X, and its slope there, which may be x; NULL when not wanted.
    void (*gelu)(const float *x, float *y, float *slope, size_t n);
    void (*multiply)(const float *x, const float *y, float *z, size_t n);
    void (*dropout)(const pm_dropout *d, const float *x, float *y, uint8_t *mask, size_t n);
    void (*dropout_backward)(float ratio, const uint8_t *mask, const float *dy, float *dx, size_t n);
    void (*add)(float *sum, const float *x, size_t n); // sum += x
    bool (*all_finite)(const float *x, size_t n);

    // Rows of c columns.
    void (*add_row)(float *y, const float *row, size_t rows, size_t c);  // y[r][j] += row[j]
    void (*sum_rows)(const float *x, size_t rows, size_t c, float *sum); // sum[j] = x[0][j] + x[1][j] + ...
    void (*softmax)(const float *x, float *y, size_t rows, size_t c);
    void (*softmax_backward)(const float *y, const float *dy, float *dx, size_t rows, size_t c);

    // y = (x - mean) * inverse * scale + bias, inverse = 1 / sqrt(population variance + epsilon), of each
    // row; means and inverses (rows) may be NULL.
    void (*layer_norm)(const pm_layer_norm *n, const float *x, float *y, float *means, float *inverses);
    // dscale and dbias are sums over the rows in order; each may be NULL. dx may be dy.
    void (*layer_norm_backward)(const pm_layer_norm *n, const float *x, const float *dy, const float *means,
                                const float *inverses, float *dx, float *dscale, float *dbias);
    // Softmax of scores * scale + mask, in place; and what the scores get from the shares' gradient, in
    // place.
    void (*attend)(const pm_attend *a, float *scores);
    void (*attend_backward)(const pm_attend *a, const float *shares, float *dshares);

    // Losses: gradient of the sum of row losses times scale, each row's loss, and whether its first largest
    // logit is the target class. Mean squared error is the mean over a row's elements.
    void (*cross_entropy)(const float *x, const int32_t *target, float scale, float *dx, double *loss,
                          uint8_t *correct, size_t rows, size_t c);
    // Against a weight for each class: -sum of target[j] * log softmax(x)[j]; correct when both have their
    // first largest at the same class.
    void (*soft_cross_entropy)(const float *x, const float *target, float scale, float *dx, double *loss,
                               uint8_t *correct, size_t rows, size_t c);
    void (*squared_error)(const float *x, const float *target, float scale, float *dx, double *loss,
                          size_t rows, size_t c);

    // Images of channels planes of area elements.
    void (*add_channel)(float *y, const float *bias, size_t channels, size_t area); // y[c][p] += bias[c]
    void (*sum_channels)(const float *x, size_t images, size_t channels, size_t area,
                         float *sum); // over images, p
    // Batch normalization. Of each channel: mean and population variance; y; the sums of dy and of dy * (x -
    // mean) * inverse; dx = factor * (dy - mean_dy - (x - mean) * inverse * mean_dy_x), which may be dy. dy
    // is 0 where a rectifier is over y and y is not positive.
    void (*moments)(const pm_planes *planes, const float *x, float *mean, float *variance);
    void (*norm)(const pm_norm *norm, const float *x, float *y);
    void (*norm_sums)(const pm_norm *norm, const float *x, const float *dy, float *sum_dy, float *sum_dy_x);
    void (*norm_backward)(const pm_norm *norm, const float *x, const float *dy, const float *mean_dy,
                          const float *mean_dy_x, float *dx);

    // One image. Unrolled images are (channels * kernel_h * kernel_w, out_height * out_width).
    void (*unroll)(const pm_window *w, const float *image, float *columns);
    void (*unroll_backward)(const pm_window *w, const float *columns, float *image); // overwrites image
    // where[o]: index in its plane of the first largest element; NULL when not wanted.
    void (*max_pool)(const pm_window *w, const float *x, float *y, int32_t *where);
    void (*max_channels)(const pm_channel_pool *pool); // the same values and indices as max_pool
    // For tiles (PM_TILE, tiles, stride) of an image (height + 2, width + 2, stride), width and height
    // rounded up to even, what is multiplied with the weights; from the products the outputs (height, width,
    // stride) with bias (channels). Channels up to the next whole vector are read and written, too.
    void (*tiles_in)(const pm_tiles *t, const float *image, float *tiles);
    void (*tiles_out)(const pm_tiles *t, const float *tiles, const float *bias, float *image);
    void (*max_pool_backward)(const pm_window *w, const int32_t *where, const float *dy, float *dx);
    void (*average_pool)(const pm_window *w, const float *x, float *y);
    void (*average_pool_backward)(const pm_window *w, const float *dy, float *dx);

    // Products. The result of a row does not depend on how many there are. Bits differ between variants here:
    // only some have fused multiply-adds.
    size_t panel; // columns of a panel
    void (*panel_product)(const pm_panel *product);
    // y[j][i] = x[i][j] for i < rows, j < columns.
    void (*transpose)(const float *x, size_t rows, size_t columns, size_t x_stride, float *y,
                      size_t y_stride);
    size_t line; // rows of a line
    // lines[r / line * stride + k * line + r % line] = x[k][r] for r < rows.
    void (*pack_lines)(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                       size_t stride);
    // The same of x[r][k]. After each line there is room for a whole vector.
    void (*turn_lines)(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                       size_t stride);
    // panels[j / panel * stride + k * panel + j % panel] = x[k][j] for j < columns, 0 up to the next whole
    // panel.
    void (*pack_rows)(const float *x, size_t depth, size_t columns, size_t x_stride, float *panels,
                      size_t stride);
    // panel[k][j] = x[j][k] for j < rows <= panel, 0 beyond: (depth, panel). Moves bytes: 32-bit words of any
    // kind.
    void (*pack_panel)(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel);

    // Rounds to bfloat16: to nearest, ties to even; subnormals to zero of their sign, NaN to a quiet NaN.
    void (*round)(const float *x, uint16_t *y, size_t n);
    // y[i]: the pair of first[i] and second[i]; of 0 where second is NULL.
    void (*round_pairs)(const float *first, const float *second, uint32_t *y, size_t n);

    // Update rules, as ps/optimizer.h has them, one operation after another: the same bits in every table.
    void (*sgd)(const pm_update_rule *rule, const pm_update *update);
    void (*momentum)(const pm_update_rule *rule, const pm_update *update);
    void (*adagrad)(const pm_update_rule *rule, const pm_update *update);
    void (*adam)(const pm_update_rule *rule, const pm_update *update);
    void (*sum)(const float *x, const float *y, float *to, size_t n); // to = x + y; none overlaps another
    void (*copy)(const float *x, float *to, size_t n);                // of what another core wrote

    // What benchmarks measure against. Runs rounds of independent chains of multiply-adds from the given
    // factor and addend, and returns how many floating-point operations they were; reads n elements. Both add
    // what they made, so that it is made.
    double (*multiply_adds)(size_t rounds, const float factors[2], float *sum);
    float (*read_all)(const float *x, size_t n);
} pm_kernels;

// The table for this CPU, or the one that the environment's PARAMILL_KERNELS names; lives for ever.
const pm_kernels *pm_kernels_get(void);

// PM_UNSUPPORTED when PARAMILL_KERNELS names a table that does not run here. Every plan calls it.
pm_status pm_kernels_check(void) PM_CHECKED;

// All tables that run on this CPU, for tests; returns how many.
size_t pm_kernels_all(const pm_kernels *tables[PM_KERNEL_TABLES]);
