#include "net/pool.h"

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

Test(pool, a_table_has_a_buffer_as_a_slice_has_and_what_no_machine_holds_is_refused)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    cr_assert_null(pm_pool_take(pool, (size_t)1 << 50));
    pm_buffer *table = pm_pool_take(pool, (5 << 20) + 4);
    cr_assert_eq(table->size, (5 << 20) + 4);
    ((char *)table->data)[table->size - 1] = 1;
    pm_buffer_unref(&table);
    pm_pool_destroy(&pool);
}

Test(pool, a_part_keeps_its_buffer_from_being_used_again)
{
    pm_pool *pool = NULL;
    ok(pm_pool_create(&pool, NULL));
    pm_buffer *whole = pm_pool_copy(pool, "0123456789", 10), *part = pm_buffer_part(whole, 4, 3);
    const void *memory = whole->data;
    cr_assert(pm_buffer_is_shared(whole));
    cr_assert_not(pm_buffer_is_shared(part));
    pm_buffer_unref(&whole);
    pm_buffer *other = pm_pool_take(pool, 10);
    cr_assert_neq(other->data, memory);
    cr_assert_eq(part->size, 3);
    cr_assert_eq(memcmp(part->data, "456", 3), 0);
    pm_buffer_unref(&part);
    whole = pm_pool_take(pool, 10);
    cr_assert_eq(whole->data, memory);
    pm_buffer_unref(&whole);
    pm_buffer_unref(&other);
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
