#pragma once
// Where a worker's versions come from: a store that others write, or a checkpoint service whose versions are
// pulled into a store of the worker's own. Belongs to one thread.
#include "net/socket.h"
#include "snapshot/store.h"

#include <stdatomic.h>

typedef struct pm_source pm_source;

typedef struct pm_source_options {
    pm_net *net;
    const char *model;
    const char *store;       // folder to read; NULL: pull
    const char *checkpoint;  // endpoint of the checkpoint service to pull from
    const char *cache;       // folder that this worker alone writes
    const atomic_bool *stop; // a pull under way is given up when it is set
} pm_source_options;

pm_status pm_source_create(pm_source **source, const pm_source_options *options) PM_CHECKED;
void pm_source_destroy(pm_source **source);

// What "newest", a label or a number stands for now. When the checkpoint service does not answer, what is in
// the cache counts.
pm_status pm_source_resolve(pm_source *source, const char *name, uint64_t *version) PM_CHECKED;

// Makes the version's files be in pm_source_store: pulls them if need be.
pm_status pm_source_fetch(pm_source *source, uint64_t version) PM_CHECKED;

// Keeps the newest few versions of the worker's own cache; those of others are left alone.
pm_status pm_source_trim(pm_source *source) PM_CHECKED;

pm_store *pm_source_store(pm_source *source);
