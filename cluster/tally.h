#pragma once
// Adds what workers report about their blocks, clock by clock, along the tree of lanes: the sums have the
// same bits however many workers there are, and a report that comes twice counts once.
#include "cluster/lanes.h"
#include "core/status.h"

typedef struct pm_tally pm_tally;

typedef struct pm_score {
    double loss_sum; // over rows
    uint64_t correct, rows;
    const uint64_t *counters; // counter_count, added as they are; whose, the functions say
    size_t counter_count;
} pm_score;

// window: how many clocks are open at a time; a report of an older one than the newest window is ignored.
pm_status pm_tally_create(pm_tally **tally, uint32_t lanes, uint32_t window) PM_CHECKED;
void pm_tally_destroy(pm_tally **tally);
void pm_tally_reset(pm_tally *tally);

// True when this report was the last one missing of its clock; *total gets the whole, its counters the
// tally's until the next call. block is valid; the score's counters are copied. Counters of different numbers
// add up to none.
bool pm_tally_add(pm_tally *tally, uint64_t clock, pm_block block, pm_score score, pm_score *total);
