// The router's view of its infer workers: who is there, what they hold, what they answer.
#include "infer/router_impl.h"
#include "snapshot/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SMOOTHING = 0.2; // weight of the newest batch in the smoothed times

static pm_routed_worker *worker_of(pm_router *router, const pm_peer *peer)
{
    for (uint32_t i = 0; i < router->worker_count; i++)
        if (pm_peer_equal(&router->workers[i]->peer, peer))
            return router->workers[i];
    return NULL;
}

static pm_routed_model *add_model(pm_router *router, const char *name)
{
    pm_routed_model *model = pm_router_model(router, name);
    if (model || router->model_count == PM_ROUTER_MODELS || !(model = calloc(1, sizeof *model)))
        return model;
    char label[PM_MODEL_NAME + 16];
    snprintf(model->name, sizeof model->name, "%s", name);
    snprintf(label, sizeof label, "model=\"%s\"", name);
    model->queue_gauge = pm_gauge(router->options.metrics, "paramill_router_queue_requests",
                                  "requests that wait for a worker", label);
    router->models[router->model_count++] = model;
    return model;
}

// What goes into logs and status pages as it came.
static bool word(const char *text, size_t limit)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-");
    return length > 0 && length < limit && text[length] == '\0';
}

static pm_status add_worker(pm_router *router, const pm_peer *peer, const Inference__WorkerHeartbeat *beat,
                            pm_routed_worker **worker)
{
    if (!pm_manifest_name_ok(beat->model) || !word(beat->name, sizeof(*worker)->name))
        return pm_fail(PM_INVALID, "a worker without a usable name or model name");
    pm_routed_model *model = add_model(router, beat->model);
    pm_routed_worker *w = model && router->worker_count < PM_ROUTER_WORKERS ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return pm_fail(PM_NO_MEMORY, "a router has room for %d workers of %d models", PM_ROUTER_WORKERS,
                       PM_ROUTER_MODELS);
    w->peer = *peer;
    w->model = model;
    snprintf(w->name, sizeof w->name, "%s", beat->name);
    router->workers[router->worker_count++] = w;
    pm_log_info(&router->options.log, "worker_joined", "worker=%s model=%s", w->name, model->name);
    *worker = w;
    return pm_ok();
}

// Puts the queries of a batch back to the front of the queue; those that were tried too often are answered.
static void take_back(pm_router *router, pm_routed_worker *worker, pm_batch *batch, bool alone, pm_status why,
                      pm_mailbox *out)
{
    pm_query_list again = {0};
    for (pm_query *q; (q = batch->queries.first);) {
        pm_query_remove(&batch->queries, q);
        q->alone = q->alone || alone;
        if (q->tries++ < PM_RETRIES)
            pm_query_append(&again, q);
        else
            pm_router_fail(router, worker->model, q, why, why.code == PM_UNAVAILABLE ? PM_RETRY_MS : 0, out);
    }
    pm_metric_add(router->again, again.count);
    pm_query_prepend(&worker->model->queue, &again);
    batch->id = 0;
    worker->in_flight--;
}

// Newest first, so that the oldest ends up in front.
static void take_all_back(pm_router *router, pm_routed_worker *worker, pm_mailbox *out)
{
    while (worker->in_flight > 0) {
        pm_batch *newest = NULL;
        for (int b = 0; b < PM_WORKER_BATCHES; b++)
            if (worker->batches[b].id > (newest ? newest->id : 0))
                newest = &worker->batches[b];
        take_back(router, worker, newest, false,
                  pm_fail(PM_UNAVAILABLE, "%d workers in a row were lost with this request", PM_RETRIES + 1),
                  out);
    }
}

void pm_router_bury(pm_router *router, pm_routed_worker *worker, pm_mailbox *out)
{
    take_all_back(router, worker, out);
    for (uint32_t i = 0; i < router->worker_count; i++)
        if (router->workers[i] == worker)
            router->workers[i] = router->workers[--router->worker_count];
    free(worker);
}

