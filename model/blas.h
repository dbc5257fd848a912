#pragma once
// Matrix products by BLIS, row-major float32, one thread a call. Every element of C is a sum over k in rising
// order within the set's blocks of k, whatever the other extents, so a row of a product has the same bits
// alone and inside any batch; BLIS's small-matrix path breaks that and is used only for shapes that never
// change.
#include "core/job.h"
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct pm_product {
    bool transpose_a, transpose_b; // op(A) is (m, k), op(B) is (k, n)
    size_t m, n, k;
    const float *a;
    size_t a_stride; // between stored rows
    const float *b;
    size_t b_stride;
    float *c; // (m, n)
    size_t c_stride;
    bool accumulate;  // C += instead of C =
    bool fixed_shape; // m, n, k do not depend on the number of rows in the batch
} pm_product;

// Runs the product. Safe from several threads.
void pm_product_run(const pm_product *product);

// Chooses the kernels for this CPU before BLIS looks, checks that BLIS agrees, and returns PM_UNSUPPORTED
// when BLIS would run its generic kernels on a CPU with AVX2. Every plan calls it; cheap after the first
// time.
pm_status pm_blas_check(void) PM_CHECKED;

// See model/plan.h.
const char *pm_kernel_set(pm_precision precision);
