#include "model/blas.h"

#include "model/kernels.h"

#include <blis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

// Grows with every change to this engine that changes a bit, so that builds which differ are told apart.
enum { REVISION = 3 };

// BLIS 0.9 chooses by CPU model and takes its slow generic kernels on a CPU newer than itself. So the
// contexts are looked up by feature here, and BLIS_ARCH_TYPE (a number, not a name) is set for what BLIS
// decides by itself.
typedef struct kernel_set {
    cntx_t *row_context;   // for products whose m depends on the batch: by n and k alone
    cntx_t *small_context; // for fixed shapes, with the small-matrix path
    cntx_t *large_context; // for large fixed shapes, and rows of many columns
    arch_t large;
    bool generic_on_avx2;
    char names[2][64]; // by precision
} kernel_set;

static kernel_set set; // written once by choose(), read-only afterwards
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
// 512-bit units at full width: Intel, and AMD from family 26 on. Before that AMD splits them in two, and the
// 256-bit kernels, which have a smaller tile, are never slower.
static bool wide_vectors(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx))
        return false;
    bool amd = ebx == signature_AMD_ebx && ecx == signature_AMD_ecx && edx == signature_AMD_edx;
    if (!amd || !__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return !amd;
    unsigned family = (eax >> 8 & 15) + (eax >> 20 & 255);
    return family >= 26;
}

// The set goes with the vectors of the other kernels.
static void choose_contexts(const char *vectors)
{
    bool avx512 = !strcmp(vectors, "avx512"), avx2 = avx512 || !strcmp(vectors, "avx2");
    arch_t wanted = avx512 && wide_vectors() ? BLIS_ARCH_SKX : avx2 ? BLIS_ARCH_HASWELL : BLIS_ARCH_GENERIC;
    char number[16];
    snprintf(number, sizeof number, "%d", (int)wanted);
    (void)setenv("BLIS_ARCH_TYPE", number, 0);
    bli_init();
    arch_t decided = bli_arch_query_id();
    set.generic_on_avx2 = avx2 && decided == BLIS_ARCH_GENERIC;
    bool skx = avx512 && decided == BLIS_ARCH_SKX;
    arch_t small = avx2 && decided != BLIS_ARCH_GENERIC ? BLIS_ARCH_ZEN3 : decided;
    arch_t large = skx ? BLIS_ARCH_SKX : small == BLIS_ARCH_ZEN3 ? BLIS_ARCH_HASWELL : decided;
    set.small_context = bli_gks_lookup_nat_cntx(small);
    set.large_context = bli_gks_lookup_nat_cntx(large);
    set.row_context = bli_gks_lookup_nat_cntx(small == BLIS_ARCH_ZEN3 ? BLIS_ARCH_HASWELL : decided);
    set.large = large;
}
#else
static void choose_contexts(const char *vectors)
{
    (void)vectors;
    bli_init();
    set.large = bli_arch_query_id();
    set.small_context = set.large_context = set.row_context = bli_gks_lookup_nat_cntx(set.large);
}
#endif

static void choose(void)
{
    const pm_kernels *kernels = pm_kernels_get();
    const char *blis;
    choose_contexts(kernels->base);
    blis = bli_arch_string(set.large);
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

void pm_product_run(const pm_product *p)
{
    (void)pthread_once(&once, choose);
    rntm_t runtime;
    bli_rntm_init(&runtime);
    bli_rntm_set_num_threads(1, &runtime);
    cntx_t *context = NULL;
    if (p->fixed_shape) {
        // What pays for packing does without the small-matrix path, which reads operands in place.
        bool large = p->m >= 64 && p->n >= 64 && p->m * p->n * p->k >= (size_t)1 << 22;
        if (large)
            bli_rntm_disable_l3_sup(&runtime);
        context = large && set.large_context != set.row_context ? set.large_context : set.small_context;
    } else {
        context = p->n >= 64 && p->k >= 64 ? set.large_context : set.row_context;
        bli_rntm_disable_l3_sup(&runtime);
    }
    float one = 1, zero = 0;
    // BLIS takes its operands as non-const although it only reads A and B.
    bli_sgemm_ex(p->transpose_a ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE,
                 p->transpose_b ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, (dim_t)p->m, (dim_t)p->n, (dim_t)p->k,
                 &one, (float *)(uintptr_t)p->a, (inc_t)p->a_stride, 1, (float *)(uintptr_t)p->b,
                 (inc_t)p->b_stride, 1, p->accumulate ? &one : &zero, p->c, (inc_t)p->c_stride, 1, context,
                 &runtime);
}
