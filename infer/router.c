// Life of the router's core, what comes in from clients, and the passing of time.
#include "infer/router_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_MAX = 4096, QUEUE_BYTES = 512 << 20, HOLD_MS = 30000 };

void pm_query_append(pm_query_list *list, pm_query *query)
{
    query->next = NULL;
    query->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = query;
    list->last = query;
    list->count++;
    list->rows += query->rows;
    list->bytes += query->frame->size;
}

void pm_query_remove(pm_query_list *list, pm_query *query)
{
    *(query->previous ? &query->previous->next : &list->first) = query->next;
    *(query->next ? &query->next->previous : &list->last) = query->previous;
    query->next = query->previous = NULL;
    list->count--;
    list->rows -= query->rows;
    list->bytes -= query->frame->size;
}

void pm_query_prepend(pm_query_list *list, pm_query_list *from)
{
    if (!from->first)
        return;
    from->last->next = list->first;
    *(list->first ? &list->first->previous : &list->last) = from->last;
    list->first = from->first;
    list->count += from->count;
    list->rows += from->rows;
    list->bytes += from->bytes;
    *from = (pm_query_list){0};
}

pm_status pm_router_create(pm_router **router, const pm_router_options *options)
{
    pm_router *r = calloc(1, sizeof *r);
    if (!r)
        return pm_fail(PM_NO_MEMORY, "a router");
    pm_metrics *m = options->metrics;
    r->options = *options;
    r->options.queue_max = options->queue_max ? options->queue_max : QUEUE_MAX;
    r->options.queue_bytes = options->queue_bytes ? options->queue_bytes : QUEUE_BYTES;
    r->options.hold_ms = options->hold_ms ? options->hold_ms : HOLD_MS;
    for (int code = PM_OK; code <= PM_INTERNAL; code++) {
        char label[64];
        snprintf(label, sizeof label, "outcome=\"%s\"", pm_code_name((pm_code)code));
        r->outcomes[code] =
            pm_counter(m, "paramill_router_requests_total", "requests by how they were answered", label);
    }
    r->seconds =
        pm_histogram(m, "paramill_router_request_seconds", "from arrival to answer of answered requests", "");
    r->batches = pm_counter(m, "paramill_router_batches_total", "batches given to workers", "");
    r->batch_rows = pm_counter(m, "paramill_router_batch_rows_total", "rows in these batches", "");
    r->again = pm_counter(m, "paramill_router_redispatched_total",
                          "requests taken back from workers that failed or fell silent", "");
    r->workers_gauge = pm_gauge(m, "paramill_router_workers", "workers with a loaded version", "");
    *router = r;
    return pm_ok();
}

static void free_list(pm_query *query)
{
    for (pm_query *next; query; query = next) {
        next = query->next;
        pm_buffer_unref(&query->frame);
        free(query);
    }
}

void pm_router_destroy(pm_router **router)
{
    if (!router || !*router)
        return;
    pm_router *r = *router;
    for (uint32_t i = 0; i < r->worker_count; i++) {
        for (int b = 0; b < PM_WORKER_BATCHES; b++)
            free_list(r->workers[i]->batches[b].queries.first);
        free(r->workers[i]);
    }
    for (uint32_t i = 0; i < r->model_count; i++) {
        free_list(r->models[i]->queue.first);
        free(r->models[i]);
    }
    free_list(r->spare);
    free(r);
    *router = NULL;
}

pm_routed_model *pm_router_model(pm_router *router, const char *name)
{
    for (uint32_t i = 0; i < router->model_count; i++)
        if (!strcmp(router->models[i]->name, name))
            return router->models[i];
    return NULL;
}

bool pm_worker_serves(const pm_routed_worker *worker)
{
    return worker->version > 0 && !worker->leaving;
}

static bool takes(const pm_routed_worker *worker, pm_type type, const int64_t *shape, uint32_t rank)
{
    const pm_tensor_info *input = &worker->signature.input;
    return input->rank == rank && input->type == type && !memcmp(input->shape, shape, rank * sizeof *shape);
}

bool pm_worker_can(const pm_routed_worker *worker, const pm_query *query)
{
    return (query->version == 0 || query->version == worker->version) && query->rows <= worker->max_rows &&
           takes(worker, query->type, query->shape, query->rank);
}

bool pm_version_parse(const char *text, uint64_t *version)
{
    *version = 0;
    if (!*text)
        return true;
    char *end;
    errno = 0;
    *version = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *version > 0;
}

