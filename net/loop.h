#pragma once
// An event loop of one thread: sockets and timers with callbacks. Everything it calls runs on the thread that
// called pm_loop_run.
#include "core/clock.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_loop pm_loop;

// A whole, decoded message; the callback may take its content (pm_message_move), the loop clears what is
// left. from is set for ROUTER sockets.
typedef void (*pm_on_message)(void *context, pm_socket *socket, const pm_peer *from, pm_message *message);
typedef void (*pm_on_timer)(void *context);

// stop (may be NULL): the loop ends soon (100 ms) after it becomes true; set by a signal handler or another
// thread.
pm_status pm_loop_create(pm_loop **loop, pm_clock clock, const atomic_bool *stop) PM_CHECKED;
void pm_loop_destroy(pm_loop **loop);

// The socket stays the caller's and must outlive the loop or be removed first. What a ROUTER's peer sends
// that is no message is answered with an Error and goes no further.
pm_status pm_loop_add(pm_loop *loop, pm_socket *socket, pm_on_message on_message, void *context) PM_CHECKED;
void pm_loop_remove(pm_loop *loop, pm_socket *socket);

// Calls on_timer every interval_ms, first after one interval.
pm_status pm_loop_timer(pm_loop *loop, int interval_ms, pm_on_timer on_timer, void *context) PM_CHECKED;

// Runs until pm_loop_end or the stop flag. Messages that wait go before timers that are due.
pm_status pm_loop_run(pm_loop *loop) PM_CHECKED;

// One round: waits for a message or a timer, at most wait_ms (0: not at all) and never beyond 100 ms, calls
// what is due, returns.
pm_status pm_loop_turn(pm_loop *loop, int wait_ms) PM_CHECKED;

// From inside a callback: the loop returns after it.
void pm_loop_end(pm_loop *loop);
