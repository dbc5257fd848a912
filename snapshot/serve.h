#pragma once
// Snapshots over the wire. The server's half answers SnapshotListRequest, SnapshotManifestRequest and
// SnapshotChunkRequest from a store; the puller's half copies one version into a local store, chunk by chunk,
// and publishes it there only when every digest fits. Neither has a socket.
#include "proto/message.h"
#include "snapshot/store.h"

// True for the three requests.
bool pm_snapshot_is_request(const pm_message *message);

// Fills *answer (empty before) with the reply, or with an Error. PM_NO_MEMORY only.
pm_status pm_snapshot_answer(pm_store *store, const pm_message *request, pm_message *answer) PM_CHECKED;

// ---- pulling one version ----

typedef struct pm_pull pm_pull;

// Pulls a version into the store, which is open for writing. Training state is left out. The store outlives
// the pull.
pm_status pm_pull_create(pm_pull **pull, pm_store *store, uint64_t version) PM_CHECKED;

// Gives up what is not complete; NULL is allowed.
void pm_pull_destroy(pm_pull **pull);

// The next request to send, with the given id. Asking twice without an answer between gives the same request
// again.
pm_status pm_pull_next(pm_pull *pull, uint64_t id, pm_message *request) PM_CHECKED;

// Takes the answer in. PM_CORRUPT when what came is not what the manifest promised; then the pull is of no
// more use.
pm_status pm_pull_take(pm_pull *pull, const pm_message *answer) PM_CHECKED;

// True once the version is published in the local store.
bool pm_pull_is_done(const pm_pull *pull);
