#include "ps/server.h"

#include "cluster/directive.h"
#include "cluster/endpoint.h"
#include "cluster/member.h"
#include "net/loop.h"
#include "ps/shard_actor.h"
#include "ps/tables.h"

#include <stdlib.h>
#include <string.h>

enum { SHARDS_MAX = 32, TOLD_MS = 3000 };

typedef struct shard_line {
    pm_shard_actor own;
    pm_actor *actor; // NULL until the job is known
    Paramill__Phase phase;
    uint64_t epoch, clock, queue;
} shard_line;

typedef struct server {
    const pm_server_options *options;
    uint32_t count;
    shard_line shards[SHARDS_MAX];
    char endpoints[SHARDS_MAX][PM_ENDPOINT_MAX];
    pm_tables tables;
    bool open; // tables are made, shards run
    pm_loop *loop;
    pm_member *member;
    bool over;         // the coordinator said stop, or the line to it is lost
    pm_status result;  // when over, or of the first failure here
    int64_t failed_ms; // 0: nothing failed here
} server;

static void end(server *s, pm_status status)
{
    if (s->result.code == PM_OK)
        s->result = status;
    s->over = true;
    pm_loop_end(s->loop);
}

// The coordinator is told and ends the job; its STOP, or some patience, ends this role.
static void fail(server *s, pm_status status)
{
    if (s->failed_ms)
        return;
    s->failed_ms = pm_now_ms(&s->options->clock);
    s->result = status;
    pm_log_error(&s->options->log, "failed", "reason=\"%s\"", status.message);
    pm_status told = pm_member_fail(s->member, status);
    if (told.code != PM_OK)
        end(s, status);
}

// What the server is, is what its slowest shard is.
static void tell(server *s)
{
    pm_member_state state = {
        .phase = PARAMILL__PHASE__PHASE_RUNNING, .epoch = UINT64_MAX, .clock = UINT64_MAX};
    for (uint32_t i = 0; i < s->count; i++) {
        const shard_line *l = &s->shards[i];
        state.phase = l->phase < state.phase ? l->phase : state.phase;
        state.epoch = l->epoch < state.epoch ? l->epoch : state.epoch;
        state.clock = l->clock < state.clock ? l->clock : state.clock;
        state.queue += l->queue;
    }
    pm_status status = pm_member_tell(s->member, &state);
    if (status.code != PM_OK)
        end(s, status);
    if (s->options->ready)
        atomic_store(s->options->ready, state.phase >= PARAMILL__PHASE__PHASE_READY);
}

static void on_shard(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    server *s = context;
    (void)from;
    const Paramill__Header *header = message->header;
    for (uint32_t i = 0; i < s->count; i++) {
        shard_line *l = &s->shards[i];
        if (!l->actor || pm_actor_pipe(l->actor) != socket)
            continue;
        if (header->body_case == PARAMILL__HEADER__BODY_ERROR) {
            fail(s, pm_wrap(pm_error_status(header->error), "shard %u", i));
        } else if (header->body_case == PARAMILL__HEADER__BODY_HEARTBEAT) {
            l->phase = header->heartbeat->phase;
            l->epoch = header->epoch;
            l->clock = header->heartbeat->clock;
            l->queue = header->heartbeat->queue;
            tell(s);
        }
    }
}

static pm_status start_shard(server *s, uint32_t index)
{
    shard_line *l = &s->shards[index];
    const pm_shard_options options = {s->tables.job, s->tables.specs, s->tables.count, index,
                                      pm_net_shm(s->options->net)};
    pm_status status = pm_shard_create(&l->own.shard, &options);
    if (status.code == PM_OK)
        status = pm_actor_start(&l->actor, s->options->net, "shard", pm_shard_actor_main, &l->own);
    if (status.code == PM_OK)
        status = pm_loop_add(s->loop, pm_actor_pipe(l->actor), on_shard, s);
    return status;
}

// The first directive carries the job.
static pm_status open_job(server *s, const Paramill__Directive *directive)
{
    if (s->open || !directive->job[0])
        return pm_ok();
    pm_status status = pm_tables_make(&s->tables, directive->job, directive->model_digest);
    for (uint32_t i = 0; i < s->count && status.code == PM_OK; i++)
        status = start_shard(s, i);
    s->open = status.code == PM_OK;
    return status;
}

