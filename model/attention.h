#pragma once
// Attention as one operator (domain "paramill"): for each index of the leading axes,
// shares = softmax(query (T, D) . key (S, D) * scale + mask), y = shares . value (S, E).
//
// Inputs: one to three sources that query, key and value lie in, then the mask where there is one: (T, S) or
// what broadcasts to it, one for all lanes. Outputs: y, and shares (leading axes, T, S) where a gradient
// needs them. Attributes:
//   "sizes"   the number of leading axes, their extents, T, S, D, E
//   "query", "key", "value", "y"  which source (0 for y), offset, then strides of the leading axes and of the
//             rows; along D and E elements follow each other
//   "shape"   of y
//   "scale"
//   "mask"    what the mask is, a pm_attention_mask
//   "low"     what scores become that a mask of truth values hides: PM_ATTENTION_HIDES or lower
#include "model/operators.h"

typedef enum pm_attention_mask {
    PM_ATTENTION_FREE,    // no mask
    PM_ATTENTION_ADDED,   // float32, added; what is PM_ATTENTION_HIDES or lower hides
    PM_ATTENTION_SHOWING, // bool: true is seen
    PM_ATTENTION_HIDING   // bool: true is hidden
} pm_attention_mask;

#define PM_ATTENTION_HIDES -10000.0f

enum { PM_ATTENTION_AXES = PM_MAX_RANK - 2, PM_ATTENTION_LIST = PM_MAX_RANK + 4 };

// A matrix for each leading index, inside a source.
typedef struct pm_attention_view {
    int64_t source, offset, stride[PM_ATTENTION_AXES], row_stride;
} pm_attention_view;

typedef struct pm_attention {
    uint32_t axes;
    int64_t extent[PM_ATTENTION_AXES];
    int64_t queries, keys, depth, width; // T, S, D, E
    pm_attention_view query, key, value, y;
} pm_attention;

// As attributes "sizes", "query", "key", "value", "y" (five) with lists in region.
pm_status pm_attention_write(const pm_attention *a, pm_region *region, pm_attribute *attributes) PM_CHECKED;

pm_attention pm_attention_read(const pm_node *node);
