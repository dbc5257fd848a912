#include "ps/shard_actor.h"

#include "cluster/directive.h"
#include "cluster/endpoint.h"
#include "net/loop.h"

#include <stdio.h>
#include <string.h>

enum { TICK_MS = 50 };

typedef struct actor {
    pm_shard_actor *own;
    pm_loop *loop;
    pm_socket *pipe;
    pm_socket *ports[PM_SHARD_PORTS]; // peers, checkpoint service
    char checkpoint[PM_ENDPOINT_MAX]; // where ports[1] is connected to
    Paramill__Phase phase;            // told last
    uint64_t epoch, clock;
    pm_status failure;
    pm_shard_stats counted;
    pm_metric *pushes, *duplicates, *pulls, *refused, *updates, *waiting, *kept, *clock_gauge;
} actor;

static int64_t now(const actor *a)
{
    return pm_now_ms(&a->own->clock);
}

static void count(actor *a)
{
    pm_shard_stats s = pm_shard_get_stats(a->own->shard);
    pm_metric_add(a->pushes, s.pushes - a->counted.pushes);
    pm_metric_add(a->duplicates, s.duplicates - a->counted.duplicates);
    pm_metric_add(a->pulls, s.pulls - a->counted.pulls);
    pm_metric_add(a->refused, s.refused - a->counted.refused);
    pm_metric_add(a->updates, s.updates - a->counted.updates);
    pm_metric_set(a->waiting, (double)s.waiting);
    pm_metric_set(a->kept, (double)s.kept);
    pm_metric_set(a->clock_gauge, (double)pm_shard_clock(a->own->shard));
    a->counted = s;
}

static void tell(actor *a, bool clock_too)
{
    Paramill__Phase phase = pm_shard_phase(a->own->shard);
    uint64_t epoch = pm_shard_epoch(a->own->shard), clock = pm_shard_clock(a->own->shard);
    if (phase == a->phase && epoch == a->epoch && (!clock_too || clock == a->clock))
        return;
    Paramill__Heartbeat *beat = pm_proto_new(&paramill__heartbeat__descriptor);
    if (!beat)
        return;
    beat->phase = phase;
    beat->clock = clock;
    beat->queue = pm_shard_get_stats(a->own->shard).waiting;
    pm_message message = {.header = pm_header_create(0, epoch, PARAMILL__HEADER__BODY_HEARTBEAT, beat)};
    if (!message.header)
        return;
    pm_status status = pm_socket_send(a->pipe, NULL, &message);
    if (status.code != PM_OK)
        return; // at the next tick
    a->phase = phase;
    a->epoch = epoch;
    a->clock = clock;
}

static void fail(actor *a, pm_status status)
{
    if (a->failure.code == PM_OK)
        a->failure = status;
    pm_loop_end(a->loop);
}

static void settle(actor *a)
{
    pm_outbox_send(pm_shard_outbox(a->own->shard), a->ports, PM_SHARD_PORTS);
    tell(a, false);
}

static void on_message(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    actor *a = context;
    (void)socket;
    pm_shard_handle(a->own->shard, from, message, now(a));
    settle(a);
}

static void close_checkpoint(actor *a)
{
    if (a->ports[PM_SHARD_PORT_CHECKPOINT])
        pm_loop_remove(a->loop, a->ports[PM_SHARD_PORT_CHECKPOINT]);
    pm_socket_destroy(&a->ports[PM_SHARD_PORT_CHECKPOINT]);
    a->checkpoint[0] = '\0';
}

