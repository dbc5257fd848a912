#pragma once
// The checkpoint service: gathers the cuts that the shards send and publishes each as a version in the job's
// store, restores versions to the shards, and answers snapshot requests out of the store.
#include "core/clock.h"
#include "core/job.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_checkpoint_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const char *coordinator;  // its endpoint
    const char *bind;         // "tcp://HOST:*", "ipc://path" or "inproc://name"
    const char *host;         // the name under which others reach a tcp endpoint; NULL: the machine's name
    const char *store;        // folder; NULL: the job's
    const char *code_version; // for the manifests; NULL: left empty
    uint32_t absent_ms;       // 0: 60000
    pm_metrics *metrics;      // may be NULL
    atomic_bool *ready;       // set while it takes part in an epoch; may be NULL
    const atomic_bool *stop;  // ends the role when set; may be NULL
} pm_checkpoint_options;

// Runs until the job stops; the job's stop reason, if any, is the status. PM_CANCELLED when *stop was set.
pm_status pm_checkpoint_run(const pm_checkpoint_options *options) PM_CHECKED;
