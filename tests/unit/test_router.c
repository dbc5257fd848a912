// The router's core on a clock of its own: no sockets, no threads.
#include "infer/envelope.h"
#include "infer/router.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEATURES = 3, OUTPUTS = 2, MAX_ROWS = 8, MS = 1000 };

static pm_router *router;
static pm_mailbox out;
static int64_t now; // us

static pm_peer peer(uint8_t id)
{
    return (pm_peer){.size = 1, .id = {id}};
}

static void make_router(uint32_t queue_max)
{
    pm_router_destroy(&router);
    const pm_router_options options = {.queue_max = queue_max, .log = pm_log_make("router", -1, "off")};
    cr_assert_eq(pm_router_create(&router, &options).code, PM_OK);
}

static void setup(void)
{
    now = 1000000000;
    make_router(0);
}

static void teardown(void)
{
    pm_router_destroy(&router);
    pm_mailbox_free(&out);
}

TestSuite(router, .init = setup, .fini = teardown, .timeout = 120);

// ---- what workers say ----

typedef struct beat {
    const char *name, *model;
    uint64_t version;
    uint32_t credits, max_rows;
    int64_t features;
    bool leaving;
} beat;

static void heartbeat(uint8_t worker, beat b)
{
    Inference__WorkerHeartbeat h = INFERENCE__WORKER_HEARTBEAT__INIT;
    Inference__WorkerHeartbeat__Loaded active = INFERENCE__WORKER_HEARTBEAT__LOADED__INIT;
    Inference__ModelMetadataResponse m = INFERENCE__MODEL_METADATA_RESPONSE__INIT;
    Inference__ModelMetadataResponse__TensorMetadata in =
        INFERENCE__MODEL_METADATA_RESPONSE__TENSOR_METADATA__INIT;
    Inference__ModelMetadataResponse__TensorMetadata result = in, *ins[1] = {&in}, *results[1] = {&result};
    int64_t in_shape[2] = {-1, b.features ? b.features : FEATURES}, result_shape[2] = {-1, OUTPUTS};
    char name[16], digest[24];
    snprintf(name, sizeof name, "w%u", worker);
    snprintf(digest, sizeof digest, "d%llu", (unsigned long long)b.version);
    in.name = (char *)(uintptr_t) "x", result.name = (char *)(uintptr_t) "y";
    in.datatype = result.datatype = (char *)(uintptr_t) "FP32";
    in.shape = in_shape, result.shape = result_shape;
    in.n_shape = result.n_shape = 2;
    m.inputs = ins, m.outputs = results;
    m.n_inputs = m.n_outputs = 1;
    active.version = b.version;
    active.digest = digest;
    h.name = b.name ? (char *)(uintptr_t)b.name : name;
    h.model = (char *)(uintptr_t)(b.model ? b.model : "m");
    h.credits = b.credits;
    h.max_rows = b.max_rows ? b.max_rows : MAX_ROWS;
    h.leaving = b.leaving;
    h.metadata = &m;
    h.active = b.version ? &active : NULL;
    pm_message message = {
        .header = pm_envelope_seal(0, 0, PARAMILL__INFER_ENVELOPE__KIND__WORKER_HEARTBEAT, &h.base)};
    pm_peer from = peer(worker);
    pm_router_back(router, &from, &message, now, &out);
    pm_message_clear(&message);
}

static void worker_with(uint8_t worker, uint64_t version, uint32_t credits)
{
    heartbeat(worker, (beat){.version = version, .credits = credits});
}

// The stand-in for a model: y = (sum of the row, version).
static pm_buffer *outputs_of(const pm_buffer *rows, uint64_t version)
{
    size_t count = rows->size / sizeof(float) / FEATURES;
    pm_buffer *buffer = pm_buffer_create(count * OUTPUTS * sizeof(float));
    const float *x = rows->data;
    float *y = buffer->data;
    for (size_t i = 0; i < count; i++) {
        y[i * OUTPUTS] = x[i * FEATURES] + x[i * FEATURES + 1] + x[i * FEATURES + 2];
        y[i * OUTPUTS + 1] = (float)version;
    }
    return buffer;
}

