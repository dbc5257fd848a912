#pragma once
// Element types, shapes, and tensors that own nothing.
#include "core/job.h"
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Element types with the numbers of ONNX's TensorProto.DataType. Storage is little-endian and dense.
typedef enum pm_type {
    PM_TYPE_NONE = 0, // not known
    PM_TYPE_F32 = 1,
    PM_TYPE_U8 = 2,
    PM_TYPE_I8 = 3,
    PM_TYPE_U16 = 4,
    PM_TYPE_I16 = 5,
    PM_TYPE_I32 = 6,
    PM_TYPE_I64 = 7,
    PM_TYPE_BOOL = 9, // a byte: 0 or 1
    PM_TYPE_F16 = 10,
    PM_TYPE_F64 = 11,
    PM_TYPE_U32 = 12,
    PM_TYPE_U64 = 13,
    PM_TYPE_BF16 = 16
} pm_type;

// Bytes of an element; 0 for what is no type here.
size_t pm_type_size(pm_type type);

// "float32"; "type 8" has no name and is "unknown".
const char *pm_type_name(pm_type type);

// A shaped run of elements, row-major. data is NULL while nobody knows the elements.
typedef struct pm_tensor {
    pm_type type;
    uint32_t rank;
    int64_t shape[PM_MAX_RANK];
    size_t count; // product of shape
    const void *data;
} pm_tensor;

// Product of extents with an upper limit; false when an extent is negative or the limit is passed. An extent
// of 0 makes 0, whatever the others are.
bool pm_shape_count(const int64_t *shape, uint32_t rank, size_t limit, size_t *count);

bool pm_shape_equal(const pm_tensor *a, const pm_tensor *b);

// Whether part, broadcast over the tensor's axes before axis, has one element for each place along those from
// axis on.
bool pm_shape_ends(const pm_tensor *tensor, uint32_t axis, const pm_tensor *part);

// "(1, 28, 28)" into text.
const char *pm_shape_text(const int64_t *shape, uint32_t rank, char *text, size_t size);

static inline size_t pm_tensor_bytes(const pm_tensor *tensor)
{
    return tensor->count * pm_type_size(tensor->type);
}

// Product of extents [first, last).
static inline size_t pm_extent(const pm_tensor *tensor, uint32_t first, uint32_t last)
{
    size_t product = 1;
    for (uint32_t i = first; i < last; i++)
        product *= (size_t)tensor->shape[i];
    return product;
}
