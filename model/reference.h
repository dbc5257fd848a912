#pragma once
// Plain twins of the kernels: the shortest loops that say what is meant, summing in double. Tests hold the
// fast kernels and the matrix products against them.
#include "model/blas.h"
#include "model/kernels.h"

// The twins in a table of the same shape.
const pm_kernels *pm_reference_kernels(void);

void pm_reference_product(const pm_product *product);
