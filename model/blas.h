#pragma once
// Small matrix products, by BLIS, which reads operands in place; one thread a call. Its blocks of k go by all
// extents, so these are products whose shape does not depend on the number of rows in the batch.
#include "core/job.h"
#include "core/status.h"
#include "model/product.h"

// Runs the product, without its bias and rectifier. Safe from several threads.
void pm_blas_run(const pm_product *product);

// Chooses the kernels for this CPU before BLIS looks, checks that BLIS agrees, and returns PM_UNSUPPORTED
// when BLIS would run its generic kernels on a CPU with AVX2. Every plan calls it; cheap after the first
// time.
pm_status pm_blas_check(void) PM_CHECKED;

// See model/plan.h.
const char *pm_kernel_set(pm_precision precision);
