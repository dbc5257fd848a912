#pragma once
// exp, tanh and erf without branches, so that the compiler turns them into vectors and every element goes
// through the same operations wherever it stands.
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float pm_bits_float(int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// e^x within 2 ulp for x in [-87, 88]; clamps outside (0-like and huge, no infinity); NaN stays NaN. Cody and
// Waite range reduction to |r| <= ln 2 / 2 and the Taylor polynomial of degree 7.
static inline float pm_exp(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shifter = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    float shifted = x * 1.44269504f + shifter;
    float n = shifted - shifter;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return p * pm_bits_float((int32_t)((uint32_t)(bits - 0x4B400000 + 127) << 23));
}

// tanh x within 4 ulp: the odd Taylor polynomial loses digits late, so it serves |x| < 0.35 alone.
static inline float pm_tanh(float x)
{
    float a = x < 0 ? -x : x;
    float far = 1.0f - 2.0f / (pm_exp(2.0f * a) + 1.0f);
    float s = x * x;
    float near =
        a +
        a * s *
            (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315 + s * (62.0f / 2835 + s * (-1382.0f / 155925)))));
    float t = a < 0.35f ? near : far;
    return x < 0 ? -t : t;
}

static inline float pm_sigmoid(float x)
{
    return 1.0f / (1.0f + pm_exp(-x));
}

// exp(a a) erfc(a) within 1e-7 of itself for 0 <= a <= 9.2: a polynomial of 1 / (1 + 0.4 a), fitted to least
// relative error.
static inline float pm_scaled_erfc(float a)
{
    const float t = 1.0f / (1.0f + 0.4f * a);
    float p = 0.0733154642f;
    p = p * t - 0.393446329f;
    p = p * t + 0.691063283f;
    p = p * t - 0.393866512f;
    p = p * t + 0.432752373f;
    p = p * t + 0.124158828f;
    p = p * t + 0.242066278f;
    p = p * t + 0.223871442f;
    return p * t + 8.50837718e-05f;
}

// erf x within 4 ulp: near 0 an odd polynomial (fitted likewise), which keeps its digits there.
static inline float pm_erf(float x)
{
    const float a = fabsf(x), s = x * x;
    float p = 7.85385147e-05f;
    p = p * s - 0.000801019063f;
    p = p * s + 0.00518832735f;
    p = p * s - 0.0268538118f;
    p = p * s + 0.112835851f;
    p = p * s - 0.376126258f;
    p = p * s + 1.12837917f;
    const float near = x * p, far = copysignf(1.0f - pm_exp(-s) * pm_scaled_erfc(a), x);
    return a < 1.0f ? near : far;
}

// What of the normal distribution lies below x, where its bell is exp(-x x / 2).
static inline float pm_normal_area(float x, float bell)
{
    const float tail = 0.5f * bell * pm_scaled_erfc(fabsf(x) * 0.707106781f), rest = 1.0f - tail;
    return x < 0 ? tail : rest;
}
