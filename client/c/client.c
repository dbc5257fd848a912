// A request is kept, with references to its frames, until it is answered or its time is over; so it can go to
// another router at any moment. The answer that comes first counts, later ones find no request and are
// dropped.
#include "paramill/client.h"

#include "answer.h"
#include "net/loop.h"
#include "proto/inference.pb-c.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUTERS_MAX = 16, TIMEOUT_MS = 5000, ATTEMPT_MS = 1000, RETRY_MS = 20 };

typedef enum state { FREE, WAITING, ANSWERED } state;

typedef struct request {
    state state;
    uint64_t id;
    pm_message message;
    uint32_t router;                        // of the last attempt
    int64_t begin_us, deadline_us, next_us; // next_us: when another attempt is due
    bool refused;                           // the last attempt was answered with an error
    pm_status last;                         // the last error, for the final message
    pm_client_result result;
    pm_client_metadata *metadata; // of a METADATA_REQUEST
} request;

struct pm_client {
    pm_net *net;
    pm_loop *loop;
    pm_clock clock;
    pm_socket *routers[ROUTERS_MAX];
    char *endpoints[ROUTERS_MAX];
    uint32_t router_count, current; // current: the router that is spoken to
    char *model, *version;
    int64_t timeout_us, attempt_us;
    request *requests; // PM_CLIENT_PENDING_MAX
    uint32_t used;     // slots ever used
    uint64_t next_id;
    size_t pending;
};

static request *find(pm_client *client, uint64_t id)
{
    request *r = &client->requests[id % PM_CLIENT_PENDING_MAX];
    return r->state == WAITING && r->id == id ? r : NULL;
}

static void finish(pm_client *client, request *r, pm_status status)
{
    r->state = ANSWERED;
    r->result.code = pm_client_code_of(status.code);
    r->result.ticket = r->id;
    r->result.latency_us = pm_now_us(&client->clock) - r->begin_us;
    snprintf(r->result.message, sizeof r->result.message, "%s", status.message);
    pm_message_clear(&r->message);
}

static void send_request(pm_client *client, request *r)
{
    int64_t now = pm_now_us(&client->clock);
    pm_message copy = {0};
    r->router = client->current;
    r->refused = false;
    r->message.header->deadline_ms = (uint32_t)((r->deadline_us - now) / 1000);
    pm_status status = pm_message_copy(&copy, &r->message);
    if (status.code == PM_OK)
        status = pm_socket_send(client->routers[client->current], NULL, &copy);
    if (status.code != PM_OK)
        r->last = status;
    r->next_us = now + client->attempt_us;
}

// The router of r's last attempt will not do. Others may have found that already: only the first moves on, so
// that requests under way together do not send each other back.
static void turn_away(pm_client *client, const request *r)
{
    if (client->current == r->router)
        client->current = (client->current + 1) % client->router_count;
}

static void on_error(pm_client *client, request *r, const Paramill__Error *error)
{
    pm_status status = pm_error_status(error);
    if (error->retry_after_ms == 0 && status.code != PM_UNAVAILABLE) {
        finish(client, r, status);
        return;
    }
    // Overloaded or without a worker: another router may do better, the same one a little later.
    r->last = status;
    r->refused = true;
    turn_away(client, r);
    int64_t wait_ms = client->router_count > 1 ? RETRY_MS : error->retry_after_ms;
    r->next_us = pm_now_us(&client->clock) + (wait_ms ? wait_ms : RETRY_MS) * 1000;
}

static void on_message(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    pm_client *client = context;
    (void)from;
    request *r = find(client, message->header->request);
    if (!r)
        return;
    if (message->header->body_case == PARAMILL__HEADER__BODY_ERROR) {
        on_error(client, r, message->header->error);
        return;
    }
    if (message->header->body_case != PARAMILL__HEADER__BODY_INFER)
        return;
    for (uint32_t i = 0; i < client->router_count; i++)
        if (client->routers[i] == socket)
            client->current = i;
    Paramill__InferEnvelope__Kind kind = message->header->infer->kind;
    if (kind == PARAMILL__INFER_ENVELOPE__KIND__INFER_RESPONSE && !r->metadata)
        finish(client, r, pm_client_read_response(message, &r->result));
    else if (kind == PARAMILL__INFER_ENVELOPE__KIND__METADATA_RESPONSE && r->metadata)
        finish(client, r, pm_client_read_metadata(message, r->metadata));
}