pm_routed_worker *pm_router_find(pm_router *router, const char *name, uint64_t version, pm_status *why,
                                 uint32_t *retry_ms)
{
    const pm_routed_model *model = pm_router_model(router, name);
    bool any = false, of_model = false;
    for (uint32_t i = 0; i < router->worker_count; i++) {
        pm_routed_worker *w = router->workers[i];
        if (!pm_worker_serves(w))
            continue;
        any = true;
        of_model = of_model || w->model == model;
        if (w->model == model && (version == 0 || version == w->version))
            return w;
    }
    if (!why)
        return NULL;
    if (of_model)
        *why = pm_fail(PM_NOT_FOUND, "version %llu of %.64s is not loaded by any worker",
                       (unsigned long long)version, name);
    else if (any && !model)
        *why = pm_fail(PM_NOT_FOUND, "no model named \"%.64s\" is served here", name);
    else
        *why = pm_fail(PM_UNAVAILABLE, "no worker has loaded a version of \"%.64s\" yet", name);
    *retry_ms = why->code == PM_UNAVAILABLE ? PM_RETRY_MS : 0;
    return NULL;
}

// ---- requests ----

static pm_status check_outputs(const Inference__ModelInferRequest *ask, const pm_tensor_info *output)
{
    if (ask->n_outputs > 1 || (ask->n_outputs == 1 && strcmp(ask->outputs[0]->name, output->name) != 0))
        return pm_fail(PM_INVALID, "the model's only output is \"%s\"", output->name);
    return pm_ok();
}

// Shape and size of the one input, against what the worker's version takes.
static pm_status check_input(const Inference__ModelInferRequest *ask, const pm_message *message,
                             const pm_routed_worker *worker)
{
    const pm_tensor_info *want = &worker->signature.input;
    if (ask->n_inputs != 1 || message->frame_count != 1)
        return pm_fail(PM_INVALID, "%zu inputs in %u frames; the model takes one, \"%s\"", ask->n_inputs,
                       message->frame_count, want->name);
    const Inference__ModelInferRequest__InferInputTensor *in = ask->inputs[0];
    if (in->name[0] && strcmp(in->name, want->name) != 0)
        return pm_fail(PM_INVALID, "no input named \"%.64s\"; the model takes \"%s\"", in->name, want->name);
    if (strcmp(in->datatype, pm_datatype_name(want->type)) != 0)
        return pm_fail(PM_INVALID, "input %s is %.16s; the model takes %s", want->name, in->datatype,
                       pm_datatype_name(want->type));
    if (in->n_shape != want->rank + 1)
        return pm_fail(PM_INVALID, "input %s has rank %zu; the model takes rank %u, the batch first",
                       want->name, in->n_shape, want->rank + 1);
    if (in->shape[0] < 1 || in->shape[0] > worker->max_rows)
        return pm_fail(PM_INVALID, "input %s has %lld rows; 1 to %u fit into a request", want->name,
                       (long long)in->shape[0], worker->max_rows);
    for (uint32_t i = 0; i < want->rank; i++)
        if (in->shape[i + 1] != want->shape[i])
            return pm_fail(PM_INVALID, "input %s: dimension %u is %lld; the model takes %lld", want->name,
                           i + 1, (long long)in->shape[i + 1], (long long)want->shape[i]);
    size_t bytes = (size_t)in->shape[0] * want->row_bytes;
    if (message->frames[0]->size != bytes)
        return pm_fail(PM_INVALID, "input %s has %zu bytes; its shape needs %zu", want->name,
                       message->frames[0]->size, bytes);
    return check_outputs(ask, &worker->signature.output);
}

// The worker against which a request is checked: of those that serve the model and version, the first that
// takes it, so that a model whose versions or workers differ is served by all of them.
static pm_status check_request(pm_router *router, const Inference__ModelInferRequest *ask,
                               const pm_message *message, pm_routed_worker **worker, uint32_t *retry_ms)
{
    pm_status status;
    uint64_t version;
    if (!pm_version_parse(ask->model_version, &version))
        return pm_fail(PM_INVALID, "\"%.32s\" is no model version; a number or nothing is",
                       ask->model_version);
    if (strlen(ask->id) >= PM_REQUEST_ID)
        return pm_fail(PM_INVALID, "an id of %zu bytes; at most %d are kept", strlen(ask->id),
                       PM_REQUEST_ID - 1);
    *worker = pm_router_find(router, ask->model_name, version, &status, retry_ms);
    if (!*worker)
        return status;
    status = check_input(ask, message, *worker);
    for (uint32_t i = 0; i < router->worker_count && status.code != PM_OK; i++) {
        pm_routed_worker *other = router->workers[i];
        if (other == *worker || other->model != (*worker)->model || !pm_worker_serves(other) ||
            (version && other->version != version) || check_input(ask, message, other).code != PM_OK)
            continue;
        *worker = other;
        return pm_ok();
    }
    return status;
}

