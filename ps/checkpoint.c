#include "ps/checkpoint.h"

#include "cluster/directive.h"
#include "cluster/endpoint.h"
#include "cluster/member.h"
#include "net/loop.h"
#include "ps/disk.h"
#include "ps/gather.h"
#include "ps/tables.h"
#include "snapshot/serve.h"

#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 50, TOLD_MS = 3000 };

typedef struct service {
    const pm_checkpoint_options *options;
    pm_loop *loop;
    pm_member *member;
    pm_tables tables;
    pm_disk disk;
    pm_actor *writer; // the disk's thread; NULL until the job is known
    pm_gather *gather;
    pm_member_state told;
    bool busy;                                               // a cut is being written
    pm_socket *ports[PM_GATHER_PORT_SHARDS + PM_SHARDS_MAX]; // own ROUTER, then DEALERs to shards
    uint32_t port_count;
    uint64_t ports_epoch; // of the shards that the ports lead to
    bool over;
    pm_status result;
    int64_t failed_ms;
} service;

static int64_t now(const service *s)
{
    return pm_now_ms(&s->options->clock);
}

static void end(service *s, pm_status status)
{
    if (s->result.code == PM_OK)
        s->result = status;
    s->over = true;
    pm_loop_end(s->loop);
}

// The coordinator is told and ends the job; its STOP, or some patience, ends this role.
static void fail(service *s, pm_status status)
{
    if (s->failed_ms)
        return;
    s->failed_ms = now(s);
    s->result = status;
    pm_log_error(&s->options->log, "failed", "reason=\"%s\"", status.message);
    pm_status told = pm_member_fail(s->member, status);
    if (told.code != PM_OK)
        end(s, status);
}

static bool is_news(const pm_member_state *a, const pm_member_state *b)
{
    return a->phase != b->phase || a->epoch != b->epoch || a->clock != b->clock || a->queue != b->queue ||
           a->version != b->version || a->version_step != b->version_step;
}

static void tell(service *s)
{
    pm_member_state state = pm_gather_state(s->gather);
    if (!is_news(&state, &s->told))
        return;
    s->told = state;
    pm_status status = pm_member_tell(s->member, &state);
    if (status.code != PM_OK)
        end(s, status);
    if (s->options->ready)
        atomic_store(s->options->ready, state.epoch > 0 && state.phase >= PARAMILL__PHASE__PHASE_READY);
}

// Disk orders that are due, messages, the heartbeat's content.
static void settle(service *s)
{
    uint64_t version;
    pm_status status = pm_ok();
    if (!s->gather)
        return;
    if (pm_gather_wants(s->gather, &version))
        status = pm_disk_load(pm_actor_pipe(s->writer), version);
    pm_cut *cut = s->busy || s->failed_ms ? NULL : pm_gather_take(s->gather, now(s));
    if (cut && status.code == PM_OK) {
        s->busy = true;
        status = pm_disk_save(pm_actor_pipe(s->writer), &cut);
    }
    pm_cut_destroy(&cut);
    pm_outbox_send(pm_gather_outbox(s->gather), s->ports, s->port_count);
    tell(s);
    if (status.code != PM_OK)
        fail(s, status);
}

static void on_message(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    service *s = context;
    if (!s->gather)
        return; // asked again later
    if (socket == s->ports[PM_GATHER_PORT_PEERS] && pm_snapshot_is_request(message)) {
        pm_status status = pm_disk_ask(pm_actor_pipe(s->writer), from, message);
        if (status.code != PM_OK)
            pm_log_warn(&s->options->log, "request_lost", "reason=\"%s\"", status.message);
        return;
    }
    pm_gather_handle(s->gather, from, message, now(s));
    settle(s);
}

static void on_disk(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    service *s = context;
    (void)socket, (void)from;
    const Paramill__Header *header = message->header;
    pm_peer asker;
    pm_cut *cut = pm_disk_cut(message);
    pm_status status = pm_ok();
    if (cut) {
        status = pm_gather_loaded(s->gather, header->request, cut, now(s));
    } else if (header->body_case == PARAMILL__HEADER__BODY_HEARTBEAT) {
        s->busy = false;
        pm_gather_saved(s->gather, header->heartbeat->version, header->heartbeat->version_step);
    } else if (pm_disk_asker(message, &asker)) {
        pm_status sent = pm_socket_send(s->ports[PM_GATHER_PORT_PEERS], &asker, message);
        (void)sent; // an asker that is gone needs no answer
    } else if (header->body_case == PARAMILL__HEADER__BODY_ERROR) {
        status = pm_error_status(header->error);
    }
    if (status.code != PM_OK)
        fail(s, status);
    settle(s);
}

