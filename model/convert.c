#include "model/convert.h"

#include <math.h>
#include <string.h>

pm_class pm_class_of(pm_type type)
{
    switch (type) {
    case PM_TYPE_F32:
    case PM_TYPE_F16:
    case PM_TYPE_BF16:
        return PM_CLASS_F32;
    case PM_TYPE_F64:
        return PM_CLASS_F64;
    case PM_TYPE_U64:
        return PM_CLASS_U64;
    default:
        return PM_CLASS_I64;
    }
}

size_t pm_class_size(pm_class class)
{
    return class == PM_CLASS_F32 ? sizeof(float) : sizeof(double);
}

bool pm_class_is_stored(pm_type type)
{
    return type == PM_TYPE_F32 || type == PM_TYPE_F64 || type == PM_TYPE_I64 || type == PM_TYPE_U64;
}

float pm_half_to_float(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 31;
    const uint32_t fraction = bits & 1023u;
    uint32_t wide = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31)
        wide = sign | 0x7F800000u | fraction << 13;
    float f;
    memcpy(&f, &wide, sizeof f);
    if (exponent == 0)
        f = ldexpf((float)fraction, -24) * (sign ? -1.0f : 1.0f);
    return f;
}

uint16_t pm_half_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const float size = fabsf(value);
    if (isnan(value))
        return sign | 0x7E00u;
    if (size >= 65520.0f) // half of the last step rounds up to infinity
        return sign | 0x7C00u;
    if (size < 6.103515625e-05f) // below 2^-14 the steps are of 2^-24
        return sign | (uint16_t)lrintf(ldexpf(size, 24));
    const uint32_t kept = (bits & 0x7FFFFFFFu) - (112u << 23);
    return sign | (uint16_t)((kept + 0xFFFu + (kept >> 13 & 1)) >> 13);
}

static float bfloat_to_float(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return f;
}

static uint16_t bfloat_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value))
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

#define LOAD(type_name, stored, computed, expression)                                                        \
    case type_name: {                                                                                        \
        const stored *x = from;                                                                              \
        computed *y = to;                                                                                    \
        for (size_t i = 0; i < n; i++) {                                                                     \
            const stored v = x[i * step];                                                                    \
            y[i] = expression;                                                                               \
        }                                                                                                    \
        break;                                                                                               \
    }

void pm_convert_load(pm_type type, const void *from, size_t step, void *to, size_t n)
{
    switch (type) {
        LOAD(PM_TYPE_F32, float, float, v)
        LOAD(PM_TYPE_F64, double, double, v)
        LOAD(PM_TYPE_F16, uint16_t, float, pm_half_to_float(v))
        LOAD(PM_TYPE_BF16, uint16_t, float, bfloat_to_float(v))
        LOAD(PM_TYPE_U8, uint8_t, int64_t, v)
        LOAD(PM_TYPE_BOOL, uint8_t, int64_t, v != 0)
        LOAD(PM_TYPE_I8, int8_t, int64_t, v)
        LOAD(PM_TYPE_U16, uint16_t, int64_t, v)
        LOAD(PM_TYPE_I16, int16_t, int64_t, v)
        LOAD(PM_TYPE_U32, uint32_t, int64_t, v)
        LOAD(PM_TYPE_I32, int32_t, int64_t, v)
        LOAD(PM_TYPE_I64, int64_t, int64_t, v)
        LOAD(PM_TYPE_U64, uint64_t, uint64_t, v)
    case PM_TYPE_NONE:
        break;
    }
}

#define STORE(type_name, stored, computed, expression)                                                       \
    case type_name: {                                                                                        \
        const computed *x = from;                                                                            \
        stored *y = to;                                                                                      \
        for (size_t i = 0; i < n; i++) {                                                                     \
            const computed v = x[i];                                                                         \
            y[i] = expression;                                                                               \
        }                                                                                                    \
        break;                                                                                               \
    }

