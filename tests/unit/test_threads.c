#include "model/threads.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <unistd.h>

typedef struct tally {
    uint32_t calls[PM_THREADS_MAX];
    uint32_t rounds;
} tally;

static void count_call(void *ctx, uint32_t index)
{
    tally *t = ctx;
    t->calls[index]++;
}

static void check(uint32_t count, uint32_t rounds, uint32_t sleeps)
{
    pm_threads *threads = NULL;
    tally t = {.rounds = rounds};
    cr_assert_eq(pm_threads_create(&threads, count).code, PM_OK);
    cr_assert_eq(pm_threads_count(threads), count);
    for (uint32_t r = 1; r <= rounds; r++) {
        pm_threads_run(threads, count_call, &t);
        for (uint32_t i = 0; i < count; i++)
            cr_assert_eq(t.calls[i], r, "part %u of round %u", i, r);
        if (sleeps && r % sleeps == 0)
            usleep(2000); // longer than they look for work
    }
    pm_threads_destroy(&threads);
    cr_assert_null(threads);
}

Test(threads, every_part_runs_once_and_is_done_when_the_call_returns)
{
    for (uint32_t count = 1; count <= 5; count++)
        check(count, 2000, 0);
}

Test(threads, those_that_fell_asleep_wake_for_the_next_round)
{
    check(3, 200, 5);
}

Test(threads, none_is_the_callers_alone)
{
    tally t = {0};
    cr_assert_eq(pm_threads_count(NULL), 1);
    pm_threads_run(NULL, count_call, &t);
    cr_assert_eq(t.calls[0], 1);
    cr_assert_eq(t.calls[1], 0);
    pm_threads *threads = NULL;
    pm_threads_destroy(&threads);
}

Test(threads, too_many_or_none_are_refused)
{
    pm_threads *threads = NULL;
    cr_assert_eq(pm_threads_create(&threads, 0).code, PM_INVALID);
    cr_assert_eq(pm_threads_create(&threads, PM_THREADS_MAX + 1).code, PM_INVALID);
    cr_assert_null(threads);
}
