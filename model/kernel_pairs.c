// Rounding to bfloat16; see model/kernels.h.
#include "model/kernels_variant.h"

#include <string.h>

// As vcvtneps2bf16 does. Adding half of what is cut off, less one unless the last kept bit is odd, carries
// into the exponent where it must, to infinity too.
static inline uint32_t rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t exponent = bits & 0x7f800000u, near = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16,
                   cut = bits >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return nan ? cut | 0x40u : exponent == 0 ? cut & 0x8000u : near;
}

static void round_all(const float *x, uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (uint16_t)rounded(x[i]);
}

static void round_pairs(const float *first, const float *second, uint32_t *y, size_t n)
{
    if (!second)
        for (size_t i = 0; i < n; i++)
            y[i] = rounded(first[i]);
    else
        for (size_t i = 0; i < n; i++)
            y[i] = rounded(first[i]) | rounded(second[i]) << 16;
}

void PM_KERNEL(fill_pairs)(pm_kernels *table)
{
    table->round = round_all;
    table->round_pairs = round_pairs;
}
