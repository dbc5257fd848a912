// A shard with one sparse table: six rows of two floats.
#include "ps/shard.h"

#include "ps/merge.h"
#include "tests/unit/cluster_kit.h"

enum { LANES = 4, ROWS = 6, WIDTH = 2, FLOATS = ROWS * WIDTH };

static const float INITIAL[FLOATS] = {0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51};
static const pm_table_spec TABLE = {FLOATS, false, 0, 1, true, false, INITIAL, WIDTH};

static pm_shard *make(const pm_job *job)
{
    pm_shard *shard = NULL;
    const pm_shard_options options = {job, &TABLE, 1, 0, NULL};
    ok(pm_shard_create(&shard, &options));
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 1, LANES);
    ok(pm_shard_direct(shard, d, 0));
    paramill__directive__free_unpacked(d, NULL);
    return shard;
}

static void say(pm_shard *shard, uint8_t peer, pm_message message)
{
    pm_peer from = kit_peer(peer);
    pm_shard_handle(shard, &from, &message, 0);
    pm_message_clear(&message);
}

static pm_message with_ids(pm_message m, const uint32_t *ids, size_t count)
{
    ok(pm_message_add(&m, pm_buffer_copy(ids, count * sizeof *ids)));
    return m;
}

// A push of gradients that are all value; count 0: of no rows.
static void push(pm_shard *shard, uint64_t clock, uint32_t first, uint32_t lanes, const uint32_t *ids,
                 size_t count, float value)
{
    float rows[FLOATS];
    for (size_t i = 0; i < FLOATS; i++)
        rows[i] = value;
    pm_message m = kit_push(100 + clock * 10 + first, 1, 0, 0, clock, first, lanes, NULL, 0);
    if (count > 0) {
        m = with_ids(m, ids, count);
        ok(pm_message_add(&m, pm_buffer_copy(rows, count * WIDTH * sizeof *rows)));
    }
    say(shard, 1, m);
}

// The answer with values, of which there is one; clears the outbox. *refusals: errors.
static size_t take(pm_shard *shard, float *values, uint32_t *light, uint32_t *refusals)
{
    size_t floats = 0;
    pm_outbox *out = pm_shard_outbox(shard);
    *light = *refusals = 0;
    for (size_t i = 0; i < out->count; i++) {
        const pm_message *m = &out->posts[i].message;
        *refusals += m->header->body_case == PARAMILL__HEADER__BODY_ERROR;
        if (m->header->body_case != PARAMILL__HEADER__BODY_PARAMETERS)
            continue;
        *light += m->frame_count == 0;
        if (m->frame_count > 0) {
            floats = m->frames[0]->size / sizeof *values;
            memcpy(values, m->frames[0]->data, m->frames[0]->size);
        }
    }
    pm_outbox_clear(out);
    return floats;
}

// The first float of each of the rows at the clock.
static void check_rows(pm_shard *shard, uint64_t clock, const float *wanted)
{
    static const uint32_t all[] = {0, 1, 2, 3, 4, 5};
    float values[FLOATS];
    uint32_t light, refusals;
    say(shard, 7, with_ids(kit_pull(9, 1, 0, 0, clock), all, ROWS));
    cr_assert_eq(take(shard, values, &light, &refusals), FLOATS);
    for (int i = 0; i < ROWS; i++)
        cr_assert_eq(values[i * WIDTH], wanted[i], "row %d at clock %d", i, (int)clock);
    say(shard, 7, kit_pull(10, 1, 0, 0, clock));
    cr_assert_eq(take(shard, values, &light, &refusals), FLOATS, "all of them");
    for (int i = 0; i < ROWS; i++)
        cr_assert_eq(values[i * WIDTH], wanted[i], "row %d of all at clock %d", i, (int)clock);
}

