#pragma once
// Lanes and the binary tree over them. L lanes (a power of two) are the leaves of a perfect binary tree; an
// aligned block of lanes is one node. Nodes are numbered as in a heap: the root is 1, the children of n are
// 2n and 2n + 1, the leaf of lane i is L + i. A sum over all lanes always follows this tree, whoever computes
// which part of it, so its bits do not depend on the number of workers.
#include "core/job.h"

#include <stdbool.h>
#include <stdint.h>

// first is a multiple of count, count a power of two.
typedef struct pm_block {
    uint32_t first, count;
} pm_block;

// The most blocks that one worker's share of the lanes is made of: two of each size.
enum { PM_BLOCKS_MAX = 16, PM_NODES_MAX = 2 * PM_MAX_LANES };

// A power of two from 1 to PM_MAX_LANES.
bool pm_lanes_valid(uint32_t lanes);

// An aligned block within the lanes; safe for any numbers from the wire.
bool pm_block_valid(pm_block block, uint32_t lanes);

static inline bool pm_block_contains(pm_block outer, pm_block inner)
{
    return inner.first >= outer.first && inner.first - outer.first < outer.count &&
           inner.count <= outer.count;
}

// The node of a valid block, and back.
uint32_t pm_block_node(pm_block block, uint32_t lanes);
pm_block pm_node_block(uint32_t node, uint32_t lanes);

// The share of worker index (of workers, in rank order): contiguous lanes, as even as possible, cut into the
// fewest aligned blocks, ascending. Returns their number; 0 when there are more workers than lanes and this
// one has none.
uint32_t pm_lanes_share(uint32_t lanes, uint32_t workers, uint32_t index, pm_block blocks[PM_BLOCKS_MAX]);

// Which nodes of a tree have arrived. A node whose value is combined into its parent is no longer marked
// itself.
typedef struct pm_lane_set {
    uint64_t words[PM_NODES_MAX / 64];
} pm_lane_set;

static inline bool pm_lane_set_has(const pm_lane_set *set, uint32_t node)
{
    return set->words[node / 64] >> (node % 64) & 1;
}

static inline void pm_lane_set_put(pm_lane_set *set, uint32_t node)
{
    set->words[node / 64] |= UINT64_C(1) << (node % 64);
}

static inline void pm_lane_set_drop(pm_lane_set *set, uint32_t node)
{
    set->words[node / 64] &= ~(UINT64_C(1) << (node % 64));
}

// True when the node or one above it is marked: its lanes are all in.
bool pm_lane_set_covers(const pm_lane_set *set, uint32_t node);

// The first marked node strictly below the given one, 0 when there is none.
uint32_t pm_lane_set_below(const pm_lane_set *set, uint32_t node, uint32_t lanes);
