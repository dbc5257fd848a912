#include "model/kernels.h"

#include <pthread.h>

#define DECLARE(variant)                                                                                     \
    void pm_kernel_fill_element_##variant(pm_kernels *table);                                                \
    void pm_kernel_fill_row_##variant(pm_kernels *table);                                                    \
    void pm_kernel_fill_image_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_pool_##variant(pm_kernels *table);                                                   \
    void pm_kernel_fill_panel_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_probe_##variant(pm_kernels *table)

// Appends the variant's table.
#define FILL(variant)                                                                                        \
    do {                                                                                                     \
        pm_kernels *table = &tables[table_count++];                                                          \
        table->name = #variant;                                                                              \
        pm_kernel_fill_element_##variant(table);                                                             \
        pm_kernel_fill_row_##variant(table);                                                                 \
        pm_kernel_fill_image_##variant(table);                                                               \
        pm_kernel_fill_pool_##variant(table);                                                                \
        pm_kernel_fill_panel_##variant(table);                                                               \
        pm_kernel_fill_probe_##variant(table);                                                               \
    } while (0)

DECLARE(avx512);
DECLARE(avx2);
DECLARE(sse2);

// Written once by choose(), read-only afterwards: the CPU does not change.
static pm_kernels tables[3];
static size_t table_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void choose(void)
{
    __builtin_cpu_init();
    bool v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512cd");
    if (v4)
        FILL(avx512);
    if (v3)
        FILL(avx2);
    FILL(sse2);
}

const pm_kernels *pm_kernels_get(void)
{
    (void)pthread_once(&once, choose);
    return &tables[0];
}

size_t pm_kernels_all(const pm_kernels *all[3])
{
    (void)pthread_once(&once, choose);
    for (size_t i = 0; i < table_count; i++)
        all[i] = &tables[i];
    return table_count;
}
