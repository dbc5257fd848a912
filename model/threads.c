#include "model/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// How often a thread looks before it lends its core to others between looks, and before it sleeps: some ten
// and some hundred microseconds.
enum { SPINS_UNTIL_YIELD = 1000, SPINS_UNTIL_SLEEP = 1200 };

typedef struct helper {
    pm_threads *threads;
    uint32_t index;
    pthread_t id;
} helper;

struct pm_threads {
    uint32_t count;
    helper *helpers; // (count - 1): parts 1 and up
    uint32_t started;
    void (*part)(void *ctx, uint32_t index);
    void *ctx;
    atomic_uint round;  // changes when there is work, or the end
    atomic_uint left;   // parts of the round that are not done, the caller's apart
    atomic_uint asleep; // helpers that wait for wake
    atomic_bool ends;
    pthread_mutex_t lock; // of asleep's change and wake
    pthread_cond_t wake;
};

static void pause_briefly(uint32_t spins)
{
    if (spins > SPINS_UNTIL_YIELD)
        sched_yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

// Until the round is another than seen.
static unsigned await_round(pm_threads *t, unsigned seen)
{
    for (uint32_t spins = 0; spins < SPINS_UNTIL_SLEEP; spins++) {
        const unsigned round = atomic_load_explicit(&t->round, memory_order_acquire);
        if (round != seen)
            return round;
        pause_briefly(spins);
    }
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->asleep, 1);
    unsigned round;
    while ((round = atomic_load(&t->round)) == seen)
        pthread_cond_wait(&t->wake, &t->lock);
    atomic_fetch_sub(&t->asleep, 1);
    pthread_mutex_unlock(&t->lock);
    return round;
}

static void *help(void *ctx)
{
    const helper *h = ctx;
    pm_threads *t = h->threads;
    for (unsigned round = await_round(t, 0); !atomic_load(&t->ends); round = await_round(t, round)) {
        t->part(t->ctx, h->index);
        atomic_fetch_sub_explicit(&t->left, 1, memory_order_release);
    }
    return NULL;
}

// A helper that went to sleep has counted itself before it looked at the round for the last time, so that one
// of the two sees the other.
static void begin_round(pm_threads *t)
{
    atomic_fetch_add(&t->round, 1);
    if (atomic_load(&t->asleep) == 0)
        return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

pm_status pm_threads_create(pm_threads **threads, uint32_t count)
{
    if (count == 0 || count > PM_THREADS_MAX)
        return pm_fail(PM_INVALID, "%u threads; 1 to %d are possible", count, PM_THREADS_MAX);
    pm_threads *t = calloc(1, sizeof *t);
    helper *helpers = calloc(count, sizeof *helpers);
    if (!t || !helpers) {
        free(t);
        free(helpers);
        return pm_fail(PM_NO_MEMORY, "%u threads", count);
    }
    t->count = count;
    t->helpers = helpers;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    for (uint32_t i = 0; i + 1 < count; i++) {
        helpers[i] = (helper){.threads = t, .index = i + 1};
        const int failed = pthread_create(&helpers[i].id, NULL, help, &helpers[i]);
        if (failed) {
            pm_threads_destroy(&t);
            return pm_fail(PM_NO_MEMORY, "thread %u of %u: %s", i + 1, count, strerror(failed));
        }
        t->started++;
    }
    *threads = t;
    return pm_ok();
}

uint32_t pm_threads_count(const pm_threads *threads)
{
    return threads ? threads->count : 1;
}

void pm_threads_run(pm_threads *threads, void (*part)(void *ctx, uint32_t index), void *ctx)
{
    if (pm_threads_count(threads) == 1) {
        part(ctx, 0);
        return;
    }
    threads->part = part;
    threads->ctx = ctx;
    atomic_store_explicit(&threads->left, threads->count - 1, memory_order_relaxed);
    begin_round(threads);
    part(ctx, 0);
    for (uint32_t spins = 0; atomic_load_explicit(&threads->left, memory_order_acquire) > 0; spins++)
        pause_briefly(spins);
}

void pm_threads_destroy(pm_threads **threads)
{
    if (!threads || !*threads)
        return;
    pm_threads *t = *threads;
    atomic_store(&t->ends, true);
    begin_round(t);
    for (uint32_t i = 0; i < t->started; i++)
        pthread_join(t->helpers[i].id, NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t->helpers);
    free(t);
    *threads = NULL;
}
