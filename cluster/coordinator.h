#pragma once
// The coordinator: who is there, who does what. Each member's heartbeat is answered by its current directive,
// so the cluster follows the coordinator's state whatever messages are lost. This is the role; the protocol
// core is cluster/roster.h.
#include "core/clock.h"
#include "core/job.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_progress {
    uint64_t step, total_steps; // steps that all lanes have reported
    uint32_t epoch, epochs;     // from 1
    double loss, accuracy;    // of the step: means over its rows; accuracy NAN where the loss does not judge
    double images_per_second; // over the last ten seconds or so
    double seconds_left;
} pm_progress;

// Called on the coordinator's thread; each may be NULL.
typedef struct pm_coordinator_events {
    void *context;
    void (*on_phase)(void *context,
                     const char *text); // "waiting for 1 of 2 servers, 2 of 2 workers", "running", …
    void (*on_step)(void *context, const pm_progress *progress);
    void (*on_validation)(void *context, uint64_t clock, double loss, double accuracy, uint64_t rows);
    void (*on_metric)(void *context, uint64_t clock, const char *name, double value); // after on_validation
    void (*on_version)(void *context, uint64_t version, uint64_t step);
    void (*on_bound)(void *context, const char *endpoint); // the address in use, before anything else
} pm_coordinator_events;

typedef struct pm_coordinator_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const pm_job *job;      // outlives the run
    uint64_t train_rows;    // of the training data
    const char *vocabulary; // of a text's characters; NULL where rows are no text
    bool resume;            // go on from the newest version in the store
    bool stay;              // when the job is done, keep all members until *stop: the store stays served
    const char *bind;       // "tcp://host:port" (port * for a free one) or "inproc://name"
    uint32_t absent_ms;     // how long a role may be missing before the job ends; 0: 60000
    pm_coordinator_events events;
    pm_metrics *metrics;     // may be NULL
    atomic_bool *ready;      // set while the job runs; may be NULL
    const atomic_bool *stop; // ends the job when set; may be NULL
} pm_coordinator_options;

// Runs the job to its end. PM_OK when all steps are done and the last version is published; else the reason,
// which names the member at fault. PM_CANCELLED when *stop was set: the members are told to stop first.
pm_status pm_coordinator_run(const pm_coordinator_options *options) PM_CHECKED;
