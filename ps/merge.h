#pragma once
// Sums of rows of a sparse table along the tree over lanes.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pm_row_list {
    const uint32_t *ids; // (count), ascending
    const float *rows;   // (count, width)
    size_t count;
} pm_row_list;

// How many rows both lists have together.
size_t pm_rows_union(const pm_row_list *left, const pm_row_list *right);

// left + right where both have a row, a copy where one has it: what adding the dense tables would give, for
// no sum of a lane is -0. ids and rows have room for the union, whose size it returns.
size_t pm_rows_merge(const pm_row_list *left, const pm_row_list *right, size_t width, uint32_t *ids,
                     float *rows);
