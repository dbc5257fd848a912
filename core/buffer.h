#pragma once
// A counted reference to immutable-once-shared bytes: what travels in frames, what a shard keeps of a slice,
// what a checkpoint holds. Whoever holds a reference releases it once; the last release frees. Counting is
// atomic, the bytes are not guarded: write only while you hold the only reference (pm_buffer_is_shared says).
#include "core/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct pm_buffer {
    void *data;  // PM_ALIGN-aligned when made by pm_buffer_create
    size_t size; // bytes
    atomic_int references;
    void (*release)(struct pm_buffer *buffer); // frees data and the buffer itself
    // Whether another process reads data, or owns it; NULL: no other process can.
    bool (*is_lent)(const struct pm_buffer *buffer);
    struct pm_buffer *whole; // that this is a part of; NULL: it is none
} pm_buffer;

// Fresh bytes (not zeroed), one reference; NULL when out of memory.
pm_buffer *pm_buffer_create(size_t size);

// Fresh bytes copied from data; NULL when out of memory.
pm_buffer *pm_buffer_copy(const void *data, size_t size);

// Wraps memory that somebody else owns; release is called at the end (NULL: nothing to free but the wrapper).
pm_buffer *pm_buffer_wrap(void *data, size_t size, void (*free_data)(void *data, void *hint), void *hint);

// size bytes of a buffer from offset on, without copying: holds a reference to the whole (which is no part
// itself). NULL when out of memory.
pm_buffer *pm_buffer_part(pm_buffer *whole, size_t offset, size_t size);

pm_buffer *pm_buffer_ref(pm_buffer *buffer);

// Drops the reference and sets *buffer to NULL; NULL is allowed.
void pm_buffer_unref(pm_buffer **buffer);

static inline bool pm_buffer_is_shared(const pm_buffer *buffer)
{
    return atomic_load_explicit(&buffer->references, memory_order_acquire) > 1 ||
           (buffer->is_lent && buffer->is_lent(buffer));
}
