// Readiness, metadata and the router's account of itself.
#include "infer/router_impl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pm_router_answer_ready(pm_router *router, const pm_peer *to, const pm_message *message, pm_mailbox *out)
{
    uint64_t request = message->header->request, version;
    Inference__ModelReadyRequest *ask =
        pm_envelope_open(message, &inference__model_ready_request__descriptor);
    if (!ask) {
        pm_router_refuse(router, to, request, pm_fail(PM_PROTOCOL, "no ModelReadyRequest"), 0, out);
        return;
    }
    Inference__ModelReadyResponse answer = INFERENCE__MODEL_READY_RESPONSE__INIT;
    answer.ready = !router->draining && pm_version_parse(ask->version, &version) &&
                   pm_router_find(router, ask->name, version, NULL, NULL);
    inference__model_ready_request__free_unpacked(ask, NULL);
    pm_mailbox_post(
        out, PM_ROUTER_FRONT, to,
        pm_envelope_seal(request, 0, PARAMILL__INFER_ENVELOPE__KIND__READY_RESPONSE, &answer.base), NULL);
}

// The different versions that workers serve of the model, at most one a worker.
static size_t list_versions(const pm_router *router, const pm_routed_model *model,
                            char numbers[PM_ROUTER_WORKERS][24], char *versions[PM_ROUTER_WORKERS],
                            char *digests[PM_ROUTER_WORKERS])
{
    size_t count = 0;
    for (uint32_t i = 0; i < router->worker_count; i++) {
        pm_routed_worker *w = router->workers[i];
        if (w->model != model || !pm_worker_serves(w))
            continue;
        snprintf(numbers[count], sizeof numbers[count], "%llu", (unsigned long long)w->version);
        size_t k = 0;
        while (k < count && strcmp(numbers[k], numbers[count]) != 0)
            k++;
        if (k < count)
            continue;
        versions[count] = numbers[count];
        digests[count++] = w->digest;
    }
    return count;
}

static Paramill__Header *metadata_header(const pm_router *router, pm_routed_worker *worker, uint64_t request)
{
    Inference__ModelMetadataResponse answer = INFERENCE__MODEL_METADATA_RESPONSE__INIT;
    Inference__ModelMetadataResponse__TensorMetadata tensors[2], *input = &tensors[0], *output = &tensors[1];
    int64_t shapes[2][PM_MAX_RANK + 1];
    char numbers[PM_ROUTER_WORKERS][24], *versions[PM_ROUTER_WORKERS], *digests[PM_ROUTER_WORKERS];
    pm_tensor_info_write(&worker->signature.input, shapes[0], input);
    pm_tensor_info_write(&worker->signature.output, shapes[1], output);
    answer.name = worker->model->name;
    answer.platform = (char *)(uintptr_t) "paramill";
    answer.inputs = &input;
    answer.n_inputs = 1;
    answer.outputs = &output;
    answer.n_outputs = 1;
    answer.versions = versions;
    answer.digests = digests;
    answer.n_versions = answer.n_digests = list_versions(router, worker->model, numbers, versions, digests);
    return pm_envelope_seal(request, 0, PARAMILL__INFER_ENVELOPE__KIND__METADATA_RESPONSE, &answer.base);
}

void pm_router_answer_metadata(pm_router *router, const pm_peer *to, const pm_message *message,
                               pm_mailbox *out)
{
    uint64_t request = message->header->request, version;
    uint32_t retry_ms = 0;
    pm_routed_worker *worker = NULL;
    pm_status status = pm_fail(PM_PROTOCOL, "no ModelMetadataRequest");
    Inference__ModelMetadataRequest *ask =
        pm_envelope_open(message, &inference__model_metadata_request__descriptor);
    if (ask && !pm_version_parse(ask->version, &version))
        status = pm_fail(PM_INVALID, "\"%.32s\" is no model version", ask->version);
    else if (ask)
        worker = pm_router_find(router, ask->name, version, &status, &retry_ms);
    if (ask)
        inference__model_metadata_request__free_unpacked(ask, NULL);
    if (worker)
        pm_mailbox_post(out, PM_ROUTER_FRONT, to, metadata_header(router, worker, request), NULL);
    else
        pm_router_refuse(router, to, request, status, retry_ms, out);
}

// ---- status ----

static json_t *describe_model(const pm_routed_model *m)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "model", m->name, "queue",
                     (json_int_t)m->queue.count, "queue_rows", (json_int_t)m->queue.rows, "queue_bytes",
                     (json_int_t)m->queue.bytes, "answered", (json_int_t)m->answered, "failed",
                     (json_int_t)m->failed, "refused", (json_int_t)m->refused, "batch_ms",
                     m->batch_us / 1000);
}

static json_t *describe_worker(const pm_routed_worker *w, int64_t now_us)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:i, s:b, s:I}", "worker", w->name, "model", w->model->name,
                     "version", (json_int_t)w->version, "digest", w->digest, "credits", (int)w->credits,
                     "in_flight", (int)w->in_flight, "leaving", (int)w->leaving, "seen_ms_ago",
                     (json_int_t)((now_us - w->seen_us) / 1000));
}

static char *describe(const pm_router *router, int64_t now_us)
{
    json_t *models = json_array(), *workers = json_array();
    for (uint32_t i = 0; i < router->model_count; i++)
        json_array_append_new(models, describe_model(router->models[i]));
    for (uint32_t i = 0; i < router->worker_count; i++)
        json_array_append_new(workers, describe_worker(router->workers[i], now_us));
    json_t *root = json_pack("{s:s, s:b, s:I, s:o, s:o}", "role", "router", "draining", (int)router->draining,
                             "held", (json_int_t)router->held, "models", models, "workers", workers);
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    return text;
}

void pm_router_answer_status(pm_router *router, const pm_peer *to, uint64_t request, int64_t now_us,
                             pm_mailbox *out)
{
    Paramill__StatusReply *reply = pm_proto_new(&paramill__status_reply__descriptor);
    char *text = reply ? describe(router, now_us) : NULL;
    if (text)
        reply->json = text; // freed with the reply
    pm_mailbox_post(out, PM_ROUTER_FRONT, to,
                    pm_header_create(request, 0, PARAMILL__HEADER__BODY_STATUS_REPLY, reply), NULL);
}
