#include "model/kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define DECLARE(variant)                                                                                     \
    void pm_kernel_fill_element_##variant(pm_kernels *table);                                                \
    void pm_kernel_fill_row_##variant(pm_kernels *table);                                                    \
    void pm_kernel_fill_block_##variant(pm_kernels *table);                                                  \
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
        pm_kernel_fill_block_##variant(table);                                                               \
        pm_kernel_fill_image_##variant(table);                                                               \
        pm_kernel_fill_pool_##variant(table);                                                                \
        pm_kernel_fill_panel_##variant(table);                                                               \
        pm_kernel_fill_probe_##variant(table);                                                               \
    } while (0)

// Written once by choose(), read-only afterwards: neither CPU nor environment change.
static pm_kernels tables[3];
static size_t table_count;
static const pm_kernels *chosen; // NULL: the environment names none of them
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
DECLARE(avx512);
DECLARE(avx2);
DECLARE(sse2);

static void fill_tables(void)
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
#else
DECLARE(plain);

static void fill_tables(void)
{
    FILL(plain);
}
#endif

static void choose(void)
{
    const char *wanted = getenv("PARAMILL_KERNELS");
    fill_tables();
    for (size_t i = table_count; i-- > 0;)
        if (!wanted || strcmp(tables[i].name, wanted) == 0)
            chosen = &tables[i];
}

const pm_kernels *pm_kernels_get(void)
{
    (void)pthread_once(&once, choose);
    return chosen ? chosen : &tables[0];
}

pm_status pm_kernels_check(void)
{
    (void)pthread_once(&once, choose);
    if (chosen)
        return pm_ok();
    return pm_fail(PM_UNSUPPORTED, "PARAMILL_KERNELS is %.32s, this CPU runs %s%s%s%s%s",
                   getenv("PARAMILL_KERNELS"), tables[0].name, table_count > 1 ? ", " : "",
                   table_count > 1 ? tables[1].name : "", table_count > 2 ? ", " : "",
                   table_count > 2 ? tables[2].name : "");
}

size_t pm_kernels_all(const pm_kernels *all[3])
{
    (void)pthread_once(&once, choose);
    for (size_t i = 0; i < table_count; i++)
        all[i] = &tables[i];
    return table_count;
}
