#include "infer/infer.h"

#include "infer/envelope.h"
#include "infer/metadata.h"
#include "infer/router.h"
#include "infer/watcher.h"
#include "net/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_ROWS = 256,
    POLL_MS = 100,
    BATCHES = 2,    // held at once: one is computed while the next one is on its way
    HELD_MAX = 64,  // beyond the credits, when several routers use the same ones
    LEAVE_MS = 300, // for batches that were sent before a router knew that this worker leaves
    LEAVE_MAX_MS = 10000,
    WAIT_MS = 100
};

typedef struct worker worker;

typedef struct line {
    worker *worker;
    pm_socket *socket;
    uint32_t told; // credits this router was told last
} line;

typedef struct held {
    line *line;
    uint64_t batch;
    uint64_t rows;
    pm_buffer *frame; // (rows, row elements) of the input's type; NULL: the message had none
} held;

struct worker {
    const pm_infer_options *o;
    char name[128];
    uint32_t max_rows;
    pm_threads *threads; // that compute a batch
    pm_loop *loop;
    pm_watcher *watcher;
    pm_model *model; // NULL: nothing loaded yet
    line lines[PM_INFER_ROUTERS];
    held held[HELD_MAX]; // a ring
    uint32_t first, count;
    bool leaving;
    pm_metric *batches, *rows, *seconds, *version;
};

static uint32_t credits(const worker *w)
{
    return w->model && !w->leaving && w->count < BATCHES ? BATCHES - w->count : 0;
}

// ---- what routers are told ----

static void describe_tensor(pm_tensor_info *info, const pm_port *port)
{
    snprintf(info->name, sizeof info->name, "%s", port->name);
    info->type = port->type;
    info->rank = port->rank < PM_MAX_RANK ? port->rank : PM_MAX_RANK - 1;
    memcpy(info->shape, port->shape, info->rank * sizeof *info->shape);
}

static void send_header(const worker *w, const line *to, Paramill__Header *header, pm_buffer *frame)
{
    pm_message message = {.header = header, .frames = {frame}, .frame_count = frame ? 1 : 0};
    if (!header) {
        pm_message_clear(&message);
        return;
    }
    pm_status sent = pm_socket_send(to->socket, NULL, &message);
    if (sent.code != PM_OK)
        pm_log_debug(&w->o->log, "router_away", "why=\"%s\"", sent.message);
}

static void announce(worker *w, line *to)
{
    Inference__WorkerHeartbeat beat = INFERENCE__WORKER_HEARTBEAT__INIT;
    Inference__WorkerHeartbeat__Loaded active = INFERENCE__WORKER_HEARTBEAT__LOADED__INIT;
    Inference__ModelMetadataResponse metadata = INFERENCE__MODEL_METADATA_RESPONSE__INIT;
    Inference__ModelMetadataResponse__TensorMetadata tensors[2], *input = &tensors[0], *output = &tensors[1];
    int64_t shapes[2][PM_MAX_RANK + 1];
    pm_signature signature;
    to->told = credits(w);
    beat.name = w->name;
    beat.model = (char *)(uintptr_t)w->o->model;
    beat.credits = to->told;
    beat.max_rows = w->max_rows;
    beat.leaving = w->leaving;
    if (w->model) {
        describe_tensor(&signature.input, pm_graph_input(w->model->graph, 0));
        describe_tensor(&signature.output, pm_graph_output(w->model->graph, 0));
        pm_tensor_info_write(&signature.input, shapes[0], input);
        pm_tensor_info_write(&signature.output, shapes[1], output);
        active.version = w->model->version;
        active.digest = w->model->digest;
        metadata.name = beat.model;
        metadata.inputs = &input;
        metadata.outputs = &output;
        metadata.n_inputs = metadata.n_outputs = 1;
        beat.active = &active;
        beat.metadata = &metadata;
    }
    send_header(w, to, pm_envelope_seal(0, 0, PARAMILL__INFER_ENVELOPE__KIND__WORKER_HEARTBEAT, &beat.base),
                NULL);
}

static void on_heartbeat(void *context)
{
    worker *w = context;
    for (uint32_t i = 0; i < w->o->router_count; i++)
        announce(w, &w->lines[i]);
}

// Takes outputs over; NULL with an error.
static void respond(worker *w, line *to, uint64_t batch, pm_buffer *outputs, const char *error)
{
    Inference__BatchResponse response = INFERENCE__BATCH_RESPONSE__INIT;
    to->told = credits(w);
    response.batch = batch;
    response.version = w->model ? w->model->version : 0;
    response.digest = w->model ? w->model->digest : (char *)(uintptr_t) "";
    response.error = (char *)(uintptr_t)error;
    response.credits = to->told;
    send_header(w, to,
                pm_envelope_seal(batch, 0, PARAMILL__INFER_ENVELOPE__KIND__BATCH_RESPONSE, &response.base),
                outputs);
}