void pm_router_lost(pm_router *router, const pm_peer *worker, int64_t now_us, pm_mailbox *out)
{
    pm_routed_worker *w = worker_of(router, worker);
    if (!w)
        return;
    pm_log_warn(&router->options.log, "worker_gone", "worker=%s in_flight=%u seen_ms_ago=%lld", w->name,
                w->in_flight, (long long)(now_us - w->seen_us) / 1000);
    pm_router_bury(router, w, out);
}

// ---- heartbeats ----

static pm_status read_loaded(pm_router *router, pm_routed_worker *w, const Inference__WorkerHeartbeat *beat)
{
    if (!beat->active) {
        w->version = 0;
        return pm_ok();
    }
    if (beat->active->version == 0 || !word(beat->active->digest, sizeof w->digest))
        return pm_fail(PM_INVALID, "a worker's version is 0, or its digest is none");
    pm_signature signature;
    pm_status status = pm_signature_read(&signature, beat->metadata, beat->max_rows);
    if (status.code != PM_OK)
        return status;
    if (w->version != beat->active->version)
        pm_log_info(&router->options.log, "worker_serves", "worker=%s model=%s version=%llu digest=%.12s",
                    w->name, w->model->name, (unsigned long long)beat->active->version, beat->active->digest);
    w->signature = signature;
    w->max_rows = beat->max_rows;
    w->version = beat->active->version;
    snprintf(w->digest, sizeof w->digest, "%s", beat->active->digest);
    return pm_ok();
}

// A worker that comes back under another address has lost what was under way to the old one.
static pm_routed_worker *find_beating(pm_router *router, const pm_peer *from,
                                      const Inference__WorkerHeartbeat *beat, pm_mailbox *out)
{
    pm_routed_worker *w = worker_of(router, from);
    if (w && (strcmp(w->name, beat->name) != 0 || strcmp(w->model->name, beat->model) != 0)) {
        pm_router_bury(router, w, out);
        w = NULL;
    }
    for (uint32_t i = 0; i < router->worker_count && !w; i++) {
        if (strcmp(router->workers[i]->name, beat->name) != 0)
            continue;
        pm_router_bury(router, router->workers[i], out);
        break;
    }
    return w;
}

static pm_status handle_heartbeat(pm_router *router, const pm_peer *from,
                                  const Inference__WorkerHeartbeat *beat, int64_t now_us, pm_mailbox *out)
{
    pm_routed_worker *w = find_beating(router, from, beat, out);
    if (!w && beat->leaving)
        return pm_ok(); // forgotten already
    pm_status status = w ? pm_ok() : add_worker(router, from, beat, &w);
    if (status.code == PM_OK)
        status = read_loaded(router, w, beat);
    if (status.code != PM_OK) {
        if (w)
            pm_router_bury(router, w, out);
        return status;
    }
    w->seen_us = now_us;
    w->leaving = beat->leaving;
    w->credits = beat->credits < PM_WORKER_BATCHES ? beat->credits : PM_WORKER_BATCHES;
    w->capacity = w->credits > w->capacity ? w->credits : w->capacity;
    if (w->leaving && w->in_flight == 0) {
        pm_log_info(&router->options.log, "worker_left", "worker=%s", w->name);
        pm_router_bury(router, w, out);
    }
    return pm_ok();
}

// ---- batches ----

static void smooth(double *value, double newest)
{
    *value = *value > 0 ? *value + SMOOTHING * (newest - *value) : newest;
}

// A worker does one batch after the other, so a batch's time begins when the one before was answered.
static void measure(pm_routed_worker *w, const pm_batch *batch, int64_t now_us)
{
    int64_t begin_us = batch->sent_us > w->answered_us ? batch->sent_us : w->answered_us;
    smooth(&w->model->batch_us, (double)(now_us - begin_us));
    smooth(&w->model->row_us, (double)(now_us - begin_us) / (double)batch->queries.rows);
    w->answered_us = now_us;
}

