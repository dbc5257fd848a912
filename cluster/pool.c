#include "cluster/pool.h"

#include "core/arena.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_MIN = 8, CLASSES = 13 }; // 256 B … 1 MiB, powers of two

typedef struct pooled {
    pm_buffer buffer;
    pm_pool *pool;
    struct pooled *next; // while it waits
    int class;
} pooled;

struct pm_pool {
    pthread_mutex_t lock;
    pooled *waiting[CLASSES];
    size_t out;  // buffers that somebody holds
    bool closed; // the owner is gone: what comes back is freed
};

static void pool_free(pm_pool *pool)
{
    for (int c = 0; c < CLASSES; c++)
        for (pooled *p = pool->waiting[c], *next; p; p = next) {
            next = p->next;
            free(p);
        }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static void give_back(pm_buffer *buffer)
{
    pooled *p = (pooled *)buffer;
    pm_pool *pool = p->pool;
    pthread_mutex_lock(&pool->lock);
    p->next = pool->waiting[p->class];
    pool->waiting[p->class] = p;
    bool last = --pool->out == 0 && pool->closed;
    pthread_mutex_unlock(&pool->lock);
    if (last)
        pool_free(pool);
}

pm_status pm_pool_create(pm_pool **pool)
{
    pm_pool *p = calloc(1, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a pool of buffers");
    pthread_mutex_init(&p->lock, NULL);
    *pool = p;
    return pm_ok();
}

void pm_pool_destroy(pm_pool **pool)
{
    if (!pool || !*pool)
        return;
    pthread_mutex_lock(&(*pool)->lock);
    (*pool)->closed = true;
    bool last = (*pool)->out == 0;
    pthread_mutex_unlock(&(*pool)->lock);
    if (last)
        pool_free(*pool);
    *pool = NULL;
}

static pooled *fresh(pm_pool *pool, int class)
{
    size_t header = pm_align(sizeof(pooled));
    void *memory = NULL;
    if (posix_memalign(&memory, PM_ALIGN, header + ((size_t)1 << (class + CLASS_MIN))))
        return NULL;
    pooled *p = memory;
    p->buffer.data = (unsigned char *)memory + header;
    p->buffer.release = give_back;
    p->pool = pool;
    p->class = class;
    return p;
}

pm_buffer *pm_pool_take(pm_pool *pool, size_t size)
{
    int class = 0;
    while (class < CLASSES && size > (size_t)1 << (class + CLASS_MIN))
        class ++;
    if (class == CLASSES)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    pooled *p = pool->waiting[class];
    if (p)
        pool->waiting[class] = p->next;
    pool->out++;
    pthread_mutex_unlock(&pool->lock);
    if (!p)
        p = fresh(pool, class);
    if (!p) {
        pthread_mutex_lock(&pool->lock);
        pool->out--;
        pthread_mutex_unlock(&pool->lock);
        return NULL;
    }
    p->buffer.size = size;
    atomic_init(&p->buffer.references, 1);
    return &p->buffer;
}

pm_buffer *pm_pool_copy(pm_pool *pool, const void *data, size_t size)
{
    pm_buffer *buffer = pm_pool_take(pool, size);
    if (buffer)
        memcpy(buffer->data, data, size);
    return buffer;
}
