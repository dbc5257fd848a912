#include "model/blas.h"

#include <blis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Grows with every change to this engine that changes a bit, so that builds which differ are told apart.
enum { REVISION = 4 };

typedef struct kernel_set {
    cntx_t *context;
    bool generic_on_avx2;
    char names[2][64]; // by precision
} kernel_set;

static kernel_set set; // written once by choose(), read-only afterwards
static pthread_once_t once = PTHREAD_ONCE_INIT;

// BLIS 0.9 chooses by CPU model and takes its slow generic kernels on a CPU newer than itself. So it is told
// by feature (BLIS_ARCH_TYPE, a number, not a name): 256-bit vectors have its path for small products.
static void choose_context(const char *vectors)
{
#if defined(__x86_64__)
    const bool avx2 = !strncmp(vectors, "avx", 3);
    char number[16];
    snprintf(number, sizeof number, "%d", (int)(avx2 ? BLIS_ARCH_ZEN3 : BLIS_ARCH_GENERIC));
    (void)setenv("BLIS_ARCH_TYPE", number, 0);
    bli_init();
    set.generic_on_avx2 = avx2 && bli_arch_query_id() == BLIS_ARCH_GENERIC;
#else
    (void)vectors;
    bli_init();
#endif
    set.context = bli_gks_lookup_nat_cntx(bli_arch_query_id());
}

static void choose(void)
{
    const pm_kernels *kernels = pm_kernels_get();
    choose_context(kernels->base);
    const char *blis = bli_arch_string(bli_arch_query_id());
    snprintf(set.names[PM_PRECISION_F32], sizeof set.names[0], "%s+blis-%s.%d", kernels->base, blis,
             REVISION);
    snprintf(set.names[PM_PRECISION_BF16], sizeof set.names[0], "%s+blis-%s.%d", kernels->name, blis,
             REVISION);
}

const char *pm_kernel_set(pm_precision precision)
{
    (void)pthread_once(&once, choose);
    return set.names[precision];
}

pm_status pm_blas_check(void)
{
    (void)pthread_once(&once, choose);
    if (set.generic_on_avx2)
        return pm_fail(PM_UNSUPPORTED,
                       "BLIS runs its generic kernels on a CPU with AVX2: unset BLIS_ARCH_TYPE");
    return pm_kernels_check();
}

void pm_blas_run(const pm_product *p)
{
    (void)pthread_once(&once, choose);
    rntm_t runtime;
    bli_rntm_init(&runtime);
    bli_rntm_set_num_threads(1, &runtime);
    float one = 1, zero = 0;
    // BLIS takes its operands as non-const although it only reads A and B.
    bli_sgemm_ex(p->transpose_a ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE,
                 p->transpose_b ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, (dim_t)p->m, (dim_t)p->n, (dim_t)p->k,
                 &one, (float *)(uintptr_t)p->a, (inc_t)p->a_stride, 1, (float *)(uintptr_t)p->b,
                 (inc_t)p->b_stride, 1, p->accumulate ? &one : &zero, p->c, (inc_t)p->c_stride, 1,
                 set.context, &runtime);
}