void pm_convert_store(pm_type type, const void *from, void *to, size_t n)
{
    switch (type) {
        STORE(PM_TYPE_F32, float, float, v)
        STORE(PM_TYPE_F64, double, double, v)
        STORE(PM_TYPE_F16, uint16_t, float, pm_half_from_float(v))
        STORE(PM_TYPE_BF16, uint16_t, float, bfloat_from_float(v))
        STORE(PM_TYPE_U8, uint8_t, int64_t, (uint8_t)v)
        STORE(PM_TYPE_BOOL, uint8_t, int64_t, v != 0)
        STORE(PM_TYPE_I8, int8_t, int64_t, (int8_t)v)
        STORE(PM_TYPE_U16, uint16_t, int64_t, (uint16_t)v)
        STORE(PM_TYPE_I16, int16_t, int64_t, (int16_t)v)
        STORE(PM_TYPE_U32, uint32_t, int64_t, (uint32_t)v)
        STORE(PM_TYPE_I32, int32_t, int64_t, (int32_t)v)
        STORE(PM_TYPE_I64, int64_t, int64_t, v)
        STORE(PM_TYPE_U64, uint64_t, uint64_t, v)
    case PM_TYPE_NONE:
        break;
    }
}

enum { BLOCK = 256 };

static int64_t cut(double v)
{
    return isnan(v) ? 0 : v >= 0x1p63 ? INT64_MAX : v <= -0x1p63 ? INT64_MIN : (int64_t)v;
}

static uint64_t cut_unsigned(double v)
{
    return !(v > 0) ? 0 : v >= 0x1p64 ? UINT64_MAX : (uint64_t)v;
}

// Element i of a block of the class, in another class.
static void cast_block(pm_class from, const void *x, pm_class to, void *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d = 0;
        int64_t whole = 0;
        if (from == PM_CLASS_F32)
            d = (double)((const float *)x)[i];
        else if (from == PM_CLASS_F64)
            d = ((const double *)x)[i];
        else
            memcpy(&whole, (const int64_t *)x + i, sizeof whole);
        const bool is_float = from == PM_CLASS_F32 || from == PM_CLASS_F64;
        if (!is_float)
            d = from == PM_CLASS_U64 ? (double)(uint64_t)whole : (double)whole;
        if (to == PM_CLASS_F32)
            ((float *)y)[i] = (float)d;
        else if (to == PM_CLASS_F64)
            ((double *)y)[i] = d;
        else if (to == PM_CLASS_I64)
            ((int64_t *)y)[i] = is_float ? cut(d) : whole;
        else
            ((uint64_t *)y)[i] = is_float ? cut_unsigned(d) : (uint64_t)whole;
    }
}

void pm_convert_cast(pm_type from_type, const void *from, pm_type to_type, void *to, size_t n)
{
    const pm_class from_class = pm_class_of(from_type), to_class = pm_class_of(to_type);
    const size_t from_size = pm_type_size(from_type), to_size = pm_type_size(to_type);
    for (size_t at = 0; at < n; at += BLOCK) {
        double x[BLOCK], y[BLOCK];
        const size_t count = n - at < BLOCK ? n - at : BLOCK;
        pm_convert_load(from_type, (const char *)from + at * from_size, 1, x, count);
        if (to_type == PM_TYPE_BOOL && from_class <= PM_CLASS_F64) {
            uint8_t *bools = (uint8_t *)to + at;
            for (size_t i = 0; i < count; i++)
                bools[i] = from_class == PM_CLASS_F32 ? ((const float *)(const void *)x)[i] != 0 : x[i] != 0;
            continue;
        }
        cast_block(from_class, x, to_class, y, count);
        if (to_type == PM_TYPE_BF16) { // the suite's way: the low bits are cut off
            uint32_t *bits = (void *)y;
            for (size_t i = 0; i < count; i++)
                bits[i] &= (bits[i] & 0x7FFFFFFFu) > 0x7F800000u ? UINT32_MAX : 0xFFFF0000u;
        }
        pm_convert_store(to_type, y, (char *)to + at * to_size, count);
    }
}

double pm_convert_number(const pm_tensor *tensor, size_t index)
{
    double number = 0;
    pm_convert_cast(tensor->type, (const char *)tensor->data + index * pm_type_size(tensor->type),
                    PM_TYPE_F64, &number, 1);
    return number;
}
