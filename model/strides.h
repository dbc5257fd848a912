#pragma once
// How a value is another one seen through reshapes, transposes and slices: an offset and a stride for each
// axis, so that who reads it may read the other one in place.
#include "model/program_fusing.h"

typedef struct pm_strides {
    uint32_t source; // value
    uint32_t rank;
    int64_t extent[PM_MAX_RANK]; // of the value that is seen
    int64_t stride[PM_MAX_RANK]; // elements of source; those of extents of 1 do not matter
    int64_t offset;
} pm_strides;

// The value as seen from the farthest source whose elements follow each other along axis unit; from itself,
// where there is no other. Broadcasts are not seen through.
pm_strides pm_strides_find(const pm_fusing *f, uint32_t value, uint32_t unit);

// Marks the nodes between the value and its source as ones that may be needed no more.
void pm_strides_mark(pm_fusing *f, uint32_t value, uint32_t source);