static void follow(server *s, const pm_message *message)
{
    const Paramill__Directive *directive = message->header->directive;
    if (directive->verb == PARAMILL__DIRECTIVE__VERB__STOP) {
        end(s, pm_directive_result(directive));
        return;
    }
    pm_status status = open_job(s, directive);
    for (uint32_t i = 0; i < s->count && s->open && status.code == PM_OK; i++) {
        pm_message copy = {0};
        status = pm_message_copy(&copy, message);
        if (status.code == PM_OK)
            status = pm_socket_send(pm_actor_pipe(s->shards[i].actor), NULL, &copy);
    }
    if (status.code != PM_OK)
        fail(s, status);
}

static void on_member(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    server *s = context;
    (void)socket, (void)from;
    if (message->header->body_case == PARAMILL__HEADER__BODY_ERROR)
        end(s, pm_error_status(message->header->error));
    else if (message->header->body_case == PARAMILL__HEADER__BODY_DIRECTIVE)
        follow(s, message);
}

static void on_tick(void *context)
{
    server *s = context;
    if (s->failed_ms && pm_now_ms(&s->options->clock) - s->failed_ms > TOLD_MS)
        end(s, s->result);
}

static pm_status bind_shards(server *s)
{
    const pm_server_options *o = s->options;
    s->count = o->shards ? o->shards : 1;
    if (s->count > SHARDS_MAX)
        return pm_fail(PM_INVALID, "a server has at most %d shards", SHARDS_MAX);
    for (uint32_t i = 0; i < s->count; i++) {
        char endpoint[PM_ENDPOINT_MAX];
        pm_socket **socket = &s->shards[i].own.socket;
        s->shards[i].own = (pm_shard_actor){
            .net = o->net, .clock = o->clock, .log = o->log, .metrics = o->metrics, .index = i};
        pm_status status = pm_endpoint_number(endpoint, o->bind, i);
        if (status.code == PM_OK)
            status = pm_socket_create(socket, o->net, PM_SOCKET_ROUTER);
        if (status.code == PM_OK)
            status = pm_socket_bind(*socket, endpoint);
        if (status.code != PM_OK)
            return status;
        pm_endpoint_public(s->endpoints[i], pm_socket_endpoint(*socket), o->host);
    }
    return pm_ok();
}

static pm_status join(server *s)
{
    const pm_server_options *o = s->options;
    const char *endpoints[SHARDS_MAX];
    for (uint32_t i = 0; i < s->count; i++)
        endpoints[i] = s->endpoints[i];
    const pm_member_options member = {.role = PARAMILL__ROLE__ROLE_SERVER,
                                      .coordinator = o->coordinator,
                                      .host = o->host,
                                      .endpoints = endpoints,
                                      .endpoint_count = s->count,
                                      .absent_ms = o->absent_ms,
                                      .clock = o->clock,
                                      .log = o->log};
    pm_status status = pm_loop_create(&s->loop, o->clock, o->stop);
    if (status.code == PM_OK)
        status = pm_member_start(&s->member, o->net, &member);
    if (status.code == PM_OK)
        status = pm_loop_add(s->loop, pm_member_pipe(s->member), on_member, s);
    if (status.code == PM_OK)
        status = pm_loop_timer(s->loop, 100, on_tick, s);
    return status;
}

static void stop_shard(shard_line *l)
{
    if (l->actor) {
        pm_message goodbye = {.header = pm_header_create(0, 0, PARAMILL__HEADER__BODY_GOODBYE,
                                                         pm_proto_new(&paramill__goodbye__descriptor))};
        pm_status status = goodbye.header ? pm_socket_send(pm_actor_pipe(l->actor), NULL, &goodbye) : pm_ok();
        status = pm_actor_join(&l->actor);
        (void)status; // reported through the pipe when it happened
    }
    pm_shard_destroy(&l->own.shard);
    pm_socket_destroy(&l->own.socket);
}

pm_status pm_server_run(const pm_server_options *options)
{
    server *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a server");
    s->options = options;
    s->result = pm_ok();
    pm_status status = bind_shards(s);
    if (status.code == PM_OK)
        status = join(s);
    if (status.code == PM_OK)
        status = pm_loop_run(s->loop);
    if (status.code == PM_OK)
        status = s->over ? s->result : pm_fail(PM_CANCELLED, "stopped on request");
    if (options->ready)
        atomic_store(options->ready, false);
    for (uint32_t i = 0; i < s->count && i < SHARDS_MAX; i++)
        stop_shard(&s->shards[i]);
    pm_member_stop(&s->member);
    pm_loop_destroy(&s->loop);
    pm_tables_free(&s->tables);
    free(s);
    return status;
}
