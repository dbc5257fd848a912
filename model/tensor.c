#include "model/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} TYPES[] = {[PM_TYPE_F32] = {"float32", 4},  [PM_TYPE_U8] = {"uint8", 1},   [PM_TYPE_I8] = {"int8", 1},
             [PM_TYPE_U16] = {"uint16", 2},   [PM_TYPE_I16] = {"int16", 2},  [PM_TYPE_I32] = {"int32", 4},
             [PM_TYPE_I64] = {"int64", 8},    [PM_TYPE_BOOL] = {"bool", 1},  [PM_TYPE_F16] = {"float16", 2},
             [PM_TYPE_F64] = {"float64", 8},  [PM_TYPE_U32] = {"uint32", 4}, [PM_TYPE_U64] = {"uint64", 8},
             [PM_TYPE_BF16] = {"bfloat16", 2}};

enum { TYPE_COUNT = sizeof TYPES / sizeof TYPES[0] };

size_t pm_type_size(pm_type type)
{
    return (unsigned)type < TYPE_COUNT ? TYPES[type].size : 0;
}

const char *pm_type_name(pm_type type)
{
    return pm_type_size(type) ? TYPES[type].name : "unknown";
}

bool pm_shape_count(const int64_t *shape, uint32_t rank, size_t limit, size_t *count)
{
    size_t product = 1;
    bool empty = false;
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] < 0 || (uint64_t)shape[i] > limit / product)
            return false;
        empty = empty || shape[i] == 0;
        product *= shape[i] > 0 ? (size_t)shape[i] : 1;
    }
    *count = empty ? 0 : product;
    return true;
}

bool pm_shape_ends(const pm_tensor *tensor, uint32_t axis, const pm_tensor *part)
{
    if (part->rank > tensor->rank || part->count != pm_extent(tensor, axis, tensor->rank))
        return false;
    for (uint32_t d = tensor->rank - part->rank; d < tensor->rank; d++) {
        const int64_t extent = part->shape[d - (tensor->rank - part->rank)];
        if (extent != (d < axis ? 1 : tensor->shape[d]))
            return false;
    }
    return true;
}

bool pm_shape_equal(const pm_tensor *a, const pm_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0;
}

const char *pm_shape_text(const int64_t *shape, uint32_t rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (uint32_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    if (used < size)
        snprintf(text + used, size - used, ")");
    return text;
}
