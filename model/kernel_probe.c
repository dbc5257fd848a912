// What a core can do at most with this variant's vectors, for benchmarks to measure against; see
// model/kernels.h. Compiled with contraction, as the products are.
#include "model/kernels_variant.h"

enum { CHAINS = 12 }; // more than latency times units of any CPU at hand

static double multiply_adds(size_t rounds, const float factors[2], float *sum)
{
    vector chain[CHAINS], total = {0};
    const vector factor = factors[0] - (vector){0}, addend = factors[1] - (vector){0};
    for (size_t i = 0; i < CHAINS; i++)
        chain[i] = (float)i - (vector){0};
    for (size_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (size_t i = 0; i < CHAINS; i++)
            chain[i] = chain[i] * factor + addend;
    for (size_t i = 0; i < CHAINS; i++)
        total += chain[i];
    for (size_t i = 0; i < VECTOR; i++)
        *sum += total[i];
    return 2.0 * VECTOR * CHAINS * (double)rounds;
}

static float read_all(const float *x, size_t n)
{
    vector sums[4] = {{0}};
    float sum = 0;
    for (size_t i = 0; i + 4 * VECTOR <= n; i += 4 * VECTOR)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            sums[j] += *(const vector *)(x + i + j * VECTOR);
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < VECTOR; i++)
            sum += sums[j][i];
    return sum;
}

void PM_KERNEL(fill_probe)(pm_kernels *table)
{
    table->multiply_adds = multiply_adds;
    table->read_all = read_all;
}