// ---- batches ----

static void on_message(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    line *l = context;
    worker *w = l->worker;
    (void)socket, (void)from;
    if (message->header->body_case == PARAMILL__HEADER__BODY_ERROR)
        pm_log_warn(&w->o->log, "router_refuses", "why=\"%s\"", message->header->error->text);
    if (pm_envelope_kind(message) != PARAMILL__INFER_ENVELOPE__KIND__BATCH_REQUEST)
        return;
    Inference__BatchRequest *request = pm_envelope_open(message, &inference__batch_request__descriptor);
    if (!request)
        return;
    held h = {.line = l, .batch = request->batch};
    for (size_t i = 0; i < request->n_rows; i++)
        h.rows += request->rows[i]; // of 32 bits each, in a header of at most 1 MiB: no overflow
    inference__batch_request__free_unpacked(request, NULL);
    if (w->count == HELD_MAX) {
        respond(w, l, h.batch, NULL, "this worker holds too many batches");
        return;
    }
    if (message->frame_count == 1)
        h.frame = pm_buffer_ref(message->frames[0]);
    w->held[(w->first + w->count++) % HELD_MAX] = h;
}

static pm_status run_batch(worker *w, const held *h, pm_buffer **outputs)
{
    const pm_model *m = w->model;
    if (!m)
        return pm_fail(PM_UNAVAILABLE, "no version is loaded");
    if (h->rows < 1 || h->rows > m->max_rows || !h->frame || h->frame->size != h->rows * m->input_row_bytes)
        return pm_fail(PM_INVALID, "%" PRIu64 " rows of %zu bytes in all do not fit version %" PRIu64,
                       h->rows, h->frame ? h->frame->size : 0, m->version);
    *outputs = pm_buffer_create(h->rows * m->output_row_bytes);
    if (!*outputs)
        return pm_fail(PM_NO_MEMORY, "the outputs of %" PRIu64 " rows", h->rows);
    pm_status status = pm_plan_run(m->plan, (const void *const[]){h->frame->data}, (uint32_t)h->rows,
                                   (void *const[]){(*outputs)->data});
    if (status.code != PM_OK)
        pm_buffer_unref(outputs);
    return status;
}

static void compute(worker *w)
{
    if (w->count == 0)
        return;
    held h = w->held[w->first];
    pm_buffer *outputs = NULL;
    int64_t begin_us = pm_now_us(&w->o->clock);
    pm_status status = run_batch(w, &h, &outputs);
    w->first = (w->first + 1) % HELD_MAX;
    w->count--;
    respond(w, h.line, h.batch, outputs, status.message);
    pm_buffer_unref(&h.frame);
    pm_metric_observe_us(w->seconds, pm_now_us(&w->o->clock) - begin_us);
    pm_metric_add(w->batches, 1);
    pm_metric_add(w->rows, h.rows);
    for (uint32_t i = 0; i < w->o->router_count; i++)
        if (w->lines[i].told != credits(w))
            announce(w, &w->lines[i]);
}

// Between two batches; what the old version was asked, it has answered.
static void swap(worker *w)
{
    pm_model *newer = pm_watcher_take(w->watcher);
    if (!newer)
        return;
    pm_log_info(&w->o->log, "serves", "version=%" PRIu64 " digest=%.12s before=%" PRIu64, newer->version,
                newer->digest, w->model ? w->model->version : 0);
    pm_status status = pm_plan_set_threads(newer->plan, w->threads);
    if (status.code != PM_OK)
        pm_log_warn(&w->o->log, "threads", "why=\"%s\"", status.message);
    pm_watcher_retire(w->watcher, w->model);
    w->model = newer;
    pm_metric_set(w->version, (double)newer->version);
    if (w->o->ready)
        atomic_store(w->o->ready, true);
    on_heartbeat(w);
}

static void on_loaded(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    (void)context, (void)socket, (void)from, (void)message; // it has woken the loop, which looks by itself
}

// ---- life ----

static pm_status check_options(const pm_infer_options *o)
{
    if (o->router_count < 1 || o->router_count > PM_INFER_ROUTERS)
        return pm_fail(PM_INVALID, "%u routers; 1 to %d are possible", o->router_count, PM_INFER_ROUTERS);
    if (!o->model || (!o->store && (!o->checkpoint || !o->cache)))
        return pm_fail(PM_INVALID, "a model and a store, or a checkpoint service and a cache, are needed");
    if (o->max_rows > PM_BATCH_ROWS_MAX)
        return pm_fail(PM_INVALID, "batches of %u rows; at most %d are possible", o->max_rows,
                       PM_BATCH_ROWS_MAX);
    return pm_ok();
}

