#include "cluster/pool.h"

#include "tests/unit/cluster_kit.h"

#include <pthread.h>

Test(pool, a_released_buffer_serves_again)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    pm_buffer *a = pm_pool_take(pool, 1000);
    void *memory = a->data;
    pm_buffer_unref(&a);
    pm_buffer *b = pm_pool_take(pool, 900);
    cr_assert_eq(b->data, memory);
    cr_assert_eq(b->size, 900);
    pm_buffer_unref(&b);
    pm_pool_destroy(&pool);
}

Test(pool, buffers_outlive_the_pool)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    pm_buffer *a = pm_pool_copy(pool, "bytes", 6), *b = pm_buffer_ref(a);
    pm_pool_destroy(&pool);
    pm_buffer_unref(&a);
    cr_assert_str_eq(b->data, "bytes");
    pm_buffer_unref(&b);
}

Test(pool, more_than_a_slice_is_refused)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    cr_assert_null(pm_pool_take(pool, (1 << 20) + 1));
    pm_buffer *most = pm_pool_take(pool, 1 << 20);
    cr_assert_not_null(most);
    pm_buffer_unref(&most);
    pm_pool_destroy(&pool);
}

static void *take_and_release(void *argument)
{
    pm_pool *pool = argument;
    for (int i = 0; i < 2000; i++) {
        pm_buffer *b = pm_pool_take(pool, 64);
        memset(b->data, i, 64);
        pm_buffer_unref(&b);
    }
    return NULL;
}

Test(pool, threads_share_it, .timeout = 30)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_release, pool), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    pm_pool_destroy(&pool);
}
