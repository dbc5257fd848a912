#pragma once
// A pool of pm_buffers for slices and tables, so that the step path does not ask the operating system for
// fresh pages. A buffer that is released, by whatever thread, waits in the pool for its next use.
#include "net/shm.h"

typedef struct pm_pool pm_pool;

enum { PM_POOL_SHARED_MIN = 16 << 10 }; // below, copying is cheaper than lending

// Buffers of PM_POOL_SHARED_MIN bytes and more lie in shm as long as it has room, so that they can be lent;
// NULL: none does. shm outlives the buffers.
pm_status pm_pool_create(pm_pool **pool, pm_shm *shm) PM_CHECKED;

// Buffers that are still out stay valid; the memory goes when the last of them is released.
void pm_pool_destroy(pm_pool **pool);

// A buffer of size bytes, not zeroed, one reference; NULL when out of memory.
pm_buffer *pm_pool_take(pm_pool *pool, size_t size);

// The same, copied from data.
pm_buffer *pm_pool_copy(pm_pool *pool, const void *data, size_t size);
