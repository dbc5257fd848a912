#pragma once
// The loader thread of an infer worker: watches what the wanted version stands for, loads what is new at low
// priority, and hands it over; frees what the worker gives back. Loading never stands in the way of a batch.
//
// A version that cannot be loaded is logged and left alone until the wanted one is another; what is loaded
// goes on. Only what may pass (no memory, no peer, no disk) is tried again.
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "infer/loader.h"
#include "infer/source.h"

typedef struct pm_watcher pm_watcher;

typedef struct pm_watcher_options {
    pm_source_options source; // its stop is set by the watcher
    pm_log log;
    pm_clock clock;
    const char *version; // "newest", a label or a number
    uint32_t max_rows, threads;
    uint32_t poll_ms;
    pm_metrics *metrics; // may be NULL
} pm_watcher_options;

// Opens the source, so that a wrong option fails here, and starts the thread. The caller owns *watcher.
pm_status pm_watcher_start(pm_watcher **watcher, const pm_watcher_options *options) PM_CHECKED;

// Something arrives here when a model is ready to be taken.
pm_socket *pm_watcher_pipe(pm_watcher *watcher);

// The newest loaded model that was not taken yet; NULL: none. The caller owns it.
pm_model *pm_watcher_take(pm_watcher *watcher);

// Gives a model back, to be freed on the loader thread. NULL is allowed.
void pm_watcher_retire(pm_watcher *watcher, pm_model *model);

// Ends the thread and frees what it holds.
void pm_watcher_stop(pm_watcher **watcher);
