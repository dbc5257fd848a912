// What clients meet: batching, deadlines, refusals, versions.
#include "tests/unit/router_kit.h"

TestSuite(router, .init = setup, .fini = teardown, .timeout = 120);

Test(router, a_request_alone_travels_without_a_copy_and_is_answered)
{
    worker_with(1, 7, 1);
    pm_message message = request(5, (question){.base = 2, .input = "x", .output = "y", .version = "7"});
    pm_buffer *frame = message.frames[0];
    pm_peer from = peer(100);
    pm_router_front(router, &from, &message, now, &out);
    pm_message_clear(&message);
    cr_assert_eq(out.count, 0);
    dispatch();
    const pm_buffer *sent;
    expect_batch(0, 1, 1, &sent);
    cr_assert_eq(sent, frame);
    answer_batch(1, 1, 7, 1);
    cr_assert_eq(out.count, 1);
    expect_answer(0, 5, "7", 1, 2);
    cr_assert_eq(pm_router_held(router), 0);
}

Test(router, what_queues_while_the_worker_is_busy_becomes_one_batch)
{
    worker_with(1, 1, 1);
    ask(1, (question){.base = 1});
    dispatch();
    for (uint64_t i = 2; i <= 4; i++)
        ask(i, (question){.base = (float)i, .rows = 2});
    dispatch();
    cr_assert_eq(out.count, 1, "a batch was sent without credit");
    answer_batch(1, 1, 1, 1);
    pm_mailbox_clear(&out);
    dispatch();
    answer_batch(1, 3, 1, 1);
    cr_assert_eq(out.count, 3);
    for (size_t i = 0; i < 3; i++)
        expect_answer(i, i + 2, "1", 2, (float)(i + 2));
}

Test(router, a_batch_holds_no_more_rows_than_the_worker_takes)
{
    worker_with(1, 1, 2);
    for (uint64_t i = 1; i <= 3; i++)
        ask(i, (question){.rows = 3});
    dispatch();
    cr_assert_eq(out.count, 2);
    expect_batch(0, 1, 2, NULL);
    expect_batch(1, 1, 1, NULL);
}

Test(router, bad_requests_are_refused_by_name_and_disturb_nobody)
{
    worker_with(1, 3, 1);
    const struct {
        question q;
        pm_code code;
        const char *says;
    } bad[] = {{{.model = "other"}, PM_NOT_FOUND, "other"},
               {{.version = "4"}, PM_NOT_FOUND, "version 4"},
               {{.version = "latest"}, PM_INVALID, "latest"},
               {{.version = "-1"}, PM_INVALID, "-1"},
               {{.input = "pixels"}, PM_INVALID, "pixels"},
               {{.output = "z"}, PM_INVALID, "\"y\""},
               {{.datatype = "INT8"}, PM_INVALID, "INT8"},
               {{.features = 4}, PM_INVALID, "dimension 1 is 4"},
               {{.rank = 1}, PM_INVALID, "rank 1"},
               {{.rank = 3}, PM_INVALID, "rank 3"},
               {{.rows = MAX_ROWS + 1}, PM_INVALID, "1 to 8"},
               {{.rows = -1, .bytes = 12}, PM_INVALID, "-1 rows"},
               {{.rows = INT64_MAX, .bytes = 12}, PM_INVALID, "rows"},
               {{.bytes = 16}, PM_INVALID, "16 bytes"}};
    ask(1, (question){.base = 4});
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ask(i + 10, bad[i].q);
        expect_error(i, i + 10, bad[i].code, bad[i].says);
    }
    pm_mailbox_clear(&out);
    dispatch();
    answer_batch(1, 1, 3, 1);
    expect_answer(0, 1, "3", 1, 4);
}

Test(router, before_a_version_is_loaded_requests_are_asked_to_come_again)
{
    ask(1, (question){0});
    expect_error(0, 1, PM_UNAVAILABLE, "yet");
    worker_with(1, 0, 0);
    cr_assert_not(pm_router_ready(router));
    ask(2, (question){0});
    expect_error(1, 2, PM_UNAVAILABLE, "yet");
    worker_with(1, 1, 1);
    cr_assert(pm_router_ready(router));
}