// Takes frame over; NULL with an error.
static void batch_response(uint8_t worker, uint64_t batch, uint64_t version, uint32_t credits,
                           pm_buffer *frame, const char *error)
{
    Inference__BatchResponse r = INFERENCE__BATCH_RESPONSE__INIT;
    char digest[24];
    snprintf(digest, sizeof digest, "d%llu", (unsigned long long)version);
    r.batch = batch;
    r.version = version;
    r.digest = digest;
    r.credits = credits;
    r.error = (char *)(uintptr_t)error;
    pm_message message = {
        .header = pm_envelope_seal(batch, 0, PARAMILL__INFER_ENVELOPE__KIND__BATCH_RESPONSE, &r.base),
        .frames = {frame},
        .frame_count = frame ? 1 : 0};
    pm_peer from = peer(worker);
    pm_router_back(router, &from, &message, now, &out);
    pm_message_clear(&message);
}

// ---- what clients say ----

typedef struct question {
    const char *model, *version, *input, *datatype, *output;
    int64_t rows, features; // 0: 1 and FEATURES
    size_t bytes;           // 0: as the shape says
    uint32_t deadline_ms;
    float base;
    size_t rank; // 0: 2
} question;

static pm_message request(uint64_t id, question q)
{
    Inference__ModelInferRequest__InferInputTensor tensor =
        INFERENCE__MODEL_INFER_REQUEST__INFER_INPUT_TENSOR__INIT;
    Inference__ModelInferRequest__InferInputTensor *tensors[1] = {&tensor};
    Inference__ModelInferRequest__InferRequestedOutputTensor wanted =
        INFERENCE__MODEL_INFER_REQUEST__INFER_REQUESTED_OUTPUT_TENSOR__INIT;
    Inference__ModelInferRequest__InferRequestedOutputTensor *wanteds[1] = {&wanted};
    Inference__ModelInferRequest body = INFERENCE__MODEL_INFER_REQUEST__INIT;
    int64_t shape[3] = {q.rows ? q.rows : 1, q.features ? q.features : FEATURES, 1};
    size_t bytes = q.bytes ? q.bytes : (size_t)(shape[0] * shape[1]) * sizeof(float);
    char text[24];
    snprintf(text, sizeof text, "id-%llu", (unsigned long long)id);
    tensor.name = (char *)(uintptr_t)(q.input ? q.input : "");
    tensor.datatype = (char *)(uintptr_t)(q.datatype ? q.datatype : "FP32");
    tensor.shape = shape;
    tensor.n_shape = q.rank ? q.rank : 2;
    wanted.name = (char *)(uintptr_t)(q.output ? q.output : "");
    body.model_name = (char *)(uintptr_t)(q.model ? q.model : "m");
    body.model_version = (char *)(uintptr_t)(q.version ? q.version : "");
    body.id = text;
    body.inputs = tensors;
    body.n_inputs = 1;
    body.outputs = wanteds;
    body.n_outputs = q.output ? 1 : 0;
    pm_message message = {.header = pm_envelope_seal(
                              id, q.deadline_ms, PARAMILL__INFER_ENVELOPE__KIND__INFER_REQUEST, &body.base)};
    pm_buffer *frame = pm_buffer_create(bytes);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        ((float *)frame->data)[i] = q.base + (float)i;
    cr_assert_eq(pm_message_add(&message, frame).code, PM_OK);
    return message;
}

static void ask(uint64_t id, question q)
{
    pm_message message = request(id, q);
    pm_peer from = peer(100);
    pm_router_front(router, &from, &message, now, &out);
    pm_message_clear(&message);
}

static void dispatch(void)
{
    pm_router_dispatch(router, now, &out);
}

static void tick(int64_t ms)
{
    now += ms * MS;
    pm_router_tick(router, now, &out);
}

// ---- what the router says ----

static const pm_letter *letter(size_t index, uint32_t line)
{
    cr_assert_lt(index, out.count, "only %zu letters", out.count);
    cr_assert_eq(out.letters[index].line, line);
    return &out.letters[index];
}

// The letter is a batch for the worker; gives its id and rows, and the frame.
static uint64_t expect_batch(size_t index, uint8_t worker, size_t requests, const pm_buffer **frame)
{
    const pm_letter *l = letter(index, PM_ROUTER_BACK);
    pm_peer to = peer(worker);
    cr_assert(pm_peer_equal(&l->to, &to), "for another worker");
    cr_assert_eq(pm_envelope_kind(&l->message), PARAMILL__INFER_ENVELOPE__KIND__BATCH_REQUEST);
    Inference__BatchRequest *b = pm_envelope_open(&l->message, &inference__batch_request__descriptor);
    cr_assert_eq(b->n_rows, requests, "%zu requests in the batch", b->n_rows);
    uint64_t id = b->batch;
    inference__batch_request__free_unpacked(b, NULL);
    if (frame)
        *frame = l->message.frames[0];
    return id;
}