static pm_status start(worker *w)
{
    const pm_infer_options *o = w->o;
    const pm_watcher_options watcher = {.source = {.net = o->net,
                                                   .model = o->model,
                                                   .store = o->store,
                                                   .checkpoint = o->checkpoint,
                                                   .cache = o->cache},
                                        .log = o->log,
                                        .clock = o->clock,
                                        .version = o->version ? o->version : "newest",
                                        .max_rows = w->max_rows,
                                        .threads = pm_threads_count(w->threads),
                                        .poll_ms = o->poll_ms ? o->poll_ms : POLL_MS,
                                        .metrics = o->metrics};
    pm_status status = pm_threads_create(&w->threads, o->threads ? o->threads : 1);
    if (status.code == PM_OK)
        status = pm_loop_create(&w->loop, o->clock, NULL);
    for (uint32_t i = 0; i < o->router_count && status.code == PM_OK; i++) {
        line *l = &w->lines[i];
        l->worker = w;
        status = pm_socket_create(&l->socket, o->net, PM_SOCKET_DEALER);
        if (status.code == PM_OK)
            status = pm_socket_connect(l->socket, o->routers[i]);
        if (status.code == PM_OK)
            status = pm_loop_add(w->loop, l->socket, on_message, l);
    }
    if (status.code == PM_OK)
        status = pm_loop_timer(w->loop, PM_INFER_HEARTBEAT_MS, on_heartbeat, w);
    if (status.code == PM_OK)
        status = pm_watcher_start(&w->watcher, &watcher);
    if (status.code == PM_OK)
        status = pm_loop_add(w->loop, pm_watcher_pipe(w->watcher), on_loaded, w);
    return status;
}

static pm_status work(worker *w)
{
    pm_status status = pm_ok();
    int64_t left_us = 0; // when the routers were told that this worker leaves
    on_heartbeat(w);
    while (status.code == PM_OK) {
        int64_t now_us = pm_now_us(&w->o->clock);
        if (!w->leaving && w->o->stop && atomic_load(w->o->stop)) {
            w->leaving = true;
            left_us = now_us;
            on_heartbeat(w);
        }
        int64_t gone_ms = (now_us - left_us) / 1000;
        if (w->leaving && ((w->count == 0 && gone_ms >= LEAVE_MS) || gone_ms >= LEAVE_MAX_MS))
            break;
        status = pm_loop_turn(w->loop, w->count ? 0 : WAIT_MS);
        swap(w);
        compute(w);
    }
    on_heartbeat(w); // nothing is held any more: the routers can forget this worker
    return status;
}

static void make_name(worker *w)
{
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    snprintf(w->name, sizeof w->name, "%s:%d:%" PRIx64, host, (int)getpid(),
             (uint64_t)pm_now_us(&w->o->clock) ^ (uint64_t)(uintptr_t)w);
}

pm_status pm_infer_run(const pm_infer_options *options)
{
    pm_status status = check_options(options);
    worker *w = status.code == PM_OK ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "an infer worker") : status;
    w->o = options;
    w->max_rows = options->max_rows ? options->max_rows : MAX_ROWS;
    make_name(w);
    w->batches = pm_counter(options->metrics, "paramill_infer_batches_total", "batches computed", "");
    w->rows = pm_counter(options->metrics, "paramill_infer_rows_total", "rows computed", "");
    w->seconds =
        pm_histogram(options->metrics, "paramill_infer_batch_seconds", "time to compute a batch", "");
    w->version = pm_gauge(options->metrics, "paramill_infer_version", "version that answers", "");
    status = start(w);
    if (status.code == PM_OK) {
        pm_log_info(&options->log, "started", "worker=%s model=%s", w->name, options->model);
        status = work(w);
        pm_log_info(&options->log, "stopped", "status=%s", pm_code_name(status.code));
    }
    if (options->ready)
        atomic_store(options->ready, false);
    for (; w->count > 0; w->count--, w->first = (w->first + 1) % HELD_MAX)
        pm_buffer_unref(&w->held[w->first].frame);
    for (uint32_t i = 0; i < options->router_count; i++)
        pm_socket_destroy(&w->lines[i].socket);
    pm_watcher_stop(&w->watcher);
    pm_model_destroy(&w->model);
    pm_threads_destroy(&w->threads);
    pm_loop_destroy(&w->loop);
    free(w);
    return status;
}