static pm_status check_response(const pm_routed_worker *w, const pm_batch *batch, const pm_message *message,
                                const Inference__BatchResponse *response)
{
    if (response->error[0])
        return pm_fail(PM_INTERNAL, "the worker says: %.200s", response->error);
    if (response->version != w->version || strcmp(response->digest, w->digest) != 0)
        return pm_fail(PM_INTERNAL, "the worker answered with a version that it had not announced");
    size_t bytes = batch->queries.rows * w->signature.output.row_bytes;
    if (message->frame_count != 1 || message->frames[0]->size != bytes)
        return pm_fail(PM_INTERNAL, "the worker did not send %zu bytes of outputs", bytes);
    return pm_ok();
}

// Requests for another version than the one that answered, because the worker changed it meanwhile, go back
// to the queue, and for simplicity their whole batch with them: it is rare. False when there are any.
static bool fits_version(const pm_routed_worker *w, const pm_batch *batch)
{
    for (const pm_query *q = batch->queries.first; q; q = q->next)
        if (q->version != 0 && q->version != w->version)
            return false;
    return true;
}

static void handle_response(pm_router *router, const pm_peer *from, pm_message *message,
                            const Inference__BatchResponse *response, int64_t now_us, pm_mailbox *out)
{
    pm_routed_worker *w = worker_of(router, from);
    pm_batch *batch = NULL;
    for (int b = 0; w && response->batch != 0 && b < PM_WORKER_BATCHES && !batch; b++)
        if (w->batches[b].id == response->batch)
            batch = &w->batches[b];
    if (!batch)
        return; // late: it went to another worker
    w->seen_us = now_us;
    w->credits = response->credits < w->capacity ? response->credits : w->capacity;
    pm_status status = check_response(w, batch, message, response);
    if (status.code != PM_OK) {
        pm_log_warn(&router->options.log, "batch_failed", "worker=%s rows=%zu why=\"%s\"", w->name,
                    batch->queries.rows, status.message);
        take_back(router, w, batch, true, status, out);
        return;
    }
    if (!fits_version(w, batch)) {
        take_back(router, w, batch, false,
                  pm_fail(PM_UNAVAILABLE, "the version changes faster than the request is answered"), out);
        return;
    }
    measure(w, batch, now_us);
    pm_router_deliver(router, w, batch, message->frames[0], now_us, out);
    batch->id = 0;
    w->in_flight--;
}

void pm_router_back(pm_router *router, const pm_peer *from, pm_message *message, int64_t now_us,
                    pm_mailbox *out)
{
    Paramill__InferEnvelope__Kind kind = pm_envelope_kind(message);
    pm_status status = pm_fail(PM_PROTOCOL, "a router hears heartbeats and batches from workers");
    if (kind == PARAMILL__INFER_ENVELOPE__KIND__WORKER_HEARTBEAT) {
        Inference__WorkerHeartbeat *beat =
            pm_envelope_open(message, &inference__worker_heartbeat__descriptor);
        if (beat) {
            status = handle_heartbeat(router, from, beat, now_us, out);
            inference__worker_heartbeat__free_unpacked(beat, NULL);
        }
    } else if (kind == PARAMILL__INFER_ENVELOPE__KIND__BATCH_RESPONSE) {
        Inference__BatchResponse *response =
            pm_envelope_open(message, &inference__batch_response__descriptor);
        if (response) {
            handle_response(router, from, message, response, now_us, out);
            inference__batch_response__free_unpacked(response, NULL);
            status = pm_ok();
        }
    }
    if (status.code != PM_OK)
        pm_mailbox_post(out, PM_ROUTER_BACK, from, pm_header_error(message->header->request, 0, status, 0),
                        NULL);
}
