#pragma once
// For the kernel files only: gives each function the suffix of the variant being compiled (PM_VARIANT:
// avx512bf16, avx512, avx2, sse2 or plain), and lists the functions that the files of one variant share.
#include "model/kernels.h"

#define PM_PASTE2(a, b) a##_##b
#define PM_PASTE(a, b) PM_PASTE2(a, b)
#define PM_KERNEL(name) PM_PASTE(pm_kernel_##name, PM_VARIANT)

// Before a loop whose outputs may lie over its inputs, each element over its own: it may become vectors.
#if defined(__clang__)
#define PM_SAME_PLACES _Pragma("clang loop vectorize(assume_safety)")
#else
#define PM_SAME_PLACES _Pragma("GCC ivdep")
#endif

// Floats of a register, as wide as the variant's are, and a register of them, read from and written to any
// place.
#if defined(__AVX512F__)
enum { VECTOR = 16 };
#elif defined(__AVX2__)
enum { VECTOR = 8 };
#else
enum { VECTOR = 4 };
#endif
typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(sizeof(float)), may_alias));

// Each fills its part of a table.
void PM_KERNEL(fill_element)(pm_kernels *table);
void PM_KERNEL(fill_norm)(pm_kernels *table);
void PM_KERNEL(fill_row)(pm_kernels *table);
void PM_KERNEL(fill_block)(pm_kernels *table);
void PM_KERNEL(fill_image)(pm_kernels *table);
void PM_KERNEL(fill_pool)(pm_kernels *table);
void PM_KERNEL(fill_tiles)(pm_kernels *table);
void PM_KERNEL(fill_panel)(pm_kernels *table);
void PM_KERNEL(fill_pairs)(pm_kernels *table);
void PM_KERNEL(fill_update)(pm_kernels *table);
void PM_KERNEL(fill_probe)(pm_kernels *table);
