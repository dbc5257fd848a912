#include "model/region.h"

#include "core/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 32 << 10, SMALL_ALIGN = 16 };

typedef struct chunk {
    struct chunk *next;
    size_t size, used; // bytes of the whole chunk, this header included
} chunk;

struct pm_region {
    chunk *chunks; // the newest with room first
    size_t used;
};

pm_region *pm_region_create(void)
{
    return calloc(1, sizeof(pm_region));
}

void pm_region_destroy(pm_region **region)
{
    if (!region || !*region)
        return;
    for (chunk *c = (*region)->chunks; c;) {
        chunk *next = c->next;
        free(c);
        c = next;
    }
    free(*region);
    *region = NULL;
}

// A chunk of its own for what is large goes behind the first, which keeps its room.
static chunk *add_chunk(pm_region *region, size_t bytes)
{
    size_t size = pm_align(sizeof(chunk)) + bytes;
    size_t whole = size < CHUNK ? CHUNK : pm_align(size);
    chunk *c = aligned_alloc(PM_ALIGN, whole);
    if (!c)
        return NULL;
    memset(c, 0, whole);
    c->size = whole;
    c->used = sizeof(chunk);
    if (size >= CHUNK && region->chunks) {
        c->next = region->chunks->next;
        region->chunks->next = c;
    } else {
        c->next = region->chunks;
        region->chunks = c;
    }
    return c;
}

void *pm_region_alloc(pm_region *region, size_t bytes)
{
    size_t align = bytes >= PM_ALIGN ? PM_ALIGN : SMALL_ALIGN;
    if (bytes > SIZE_MAX / 4)
        return NULL;
    chunk *c = region->chunks;
    size_t at = c ? (c->used + align - 1) & ~(align - 1) : 0;
    if (!c || at + bytes > c->size) {
        c = add_chunk(region, bytes);
        if (!c)
            return NULL;
        at = (c->used + align - 1) & ~(align - 1);
    }
    c->used = at + bytes;
    region->used += bytes;
    return (unsigned char *)c + at;
}

void *pm_region_copy(pm_region *region, const void *bytes, size_t size)
{
    void *copy = pm_region_alloc(region, size);
    if (copy && size > 0)
        memcpy(copy, bytes, size);
    return copy;
}

char *pm_region_text(pm_region *region, const char *text)
{
    return pm_region_copy(region, text, strlen(text) + 1);
}

size_t pm_region_used(const pm_region *region)
{
    return region->used;
}