Test(rows, a_step_changes_the_rows_that_it_touches_and_keeps_them_of_the_clock_before)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job);
    float values[FLOATS];
    uint32_t light, refusals;
    push(shard, 0, 0, 2, (const uint32_t[]){1, 4}, 2, 1);
    push(shard, 0, 2, 1, (const uint32_t[]){0, 4}, 2, 2);
    cr_assert_eq(take(shard, values, &light, &refusals), 0);
    cr_assert_eq(light + refusals, 0);
    push(shard, 0, 3, 1, NULL, 0, 0);
    cr_assert_eq(take(shard, values, &light, &refusals), 0, "who pushes gets no values");
    cr_assert_eq(light, 1);
    check_rows(shard, 1, (const float[]){0 - 2, 10 - 1, 20, 30, 40 - 3, 50});
    check_rows(shard, 0, (const float[]){0, 10, 20, 30, 40, 50});
    push(shard, 1, 0, 4, NULL, 0, 0);
    (void)take(shard, values, &light, &refusals);
    cr_assert_eq(light, 1, "a step that touches nothing is a step");
    check_rows(shard, 2, (const float[]){-2, 9, 20, 30, 37, 50});
    check_rows(shard, 1, (const float[]){-2, 9, 20, 30, 37, 50});
    pm_shard_destroy(&shard);
}

Test(rows, a_push_seen_twice_is_applied_once)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job);
    float values[FLOATS];
    uint32_t light, refusals;
    push(shard, 0, 0, 2, (const uint32_t[]){3}, 1, 1);
    push(shard, 0, 0, 2, (const uint32_t[]){3}, 1, 1);
    push(shard, 0, 1, 1, (const uint32_t[]){3}, 1, 100);
    push(shard, 0, 2, 2, (const uint32_t[]){3}, 1, 1);
    push(shard, 0, 2, 2, (const uint32_t[]){3}, 1, 1);
    (void)take(shard, values, &light, &refusals);
    cr_assert_eq(light, 2, "the last time after the step");
    check_rows(shard, 1, (const float[]){0, 10, 20, 30 - 2, 40, 50});
    pm_shard_destroy(&shard);
}

Test(rows, who_pulls_and_who_pushes_wait_for_a_clock_side_by_side)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job);
    float values[FLOATS];
    uint32_t light, refusals;
    say(shard, 1, with_ids(kit_pull(5, 1, 0, 0, 1), (const uint32_t[]){0}, 1));
    say(shard, 1, with_ids(kit_pull(6, 1, 0, 0, 1), (const uint32_t[]){2, 5}, 2));
    push(shard, 0, 0, 4, (const uint32_t[]){5}, 1, 1);
    cr_assert_eq(take(shard, values, &light, &refusals), 2 * WIDTH, "what was asked for last");
    cr_assert_eq(values[WIDTH], 50 - 1);
    cr_assert_eq(light, 1);
    pm_shard_destroy(&shard);
}

Test(rows, a_cut_and_an_answer_keep_the_values_they_were_made_of)
{
    pm_job job = kit_job(LANES, 1, 1);
    job.optimizer.kind = PM_OPTIMIZER_ADAGRAD;
    job.optimizer.epsilon = 1e-10;
    job.checkpoint.every_steps = 1;
    pm_shard *shard = make(&job);
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 1, 1, LANES);
    ok(pm_shard_direct(shard, d, 0));
    paramill__directive__free_unpacked(d, NULL);
    pm_buffer *values = NULL, *moment = NULL;
    for (uint64_t clock = 0; clock < 2; clock++) {
        push(shard, clock, 0, 4, (const uint32_t[]){1}, 1, 3);
        pm_outbox *out = pm_shard_outbox(shard);
        for (size_t i = 0; i < out->count && clock == 0; i++) {
            const pm_message *m = &out->posts[i].message;
            if (m->header->body_case != PARAMILL__HEADER__BODY_SLICE_STATE)
                continue;
            cr_assert_eq(m->frame_count, 2);
            values = pm_buffer_ref(m->frames[0]);
            moment = pm_buffer_ref(m->frames[1]);
        }
        pm_outbox_clear(out);
    }
    cr_assert_not_null(values);
    cr_assert_float_eq(((const float *)values->data)[WIDTH], 10 - 1, 1e-6);
    cr_assert_eq(((const float *)moment->data)[WIDTH], 9);
    cr_assert_eq(((const float *)moment->data)[0], 0);
    pm_buffer_unref(&values);
    pm_buffer_unref(&moment);
    pm_shard_destroy(&shard);
}