// How long a request that arrives now waits for its answer, as far as the last batches tell; the lower of two
// estimates, so that only what is hopeless is turned away. Microseconds; 0: not known.
static double estimate_us(const pm_router *router, const pm_routed_model *model, uint32_t rows)
{
    uint32_t workers = 0, max_rows = 1;
    size_t batches = 1, ahead = model->queue.rows + rows;
    for (uint32_t i = 0; i < router->worker_count; i++) {
        const pm_routed_worker *w = router->workers[i];
        if (w->model != model || !pm_worker_serves(w))
            continue;
        workers++;
        max_rows = w->max_rows > max_rows ? w->max_rows : max_rows;
        for (int b = 0; b < PM_WORKER_BATCHES; b++)
            ahead += w->batches[b].queries.rows;
        batches += w->in_flight;
    }
    if (workers == 0)
        return 0;
    batches += model->queue.rows / max_rows;
    double by_rows = (double)ahead * model->row_us / workers;
    double by_batches = (double)batches * model->batch_us / workers;
    return by_rows < by_batches ? by_rows : by_batches;
}

// Room in the queue, and time enough before the deadline.
static pm_status check_room(const pm_router *router, const pm_routed_model *model, uint32_t rows,
                            size_t bytes, int64_t left_us, uint32_t *retry_ms)
{
    double wait_us = estimate_us(router, model, rows);
    *retry_ms = PM_RETRY_MS + (uint32_t)(wait_us < 1e6 ? wait_us / 2000 : 500);
    if (router->draining)
        return pm_fail(PM_UNAVAILABLE, "this router is going away");
    if (model->queue.count >= router->options.queue_max ||
        model->queue.bytes + bytes > router->options.queue_bytes)
        return pm_fail(PM_UNAVAILABLE, "%zu requests wait for %s already", model->queue.count, model->name);
    if (wait_us > (double)left_us)
        return pm_fail(PM_UNAVAILABLE, "%zu requests wait for %s: about %.0f ms, and %.0f are left",
                       model->queue.count, model->name, wait_us / 1000, (double)left_us / 1000);
    return pm_ok();
}

static pm_query *take_query(pm_router *router)
{
    pm_query *query = router->spare;
    if (!query)
        return calloc(1, sizeof *query);
    router->spare = query->next;
    memset(query, 0, sizeof *query);
    return query;
}

static pm_status enqueue(pm_router *router, const pm_peer *from, pm_message *message,
                         const Inference__ModelInferRequest *ask, pm_routed_worker *worker, int64_t now_us,
                         uint32_t *retry_ms)
{
    pm_routed_model *model = worker->model;
    uint32_t rows = (uint32_t)ask->inputs[0]->shape[0], deadline_ms = message->header->deadline_ms;
    if (deadline_ms == 0 || deadline_ms > router->options.hold_ms)
        deadline_ms = router->options.hold_ms;
    int64_t left_us = (int64_t)deadline_ms * 1000;
    pm_status status = check_room(router, model, rows, message->frames[0]->size, left_us, retry_ms);
    if (status.code != PM_OK) {
        model->refused++;
        return status;
    }
    pm_query *q = take_query(router);
    if (!q)
        return pm_fail(PM_NO_MEMORY, "a request");
    q->peer = *from;
    q->request = message->header->request;
    snprintf(q->id, sizeof q->id, "%s", ask->id);
    bool parsed = pm_version_parse(ask->model_version, &q->version);
    (void)parsed; // checked before
    q->rows = rows;
    q->arrived_us = now_us;
    q->deadline_us = now_us + left_us;
    q->rank = worker->signature.input.rank;
    q->type = worker->signature.input.type;
    memcpy(q->shape, worker->signature.input.shape, q->rank * sizeof *q->shape);
    q->frame = pm_buffer_ref(message->frames[0]);
    pm_query_append(&model->queue, q);
    router->held++;
    return pm_ok();
}

