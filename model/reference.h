#pragma once
// Plain twins of the kernels: the shortest loops that say what is meant, summing in double. Tests hold the
// fast kernels and the matrix products against them.
#include "model/blas.h"
#include "model/kernels.h"

// The twins in a table of the same shape.
const pm_kernels *pm_reference_kernels(void);

// Of products (reference_products.c); those of tiles are in the table, too.
void pm_reference_product(const pm_product *product);
void pm_reference_tiles_in(const pm_tiles *t, const float *image, float *tiles);
void pm_reference_tiles_out(const pm_tiles *t, const float *tiles, const float *bias, float *image);
