#include "net/pool.h"

#include "core/arena.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_MIN = 8, CLASSES = 32 }; // from 256 B on, powers of two: what is not written takes no memory

typedef struct pooled {
    pm_buffer buffer;
    pm_pool *pool;
    struct pooled *next; // while it waits
    int class;
} pooled;

struct pm_pool {
    pm_shm *shm; // NULL: none
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

pm_status pm_pool_create(pm_pool **pool, pm_shm *shm)
{
    pm_pool *p = calloc(1, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a pool of buffers");
    p->shm = shm;
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

static bool is_lent(const pm_buffer *buffer)
{
    return pm_shm_is_lent(buffer->data);
}

// NULL where there is no shared memory, or none left.
static pooled *fresh_shared(pm_pool *pool, size_t size)
{
    void *data = pool->shm && size >= PM_POOL_SHARED_MIN ? pm_shm_block(pool->shm, size) : NULL;
    pooled *p = data ? malloc(sizeof *p) : NULL;
    if (p) {
        p->buffer.data = data;
        p->buffer.is_lent = is_lent;
    }
    return p;
}

static pooled *fresh_private(size_t size)
{
    size_t header = pm_align(sizeof(pooled));
    void *memory = NULL;
    if (posix_memalign(&memory, PM_ALIGN, header + size))
        return NULL;
    pooled *p = memory;
    p->buffer.data = (unsigned char *)memory + header;
    p->buffer.is_lent = NULL;
    return p;
}

static pooled *fresh(pm_pool *pool, int class)
{
    const size_t size = (size_t)1 << (class + CLASS_MIN);
    pooled *p = fresh_shared(pool, size);
    if (!p)
        p = fresh_private(size);
    if (!p)
        return NULL;
    p->buffer.release = give_back;
    p->buffer.whole = NULL;
    p->pool = pool;
    p->class = class;
    return p;
}

// One that waits and that nobody borrows any more.
static pooled *take_waiting(pm_pool *pool, int class)
{
    pooled **at = &pool->waiting[class];
    while (*at && (*at)->buffer.is_lent && (*at)->buffer.is_lent(&(*at)->buffer))
        at = &(*at)->next;
    pooled *p = *at;
    if (p)
        *at = p->next;
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
    pooled *p = take_waiting(pool, class);
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
