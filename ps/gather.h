#pragma once
// The checkpoint service's protocol core: it gathers the pieces of a cut from all shards, and hands the
// pieces of a version to the shards at a restore. Disk and sockets are its caller's:
//
//   cut:     SliceState from shards -> Ack; all pieces and the scores in -> pm_gather_take -> (written) ->
//            pm_gather_saved
//   restore: pm_gather_wants -> (read) -> pm_gather_loaded -> SliceState to shards until Ack -> READY
#include "cluster/member.h"
#include "cluster/outbox.h"
#include "cluster/placement.h"
#include "ps/optimizer.h"
#include "ps/shard.h"

typedef struct pm_gather pm_gather;

// Ports of the outbox: answers to peers, then shard s by port PM_GATHER_PORT_SHARDS + s.
enum { PM_GATHER_PORT_PEERS, PM_GATHER_PORT_SHARDS };

// All slices at one clock. Buffers are references; slices in the order of the placement.
typedef struct pm_cut {
    uint64_t epoch, clock;
    uint64_t parent; // version that the epoch began from, 0: none
    uint32_t shards; // that the slices lived on
    uint32_t size;   // slices
    pm_buffer **values;
    pm_buffer **moments[PM_MOMENTS_MAX]; // NULL entries where a slice has none
    bool scored;
    double train_loss, train_accuracy; // NaN when not known
    bool validated;
    double validation_loss, validation_accuracy;
    double metrics[PM_QUALITIES_MAX]; // the job's, of the validation
    char kernel_set[48];
} pm_cut;

pm_status pm_cut_create(pm_cut **cut, uint32_t size) PM_CHECKED;
void pm_cut_destroy(pm_cut **cut);

typedef struct pm_gather_options {
    const pm_job *job;           // outlives the gather
    const pm_table_spec *tables; // copied; initial is not used
    uint32_t table_count;
} pm_gather_options;

pm_status pm_gather_create(pm_gather **gather, const pm_gather_options *options) PM_CHECKED;
void pm_gather_destroy(pm_gather **gather);

// The directive is only read. A new epoch discards the cuts that are not complete.
pm_status pm_gather_direct(pm_gather *gather, const Paramill__Directive *directive,
                           int64_t now_ms) PM_CHECKED;

// From a shard or the coordinator; the message is left for the caller to clear.
void pm_gather_handle(pm_gather *gather, const pm_peer *from, pm_message *message, int64_t now_ms);
void pm_gather_tick(pm_gather *gather, int64_t now_ms);

// True, once, when a version is to be read for the epoch; the answer is pm_gather_loaded with a cut that it
// takes over. The slices of a placement do not depend on the number of shards.
bool pm_gather_wants(pm_gather *gather, uint64_t *version);
pm_status pm_gather_loaded(pm_gather *gather, uint64_t version, pm_cut *cut, int64_t now_ms) PM_CHECKED;

// The oldest complete cut that is to be published, owned by the caller; NULL when there is none. A cut waits
// for its scores up to 30 s.
pm_cut *pm_gather_take(pm_gather *gather, int64_t now_ms);

// The newest version of the store: after each publication, and once at the start, also when there is none (0,
// 0): until then the coordinator does not count on what the heartbeats say.
void pm_gather_saved(pm_gather *gather, uint64_t version, uint64_t step);

// For the heartbeat.
pm_member_state pm_gather_state(const pm_gather *gather);

const pm_placement *pm_gather_placement(const pm_gather *gather); // NULL before the first epoch
pm_outbox *pm_gather_outbox(pm_gather *gather);