Test(router, a_request_that_waited_past_its_deadline_is_answered_with_a_timeout)
{
    worker_with(1, 1, 0);
    ask(1, (question){.deadline_ms = 100});
    ask(2, (question){.deadline_ms = 1000});
    tick(90);
    cr_assert_eq(out.count, 0);
    tick(10);
    cr_assert_eq(out.count, 1);
    expect_error(0, 1, PM_TIMEOUT, "waited 100 ms");
    pm_mailbox_clear(&out);
    worker_with(1, 1, 1);
    dispatch();
    expect_batch(0, 1, 1, NULL);
}

Test(router, a_deadline_that_cannot_be_met_is_refused_at_arrival_with_a_hint)
{
    worker_with(1, 1, 1);
    for (uint64_t i = 1; i <= 3; i++) { // batches take 100 ms each
        ask(i, (question){.rows = MAX_ROWS});
        dispatch();
        now += 100 * MS;
        answer_batch(1, 1, 1, 1);
        pm_mailbox_clear(&out);
    }
    ask(4, (question){.rows = MAX_ROWS});
    dispatch();
    ask(5, (question){.rows = MAX_ROWS, .deadline_ms = 1000});
    ask(6, (question){.rows = MAX_ROWS, .deadline_ms = 1000});
    cr_assert_eq(out.count, 1);
    ask(7, (question){.rows = MAX_ROWS, .deadline_ms = 200});
    expect_error(1, 7, PM_UNAVAILABLE, "about 400 ms");
}

Test(router, the_queue_is_bounded)
{
    make_router(3);
    worker_with(1, 1, 0);
    for (uint64_t i = 1; i <= 4; i++)
        ask(i, (question){0});
    cr_assert_eq(out.count, 1);
    expect_error(0, 4, PM_UNAVAILABLE, "3 requests wait");
    cr_assert_eq(pm_router_held(router), 3);
}

Test(router, a_request_for_a_version_goes_to_a_worker_that_has_it)
{
    worker_with(1, 1, 1);
    worker_with(2, 2, 1);
    ask(1, (question){.version = "2", .base = 1});
    ask(2, (question){.version = "2", .base = 2});
    ask(3, (question){.base = 3});
    dispatch();
    cr_assert_eq(out.count, 2);
    size_t one = out.letters[0].to.id[0] == 1 ? 0 : 1;
    cr_assert_eq(((const float *)out.letters[one].message.frames[0]->data)[0], 3);
}

Test(router, an_answer_of_another_version_than_asked_for_is_not_given)
{
    worker_with(1, 1, 1);
    ask(1, (question){.version = "1"});
    dispatch();
    const pm_buffer *frame;
    uint64_t id = expect_batch(0, 1, 1, &frame);
    pm_buffer *y = outputs_of(frame, 2);
    pm_mailbox_clear(&out);
    worker_with(1, 2, 1); // the worker has changed it before it came to the batch
    batch_response(1, id, 2, 1, y, "");
    cr_assert_eq(out.count, 0);
    tick(10);
    expect_error(0, 1, PM_NOT_FOUND, "any more");
}

Test(router, a_version_that_changes_under_way_fails_nothing)
{
    worker_with(1, 1, 1);
    ask(1, (question){.base = 5});
    dispatch();
    worker_with(1, 2, 1);
    answer_batch(1, 1, 2, 1);
    expect_answer(0, 1, "2", 1, 5);
}

static pm_message question_of(Paramill__InferEnvelope__Kind kind, const ProtobufCMessage *body)
{
    return (pm_message){.header = pm_envelope_seal(77, 0, kind, body)};
}

