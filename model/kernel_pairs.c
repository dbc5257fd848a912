// Rounding to bfloat16; see model/kernels.h.
#include "model/kernels_variant.h"

#include <string.h>

#if defined(__AVX512BF16__)
#include <immintrin.h>

// The instruction rounds as is asked for.
static void round_all(const float *x, uint16_t *y, size_t n)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(
            y + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i)));
    for (; i < n; i += 16) {
        const __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        _mm256_mask_storeu_epi16(y + i, some,
                                 (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + i)));
    }
}

static void round_pairs(const float *first, const float *second, uint32_t *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m512i pairs =
            _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, first + i)));
        if (second) {
            const __m256i half = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, second + i));
            pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
        }
        _mm512_mask_storeu_epi32(y + i, some, pairs);
    }
}
#else
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

#endif

void PM_KERNEL(fill_pairs)(pm_kernels *table)
{
    table->round = round_all;
    table->round_pairs = round_pairs;
}