Test(rows, ids_that_do_not_fit_are_refused)
{
    static const struct {
        uint32_t ids[7];
        size_t count, floats;
    } bad[] = {{{2, 1}, 2, 4},       {{1, 1}, 2, 4}, {{6}, 1, 2},
               {{1, 2}, 2, 3},       {{1, 2}, 2, 0}, {{0, 1, 2, 3, 4, 5, 6}, 7, 14},
               {{UINT32_MAX}, 1, 2}, {{0}, 0, 0}};
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job);
    float rows[14] = {0}, values[FLOATS];
    uint32_t light, refusals;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pm_message m = with_ids(kit_push(1, 1, 0, 0, 0, 0, 4, NULL, 0), bad[i].ids, bad[i].count);
        ok(pm_message_add(&m, pm_buffer_copy(rows, bad[i].floats * sizeof *rows)));
        say(shard, 1, m);
        (void)take(shard, values, &light, &refusals);
        cr_assert_eq(refusals, 1, "push %zu", i);
        if (i == 3 || i == 4)
            continue; // the ids are good
        say(shard, 1, with_ids(kit_pull(2, 1, 0, 0, 0), bad[i].ids, bad[i].count));
        (void)take(shard, values, &light, &refusals);
        cr_assert_eq(refusals, 1, "pull %zu", i);
    }
    say(shard, 1, with_ids(kit_push(1, 1, 0, 0, 0, 0, 4, NULL, 0), bad[0].ids, 1));
    (void)take(shard, values, &light, &refusals);
    cr_assert_eq(refusals, 1, "ids without rows");
    check_rows(shard, 0, (const float[]){0, 10, 20, 30, 40, 50});
    pm_shard_destroy(&shard);
}

Test(rows, broken_frames_do_no_harm)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job);
    uint64_t state = 42;
    for (int i = 0; i < 50000; i++) {
        uint32_t ids[8];
        float rows[16] = {0};
        for (int k = 0; k < 8; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            ids[k] = (uint32_t)(state >> 60) % 9;
        }
        pm_message m = i % 2 ? kit_pull(1, 1, 0, 0, pm_shard_clock(shard) - (uint64_t)(i % 3))
                             : kit_push(1, 1, 0, 0, pm_shard_clock(shard), ids[0] % 4, 1, NULL, 0);
        ok(pm_message_add(&m, pm_buffer_copy(ids, (state >> 40) % (sizeof ids + 1))));
        if ((state >> 50) % 4)
            ok(pm_message_add(&m, pm_buffer_copy(rows, (state >> 30) % 4 ? m.frames[0]->size * WIDTH
                                                                         : (state >> 33) % sizeof rows)));
        say(shard, 1, m);
        pm_outbox_clear(pm_shard_outbox(shard));
    }
    pm_shard_tick(shard, 1000000);
    pm_shard_destroy(&shard);
}

Test(rows, lists_merge_into_their_union)
{
    const float left[] = {1, 2, 3, 4}, right[] = {10, 20, 30, 40};
    const pm_row_list a = {(const uint32_t[]){2, 5}, left, 2}, b = {(const uint32_t[]){0, 5}, right, 2};
    uint32_t ids[3];
    float rows[6];
    cr_assert_eq(pm_rows_union(&a, &b), 3);
    cr_assert_eq(pm_rows_merge(&a, &b, WIDTH, ids, rows), 3);
    cr_assert_arr_eq(ids, ((const uint32_t[]){0, 2, 5}), sizeof ids);
    cr_assert_arr_eq(rows, ((const float[]){10, 20, 1, 2, 33, 44}), sizeof rows);
}