static void retry(pm_client *client, request *r, int64_t now)
{
    if (now >= r->deadline_us) {
        pm_status status =
            r->last.code == PM_OK
                ? pm_fail(PM_TIMEOUT, "no answer within %lld ms from %s%s",
                          (long long)(client->timeout_us / 1000), client->endpoints[client->current],
                          client->router_count > 1 ? " or the other routers" : "")
                : r->last;
        finish(client, r, status);
        return;
    }
    if (now < r->next_us)
        return;
    if (!r->refused) // silence, not a refusal: the router may be gone
        turn_away(client, r);
    send_request(client, r);
}

static pm_status work(pm_client *client, int wait_ms)
{
    pm_status status = pm_loop_turn(client->loop, wait_ms < RETRY_MS ? wait_ms : RETRY_MS);
    int64_t now = pm_now_us(&client->clock);
    for (uint32_t i = 0; i < client->used; i++)
        if (client->requests[i].state == WAITING)
            retry(client, &client->requests[i], now);
    return status;
}

// ---- making requests ----

static pm_status take_slot(pm_client *client, request **out)
{
    if (client->pending == PM_CLIENT_PENDING_MAX)
        return pm_fail(PM_NO_MEMORY, "%d requests are under way already", PM_CLIENT_PENDING_MAX);
    uint64_t id = client->next_id;
    while (client->requests[id % PM_CLIENT_PENDING_MAX].state != FREE)
        id++;
    client->next_id = id + 1;
    request *r = &client->requests[id % PM_CLIENT_PENDING_MAX];
    uint32_t slot = (uint32_t)(r - client->requests);
    client->used = slot + 1 > client->used ? slot + 1 : client->used;
    memset(r, 0, sizeof *r);
    r->id = id;
    r->begin_us = pm_now_us(&client->clock);
    r->deadline_us = r->begin_us + client->timeout_us;
    *out = r;
    return pm_ok();
}

static pm_status start(pm_client *client, request *r, Paramill__InferEnvelope__Kind kind,
                       const ProtobufCMessage *body)
{
    Paramill__InferEnvelope *envelope = pm_proto_new(&paramill__infer_envelope__descriptor);
    size_t size = protobuf_c_message_get_packed_size(body);
    if (envelope) {
        envelope->kind = kind;
        envelope->payload.data = malloc(size ? size : 1);
        envelope->payload.len = envelope->payload.data ? size : 0;
    }
    if (!envelope || !envelope->payload.data) {
        if (envelope)
            protobuf_c_message_free_unpacked(&envelope->base, NULL);
        pm_message_clear(&r->message);
        return pm_fail(PM_NO_MEMORY, "a request");
    }
    protobuf_c_message_pack(body, envelope->payload.data);
    r->message.header = pm_header_create(r->id, 0, PARAMILL__HEADER__BODY_INFER, envelope);
    if (!r->message.header) {
        pm_message_clear(&r->message);
        return pm_fail(PM_NO_MEMORY, "a request");
    }
    r->state = WAITING;
    client->pending++;
    send_request(client, r);
    return pm_ok();
}

// Bytes of its elements.
static pm_status measure_input(const pm_client_input *input, size_t *bytes)
{
    *bytes = input->data ? sizeof *input->data : sizeof *input->numbers;
    if ((!input->data && !input->numbers) || input->rank == 0 || input->rank > PM_CLIENT_RANK_MAX)
        return pm_fail(PM_INVALID, "the input needs data and a shape of 1 to %d dimensions",
                       PM_CLIENT_RANK_MAX);
    for (uint32_t i = 0; i < input->rank; i++) {
        if (input->shape[i] < 1 || (size_t)input->shape[i] > PM_FRAME_MAX / *bytes)
            return pm_fail(PM_INVALID, "the input's dimension %u is %lld; a request holds 1 to %d bytes", i,
                           (long long)input->shape[i], PM_FRAME_MAX);
        *bytes *= (size_t)input->shape[i];
    }
    return pm_ok();
}

