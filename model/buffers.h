#pragma once
// Ahead-of-time placement of buffers whose lifetimes are known: buffers that never live at the same time
// share memory.
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pm_lifetime {
    size_t bytes;         // 0: needs no place
    uint32_t first, last; // tasks, inclusive
    size_t offset;        // out, a multiple of PM_ALIGN
} pm_lifetime;

// Gives each buffer an offset such that no two that live at a common time overlap; *peak is the end of the
// last. Greedy by size: largest first, each into the lowest gap that holds it (Pisarchyk and Lee, "Efficient
// Memory Management for Deep Neural Net Inference", 2020).
pm_status pm_buffers_place(pm_lifetime *buffers, size_t count, size_t *peak) PM_CHECKED;
