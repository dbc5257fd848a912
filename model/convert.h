#pragma once
// Elements of any type as the few types that are computed in: float16 and bfloat16 as float32, all integers
// and bools as int64 or uint64. Storing an integer wraps, storing a float rounds to nearest even.
#include "model/tensor.h"

typedef enum pm_class { PM_CLASS_F32, PM_CLASS_F64, PM_CLASS_I64, PM_CLASS_U64, PM_CLASSES } pm_class;

// The class elements of type are computed in.
pm_class pm_class_of(pm_type type);

size_t pm_class_size(pm_class class);

// Whether elements of type are stored as their class computes them.
bool pm_class_is_stored(pm_type type);

// to[i] = from[i * step] for i < n (step 0 or more) as type's class.
void pm_convert_load(pm_type type, const void *from, size_t step, void *to, size_t n);

// to[i] = from[i] for i < n, from type's class.
void pm_convert_store(pm_type type, const void *from, void *to, size_t n);

// A conversion as Cast does it: floats are cut towards zero and at the ends of the integer type, bools are
// whether the element is not 0.
void pm_convert_cast(pm_type from_type, const void *from, pm_type to_type, void *to, size_t n);

// One element as a double; for numbers that steer.
double pm_convert_number(const pm_tensor *tensor, size_t index);

float pm_half_to_float(uint16_t bits);
uint16_t pm_half_from_float(float value);
