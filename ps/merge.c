#include "ps/merge.h"

#include <string.h>

size_t pm_rows_union(const pm_row_list *left, const pm_row_list *right)
{
    size_t i = 0, j = 0, count = 0;
    for (; i < left->count && j < right->count; count++) {
        const uint32_t a = left->ids[i], b = right->ids[j];
        i += a <= b;
        j += b <= a;
    }
    return count + left->count - i + right->count - j;
}

size_t pm_rows_merge(const pm_row_list *left, const pm_row_list *right, size_t width, uint32_t *ids,
                     float *rows)
{
    size_t i = 0, j = 0, count = 0;
    for (; i < left->count || j < right->count; count++, rows += width) {
        const bool from_left = j == right->count || (i < left->count && left->ids[i] <= right->ids[j]);
        const bool from_right = i == left->count || (j < right->count && right->ids[j] <= left->ids[i]);
        const float *a = left->rows + i * width, *b = right->rows + j * width;
        ids[count] = from_left ? left->ids[i] : right->ids[j];
        if (from_left && from_right)
            for (size_t k = 0; k < width; k++)
                rows[k] = a[k] + b[k];
        else
            memcpy(rows, from_left ? a : b, width * sizeof *rows);
        i += from_left;
        j += from_right;
    }
    return count;
}
