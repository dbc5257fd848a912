#pragma once
// What the tests of the router's core share: a router on a clock of its own, without sockets or threads.
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

__attribute__((unused)) static pm_peer peer(uint8_t id)
{
    return (pm_peer){.size = 1, .id = {id}};
}

__attribute__((unused)) static void make_router(uint32_t queue_max)
{
    pm_router_destroy(&router);
    const pm_router_options options = {.queue_max = queue_max, .log = pm_log_make("router", -1, "off")};
    cr_assert_eq(pm_router_create(&router, &options).code, PM_OK);
}

__attribute__((unused)) static void setup(void)
{
    now = 1000000000;
    make_router(0);
}

__attribute__((unused)) static void teardown(void)
{
    pm_router_destroy(&router);
    pm_mailbox_free(&out);
}

// ---- what workers say ----

typedef struct beat {
    const char *name, *model;
    uint64_t version;
    uint32_t credits, max_rows;
    int64_t features;
    bool leaving;
} beat;

__attribute__((unused)) static void heartbeat(uint8_t worker, beat b)
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

__attribute__((unused)) static void worker_with(uint8_t worker, uint64_t version, uint32_t credits)
{
    heartbeat(worker, (beat){.version = version, .credits = credits});
}

// The stand-in for a model: y = (sum of the row, version).
__attribute__((unused)) static pm_buffer *outputs_of(const pm_buffer *rows, uint64_t version)
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
__attribute__((unused)) static void batch_response(uint8_t worker, uint64_t batch, uint64_t version,
                                                   uint32_t credits, pm_buffer *frame, const char *error)
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

__attribute__((unused)) static pm_message request(uint64_t id, question q)
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

__attribute__((unused)) static void ask(uint64_t id, question q)
{
    pm_message message = request(id, q);
    pm_peer from = peer(100);
    pm_router_front(router, &from, &message, now, &out);
    pm_message_clear(&message);
}

__attribute__((unused)) static void dispatch(void)
{
    pm_router_dispatch(router, now, &out);
}

__attribute__((unused)) static void tick(int64_t ms)
{
    now += ms * MS;
    pm_router_tick(router, now, &out);
}

// ---- what the router says ----

__attribute__((unused)) static const pm_letter *letter(size_t index, uint32_t line)
{
    cr_assert_lt(index, out.count, "only %zu letters", out.count);
    cr_assert_eq(out.letters[index].line, line);
    return &out.letters[index];
}

// The letter is a batch for the worker; gives its id and rows, and the frame.
__attribute__((unused)) static uint64_t expect_batch(size_t index, uint8_t worker, size_t requests,
                                                     const pm_buffer **frame)
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

__attribute__((unused)) static void expect_error(size_t index, uint64_t id, pm_code code, const char *says)
{
    const Paramill__Header *h = letter(index, PM_ROUTER_FRONT)->message.header;
    cr_assert_eq(h->body_case, PARAMILL__HEADER__BODY_ERROR);
    cr_assert_eq(h->request, id);
    cr_assert_eq(h->error->code, code, "%u: %s", h->error->code, h->error->text);
    cr_assert_not_null(strstr(h->error->text, says), "%s", h->error->text);
    cr_assert_eq(h->error->retry_after_ms > 0, code == PM_UNAVAILABLE);
}

__attribute__((unused)) static void expect_answer(size_t index, uint64_t id, const char *version,
                                                  int64_t rows, float base)
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
__attribute__((unused)) static void answer_batch(uint8_t worker, size_t requests, uint64_t version,
                                                 uint32_t credits)
{
    const pm_buffer *frame;
    uint64_t id = expect_batch(0, worker, requests, &frame);
    pm_buffer *y = outputs_of(frame, version);
    pm_mailbox_clear(&out);
    batch_response(worker, id, version, credits, y, "");
}

// A change of some bytes, of the kind, of the length or of the frames.
__attribute__((unused)) static void mutate(pm_message *message, unsigned *seed)
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
