#include "net/shm.h"

#include "net/pool.h"
#include "tests/unit/cluster_kit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 100000 };

typedef struct pair {
    pm_shm *lender, *borrower;
    pm_shm_name lender_name, borrower_name;
    pm_pool *pool; // in the lender's arena
    pm_buffer *buffer;
} pair;

// Two arenas of one process stand for those of two.
static pair make(void)
{
    pair p = {0};
    ok(pm_shm_create(&p.lender));
    ok(pm_shm_create(&p.borrower));
    p.lender_name = pm_shm_name_of(p.lender);
    p.borrower_name = pm_shm_name_of(p.borrower);
    cr_assert(pm_shm_meet(p.lender, &p.borrower_name));
    cr_assert(pm_shm_meet(p.borrower, &p.lender_name));
    ok(pm_pool_create(&p.pool, p.lender));
    p.buffer = pm_pool_take(p.pool, SIZE);
    memset(p.buffer->data, 7, SIZE);
    return p;
}

static void unmake(pair *p)
{
    pm_buffer_unref(&p->buffer);
    pm_pool_destroy(&p->pool);
    pm_shm_destroy(&p->borrower);
    pm_shm_destroy(&p->lender);
}

Test(shm, what_is_lent_is_read_where_it_lies)
{
    pair p = make();
    pm_shm_loan loan;
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &loan));
    pm_buffer *seen = pm_shm_borrow(p.borrower, p.lender_name.nonce, &loan);
    cr_assert_eq(seen->size, SIZE);
    cr_assert_eq((uintptr_t)seen->data % 64, 0);
    ((unsigned char *)p.buffer->data)[SIZE - 1] = 9; // a rule broken to see that there is one memory
    cr_assert_eq(((unsigned char *)seen->data)[0], 7);
    cr_assert_eq(((unsigned char *)seen->data)[SIZE - 1], 9);
    pm_buffer_unref(&seen);
    unmake(&p);
}

Test(shm, what_is_lent_counts_as_shared_until_the_last_borrower_gives_it_back)
{
    pair p = make();
    pm_shm_loan loan;
    cr_assert_not(pm_buffer_is_shared(p.buffer));
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &loan));
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &loan));
    pm_buffer *a = pm_shm_borrow(p.borrower, p.lender_name.nonce, &loan);
    pm_buffer *b = pm_shm_borrow(p.borrower, p.lender_name.nonce, &loan);
    cr_assert(pm_buffer_is_shared(a), "what is borrowed is never written");
    pm_buffer_unref(&a);
    cr_assert(pm_buffer_is_shared(p.buffer));
    pm_buffer_unref(&b);
    cr_assert_not(pm_buffer_is_shared(p.buffer));
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &loan));
    pm_shm_unlend(p.lender, p.borrower_name.nonce, &loan);
    cr_assert_not(pm_buffer_is_shared(p.buffer));
    unmake(&p);
}

Test(shm, a_part_is_lent_as_its_block_is)
{
    pair p = make();
    pm_shm_loan loan;
    enum { FIRST = 4096, PART = 1000 };
    pm_buffer *part = pm_buffer_part(p.buffer, FIRST, PART);
    ((unsigned char *)p.buffer->data)[FIRST] = 1;
    ((unsigned char *)p.buffer->data)[FIRST + PART - 1] = 2;
    cr_assert_not(pm_buffer_is_shared(part));
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, part, &loan));
    pm_buffer *seen = pm_shm_borrow(p.borrower, p.lender_name.nonce, &loan);
    cr_assert_eq(seen->size, PART);
    cr_assert_eq(((unsigned char *)seen->data)[0], 1);
    cr_assert_eq(((unsigned char *)seen->data)[PART - 1], 2);
    cr_assert(pm_buffer_is_shared(part));
    pm_buffer_unref(&part);
    cr_assert(pm_buffer_is_shared(p.buffer));
    pm_buffer_unref(&seen);
    cr_assert_not(pm_buffer_is_shared(p.buffer));
    unmake(&p);
}

Test(shm, a_pool_does_not_use_again_what_is_lent)
{
    pair p = make();
    pm_shm_loan loan;
    const void *place = p.buffer->data;
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &loan));
    pm_buffer *seen = pm_shm_borrow(p.borrower, p.lender_name.nonce, &loan);
    pm_buffer_unref(&p.buffer);
    p.buffer = pm_pool_take(p.pool, SIZE);
    cr_assert_neq(p.buffer->data, place);
    pm_buffer_unref(&seen);
    pm_buffer *again = pm_pool_take(p.pool, SIZE);
    cr_assert_eq(again->data, place);
    pm_buffer_unref(&again);
    unmake(&p);
}

