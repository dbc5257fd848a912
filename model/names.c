#include "model/names.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const void *name; // NULL: free
    size_t size;
    uint64_t hash;
    uint32_t number;
} entry;

struct pm_names {
    entry *entries; // linear probing; a power of two, at most half full
    size_t capacity, count;
};

pm_names *pm_names_create(void)
{
    return calloc(1, sizeof(pm_names));
}

void pm_names_destroy(pm_names **names)
{
    if (!names || !*names)
        return;
    free((*names)->entries);
    free(*names);
    *names = NULL;
}

// FNV-1a with a final mix (Fowler, Noll, Vo; http://www.isthe.com/chongo/tech/comp/fnv/).
static uint64_t hash_of(const void *name, size_t size)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)name)[i]) * 0x100000001B3u;
    return hash ^ hash >> 32;
}

// The name's entry, or the free one where it belongs.
static entry *place_of(const pm_names *names, const void *name, size_t size, uint64_t hash)
{
    size_t at = hash & (names->capacity - 1);
    for (;; at = (at + 1) & (names->capacity - 1)) {
        entry *e = &names->entries[at];
        if (!e->name || (e->hash == hash && e->size == size && memcmp(e->name, name, size) == 0))
            return e;
    }
}

uint32_t pm_names_find(const pm_names *names, const void *name, size_t size)
{
    if (names->capacity == 0 || size == 0)
        return PM_NO_NAME;
    const entry *e = place_of(names, name, size, hash_of(name, size));
    return e->name ? e->number : PM_NO_NAME;
}

static pm_status grow(pm_names *names)
{
    const size_t old = names->capacity;
    pm_names wider = {.capacity = old ? 2 * old : 64, .count = names->count};
    wider.entries = calloc(wider.capacity, sizeof *wider.entries);
    if (!wider.entries)
        return pm_fail(PM_NO_MEMORY, "%zu names", wider.capacity);
    for (size_t i = 0; i < old; i++) {
        const entry *e = &names->entries[i];
        if (e->name)
            *place_of(&wider, e->name, e->size, e->hash) = *e;
    }
    free(names->entries);
    *names = wider;
    return pm_ok();
}

pm_status pm_names_add(pm_names *names, const void *name, size_t size, uint32_t number)
{
    pm_status status = 2 * (names->count + 1) > names->capacity ? grow(names) : pm_ok();
    if (status.code != PM_OK)
        return status;
    const uint64_t hash = hash_of(name, size);
    *place_of(names, name, size, hash) = (entry){name, size, hash, number};
    names->count++;
    return status;
}
