#include "infer/router_actor.h"

#include "net/loop.h"

enum { TICK_MS = 10, DRAIN_MS = 10000 };

typedef struct actor {
    const pm_router_run_options *o;
    pm_router *core;
    pm_loop *loop;
    pm_socket *lines[PM_ROUTER_LINES];
    pm_mailbox out;
} actor;

static void on_front(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    actor *a = context;
    (void)socket;
    pm_router_front(a->core, from, message, pm_now_us(&a->o->clock), &a->out);
}

static void on_back(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    actor *a = context;
    (void)socket;
    pm_router_back(a->core, from, message, pm_now_us(&a->o->clock), &a->out);
}

static void on_tick(void *context)
{
    actor *a = context;
    pm_router_tick(a->core, pm_now_us(&a->o->clock), &a->out);
    if (a->o->ready)
        atomic_store(a->o->ready, pm_router_ready(a->core));
}

// A worker that cannot be reached gives its batches back, which adds letters.
static void deliver(actor *a)
{
    for (size_t i = 0; i < a->out.count; i++) {
        const pm_peer to = a->out.letters[i].to;
        uint32_t line = a->out.letters[i].line;
        pm_status sent = pm_socket_send(a->lines[line], &to, &a->out.letters[i].message);
        if (sent.code != PM_OK && line == PM_ROUTER_BACK)
            pm_router_lost(a->core, &to, pm_now_us(&a->o->clock), &a->out);
        else if (sent.code != PM_OK)
            pm_log_debug(&a->o->log, "client_gone", "why=\"%s\"", sent.message);
    }
    pm_mailbox_clear(&a->out);
}

static pm_status open_lines(actor *a)
{
    const char *endpoints[PM_ROUTER_LINES] = {a->o->front, a->o->back};
    static const pm_on_message handlers[PM_ROUTER_LINES] = {on_front, on_back};
    pm_status status = pm_loop_create(&a->loop, a->o->clock, NULL);
    for (int i = 0; i < PM_ROUTER_LINES && status.code == PM_OK; i++) {
        status = pm_socket_create(&a->lines[i], a->o->net, PM_SOCKET_ROUTER);
        if (status.code == PM_OK)
            status = pm_socket_bind(a->lines[i], endpoints[i]);
        if (status.code == PM_OK)
            status = pm_loop_add(a->loop, a->lines[i], handlers[i], a);
    }
    if (status.code == PM_OK)
        status = pm_loop_timer(a->loop, TICK_MS, on_tick, a);
    return status;
}

static pm_status work(actor *a)
{
    pm_status status = pm_ok();
    int64_t end_us = 0; // of draining; 0: not draining
    while (status.code == PM_OK) {
        int64_t now_us = pm_now_us(&a->o->clock);
        if (!end_us && a->o->stop && atomic_load(a->o->stop)) {
            end_us = now_us + (int64_t)DRAIN_MS * 1000;
            pm_router_drain(a->core);
            pm_log_info(&a->o->log, "draining", "held=%zu", pm_router_held(a->core));
        }
        if (end_us && (pm_router_held(a->core) == 0 || now_us >= end_us))
            break;
        status = pm_loop_turn(a->loop, TICK_MS);
        pm_router_dispatch(a->core, pm_now_us(&a->o->clock), &a->out);
        deliver(a);
    }
    pm_router_give_up(a->core, &a->out);
    deliver(a);
    return status;
}

pm_status pm_router_run(const pm_router_run_options *options)
{
    actor a = {.o = options};
    const pm_router_options core = {
        .queue_max = options->queue_max, .log = options->log, .metrics = options->metrics};
    pm_status status = pm_router_create(&a.core, &core);
    if (status.code == PM_OK)
        status = open_lines(&a);
    if (status.code == PM_OK) {
        const char *front = pm_socket_endpoint(a.lines[PM_ROUTER_FRONT]),
                   *back = pm_socket_endpoint(a.lines[PM_ROUTER_BACK]);
        pm_log_info(&options->log, "listening", "front=%s back=%s", front, back);
        if (options->on_bound)
            options->on_bound(options->on_bound_context, front, back);
        status = work(&a);
        pm_log_info(&options->log, "stopped", "status=%s", pm_code_name(status.code));
    }
    if (options->ready)
        atomic_store(options->ready, false);
    for (int i = 0; i < PM_ROUTER_LINES; i++)
        pm_socket_destroy(&a.lines[i]);
    pm_loop_destroy(&a.loop);
    pm_router_destroy(&a.core);
    pm_mailbox_free(&a.out);
    return status;
}