static void expect_error(size_t index, uint64_t id, pm_code code, const char *says)
{
    const Paramill__Header *h = letter(index, PM_ROUTER_FRONT)->message.header;
    cr_assert_eq(h->body_case, PARAMILL__HEADER__BODY_ERROR);
    cr_assert_eq(h->request, id);
    cr_assert_eq(h->error->code, code, "%u: %s", h->error->code, h->error->text);
    cr_assert_not_null(strstr(h->error->text, says), "%s", h->error->text);
    cr_assert_eq(h->error->retry_after_ms > 0, code == PM_UNAVAILABLE);
}

static void expect_answer(size_t index, uint64_t id, const char *version, int64_t rows, float base)
{
    const pm_message *m = &letter(index, PM_ROUTER_FRONT)->message;
    cr_assert_eq(m->header->request, id);
    cr_assert_eq(pm_envelope_kind(m), PARAMILL__INFER_ENVELOPE__KIND__INFER_RESPONSE);
    Inference__ModelInferResponse *r = pm_envelope_open(m, &inference__model_infer_response__descriptor);
    char text[24], digest[24];
    snprintf(text, sizeof text, "id-%llu", (unsigned long long)id);
    snprintf(digest, sizeof digest, "d%s", version);
    cr_assert_str_eq(r->id, text);
    cr_assert_str_eq(r->model_name, "m");
    cr_assert_str_eq(r->model_version, version);
    cr_assert_str_eq(r->parameters[0]->key, "digest");
    cr_assert_str_eq(r->parameters[0]->value->string_param, digest);
    cr_assert_str_eq(r->outputs[0]->name, "y");
    cr_assert_str_eq(r->outputs[0]->datatype, "FP32");
    cr_assert_eq(r->outputs[0]->shape[0], rows);
    cr_assert_eq(r->outputs[0]->shape[1], OUTPUTS);
    inference__model_infer_response__free_unpacked(r, NULL);
    cr_assert_eq(m->frames[0]->size, (size_t)rows * OUTPUTS * sizeof(float));
    const float *y = m->frames[0]->data;
    for (int64_t i = 0; i < rows; i++)
        cr_assert_eq(y[i * OUTPUTS], 3 * base + 3 + 9 * (float)i);
}

// Answers the batch that is letter 0 and clears the letters.
static void answer_batch(uint8_t worker, size_t requests, uint64_t version, uint32_t credits)
{
    const pm_buffer *frame;
    uint64_t id = expect_batch(0, worker, requests, &frame);
    pm_buffer *y = outputs_of(frame, version);
    pm_mailbox_clear(&out);
    batch_response(worker, id, version, credits, y, "");
}

// ---- claims ----

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

Test(router, batches_go_to_the_worker_that_holds_the_fewest)
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

Test(router, stale_credits_do_not_let_a_worker_hold_more_than_it_said)
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

Test(router, what_a_dead_worker_held_is_answered_once_by_another)
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

Test(router, a_worker_that_cannot_be_reached_gives_its_batches_back_at_once)
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

Test(router, a_worker_that_comes_back_under_another_address_has_lost_its_batches)
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

Test(router, a_leaving_worker_gets_nothing_more_and_its_answers_count)
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

Test(router, a_batch_that_fails_is_tried_again_alone_and_spares_its_company)
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

Test(router, a_worker_that_sends_too_few_outputs_is_tried_again_elsewhere)
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

Test(router, a_worker_that_announces_nonsense_is_refused)
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
static void mutate(pm_message *message, unsigned *seed)
{
    ProtobufCBinaryData *payload = &message->header->infer->payload;
    int changes = 1 + rand_r(seed) % 4;
    for (int i = 0; i < changes && payload->len > 0; i++)
        payload->data[(size_t)rand_r(seed) % payload->len] = (uint8_t)rand_r(seed);
    if (rand_r(seed) % 4 == 0)
        payload->len = (size_t)rand_r(seed) % (payload->len + 1);
    if (rand_r(seed) % 8 == 0)
        message->header->infer->kind = (Paramill__InferEnvelope__Kind)(rand_r(seed) % 12);
    if (rand_r(seed) % 8 == 0)
        pm_buffer_unref(&message->frames[--message->frame_count]);
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

Test(router, no_mutated_worker_message_breaks_it)
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