static void handle_request(pm_router *router, const pm_peer *from, pm_message *message, int64_t now_us,
                           pm_mailbox *out)
{
    uint32_t retry_ms = 0;
    pm_routed_worker *worker = NULL;
    Inference__ModelInferRequest *ask =
        pm_envelope_open(message, &inference__model_infer_request__descriptor);
    pm_status status = pm_fail(PM_PROTOCOL, "a request that is no ModelInferRequest");
    if (ask)
        status = check_request(router, ask, message, &worker, &retry_ms);
    if (status.code == PM_OK)
        status = enqueue(router, from, message, ask, worker, now_us, &retry_ms);
    if (ask)
        inference__model_infer_request__free_unpacked(ask, NULL);
    if (status.code != PM_OK) {
        pm_metric_add(router->outcomes[status.code], 1);
        pm_router_refuse(router, from, message->header->request, status, retry_ms, out);
    }
}

void pm_router_front(pm_router *router, const pm_peer *from, pm_message *message, int64_t now_us,
                     pm_mailbox *out)
{
    uint64_t request = message->header->request;
    if (message->header->body_case == PARAMILL__HEADER__BODY_STATUS_REQUEST) {
        pm_router_answer_status(router, from, request, now_us, out);
        return;
    }
    switch (pm_envelope_kind(message)) {
    case PARAMILL__INFER_ENVELOPE__KIND__INFER_REQUEST:
        handle_request(router, from, message, now_us, out);
        break;
    case PARAMILL__INFER_ENVELOPE__KIND__READY_REQUEST:
        pm_router_answer_ready(router, from, message, out);
        break;
    case PARAMILL__INFER_ENVELOPE__KIND__METADATA_REQUEST:
        pm_router_answer_metadata(router, from, message, out);
        break;
    default:
        pm_router_refuse(router, from, request,
                         pm_fail(PM_PROTOCOL, "a router answers inference, readiness, metadata and status"),
                         0, out);
    }
}

// ---- time ----

// What is late, and what no worker that is left can do any more.
static void sweep(pm_router *router, pm_routed_model *model, int64_t now_us, pm_mailbox *out)
{
    const bool served = pm_router_find(router, model->name, 0, NULL, NULL) != NULL;
    for (pm_query *q = model->queue.first, *next; q; q = next) {
        next = q->next;
        bool late = now_us >= q->deadline_us, possible = !served;
        for (uint32_t i = 0; i < router->worker_count && !late && !possible; i++) {
            const pm_routed_worker *w = router->workers[i];
            possible = w->model == model && pm_worker_serves(w) && pm_worker_can(w, q);
        }
        if (!late && possible)
            continue;
        pm_query_remove(&model->queue, q);
        if (late)
            pm_router_fail(router, model, q,
                           pm_fail(PM_TIMEOUT, "waited %lld ms for a worker of %s",
                                   (long long)(now_us - q->arrived_us) / 1000, model->name),
                           0, out);
        else
            pm_router_fail(
                router, model, q,
                pm_fail(PM_NOT_FOUND, "no worker of %s serves the version and shape any more", model->name),
                0, out);
    }
    pm_metric_set(model->queue_gauge, (double)model->queue.count);
}

void pm_router_tick(pm_router *router, int64_t now_us, pm_mailbox *out)
{
    uint32_t serving = 0;
    for (uint32_t i = router->worker_count; i-- > 0;) {
        pm_routed_worker *w = router->workers[i];
        if (now_us - w->seen_us <= (int64_t)PM_INFER_SILENT_MS * 1000) {
            serving += pm_worker_serves(w);
            continue;
        }
        pm_log_warn(&router->options.log, "worker_silent", "worker=%s in_flight=%u", w->name, w->in_flight);
        pm_router_bury(router, w, out);
    }
    pm_metric_set(router->workers_gauge, serving);
    for (uint32_t i = 0; i < router->model_count; i++)
        sweep(router, router->models[i], now_us, out);
}

void pm_router_drain(pm_router *router)
{
    router->draining = true;
}

void pm_router_give_up(pm_router *router, pm_mailbox *out)
{
    while (router->worker_count > 0)
        pm_router_bury(router, router->workers[0], out);
    for (uint32_t i = 0; i < router->model_count; i++) {
        pm_routed_model *model = router->models[i];
        for (pm_query *q; (q = model->queue.first);) {
            pm_query_remove(&model->queue, q);
            pm_router_fail(router, model, q, pm_fail(PM_UNAVAILABLE, "this router is going away"),
                           PM_RETRY_MS, out);
        }
    }
}

size_t pm_router_held(const pm_router *router)
{
    return router->held;
}

bool pm_router_ready(const pm_router *router)
{
    for (uint32_t i = 0; i < router->worker_count; i++)
        if (pm_worker_serves(router->workers[i]))
            return true;
    return false;
}
