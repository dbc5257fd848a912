#pragma once
// Matrix products, row-major float32.
#include "model/kernels.h"

typedef struct pm_product {
    bool transpose_a, transpose_b; // op(A) is (m, k), op(B) is (k, n)
    bool b_packed;                 // b is what pm_product_pack made, and b_stride has no meaning
    size_t m, n, k;
    const float *a;
    size_t a_stride; // between stored rows
    const float *b;
    size_t b_stride;
    float *c; // (m, n)
    size_t c_stride;
    bool accumulate;   // C += instead of C =
    const float *bias; // (n), then added to each row; NULL: none
    bool relu;         // then; NaN stays NaN
} pm_product;

// By the panel kernel: every element of C is one chain of multiply-adds over rising k, whatever the other
// extents, so a row has the same bits alone and inside any batch. k > 0; scratch is aligned to PM_ALIGN, and
// as many bytes as a product needs, of which only flags and extents are looked at, suffice for one of fewer
// rows.
size_t pm_product_bytes(const pm_kernels *kernels, const pm_product *product);
void pm_product_run(const pm_kernels *kernels, const pm_product *product, void *scratch);

// B packed for good: (n, k) in whole panels.
size_t pm_product_packed_bytes(const pm_kernels *kernels, size_t n, size_t k);
void pm_product_pack(const pm_kernels *kernels, const pm_product *product, float *packed);

// Of a shape that does not depend on the number of rows in the batch, without bias and rectifier: by BLIS
// (model/blas.h) where it is so small that packing does not pay.
bool pm_product_is_small(size_t m, size_t n, size_t k);
size_t pm_product_fixed_bytes(const pm_kernels *kernels, const pm_product *product);
void pm_product_run_fixed(const pm_kernels *kernels, const pm_product *product, void *scratch);
