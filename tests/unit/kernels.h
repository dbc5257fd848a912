#pragma once
// What tests of kernels share: the variants, lengths, rooms for operands.
#include "model/kernels.h"
#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 4096 };

// Each variant of the kernels against its plain twin, at lengths that leave every kind of tail.
static const size_t LENGTHS[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 1000};

#define EACH_LENGTH(n)                                                                                       \
    for (size_t at_##n = 0, n = LENGTHS[0]; at_##n < sizeof LENGTHS / sizeof LENGTHS[0];                     \
         at_##n++, n = LENGTHS[at_##n < sizeof LENGTHS / sizeof LENGTHS[0] ? at_##n : 0])

#define EACH_TABLE(fast)                                                                                     \
    const pm_kernels *all_tables[PM_KERNEL_TABLES];                                                          \
    const size_t table_count = pm_kernels_all(all_tables);                                                   \
    const pm_kernels *plain = pm_reference_kernels();                                                        \
    const pm_kernels *fast = all_tables[0];                                                                  \
    for (size_t table_at = 0; table_at < table_count;                                                        \
         table_at++, fast = all_tables[table_at < table_count ? table_at : 0])

static inline void fill(float *x, size_t n, uint64_t stream, float scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = scale * nets_number(stream, i);
}

static inline void expect_near(const pm_kernels *table, const char *what, const float *got,
                               const float *wanted, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(fabs((double)got[i] - (double)wanted[i]) <= tolerance * (1 + fabs((double)wanted[i])),
                  "%s %s, element %zu of %zu: %.9g, wanted %.9g", table->name, what, i, n, (double)got[i],
                  (double)wanted[i]);
}

static float x[MAX], y[MAX], z[MAX], got[MAX], wanted[MAX];
