#pragma once
// The worker role: leases lanes, computes their gradients, pushes them and pulls the next parameters. It
// keeps nothing that another worker could not compute again.
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_worker_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const char *coordinator; // its endpoint
    const char *host;        // NULL: the machine's name
    uint32_t absent_ms;      // 0: 60000
    pm_metrics *metrics;     // may be NULL
    atomic_bool *ready;      // set while the worker takes part in an epoch; may be NULL
    const atomic_bool *stop; // ends the role when set; may be NULL
} pm_worker_options;

// Runs until the job stops; the job's stop reason, if any, is the status. PM_CANCELLED when *stop was set.
pm_status pm_worker_run(const pm_worker_options *options) PM_CHECKED;
