// How infer workers are treated: who gets a batch, what happens to the batches of those that fall silent,
// leave or fail.
#include "tests/unit/router_kit.h"

TestSuite(router_workers, .init = setup, .fini = teardown, .timeout = 120);

Test(router_workers, batches_go_to_the_worker_that_holds_the_fewest)
{
    worker_with(1, 1, 2);
    worker_with(2, 1, 2);
    for (uint64_t i = 1; i <= 4; i++) {
        ask(i, (question){0});
        dispatch();
    }
    int count[3] = {0};
    for (size_t i = 0; i < out.count; i++)
        count[out.letters[i].to.id[0]]++;
    cr_assert_eq(count[1], 2);
    cr_assert_eq(count[2], 2);
    ask(5, (question){0});
    dispatch();
    cr_assert_eq(out.count, 4, "more than the credits");
}

Test(router_workers, stale_credits_do_not_let_a_worker_hold_more_than_it_said)
{
    worker_with(1, 1, 2);
    for (uint64_t i = 1; i <= 3; i++) {
        ask(i, (question){0});
        dispatch();
        worker_with(1, 1, 2); // sent before the batch arrived
    }
    dispatch();
    cr_assert_eq(out.count, 2);
}

Test(router_workers, what_a_dead_worker_held_is_answered_once_by_another)
{
    worker_with(1, 1, 2);
    ask(1, (question){.base = 1});
    ask(2, (question){.base = 2});
    dispatch();
    const pm_buffer *frame;
    uint64_t old = expect_batch(0, 1, 2, &frame);
    pm_buffer *late = outputs_of(frame, 1), *twice = pm_buffer_ref(late);
    pm_mailbox_clear(&out);
    ask(3, (question){.base = 3});
    worker_with(2, 1, 0);
    tick(1900);
    worker_with(2, 1, 2);
    tick(200);
    dispatch();
    const float *rows = letter(0, PM_ROUTER_BACK)->message.frames[0]->data;
    cr_assert_eq(rows[0], 1, "what was taken back goes first");
    answer_batch(2, 3, 1, 2);
    cr_assert_eq(out.count, 3);
    for (size_t i = 0; i < 3; i++)
        expect_answer(i, i + 1, "1", 1, (float)(i + 1));
    pm_mailbox_clear(&out);
    batch_response(1, old, 1, 2, late, "");
    worker_with(1, 1, 2);
    batch_response(1, old, 1, 2, twice, "");
    cr_assert_eq(out.count, 0, "answered twice");
}

Test(router_workers, a_worker_that_cannot_be_reached_gives_its_batches_back_at_once)
{
    worker_with(1, 1, 2);
    ask(1, (question){0});
    dispatch();
    worker_with(2, 1, 2);
    pm_peer gone = peer(1);
    pm_mailbox_clear(&out);
    pm_router_lost(router, &gone, now, &out);
    dispatch();
    answer_batch(2, 1, 1, 2);
    expect_answer(0, 1, "1", 1, 0);
}

Test(router_workers, a_worker_that_comes_back_under_another_address_has_lost_its_batches)
{
    worker_with(1, 1, 1);
    ask(1, (question){0});
    dispatch();
    pm_mailbox_clear(&out);
    heartbeat(9, (beat){.name = "w1", .version = 1, .credits = 1});
    dispatch();
    answer_batch(9, 1, 1, 1);
    expect_answer(0, 1, "1", 1, 0);
}

Test(router_workers, a_leaving_worker_gets_nothing_more_and_its_answers_count)
{
    worker_with(1, 1, 2);
    worker_with(2, 1, 1);
    ask(1, (question){.base = 1});
    dispatch();
    uint8_t first = out.letters[0].to.id[0], other = first == 1 ? 2 : 1;
    heartbeat(first, (beat){.version = 1, .leaving = true});
    ask(2, (question){.base = 2});
    dispatch();
    expect_batch(1, other, 1, NULL);
    answer_batch(first, 1, 1, 0);
    expect_answer(0, 1, "1", 1, 1);
}

Test(router_workers, a_batch_that_fails_is_tried_again_alone_and_spares_its_company)
{
    worker_with(1, 1, 1);
    ask(1, (question){.base = 1});
    ask(2, (question){.base = 2});
    dispatch();
    uint64_t id = expect_batch(0, 1, 2, NULL);
    batch_response(1, id, 1, 1, NULL, "out of luck");
    for (int i = 0; i < 2; i++) { // request 1 fails each time
        pm_mailbox_clear(&out);
        dispatch();
        const float *rows = letter(0, PM_ROUTER_BACK)->message.frames[0]->data;
        cr_assert_eq(rows[0], 1);
        id = expect_batch(0, 1, 1, NULL);
        pm_mailbox_clear(&out);
        batch_response(1, id, 1, 1, NULL, "out of luck");
    }
    expect_error(0, 1, PM_INTERNAL, "out of luck");
    pm_mailbox_clear(&out);
    dispatch();
    answer_batch(1, 1, 1, 1);
    expect_answer(0, 2, "1", 1, 2);
}

Test(router_workers, a_worker_that_sends_too_few_outputs_is_tried_again_elsewhere)
{
    worker_with(1, 1, 1);
    ask(1, (question){.base = 1});
    dispatch();
    uint64_t id = expect_batch(0, 1, 1, NULL);
    pm_mailbox_clear(&out);
    batch_response(1, id, 1, 1, pm_buffer_create(4), "");
    cr_assert_eq(out.count, 0);
    dispatch();
    answer_batch(1, 1, 1, 1);
    expect_answer(0, 1, "1", 1, 1);
}

Test(router_workers, a_worker_that_announces_nonsense_is_refused)
{
    const beat bad[] = {{.version = 1, .credits = 1, .features = -5},
                        {.version = 1, .credits = 1, .features = INT64_MAX},
                        {.version = 1, .credits = 1, .max_rows = 1u << 30},
                        {.version = 1, .credits = 1, .model = "../m"},
                        {.version = 1, .credits = 1, .name = "a b\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        heartbeat(1, bad[i]);
        cr_assert_eq(letter(i, PM_ROUTER_BACK)->message.header->error->code, PM_INVALID);
        cr_assert_not(pm_router_ready(router));
    }
}

// Flips, cuts and repeats bytes of a valid message, below the header's own decoding and above it.
Test(router_workers, no_mutated_worker_message_breaks_it)
{
    unsigned seed = 4;
    worker_with(1, 1, 2);
    for (int i = 0; i < 30000; i++) {
        ask((uint64_t)i, (question){.deadline_ms = 20});
        dispatch();
        Inference__BatchResponse r = INFERENCE__BATCH_RESPONSE__INIT;
        r.batch = (uint64_t)i + 1;
        r.version = 1;
        r.digest = (char *)(uintptr_t) "d1";
        r.credits = 2;
        pm_message message = {
            .header = pm_envelope_seal(1, 0, PARAMILL__INFER_ENVELOPE__KIND__BATCH_RESPONSE, &r.base),
            .frames = {pm_buffer_create(OUTPUTS * sizeof(float))},
            .frame_count = 1};
        pm_peer from = peer(1);
        memset(message.frames[0]->data, 0, message.frames[0]->size);
        mutate(&message, &seed);
        pm_router_back(router, &from, &message, now, &out);
        pm_message_clear(&message);
        if (i % 32 == 0) {
            tick(30);
            worker_with(1, 1, 2);
            pm_mailbox_clear(&out);
        }
    }
    pm_router_give_up(router, &out);
    cr_assert_eq(pm_router_held(router), 0);
}