Test(shm, only_blocks_of_the_arena_are_lent_and_only_to_processes_that_were_met)
{
    pair p = make();
    pm_shm_loan loan;
    pm_buffer *private = pm_buffer_create(SIZE), *small = pm_pool_take(p.pool, PM_POOL_SHARED_MIN / 2);
    cr_assert_not(pm_shm_lend(p.lender, p.borrower_name.nonce, private, &loan));
    cr_assert_not(pm_shm_lend(p.lender, p.borrower_name.nonce, small, &loan));
    cr_assert_not(pm_shm_lend(p.lender, p.borrower_name.nonce + 1, p.buffer, &loan));
    cr_assert_not(pm_shm_lend(p.lender, 0, p.buffer, &loan));
    pm_buffer_unref(&private);
    pm_buffer_unref(&small);
    unmake(&p);
}

Test(shm, a_name_that_is_not_an_arenas_is_not_met, .timeout = 30)
{
    pair p = make();
    pm_shm *third = NULL;
    ok(pm_shm_create(&third));
    pm_shm_name good = pm_shm_name_of(third), bad = good;
    bad.nonce++;
    cr_assert_not(pm_shm_meet(p.lender, &bad), "another nonce");
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    bad = good;
    bad.file = (uint32_t)ends[0];
    cr_assert_not(pm_shm_meet(p.lender, &bad), "a pipe, whose opening would wait for a writer");
    bad.file = UINT32_MAX;
    cr_assert_not(pm_shm_meet(p.lender, &bad), "no file");
    bad = good;
    bad.pid = UINT32_MAX;
    cr_assert_not(pm_shm_meet(p.lender, &bad), "no process");
    cr_assert(pm_shm_meet(p.lender, &good));
    close(ends[0]);
    close(ends[1]);
    unmake(&p);
    pm_shm_destroy(&third);
}

Test(shm, a_loan_outside_the_arena_is_refused)
{
    pair p = make();
    pm_shm_loan good;
    cr_assert(pm_shm_lend(p.lender, p.borrower_name.nonce, p.buffer, &good));
    const uint64_t block = good.block, far = UINT64_MAX - 63;
    const pm_shm_loan bad[] = {{good.column, block, 0, 8},
                               {good.column, 0, block, 8},
                               {good.column, block, block, UINT64_MAX},
                               {good.column, block, far, 64},
                               {good.column, far, far, 64},
                               {good.column, block + 64, block, 8},
                               {good.column, block, block + 1, 8},
                               {good.column, block + 1, block + 64, 8},
                               {1 << 20, block, block, 8}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_null(pm_shm_borrow(p.borrower, p.lender_name.nonce, &bad[i]), "%zu", i);
    cr_assert_null(pm_shm_borrow(p.borrower, 1, &good));
    pm_shm_unlend(p.lender, p.borrower_name.nonce, &good);
    unmake(&p);
}

// A child with an arena of its own; *name is where others find it. It lends its first block, which is full of
// 5, to the process that lends_to names, and then waits to be killed.
static pid_t start_child(const pm_shm_name *lends_to, pm_shm_name *name, pm_shm_loan *loan)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        pm_shm *own = NULL;
        pm_pool *pool = NULL;
        ok(pm_shm_create(&own));
        ok(pm_pool_create(&pool, own));
        pm_buffer *buffer = pm_pool_take(pool, SIZE);
        memset(buffer->data, 5, SIZE);
        *name = pm_shm_name_of(own);
        const bool lent = pm_shm_meet(own, lends_to) && pm_shm_lend(own, lends_to->nonce, buffer, loan) &&
                          write(ends[1], name, sizeof *name) == sizeof *name &&
                          write(ends[1], loan, sizeof *loan) > 0;
        while (lent)
            pause();
        _exit(1);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(read(ends[0], name, sizeof *name), (ssize_t)sizeof *name);
    cr_assert_eq(read(ends[0], loan, sizeof *loan), (ssize_t)sizeof *loan);
    close(ends[0]);
    close(ends[1]);
    return child;
}

static void end_child(pid_t child)
{
    kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, NULL, 0), child);
}

Test(shm, loans_to_a_killed_process_end_and_what_it_lent_stays_readable, .timeout = 60)
{
    pair p = make();
    pm_shm_name name, next_name;
    pm_shm_loan taken, given;
    const pid_t child = start_child(&p.lender_name, &name, &taken);
    cr_assert(pm_shm_meet(p.lender, &name));
    pm_buffer *seen = pm_shm_borrow(p.lender, name.nonce, &taken);
    cr_assert(pm_shm_lend(p.lender, name.nonce, p.buffer, &given));
    end_child(child);
    cr_assert(pm_buffer_is_shared(p.buffer));
    const pid_t next = start_child(&p.lender_name, &next_name, &taken);
    cr_assert(pm_shm_meet(p.lender, &next_name));
    cr_assert_not(pm_buffer_is_shared(p.buffer), "the killed process borrows nothing");
    cr_assert_eq(((unsigned char *)seen->data)[SIZE - 1], 5);
    cr_assert_not(pm_shm_lend(p.lender, name.nonce, p.buffer, &given));
    pm_buffer_unref(&seen);
    cr_assert_not(pm_shm_meet(p.lender, &name));
    end_child(next);
    unmake(&p);
}
