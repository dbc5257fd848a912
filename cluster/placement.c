#include "cluster/placement.h"

#include <stdlib.h>

struct pm_placement {
    uint32_t tables, shards, size;
    uint32_t *first; // tables + 1 entries: index of slice 0 of each table
    pm_slice *slices;
};

// Floats of a slice of the table, its last one aside.
static uint32_t slice_of(const uint32_t *widths, uint32_t table)
{
    return widths && widths[table] ? PM_SLICE_FLOATS / widths[table] * widths[table] : PM_SLICE_FLOATS;
}

static pm_status count_slices(const uint64_t *counts, const uint32_t *widths, uint32_t tables, uint32_t *size)
{
    uint64_t total = 0;
    for (uint32_t t = 0; t < tables; t++) {
        if (counts[t] == 0)
            return pm_fail(PM_INVALID, "table %u is empty", t);
        const uint32_t most = slice_of(widths, t);
        if (most == 0 || (widths && widths[t] && counts[t] % widths[t]))
            return pm_fail(PM_UNSUPPORTED, "table %u has rows of %u floats; a slice has %d", t, widths[t],
                           PM_SLICE_FLOATS);
        total += counts[t] / most + (counts[t] % most != 0);
        if (total > PM_SLICES_MAX)
            return pm_fail(PM_UNSUPPORTED, "the model has more than %d slices of 1 MiB", PM_SLICES_MAX);
    }
    *size = (uint32_t)total;
    return pm_ok();
}

static void cut(pm_placement *p, const uint64_t *counts, const uint32_t *widths)
{
    uint32_t at = 0;
    for (uint32_t t = 0; t < p->tables; t++) {
        p->first[t] = at;
        const uint32_t most = slice_of(widths, t);
        uint64_t left = counts[t];
        for (uint32_t s = 0; left > 0; s++) {
            uint32_t count = left < most ? (uint32_t)left : most;
            p->slices[at++] = (pm_slice){t, s, (uint64_t)s * most, count, 0};
            left -= count;
        }
    }
    p->first[p->tables] = at;
}

// Largest first; equal ones in order of table and slice, so that everybody comes to the same map.
static int by_size(const void *left, const void *right)
{
    const pm_slice *a = *(pm_slice *const *)left, *b = *(pm_slice *const *)right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return a < b ? -1 : a > b;
}

static void assign(pm_placement *p, pm_slice **order, uint64_t *load)
{
    for (uint32_t i = 0; i < p->size; i++)
        order[i] = &p->slices[i];
    qsort(order, p->size, sizeof *order, by_size);
    for (uint32_t i = 0; i < p->size; i++) {
        uint32_t least = 0;
        for (uint32_t s = 1; s < p->shards; s++)
            if (load[s] < load[least])
                least = s;
        order[i]->shard = least;
        load[least] += order[i]->count;
    }
}

pm_status pm_placement_create(pm_placement **placement, const uint64_t *counts, const uint32_t *widths,
                              uint32_t tables, uint32_t shards)
{
    if (tables == 0 || shards == 0)
        return pm_fail(PM_INVALID, "a placement of %u tables on %u shards", tables, shards);
    uint32_t size = 0;
    pm_status status = count_slices(counts, widths, tables, &size);
    if (status.code != PM_OK)
        return status;
    pm_placement *p = calloc(1, sizeof *p);
    pm_slice **order = calloc(size, sizeof *order);
    uint64_t *load = calloc(shards, sizeof *load);
    if (p) {
        *p = (pm_placement){tables, shards, size, calloc((size_t)tables + 1, sizeof *p->first),
                            calloc(size, sizeof *p->slices)};
    }
    if (p && p->first && p->slices && order && load) {
        cut(p, counts, widths);
        assign(p, order, load);
        *placement = p;
    } else {
        pm_placement_destroy(&p);
        status = pm_fail(PM_NO_MEMORY, "a placement of %u slices", size);
    }
    free(order);
    free(load);
    return status;
}

void pm_placement_destroy(pm_placement **placement)
{
    if (!placement || !*placement)
        return;
    free((*placement)->first);
    free((*placement)->slices);
    free(*placement);
    *placement = NULL;
}

uint32_t pm_placement_tables(const pm_placement *placement)
{
    return placement->tables;
}

uint32_t pm_placement_shards(const pm_placement *placement)
{
    return placement->shards;
}

uint32_t pm_placement_size(const pm_placement *placement)
{
    return placement->size;
}

const pm_slice *pm_placement_slice(const pm_placement *placement, uint32_t index)
{
    return &placement->slices[index];
}

uint32_t pm_placement_first(const pm_placement *placement, uint32_t table)
{
    return placement->first[table];
}

uint32_t pm_placement_count(const pm_placement *placement, uint32_t table)
{
    return placement->first[table + 1] - placement->first[table];
}

int64_t pm_placement_find(const pm_placement *placement, uint32_t table, uint32_t slice)
{
    if (table >= placement->tables || slice >= pm_placement_count(placement, table))
        return -1;
    return (int64_t)placement->first[table] + slice;
}