static pm_status newest_version(service *s, uint64_t *version, uint64_t *step)
{
    uint64_t *versions = NULL;
    size_t count = 0;
    *version = *step = 0;
    pm_status status = pm_store_list(s->disk.store, &versions, &count);
    if (status.code == PM_OK && count > 0) {
        pm_manifest manifest = {0};
        *version = versions[count - 1];
        status = pm_store_manifest(s->disk.store, *version, &manifest);
        *step = manifest.step;
        pm_manifest_free(&manifest);
    }
    free(versions);
    return status;
}

static pm_status start_disk(service *s, const Paramill__Directive *directive)
{
    const pm_job *job = s->tables.job;
    s->disk.source = (pm_archive_source){.tables = &s->tables,
                                         .code_version = s->options->code_version,
                                         .train_rows = directive->train_rows,
                                         .vocabulary = strdup(directive->vocabulary)};
    if (!s->disk.source.vocabulary)
        return pm_fail(PM_NO_MEMORY, "a vocabulary");
    s->disk.log = s->options->log;
    s->disk.save_seconds = pm_histogram(s->options->metrics, "paramill_checkpoint_save_seconds",
                                        "Time to write and publish a version.", "");
    uint64_t version, step;
    const char *root = s->options->store ? s->options->store : job->checkpoint.store;
    pm_status status = pm_store_open(&s->disk.store, root, job->name, true);
    if (status.code == PM_OK)
        status = newest_version(s, &version, &step);
    if (status.code == PM_OK)
        status = pm_actor_start(&s->writer, s->options->net, "disk", pm_disk_main, &s->disk);
    if (status.code == PM_OK)
        status = pm_loop_add(s->loop, pm_actor_pipe(s->writer), on_disk, s);
    const pm_gather_options options = {job, s->tables.specs, s->tables.count};
    if (status.code == PM_OK)
        status = pm_gather_create(&s->gather, &options);
    if (status.code == PM_OK)
        pm_gather_saved(s->gather, version, step);
    return status;
}

// The first directive carries the job.
static pm_status open_job(service *s, const Paramill__Directive *directive)
{
    if (s->gather || !directive->job[0])
        return pm_ok();
    pm_status status = pm_tables_make(&s->tables, directive->job, directive->model_digest);
    return status.code == PM_OK ? start_disk(s, directive) : status;
}

static void close_ports(service *s)
{
    for (uint32_t i = PM_GATHER_PORT_SHARDS; i < s->port_count; i++) {
        pm_loop_remove(s->loop, s->ports[i]);
        pm_socket_destroy(&s->ports[i]);
    }
    s->port_count = PM_GATHER_PORT_SHARDS;
}

// Only a restore speaks to shards first: the lines are opened for it and closed when all are ready.
static pm_status open_ports(service *s, const Paramill__Directive *directive)
{
    bool restoring = directive->verb == PARAMILL__DIRECTIVE__VERB__PREPARE && directive->restore_version > 0;
    if (restoring && s->ports_epoch == directive->epoch)
        return pm_ok();
    close_ports(s);
    if (!restoring)
        return pm_ok();
    s->ports_epoch = directive->epoch;
    uint32_t shards = pm_directive_shards(directive);
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < shards && status.code == PM_OK; i++) {
        uint32_t at = 0;
        const Paramill__Member *server = pm_directive_server(directive, i, &at);
        pm_socket **socket = &s->ports[PM_GATHER_PORT_SHARDS + i];
        status = pm_socket_create(socket, s->options->net, PM_SOCKET_DEALER);
        if (status.code == PM_OK)
            s->port_count = PM_GATHER_PORT_SHARDS + i + 1;
        if (status.code == PM_OK)
            status = pm_socket_connect(*socket, server->endpoints[at]);
        if (status.code == PM_OK)
            status = pm_loop_add(s->loop, *socket, on_message, s);
    }
    return status;
}