Test(router, metadata_and_readiness_are_answered)
{
    pm_peer from = peer(100);
    worker_with(1, 1, 1);
    worker_with(2, 2, 1);
    worker_with(3, 2, 1);
    Inference__ModelMetadataRequest m = INFERENCE__MODEL_METADATA_REQUEST__INIT;
    m.name = (char *)(uintptr_t) "m";
    pm_message message = question_of(PARAMILL__INFER_ENVELOPE__KIND__METADATA_REQUEST, &m.base);
    pm_router_front(router, &from, &message, now, &out);
    pm_message_clear(&message);
    Inference__ModelMetadataResponse *r = pm_envelope_open(&letter(0, PM_ROUTER_FRONT)->message,
                                                           &inference__model_metadata_response__descriptor);
    cr_assert_eq(r->n_versions, 2);
    cr_assert_eq(r->n_digests, 2);
    cr_assert_str_eq(r->inputs[0]->name, "x");
    cr_assert_eq(r->inputs[0]->shape[0], -1);
    cr_assert_eq(r->inputs[0]->shape[1], FEATURES);
    cr_assert_eq(r->outputs[0]->shape[1], OUTPUTS);
    inference__model_metadata_response__free_unpacked(r, NULL);
    const char *versions[] = {"", "2", "3", "x"};
    for (size_t i = 0; i < 4; i++) {
        Inference__ModelReadyRequest q = INFERENCE__MODEL_READY_REQUEST__INIT;
        q.name = m.name;
        q.version = (char *)(uintptr_t)versions[i];
        message = question_of(PARAMILL__INFER_ENVELOPE__KIND__READY_REQUEST, &q.base);
        pm_router_front(router, &from, &message, now, &out);
        pm_message_clear(&message);
        Inference__ModelReadyResponse *a = pm_envelope_open(&letter(i + 1, PM_ROUTER_FRONT)->message,
                                                            &inference__model_ready_response__descriptor);
        cr_assert_eq(a->ready, i < 2, "version \"%s\"", versions[i]);
        inference__model_ready_response__free_unpacked(a, NULL);
    }
}

Test(router, status_tells_of_models_and_workers)
{
    pm_peer from = peer(100);
    worker_with(1, 3, 0);
    ask(1, (question){0});
    pm_message message = {.header = pm_header_create(9, 0, PARAMILL__HEADER__BODY_STATUS_REQUEST,
                                                     pm_proto_new(&paramill__status_request__descriptor))};
    pm_router_front(router, &from, &message, now, &out);
    pm_message_clear(&message);
    const char *json = letter(0, PM_ROUTER_FRONT)->message.header->status_reply->json;
    cr_assert_not_null(strstr(json, "\"queue\":1"), "%s", json);
    cr_assert_not_null(strstr(json, "\"worker\":\"w1\""), "%s", json);
    cr_assert_not_null(strstr(json, "\"digest\":\"d3\""), "%s", json);
}

Test(router, a_draining_router_refuses_what_is_new_and_answers_what_it_holds)
{
    worker_with(1, 1, 1);
    ask(1, (question){.base = 1});
    pm_router_drain(router);
    ask(2, (question){0});
    expect_error(0, 2, PM_UNAVAILABLE, "going away");
    pm_mailbox_clear(&out);
    dispatch();
    answer_batch(1, 1, 1, 1);
    expect_answer(0, 1, "1", 1, 1);
    cr_assert_eq(pm_router_held(router), 0);
}

Test(router, a_router_that_gives_up_answers_everything)
{
    worker_with(1, 1, 1);
    ask(1, (question){0});
    dispatch();
    ask(2, (question){0});
    pm_mailbox_clear(&out);
    pm_router_give_up(router, &out);
    cr_assert_eq(out.count, 2);
    expect_error(0, 1, PM_UNAVAILABLE, "going away");
    expect_error(1, 2, PM_UNAVAILABLE, "going away");
    cr_assert_eq(pm_router_held(router), 0);
}

Test(router, no_mutated_message_breaks_it_and_good_ones_are_still_answered)
{
    unsigned seed = 3;
    worker_with(1, 1, 2);
    for (int i = 0; i < 100000; i++) {
        pm_message message =
            request((uint64_t)i, (question){.version = "1", .input = "x", .deadline_ms = 50});
        pm_peer from = peer((uint8_t)(100 + i % 2));
        mutate(&message, &seed);
        size_t held = pm_router_held(router), letters = out.count;
        pm_router_front(router, &from, &message, now, &out);
        cr_assert(pm_router_held(router) + out.count == held + letters + 1, "neither held nor answered once");
        pm_message_clear(&message);
        if (i % 64 == 0) {
            tick(100);
            worker_with(1, 1, 2);
            pm_mailbox_clear(&out);
        }
    }
    tick(100);
    worker_with(1, 1, 2);
    pm_mailbox_clear(&out);
    ask(1, (question){.base = 6});
    dispatch();
    answer_batch(1, 1, 1, 2);
    expect_answer(0, 1, "1", 1, 6);
}
