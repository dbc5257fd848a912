#include "core/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

struct pm_arena {
    unsigned char *base;
    size_t size;
    size_t used;
};

pm_status pm_arena_create(pm_arena **arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return pm_fail(PM_NO_MEMORY, "an arena of %zu bytes", bytes);
    size_t grain = bytes >= HUGE_PAGE ? HUGE_PAGE : PM_ALIGN;
    size_t size = (bytes + grain - 1) / grain * grain;
    pm_arena *a = calloc(1, sizeof *a);
    void *base = NULL;
    if (!a || (size > 0 && posix_memalign(&base, grain, size))) {
        free(a);
        return pm_fail(PM_NO_MEMORY, "an arena of %zu bytes", bytes);
    }
    if (size >= HUGE_PAGE)
        (void)madvise(base, size, MADV_HUGEPAGE);
    if (size > 0)
        memset(base, 0, size);
    a->base = base;
    a->size = size;
    *arena = a;
    return pm_ok();
}

void pm_arena_destroy(pm_arena **arena)
{
    if (!arena || !*arena)
        return;
    free((*arena)->base);
    free(*arena);
    *arena = NULL;
}

void *pm_arena_alloc(pm_arena *arena, size_t bytes)
{
    size_t need = pm_align(bytes);
    if (need < bytes || need > arena->size - arena->used)
        return NULL;
    void *memory = arena->base + arena->used;
    arena->used += need;
    return memory;
}

void pm_arena_reset(pm_arena *arena)
{
    arena->used = 0;
}

size_t pm_arena_used(const pm_arena *arena)
{
    return arena->used;
}

size_t pm_arena_size(const pm_arena *arena)
{
    return arena->size;
}