static pm_status submit(pm_client *client, const pm_client_input *input, request **out)
{
    size_t bytes;
    request *r = NULL;
    pm_status status = measure_input(input, &bytes);
    if (status.code == PM_OK)
        status = take_slot(client, &r);
    if (status.code == PM_OK)
        status = pm_message_add(
            &r->message, pm_buffer_copy(input->data ? (const void *)input->data : input->numbers, bytes));
    if (status.code != PM_OK)
        return status;
    Inference__ModelInferRequest__InferInputTensor tensor =
        INFERENCE__MODEL_INFER_REQUEST__INFER_INPUT_TENSOR__INIT;
    Inference__ModelInferRequest__InferInputTensor *tensors[1] = {&tensor};
    Inference__ModelInferRequest body = INFERENCE__MODEL_INFER_REQUEST__INIT;
    char id[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)r->id);
    tensor.name = (char *)(uintptr_t)(input->name ? input->name : "");
    tensor.datatype = (char *)(uintptr_t)(input->data ? "FP32" : "INT64");
    tensor.shape = (int64_t *)(uintptr_t)input->shape;
    tensor.n_shape = input->rank;
    body.model_name = client->model;
    body.model_version = client->version;
    body.id = id;
    body.inputs = tensors;
    body.n_inputs = 1;
    status = start(client, r, PARAMILL__INFER_ENVELOPE__KIND__INFER_REQUEST, &body.base);
    *out = r;
    return status;
}

static void give(pm_client *client, request *r, pm_client_result *result)
{
    *result = r->result;
    memset(r, 0, sizeof *r);
    client->pending--;
}

static pm_client_code failed(pm_client_result *result, pm_status status)
{
    memset(result, 0, sizeof *result);
    result->code = pm_client_code_of(status.code);
    snprintf(result->message, sizeof result->message, "%s", status.message);
    return result->code;
}

pm_client_code pm_client_infer(pm_client *client, const pm_client_input *input, pm_client_result *result)
{
    request *r = NULL;
    pm_status status = submit(client, input, &r);
    while (status.code == PM_OK && r->state == WAITING)
        status = work(client, RETRY_MS);
    if (status.code != PM_OK)
        return failed(result, status);
    give(client, r, result);
    return result->code;
}

pm_client_code pm_client_submit(pm_client *client, const pm_client_input *input, uint64_t *ticket)
{
    request *r = NULL;
    pm_status status = submit(client, input, &r);
    if (status.code == PM_OK)
        *ticket = r->id;
    return pm_client_code_of(status.code);
}

int pm_client_poll(pm_client *client, int timeout_ms, pm_client_result *result)
{
    int64_t until = pm_now_us(&client->clock) + (int64_t)timeout_ms * 1000, left_us = 0;
    for (;;) {
        pm_status status = work(client, (int)((left_us + 999) / 1000));
        for (uint32_t i = 0; i < client->used; i++)
            if (client->requests[i].state == ANSWERED)
                return give(client, &client->requests[i], result), 1;
        left_us = until - pm_now_us(&client->clock);
        if (status.code != PM_OK || left_us <= 0 || client->pending == 0)
            return 0;
    }
}

size_t pm_client_pending(const pm_client *client)
{
    return client->pending;
}

pm_client_code pm_client_describe(pm_client *client, pm_client_metadata *metadata, char *message)
{
    request *r = NULL;
    pm_client_result result = {0};
    memset(metadata, 0, sizeof *metadata);
    pm_status status = take_slot(client, &r);
    if (status.code == PM_OK) {
        Inference__ModelMetadataRequest body = INFERENCE__MODEL_METADATA_REQUEST__INIT;
        body.name = client->model;
        body.version = client->version;
        r->metadata = metadata;
        status = start(client, r, PARAMILL__INFER_ENVELOPE__KIND__METADATA_REQUEST, &body.base);
    }
    while (status.code == PM_OK && r->state == WAITING)
        status = work(client, RETRY_MS);
    if (status.code == PM_OK)
        give(client, r, &result);
    else
        (void)failed(&result, status);
    snprintf(message, PM_CLIENT_MESSAGE, "%s", result.message);
    return result.code;
}

