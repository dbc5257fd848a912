#include "model/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECLARE(variant)                                                                                     \
    void pm_kernel_fill_element_##variant(pm_kernels *table);                                                \
    void pm_kernel_fill_row_##variant(pm_kernels *table);                                                    \
    void pm_kernel_fill_block_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_image_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_norm_##variant(pm_kernels *table);                                                   \
    void pm_kernel_fill_pool_##variant(pm_kernels *table);                                                   \
    void pm_kernel_fill_tiles_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_panel_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_pairs_##variant(pm_kernels *table);                                                  \
    void pm_kernel_fill_update_##variant(pm_kernels *table);                                                 \
    void pm_kernel_fill_probe_##variant(pm_kernels *table)

// Appends the variant's table.
#define FILL(variant)                                                                                        \
    do {                                                                                                     \
        pm_kernels *table = &tables[table_count++];                                                          \
        table->name = table->base = #variant;                                                                \
        pm_kernel_fill_element_##variant(table);                                                             \
        pm_kernel_fill_row_##variant(table);                                                                 \
        pm_kernel_fill_block_##variant(table);                                                               \
        pm_kernel_fill_image_##variant(table);                                                               \
        pm_kernel_fill_norm_##variant(table);                                                                \
        pm_kernel_fill_pool_##variant(table);                                                                \
        pm_kernel_fill_tiles_##variant(table);                                                               \
        pm_kernel_fill_panel_##variant(table);                                                               \
        pm_kernel_fill_pairs_##variant(table);                                                               \
        pm_kernel_fill_update_##variant(table);                                                              \
        pm_kernel_fill_probe_##variant(table);                                                               \
    } while (0)

// Written once by choose(), read-only afterwards: neither CPU nor environment change.
static pm_kernels tables[PM_KERNEL_TABLES];
static size_t table_count;
static const pm_kernels *chosen; // NULL: the environment names none of them
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
DECLARE(avx512);
DECLARE(avx2);
DECLARE(sse2);
void pm_kernel_fill_panel_avx512bf16(pm_kernels *table);
void pm_kernel_fill_pairs_avx512bf16(pm_kernels *table);

// The instruction for products in pairs changes nothing else.
static void fill_bf16(void)
{
    FILL(avx512);
    pm_kernels *table = &tables[table_count - 1];
    pm_kernel_fill_panel_avx512bf16(table);
    pm_kernel_fill_pairs_avx512bf16(table);
    table->name = "avx512bf16";
}

static void fill_tables(void)
{
    __builtin_cpu_init();
    bool v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512cd");
    if (v4 && __builtin_cpu_supports("avx512bf16"))
        fill_bf16();
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
    char names[PM_KERNEL_TABLES * 16] = "";
    for (size_t i = 0, at = 0; i < table_count; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", tables[i].name);
    return pm_fail(PM_UNSUPPORTED, "PARAMILL_KERNELS is %.32s, this CPU runs %s", getenv("PARAMILL_KERNELS"),
                   names);
}

size_t pm_kernels_all(const pm_kernels *all[PM_KERNEL_TABLES])
{
    (void)pthread_once(&once, choose);
    for (size_t i = 0; i < table_count; i++)
        all[i] = &tables[i];
    return table_count;
}
