#include "cluster/lanes.h"

#include <stddef.h>

bool pm_lanes_valid(uint32_t lanes)
{
    return lanes > 0 && lanes <= PM_MAX_LANES && (lanes & (lanes - 1)) == 0;
}

bool pm_block_valid(pm_block block, uint32_t lanes)
{
    return block.count > 0 && block.count <= lanes && (block.count & (block.count - 1)) == 0 &&
           block.first < lanes && block.first % block.count == 0;
}

uint32_t pm_block_node(pm_block block, uint32_t lanes)
{
    return lanes / block.count + block.first / block.count;
}

pm_block pm_node_block(uint32_t node, uint32_t lanes)
{
    uint32_t level = 1;
    while (level * 2 <= node)
        level *= 2;
    uint32_t count = lanes / level;
    return (pm_block){(node - level) * count, count};
}

uint32_t pm_lanes_share(uint32_t lanes, uint32_t workers, uint32_t index, pm_block blocks[PM_BLOCKS_MAX])
{
    uint32_t first = (uint32_t)((uint64_t)lanes * index / workers);
    uint32_t end = (uint32_t)((uint64_t)lanes * (index + 1) / workers);
    uint32_t made = 0;
    while (first < end) {
        uint32_t count = first ? first & -first : lanes; // the widest block that may begin here
        while (count > end - first)
            count /= 2;
        blocks[made++] = (pm_block){first, count};
        first += count;
    }
    return made;
}

bool pm_lane_set_covers(const pm_lane_set *set, uint32_t node)
{
    for (; node > 0; node /= 2)
        if (pm_lane_set_has(set, node))
            return true;
    return false;
}

uint32_t pm_lane_set_below(const pm_lane_set *set, uint32_t node, uint32_t lanes)
{
    for (uint32_t first = 2 * node, width = 2; first < 2 * lanes; first *= 2, width *= 2)
        for (uint32_t n = first; n < first + width; n++)
            if (pm_lane_set_has(set, n))
                return n;
    return 0;
}
