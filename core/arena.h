#pragma once
// A bump allocator over one reservation: memory with the lifetime of a plan, a step or a request. Big
// reservations ask for 2 MiB pages and are touched once at creation, because a first touch costs fifty times
// a later one.
#include "core/status.h"

#include <stddef.h>

typedef struct pm_arena pm_arena;

enum { PM_ALIGN = 64 };

// Reserves bytes (rounded up); zero-filled. The caller owns *arena.
pm_status pm_arena_create(pm_arena **arena, size_t bytes) PM_CHECKED;

// Frees everything and sets *arena to NULL; NULL is allowed.
void pm_arena_destroy(pm_arena **arena);

// PM_ALIGN-aligned memory from the reservation, owned by the arena; NULL when it is used up. Not zeroed again
// after a reset.
void *pm_arena_alloc(pm_arena *arena, size_t bytes);

// Forgets all allocations; keeps the pages.
void pm_arena_reset(pm_arena *arena);

size_t pm_arena_used(const pm_arena *arena);
size_t pm_arena_size(const pm_arena *arena);

// The size an allocation takes inside an arena.
static inline size_t pm_align(size_t bytes)
{
    return (bytes + PM_ALIGN - 1) & ~(size_t)(PM_ALIGN - 1);
}
