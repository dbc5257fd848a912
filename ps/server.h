#pragma once
// The server role: one thread and one ROUTER socket a shard, and the line to the coordinator.
#include "core/clock.h"
#include "core/job.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_server_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const char *coordinator; // its endpoint
    const char *bind;    // "tcp://HOST:*", "ipc://path" or "inproc://name"; of several shards the later ones
                         // get "-1", "-2", … appended, except with "*"
    const char *host;    // the name under which others reach a tcp endpoint; NULL: the machine's name
    uint32_t shards;     // sockets to open: the job's shards_per_server; 0: 1
    uint32_t absent_ms;  // 0: 60000
    pm_metrics *metrics; // may be NULL
    atomic_bool *ready;  // set while the server takes part in an epoch; may be NULL
    const atomic_bool *stop; // ends the role when set; may be NULL
} pm_server_options;

// Runs until the job stops; the job's stop reason, if any, is the status. PM_CANCELLED when *stop was set.
pm_status pm_server_run(const pm_server_options *options) PM_CHECKED;
