#include "net/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    SOCKETS_MAX = 1024,
    TIMERS_MAX = 16,
    STOP_CHECK_MS = 100,
    TURN = 64 // messages taken from one socket before the next has its turn
};

typedef struct watched {
    pm_socket *socket; // NULL: removed
    pm_on_message on_message;
    void *context;
} watched;

typedef struct timer {
    int64_t interval_us, due_us;
    pm_on_timer on_timer;
    void *context;
} timer;

struct pm_loop {
    pm_clock clock;
    const atomic_bool *stop;
    bool ended;
    watched sockets[SOCKETS_MAX];
    int socket_count;
    timer timers[TIMERS_MAX];
    int timer_count;
};

pm_status pm_loop_create(pm_loop **loop, pm_clock clock, const atomic_bool *stop)
{
    pm_loop *l = calloc(1, sizeof *l);
    if (!l)
        return pm_fail(PM_NO_MEMORY, "an event loop");
    l->clock = clock;
    l->stop = stop;
    *loop = l;
    return pm_ok();
}

void pm_loop_destroy(pm_loop **loop)
{
    if (!loop || !*loop)
        return;
    free(*loop);
    *loop = NULL;
}

pm_status pm_loop_add(pm_loop *loop, pm_socket *socket, pm_on_message on_message, void *context)
{
    int at = 0;
    while (at < loop->socket_count && loop->sockets[at].socket)
        at++;
    if (at == SOCKETS_MAX)
        return pm_fail(PM_NO_MEMORY, "a loop watches at most %d sockets", SOCKETS_MAX);
    loop->sockets[at] = (watched){socket, on_message, context};
    if (at == loop->socket_count)
        loop->socket_count++;
    return pm_ok();
}

void pm_loop_remove(pm_loop *loop, pm_socket *socket)
{
    for (int i = 0; i < loop->socket_count; i++)
        if (loop->sockets[i].socket == socket)
            loop->sockets[i].socket = NULL;
}

pm_status pm_loop_timer(pm_loop *loop, int interval_ms, pm_on_timer on_timer, void *context)
{
    if (loop->timer_count == TIMERS_MAX)
        return pm_fail(PM_NO_MEMORY, "a loop has at most %d timers", TIMERS_MAX);
    int64_t interval = (int64_t)interval_ms * 1000;
    loop->timers[loop->timer_count++] =
        (timer){interval, pm_now_us(&loop->clock) + interval, on_timer, context};
    return pm_ok();
}

static bool over(const pm_loop *loop)
{
    return loop->ended || (loop->stop && atomic_load_explicit(loop->stop, memory_order_relaxed));
}

static int due_ms(const pm_loop *loop)
{
    int64_t now = pm_now_us(&loop->clock), wait = STOP_CHECK_MS;
    for (int i = 0; i < loop->timer_count; i++) {
        int64_t left = (loop->timers[i].due_us - now + 999) / 1000;
        wait = left < wait ? left : wait;
    }
    return wait < 0 ? 0 : (int)wait;
}

static void refuse(pm_socket *socket, const pm_peer *to, pm_status why)
{
    if (pm_socket_get_kind(socket) != PM_SOCKET_ROUTER || to->size == 0)
        return;
    pm_message answer = {.header = pm_header_error(0, 0, why, 0)};
    if (answer.header) {
        pm_status sent = pm_socket_send(socket, to, &answer);
        (void)sent; // a peer that sends no messages and is gone is no loss
    }
}

static void drain(pm_loop *loop, int index)
{
    watched *w = &loop->sockets[index];
    for (int i = 0; i < TURN && w->socket && !over(loop); i++) {
        pm_socket *socket = w->socket;
        pm_peer from = {0};
        pm_message message = {0};
        pm_status status = pm_socket_receive(socket, &from, &message, 0);
        if (status.code == PM_OK)
            w->on_message(w->context, socket, &from, &message);
        else if (status.code == PM_PROTOCOL)
            refuse(socket, &from, status);
        pm_message_clear(&message);
        if (status.code == PM_TIMEOUT || status.code == PM_CANCELLED || status.code == PM_IO)
            return;
    }
}

static void run_timers(pm_loop *loop)
{
    int64_t now = pm_now_us(&loop->clock);
    for (int i = 0; i < loop->timer_count && !over(loop); i++) {
        timer *t = &loop->timers[i];
        if (t->due_us > now)
            continue;
        t->due_us = now + t->interval_us;
        t->on_timer(t->context);
    }
}

// Sleeps for at most wait_ms until a socket has something. has (sockets): which do.
static pm_status wait_for_sockets(pm_loop *loop, int wait_ms, bool *has)
{
    zmq_pollitem_t items[2 * SOCKETS_MAX];
    int count = 0;
    for (int i = 0; i < loop->socket_count; i++) {
        pm_socket *socket = loop->sockets[i].socket;
        if (!socket)
            continue;
        items[count++] = (zmq_pollitem_t){pm_socket_handle(socket), 0, ZMQ_POLLIN, 0};
        if (pm_socket_bell(socket) >= 0)
            items[count++] = (zmq_pollitem_t){NULL, pm_socket_bell(socket), ZMQ_POLLIN, 0};
        if (wait_ms > 0 && pm_socket_doze(socket))
            wait_ms = 0;
    }
    const int ready = zmq_poll(items, count, wait_ms);
    const int error = errno;
    count = 0;
    for (int i = 0; i < loop->socket_count; i++) {
        pm_socket *socket = loop->sockets[i].socket;
        if (!socket)
            continue;
        const bool told = ready > 0 && (items[count].revents & ZMQ_POLLIN);
        count += pm_socket_bell(socket) >= 0 ? 2 : 1;
        has[i] = pm_socket_wake(socket) || told;
    }
    return ready >= 0 || error == EINTR
               ? pm_ok()
               : pm_fail(PM_IO, "the event loop cannot wait: %s", zmq_strerror(error));
}

pm_status pm_loop_turn(pm_loop *loop, int wait_ms)
{
    const int due = due_ms(loop), count = loop->socket_count;
    bool has[SOCKETS_MAX] = {false};
    pm_status status = wait_for_sockets(loop, due < wait_ms ? due : wait_ms, has);
    if (status.code != PM_OK)
        return status;
    for (int i = 0; i < count && !over(loop); i++)
        if (has[i])
            drain(loop, i);
    run_timers(loop);
    return pm_ok();
}

pm_status pm_loop_run(pm_loop *loop)
{
    pm_status status = pm_ok();
    loop->ended = false;
    while (!over(loop) && status.code == PM_OK)
        status = pm_loop_turn(loop, STOP_CHECK_MS);
    return status;
}

void pm_loop_end(pm_loop *loop)
{
    loop->ended = true;
}