// A new address gets a new socket: what was queued for the old one goes with it, and is sent again.
static pm_status connect_checkpoint(actor *a, const Paramill__Directive *directive)
{
    const Paramill__Member *service = pm_directive_checkpoint(directive);
    if (!service || !strcmp(a->checkpoint, service->endpoints[0]))
        return pm_ok();
    close_checkpoint(a);
    pm_socket **socket = &a->ports[PM_SHARD_PORT_CHECKPOINT];
    pm_status status = pm_socket_create(socket, a->own->net, PM_SOCKET_DEALER);
    if (status.code == PM_OK)
        status = pm_socket_connect(*socket, service->endpoints[0]);
    if (status.code == PM_OK)
        status = pm_loop_add(a->loop, *socket, on_message, a);
    snprintf(a->checkpoint, sizeof a->checkpoint, "%s", service->endpoints[0]);
    return pm_wrap(status, "the line to the checkpoint service");
}

static void on_pipe(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    actor *a = context;
    (void)socket, (void)from;
    if (message->header->body_case == PARAMILL__HEADER__BODY_GOODBYE) {
        pm_loop_end(a->loop);
        return;
    }
    if (message->header->body_case != PARAMILL__HEADER__BODY_DIRECTIVE)
        return;
    const Paramill__Directive *directive = message->header->directive;
    pm_status status = connect_checkpoint(a, directive);
    if (status.code == PM_OK)
        status = pm_shard_direct(a->own->shard, directive, now(a));
    if (status.code != PM_OK) {
        fail(a, status);
        return;
    }
    settle(a);
}

static void on_tick(void *context)
{
    actor *a = context;
    pm_shard_tick(a->own->shard, now(a));
    settle(a);
    tell(a, true);
    count(a);
}

static void make_metrics(actor *a)
{
    pm_metrics *m = a->own->metrics;
    char label[32];
    snprintf(label, sizeof label, "shard=\"%u\"", a->own->index);
    a->pushes = pm_counter(m, "paramill_shard_pushes_total", "Pushes of the right shape.", label);
    a->duplicates =
        pm_counter(m, "paramill_shard_duplicates_total", "Pushes whose lanes were in already.", label);
    a->pulls = pm_counter(m, "paramill_shard_pulls_total", "Pulls.", label);
    a->refused = pm_counter(m, "paramill_shard_refused_total", "Requests answered with an error.", label);
    a->updates = pm_counter(m, "paramill_shard_updates_total", "Slices moved to their next clock.", label);
    a->waiting = pm_gauge(m, "paramill_shard_waiting", "Requests that wait for a clock.", label);
    a->kept =
        pm_gauge(m, "paramill_shard_cut_pieces", "Pieces of cuts held until they are published.", label);
    a->clock_gauge = pm_gauge(m, "paramill_shard_clock", "The oldest clock of its slices.", label);
}

static pm_status open(actor *a)
{
    make_metrics(a);
    a->ports[PM_SHARD_PORT_PEERS] = a->own->socket;
    pm_status status = pm_loop_create(&a->loop, a->own->clock, NULL);
    if (status.code == PM_OK)
        status = pm_loop_add(a->loop, a->pipe, on_pipe, a);
    if (status.code == PM_OK)
        status = pm_loop_add(a->loop, a->own->socket, on_message, a);
    if (status.code == PM_OK)
        status = pm_loop_timer(a->loop, TICK_MS, on_tick, a);
    return status;
}

pm_status pm_shard_actor_main(void *argument, pm_socket *pipe)
{
    actor a = {.own = argument, .pipe = pipe, .failure = pm_ok()};
    pm_status status = open(&a);
    if (status.code == PM_OK)
        status = pm_loop_run(a.loop);
    if (status.code == PM_OK)
        status = a.failure;
    if (status.code != PM_OK) {
        pm_message error = {.header = pm_header_error(0, 0, status, 0)};
        pm_status told = error.header ? pm_socket_send(pipe, NULL, &error) : pm_ok();
        (void)told; // the server also sees that the thread has ended
    }
    pm_socket_destroy(&a.ports[PM_SHARD_PORT_CHECKPOINT]);
    pm_socket_destroy(&a.own->socket);
    pm_loop_destroy(&a.loop);
    pm_shard_destroy(&a.own->shard);
    return status;
}