// ---- life ----

static pm_status add_router(pm_client *client, const char *endpoint)
{
    uint32_t i = client->router_count;
    if (i == ROUTERS_MAX)
        return pm_fail(PM_INVALID, "at most %d routers", ROUTERS_MAX);
    client->endpoints[i] = strdup(endpoint);
    pm_status status = client->endpoints[i] ? pm_ok() : pm_fail(PM_NO_MEMORY, "a client");
    client->router_count++;
    if (status.code == PM_OK)
        status = pm_socket_create(&client->routers[i], client->net, PM_SOCKET_DEALER);
    if (status.code == PM_OK)
        status = pm_socket_connect(client->routers[i], endpoint);
    if (status.code == PM_OK)
        status = pm_loop_add(client->loop, client->routers[i], on_message, client);
    return status;
}

static pm_status connect_routers(pm_client *client, const char *routers)
{
    char *list = strdup(routers), *rest = list;
    pm_status status = list ? pm_ok() : pm_fail(PM_NO_MEMORY, "a client");
    for (char *endpoint; status.code == PM_OK && (endpoint = strsep(&rest, ","));)
        if (*endpoint)
            status = add_router(client, endpoint);
    free(list);
    if (status.code == PM_OK && client->router_count == 0)
        status = pm_fail(PM_INVALID, "routers: at least one endpoint, like tcp://127.0.0.1:8000");
    return status;
}

static pm_status open_client(pm_client *c, const pm_client_options *options)
{
    if (!options->routers || !options->model || !options->model[0])
        return pm_fail(PM_INVALID, "routers and model are needed");
    c->clock = pm_clock_monotonic();
    c->next_id = 1;
    c->model = strdup(options->model);
    c->version = strdup(options->version ? options->version : "");
    c->requests = calloc(PM_CLIENT_PENDING_MAX, sizeof *c->requests);
    if (!c->model || !c->version || !c->requests)
        return pm_fail(PM_NO_MEMORY, "a client");
    pm_status status = pm_net_create(&c->net);
    if (status.code == PM_OK)
        status = pm_loop_create(&c->loop, c->clock, NULL);
    if (status.code == PM_OK)
        status = connect_routers(c, options->routers);
    if (status.code != PM_OK)
        return status;
    uint32_t timeout = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS,
             share = timeout / c->router_count;
    uint32_t attempt = options->attempt_ms ? options->attempt_ms : share < ATTEMPT_MS ? share : ATTEMPT_MS;
    c->timeout_us = (int64_t)timeout * 1000;
    c->attempt_us = (int64_t)(attempt ? attempt : 1) * 1000;
    return pm_ok();
}

pm_client_code pm_client_create(pm_client **client, const pm_client_options *options, char *message)
{
    pm_client *c = calloc(1, sizeof *c);
    pm_status status = c ? open_client(c, options) : pm_fail(PM_NO_MEMORY, "a client");
    snprintf(message, PM_CLIENT_MESSAGE, "%s", status.message);
    if (status.code == PM_OK)
        *client = c;
    else
        pm_client_destroy(&c);
    return pm_client_code_of(status.code);
}

void pm_client_destroy(pm_client **client)
{
    if (!client || !*client)
        return;
    pm_client *c = *client;
    for (uint32_t i = 0; c->requests && i < c->used; i++) {
        pm_message_clear(&c->requests[i].message);
        free(c->requests[i].result.data);
    }
    for (uint32_t i = 0; i < c->router_count; i++) {
        pm_socket_destroy(&c->routers[i]);
        free(c->endpoints[i]);
    }
    pm_loop_destroy(&c->loop);
    pm_net_destroy(&c->net);
    free(c->requests);
    free(c->model);
    free(c->version);
    free(c);
    *client = NULL;
}

void pm_client_result_free(pm_client_result *result)
{
    free(result->data);
    memset(result, 0, sizeof *result);
}
