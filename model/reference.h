#pragma once
// Plain twins of the kernels: the shortest loops that say what is meant, summing in double. Tests hold the
// fast kernels and the matrix products against them.
#include "model/kernels.h"
#include "model/product.h"

// The twins in a table of the same shape.
const pm_kernels *pm_reference_kernels(void);

// Of products (reference_products.c); all but the first are in the table, too, with lines of one row.
enum { PM_REFERENCE_PANEL = 32 };
void pm_reference_product(const pm_product *product);
void pm_reference_panel_product(const pm_panel *product);
void pm_reference_transpose(const float *x, size_t rows, size_t columns, size_t x_stride, float *y,
                            size_t y_stride);
void pm_reference_pack_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                             size_t stride);
void pm_reference_turn_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                             size_t stride);
void pm_reference_pack_rows(const float *x, size_t depth, size_t columns, size_t x_stride, float *panels,
                            size_t stride);
void pm_reference_pack_panel(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel);
void pm_reference_tiles_in(const pm_tiles *t, const float *image, float *tiles);
void pm_reference_tiles_out(const pm_tiles *t, const float *tiles, const float *bias, float *image);

// Of update rules (reference_updates.c), in the table, too.
void pm_reference_sgd(const pm_update_rule *rule, const pm_update *update);
void pm_reference_momentum(const pm_update_rule *rule, const pm_update *update);
void pm_reference_adagrad(const pm_update_rule *rule, const pm_update *update);
void pm_reference_adam(const pm_update_rule *rule, const pm_update *update);
void pm_reference_sum(const float *x, const float *y, float *to, size_t n);
void pm_reference_copy(const float *x, float *to, size_t n);
