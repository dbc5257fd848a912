#pragma once
// Which slice of which table lives on which shard: a pure function of the tables' sizes and the number of
// shards, so that every member computes it for itself. A slice's identity (table, slice) does not depend on
// the shards.
#include "core/status.h"

#include <stdint.h>

enum { PM_SLICE_FLOATS = 262144, PM_SLICES_MAX = 1 << 20 };

typedef struct pm_slice {
    uint32_t table, slice;
    uint64_t offset; // of its first float in the table
    uint32_t count;  // floats, 1 … PM_SLICE_FLOATS
    uint32_t shard;
} pm_slice;

typedef struct pm_placement pm_placement;

// counts: floats of each table (tables entries, each > 0). widths: floats of a row where a table is cut into
// whole rows, 0 where it may be cut anywhere; NULL: all may. Largest slices first, each to the shard with the
// fewest bytes so far (Graham's longest-processing-time rule). The caller owns *placement.
pm_status pm_placement_create(pm_placement **placement, const uint64_t *counts, const uint32_t *widths,
                              uint32_t tables, uint32_t shards) PM_CHECKED;
void pm_placement_destroy(pm_placement **placement);

uint32_t pm_placement_tables(const pm_placement *placement);
uint32_t pm_placement_shards(const pm_placement *placement);

// All slices, in the order of (table, slice).
uint32_t pm_placement_size(const pm_placement *placement);
const pm_slice *pm_placement_slice(const pm_placement *placement, uint32_t index);

// The index of slice 0 of a table, and the number of slices of the table.
uint32_t pm_placement_first(const pm_placement *placement, uint32_t table);
uint32_t pm_placement_count(const pm_placement *placement, uint32_t table);

// The index of (table, slice); -1 when there is no such slice.
int64_t pm_placement_find(const pm_placement *placement, uint32_t table, uint32_t slice);
