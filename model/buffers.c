#include "model/buffers.h"

#include "core/arena.h"

#include <stdbool.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    const pm_lifetime *x = *(pm_lifetime *const *)a, *y = *(pm_lifetime *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

// The lowest offset where buffer overlaps none of the placed ones (sorted by offset) that live with it.
static size_t lowest_gap(const pm_lifetime *buffer, pm_lifetime *const *placed, size_t count)
{
    size_t offset = 0, need = pm_align(buffer->bytes);
    for (size_t i = 0; i < count; i++) {
        const pm_lifetime *other = placed[i];
        if (other->last < buffer->first || buffer->last < other->first)
            continue;
        if (offset + need <= other->offset)
            break;
        size_t end = other->offset + pm_align(other->bytes);
        offset = end > offset ? end : offset;
    }
    return offset;
}

pm_status pm_buffers_place(pm_lifetime *buffers, size_t count, size_t *peak)
{
    pm_lifetime **order = calloc(2 * count + 1, sizeof(void *));
    if (!order)
        return pm_fail(PM_NO_MEMORY, "a list of %zu buffers", count);
    pm_lifetime **placed = order + count;
    size_t placed_count = 0;
    *peak = 0;
    for (size_t i = 0; i < count; i++)
        order[i] = &buffers[i];
    qsort(order, count, sizeof(void *), by_size);
    for (size_t i = 0; i < count; i++) {
        pm_lifetime *buffer = order[i];
        if (buffer->bytes == 0) {
            buffer->offset = 0;
            continue;
        }
        buffer->offset = lowest_gap(buffer, placed, placed_count);
        size_t at = placed_count++;
        for (; at > 0 && placed[at - 1]->offset > buffer->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = buffer;
        size_t end = buffer->offset + pm_align(buffer->bytes);
        *peak = end > *peak ? end : *peak;
    }
    free(order);
    return pm_ok();
}
