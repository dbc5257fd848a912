#pragma once
// The router's core: holds the requests of each model in one bounded queue, gives batches of them to the
// infer workers that have credit, and answers. A state machine without I/O: messages and the time go in,
// letters come out; infer/router_actor.h gives it sockets.
//
// A request that is held is answered once: with the outputs, or with an Error. Its batch may be computed more
// than once, because inference is idempotent: when a worker falls silent or is gone, its batches go back to
// the front of the queue, and what it still says of them is dropped.
#include "core/log.h"
#include "core/metrics.h"
#include "infer/mailbox.h"

#include <stdbool.h>

enum { PM_ROUTER_FRONT, PM_ROUTER_BACK, PM_ROUTER_LINES };

// How often a worker announces itself, and the silence after which it is taken for dead.
enum { PM_INFER_HEARTBEAT_MS = 200, PM_INFER_SILENT_MS = 2000 };

typedef struct pm_router pm_router;

// Zero means the default in brackets.
typedef struct pm_router_options {
    uint32_t queue_max; // requests waiting for one model [4096]
    size_t queue_bytes; // their inputs [512 MiB]
    uint32_t hold_ms;   // longest a request is held, and its deadline when it has none [30000]
    pm_log log;
    pm_metrics *metrics; // may be NULL
} pm_router_options;

pm_status pm_router_create(pm_router **router, const pm_router_options *options) PM_CHECKED;
void pm_router_destroy(pm_router **router);

// A message from a client; its frames may be taken. Every message is answered, now or later.
void pm_router_front(pm_router *router, const pm_peer *from, pm_message *message, int64_t now_us,
                     pm_mailbox *out);

// A message from an infer worker.
void pm_router_back(pm_router *router, const pm_peer *from, pm_message *message, int64_t now_us,
                    pm_mailbox *out);

// Gives what is queued to workers with credit. Called after all messages at hand are in: what arrived
// together travels together, and nothing waits for company.
void pm_router_dispatch(pm_router *router, int64_t now_us, pm_mailbox *out);

// Deadlines and silent workers; to be called every 10 ms or so.
void pm_router_tick(pm_router *router, int64_t now_us, pm_mailbox *out);

// A letter to this worker could not be delivered: its batches go back to the queue.
void pm_router_lost(pm_router *router, const pm_peer *worker, int64_t now_us, pm_mailbox *out);

// From now on new requests are refused; those that are held are still answered.
void pm_router_drain(pm_router *router);

// Answers everything that is held with PM_UNAVAILABLE.
void pm_router_give_up(pm_router *router, pm_mailbox *out);

// Requests accepted and not yet answered.
size_t pm_router_held(const pm_router *router);

// True while a worker with a loaded version is there.
bool pm_router_ready(const pm_router *router);
