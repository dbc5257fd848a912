#pragma once
// Memory that grows in chunks and is freed as a whole: the names, lists and constants of a graph or of a plan
// under construction.
#include <stddef.h>

typedef struct pm_region pm_region;

// An empty region; NULL when out of memory.
pm_region *pm_region_create(void);

// Frees everything and sets *region to NULL; NULL is allowed.
void pm_region_destroy(pm_region **region);

// Zero-filled memory owned by the region: PM_ALIGN-aligned from PM_ALIGN bytes on, 16-aligned below. A valid
// pointer also for 0 bytes; NULL when out of memory.
void *pm_region_alloc(pm_region *region, size_t bytes);

// A copy of bytes, of text; NULL when out of memory.
void *pm_region_copy(pm_region *region, const void *bytes, size_t size);
char *pm_region_text(pm_region *region, const char *text);

// All bytes handed out.
size_t pm_region_used(const pm_region *region);
