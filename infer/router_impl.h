#pragma once
// What the router's files share.
#include "core/digest.h"
#include "infer/envelope.h"
#include "infer/metadata.h"
#include "infer/router.h"

enum {
    PM_ROUTER_WORKERS = 256,
    PM_ROUTER_MODELS = 64,
    PM_MODEL_NAME = 72,
    PM_REQUEST_ID = 128,   // bytes of a request's id, its NUL included
    PM_WORKER_BATCHES = 8, // batches that one worker may hold at once
    PM_RETRIES = 2,        // times that a failed batch is tried again
    PM_RETRY_MS = 50       // hint where nothing better is known
};

// One held request.
typedef struct pm_query {
    struct pm_query *next, *previous;
    pm_peer peer;
    uint64_t request;
    char id[PM_REQUEST_ID];
    uint64_t version; // that must answer; 0: any
    uint32_t rows, tries;
    bool alone; // its batch failed: it goes by itself, so that nobody suffers from another's input
    int64_t arrived_us, deadline_us;
    int64_t shape[PM_MAX_RANK]; // of one row
    uint32_t rank;
    pm_type type;
    pm_buffer *frame; // (rows, row elements) of the type
} pm_query;

typedef struct pm_query_list {
    pm_query *first, *last;
    size_t count, rows, bytes;
} pm_query_list;

typedef struct pm_batch {
    uint64_t id; // 0: the place is free
    pm_query_list queries;
    int64_t sent_us;
} pm_batch;

typedef struct pm_routed_model {
    char name[PM_MODEL_NAME];
    pm_query_list queue;
    double batch_us, row_us; // smoothed time of a batch at a worker, and of a row in it; 0: not known
    uint64_t answered, failed, refused;
    pm_metric *queue_gauge;
} pm_routed_model;

typedef struct pm_routed_worker {
    pm_peer peer;
    char name[128];
    pm_routed_model *model;
    uint64_t version; // 0: nothing loaded
    char digest[PM_DIGEST_HEX];
    pm_signature signature;
    uint32_t max_rows;
    uint32_t credits;  // as told last, less what was sent since
    uint32_t capacity; // most credits it ever told: what it may hold of ours
    uint32_t in_flight;
    bool leaving;
    int64_t seen_us, answered_us;
    uint64_t round; // of dispatching, in which it had nothing to take
    pm_batch batches[PM_WORKER_BATCHES];
} pm_routed_worker;

struct pm_router {
    pm_router_options options;
    bool draining;
    pm_routed_worker *workers[PM_ROUTER_WORKERS];
    uint32_t worker_count;
    pm_routed_model *models[PM_ROUTER_MODELS];
    uint32_t model_count;
    pm_query *spare; // queries to use again
    size_t held;
    uint64_t next_batch, round;
    pm_metric *outcomes[PM_INTERNAL + 1]; // by pm_code
    pm_metric *seconds, *batches, *batch_rows, *again, *workers_gauge;
};

// ---- lists (router.c) ----
void pm_query_append(pm_query_list *list, pm_query *query);
void pm_query_remove(pm_query_list *list, pm_query *query);
// Moves all of from in front of list, order kept.
void pm_query_prepend(pm_query_list *list, pm_query_list *from);

// ---- looking around (router.c) ----
pm_routed_model *pm_router_model(pm_router *router, const char *name);
// Has a version and takes batches.
bool pm_worker_serves(const pm_routed_worker *worker);
bool pm_worker_can(const pm_routed_worker *worker, const pm_query *query);
// A worker that serves the model, in that version unless 0; NULL when there is none. When why is given, it
// says so.
pm_routed_worker *pm_router_find(pm_router *router, const char *name, uint64_t version, pm_status *why,
                                 uint32_t *retry_ms);
// "" is 0, otherwise a decimal number above 0; false when it is none.
bool pm_version_parse(const char *text, uint64_t *version);

// ---- answering (router_answer.c) ----
// An Error to somebody whose request is not held.
void pm_router_refuse(pm_router *router, const pm_peer *to, uint64_t request, pm_status why,
                      uint32_t retry_ms, pm_mailbox *out);
// An Error for a held query, which is in no list any more; frees it.
void pm_router_fail(pm_router *router, pm_routed_model *model, pm_query *query, pm_status why,
                    uint32_t retry_ms, pm_mailbox *out);
// The outputs of a batch for its queries, which are freed. outputs: (rows, output elements).
void pm_router_deliver(pm_router *router, pm_routed_worker *worker, pm_batch *batch, pm_buffer *outputs,
                       int64_t now_us, pm_mailbox *out);

// ---- workers (router_workers.c) ----
// Puts the worker's batches back to the front of the queue and forgets the worker.
void pm_router_bury(pm_router *router, pm_routed_worker *worker, pm_mailbox *out);

// ---- status (router_status.c) ----
void pm_router_answer_status(pm_router *router, const pm_peer *to, uint64_t request, int64_t now_us,
                             pm_mailbox *out);
void pm_router_answer_ready(pm_router *router, const pm_peer *to, const pm_message *message, pm_mailbox *out);
void pm_router_answer_metadata(pm_router *router, const pm_peer *to, const pm_message *message,
                               pm_mailbox *out);
