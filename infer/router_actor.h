#pragma once
// The router as a role: its core (infer/router.h) between two ROUTER sockets.
#include "core/clock.h"
#include "infer/router.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_router_run_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const char *front;   // endpoint for clients
    const char *back;    // endpoint for infer workers
    uint32_t queue_max;  // requests waiting for one model; 0: the core's default
    pm_metrics *metrics; // may be NULL
    atomic_bool *ready;  // set while a worker with a loaded version is there; may be NULL
    const atomic_bool *stop;
    void (*on_bound)(void *context, const char *front, const char *back); // may be NULL
    void *on_bound_context;
} pm_router_run_options;

// Runs until *stop; then refuses what is new, answers what is held, for 10 s at most, and returns PM_OK. A
// failure: an endpoint cannot be bound.
pm_status pm_router_run(const pm_router_run_options *options) PM_CHECKED;