static void on_member(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    service *s = context;
    (void)socket, (void)from;
    const Paramill__Header *header = message->header;
    if (header->body_case == PARAMILL__HEADER__BODY_ERROR) {
        end(s, pm_error_status(header->error));
        return;
    }
    if (header->body_case == PARAMILL__HEADER__BODY_PUBLISHED && s->gather) {
        pm_gather_handle(s->gather, NULL, message, now(s));
        settle(s);
    }
    if (header->body_case != PARAMILL__HEADER__BODY_DIRECTIVE)
        return;
    if (header->directive->verb == PARAMILL__DIRECTIVE__VERB__STOP) {
        end(s, pm_directive_result(header->directive));
        return;
    }
    pm_status status = open_job(s, header->directive);
    if (status.code == PM_OK)
        status = open_ports(s, header->directive);
    if (status.code == PM_OK && s->gather)
        status = pm_gather_direct(s->gather, header->directive, now(s));
    if (status.code != PM_OK)
        fail(s, status);
    settle(s);
}

static void on_tick(void *context)
{
    service *s = context;
    if (s->gather)
        pm_gather_tick(s->gather, now(s));
    settle(s);
    if (s->failed_ms && now(s) - s->failed_ms > TOLD_MS)
        end(s, s->result);
}

static pm_status open(service *s)
{
    const pm_checkpoint_options *o = s->options;
    char endpoint[PM_ENDPOINT_MAX];
    const char *endpoints[] = {endpoint};
    pm_status status = pm_socket_create(&s->ports[PM_GATHER_PORT_PEERS], o->net, PM_SOCKET_ROUTER);
    s->port_count = PM_GATHER_PORT_SHARDS;
    if (status.code == PM_OK)
        status = pm_socket_bind(s->ports[PM_GATHER_PORT_PEERS], o->bind);
    if (status.code != PM_OK)
        return status;
    pm_endpoint_public(endpoint, pm_socket_endpoint(s->ports[PM_GATHER_PORT_PEERS]), o->host);
    const pm_member_options member = {.role = PARAMILL__ROLE__ROLE_CHECKPOINT,
                                      .coordinator = o->coordinator,
                                      .host = o->host,
                                      .endpoints = endpoints,
                                      .endpoint_count = 1,
                                      .code_version = o->code_version,
                                      .absent_ms = o->absent_ms,
                                      .clock = o->clock,
                                      .log = o->log};
    status = pm_loop_create(&s->loop, o->clock, o->stop);
    if (status.code == PM_OK)
        status = pm_member_start(&s->member, o->net, &member);
    if (status.code == PM_OK)
        status = pm_loop_add(s->loop, pm_member_pipe(s->member), on_member, s);
    if (status.code == PM_OK)
        status = pm_loop_add(s->loop, s->ports[PM_GATHER_PORT_PEERS], on_message, s);
    if (status.code == PM_OK)
        status = pm_loop_timer(s->loop, TICK_MS, on_tick, s);
    return status;
}

// A cut that is being written is written to its end.
static void stop_disk(service *s)
{
    if (!s->writer)
        return;
    pm_message goodbye = {.header = pm_header_create(0, 0, PARAMILL__HEADER__BODY_GOODBYE,
                                                     pm_proto_new(&paramill__goodbye__descriptor))};
    pm_status status = goodbye.header ? pm_socket_send(pm_actor_pipe(s->writer), NULL, &goodbye) : pm_ok();
    pm_message late = {0}; // a cut that was read and not fetched
    pm_socket *pipe = pm_actor_pipe(s->writer);
    while (!pm_actor_is_done(s->writer) || status.code == PM_OK) {
        status = pm_socket_receive(pipe, NULL, &late, 100);
        pm_cut *cut = status.code == PM_OK ? pm_disk_cut(&late) : NULL;
        pm_cut_destroy(&cut);
        pm_message_clear(&late);
    }
    status = pm_actor_join(&s->writer);
    (void)status; // what failed was reported through the pipe
}

pm_status pm_checkpoint_run(const pm_checkpoint_options *options)
{
    service *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a checkpoint service");
    s->options = options;
    s->result = pm_ok();
    pm_status status = open(s);
    if (status.code == PM_OK)
        status = pm_loop_run(s->loop);
    if (status.code == PM_OK)
        status = s->over ? s->result : pm_fail(PM_CANCELLED, "stopped on request");
    if (options->ready)
        atomic_store(options->ready, false);
    stop_disk(s);
    close_ports(s);
    pm_socket_destroy(&s->ports[PM_GATHER_PORT_PEERS]);
    pm_member_stop(&s->member);
    pm_loop_destroy(&s->loop);
    pm_gather_destroy(&s->gather);
    pm_store_close(&s->disk.store);
    pm_tables_free(&s->tables);
    free(s->disk.source.vocabulary);
    free(s);
    return status;
}
