#pragma once
// Matrix products of operands rounded to bfloat16, summed in float32 by the panel kernel: every element of C
// is one chain over rising pairs of k, whatever the other extents, so a row has the same bits in any batch.
#include "model/product.h"

// Bytes of scratch of a product of at most m rows.
size_t pm_product_pairs_bytes(const pm_kernels *kernels, size_t m, size_t n, size_t k);

// As pm_product_run.
void pm_product_pairs(const pm_kernels *kernels, const pm_product *product, void *scratch);
