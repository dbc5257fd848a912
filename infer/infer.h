#pragma once
// The infer worker role: holds one version of one model, computes the batches that routers give it, and swaps
// in a newer version between two batches when the loader thread has it ready.
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/socket.h"

#include <stdatomic.h>

enum { PM_INFER_ROUTERS = 16 };

typedef struct pm_infer_options {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    const char *const *routers; // back endpoints
    uint32_t router_count;      // 1 … PM_INFER_ROUTERS
    const char *model;          // its name in the store
    const char *version;        // "newest", a label or a number; NULL: newest
    const char *store;          // folder to read; NULL: pull from the checkpoint service
    const char *checkpoint;     // its endpoint
    const char *cache;          // folder for what is pulled, this worker's alone
    uint32_t max_rows;          // of a batch; 0: 256
    uint32_t threads;           // that compute a batch, 1 … PM_THREADS_MAX; 0: 1
    uint32_t poll_ms;           // how often a new version is looked for; 0: 100
    pm_metrics *metrics;        // may be NULL
    atomic_bool *ready;         // set while a version is loaded; may be NULL
    const atomic_bool *stop;
} pm_infer_options;

// Runs until *stop; then tells the routers, answers what it holds, and returns PM_OK. PM_INVALID: an option.
pm_status pm_infer_run(const pm_infer_options *options) PM_CHECKED;
