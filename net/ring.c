#include "net/ring.h"

#include <string.h>

// In front of a message's bytes, padded to whole ones: the size of all, the number of parts, the size of
// each.
enum { WORD = sizeof(uint32_t), STEP = 8 };

static size_t padded(size_t size)
{
    return (size + STEP - 1) / STEP * STEP;
}

static void copy_in(pm_ring *ring, uint64_t at, const void *data, size_t size)
{
    const size_t place = at % PM_RING_BYTES, rest = PM_RING_BYTES - place, first = size < rest ? size : rest;
    if (first > 0)
        memcpy(ring->bytes + place, data, first);
    if (size > first)
        memcpy(ring->bytes, (const unsigned char *)data + first, size - first);
}

static void copy_out(const pm_ring *ring, uint64_t at, void *data, size_t size)
{
    const size_t place = at % PM_RING_BYTES, rest = PM_RING_BYTES - place, first = size < rest ? size : rest;
    memcpy(data, ring->bytes + place, first);
    if (size > first)
        memcpy((unsigned char *)data + first, ring->bytes, size - first);
}

bool pm_ring_put(pm_ring_end *end, const pm_ring_part *parts, uint32_t count, bool *asleep, uint64_t *unread)
{
    uint32_t head[2 + PM_RING_PARTS_MAX];
    const size_t head_size = (2 + count) * WORD;
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (parts[i].size > PM_RING_MESSAGE_MAX)
            return false;
        head[2 + i] = (uint32_t)parts[i].size;
        size += parts[i].size;
    }
    *asleep = false;
    *unread = end->at - atomic_load_explicit(&end->ring->read, memory_order_acquire);
    if (size > PM_RING_MESSAGE_MAX || *unread > PM_RING_BYTES ||
        padded(head_size + size) > PM_RING_BYTES - *unread)
        return false;
    head[0] = (uint32_t)(head_size + size);
    head[1] = count;
    copy_in(end->ring, end->at, head, head_size);
    uint64_t at = end->at + head_size;
    for (uint32_t i = 0; i < count; at += parts[i++].size)
        copy_in(end->ring, at, parts[i].data, parts[i].size);
    end->at += padded(head[0]);
    // Both sides write first and look then (the reader at this, the writer at whether the other sleeps), in
    // the one order that all sequentially consistent operations have: one of them sees the other.
    atomic_store(&end->ring->written, end->at);
    *asleep = atomic_exchange(&end->ring->asleep, 0) != 0;
    return true;
}

pm_ring_found pm_ring_take(pm_ring_end *end, pm_ring_message *message)
{
    const uint64_t there = atomic_load_explicit(&end->ring->written, memory_order_acquire) - end->at;
    uint32_t head[2 + PM_RING_PARTS_MAX];
    if (there == 0)
        return PM_RING_EMPTY;
    if (there > PM_RING_BYTES || there < 2 * WORD)
        return PM_RING_BROKEN;
    copy_out(end->ring, end->at, head, 2 * WORD);
    const size_t total = head[0], count = head[1], head_size = (2 + count) * WORD;
    if (count == 0 || count > PM_RING_PARTS_MAX || total < head_size || padded(total) > there ||
        total - head_size > PM_RING_MESSAGE_MAX)
        return PM_RING_BROKEN;
    copy_out(end->ring, end->at + 2 * WORD, head + 2, count * WORD);
    copy_out(end->ring, end->at + head_size, message->bytes, total - head_size);
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        message->parts[i] = (pm_ring_part){message->bytes + used, head[2 + i]};
        if (head[2 + i] > total - head_size - used)
            return PM_RING_BROKEN;
        used += head[2 + i];
    }
    message->count = (uint32_t)count;
    end->at += padded(total);
    atomic_store_explicit(&end->ring->read, end->at, memory_order_release);
    return PM_RING_MESSAGE;
}

bool pm_ring_has(const pm_ring_end *end)
{
    return atomic_load(&end->ring->written) != end->at;
}

void pm_ring_doze(pm_ring_end *end, bool asleep)
{
    atomic_store(&end->ring->asleep, asleep);
}
