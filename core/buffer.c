#include "core/buffer.h"

#include "core/arena.h"

#include <stdlib.h>
#include <string.h>

typedef struct wrapped {
    pm_buffer buffer;
    void (*free_data)(void *data, void *hint);
    void *hint;
} wrapped;

static void release_inline(pm_buffer *buffer)
{
    free(buffer);
}

static void release_wrapped(pm_buffer *buffer)
{
    wrapped *w = (wrapped *)buffer;
    if (w->free_data)
        w->free_data(buffer->data, w->hint);
    free(w);
}

pm_buffer *pm_buffer_create(size_t size)
{
    size_t header = pm_align(sizeof(pm_buffer)), total = pm_align(header + size);
    void *memory = NULL;
    if (total < size || posix_memalign(&memory, PM_ALIGN, total))
        return NULL;
    pm_buffer *buffer = memory;
    buffer->data = (unsigned char *)memory + header;
    buffer->size = size;
    atomic_init(&buffer->references, 1);
    buffer->release = release_inline;
    buffer->is_lent = NULL;
    buffer->whole = NULL;
    return buffer;
}

pm_buffer *pm_buffer_copy(const void *data, size_t size)
{
    pm_buffer *buffer = pm_buffer_create(size);
    if (buffer && size > 0)
        memcpy(buffer->data, data, size);
    return buffer;
}

pm_buffer *pm_buffer_wrap(void *data, size_t size, void (*free_data)(void *data, void *hint), void *hint)
{
    wrapped *w = malloc(sizeof *w);
    if (!w)
        return NULL;
    w->buffer.data = data;
    w->buffer.size = size;
    atomic_init(&w->buffer.references, 1);
    w->buffer.release = release_wrapped;
    w->buffer.is_lent = NULL;
    w->buffer.whole = NULL;
    w->free_data = free_data;
    w->hint = hint;
    return &w->buffer;
}

static void release_part(pm_buffer *buffer)
{
    pm_buffer_unref(&buffer->whole);
    free(buffer);
}

static bool whole_is_lent(const pm_buffer *buffer)
{
    return buffer->whole->is_lent(buffer->whole);
}

pm_buffer *pm_buffer_part(pm_buffer *whole, size_t offset, size_t size)
{
    pm_buffer *part = malloc(sizeof *part);
    if (!part)
        return NULL;
    part->data = (unsigned char *)whole->data + offset;
    part->size = size;
    atomic_init(&part->references, 1);
    part->release = release_part;
    part->is_lent = whole->is_lent ? whole_is_lent : NULL;
    part->whole = pm_buffer_ref(whole);
    return part;
}

pm_buffer *pm_buffer_ref(pm_buffer *buffer)
{
    atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
    return buffer;
}

void pm_buffer_unref(pm_buffer **buffer)
{
    if (!buffer || !*buffer)
        return;
    if (atomic_fetch_sub_explicit(&(*buffer)->references, 1, memory_order_acq_rel) == 1)
        (*buffer)->release(*buffer);
    *buffer = NULL;
}
