#pragma once
// What the parts of the shard share: shard.c (messages), table.c (slices, the tree, the update), cut.c
// (pieces of cuts on their way to the checkpoint service).
#include "ps/shard.h"

#include "cluster/lanes.h"
#include "cluster/placement.h"
#include "cluster/schedule.h"
#include "net/pool.h"
#include "ps/optimizer.h"

enum { CUTS_KEPT = 2 };

typedef struct shard_waiter {
    pm_peer peer;
    uint64_t request, clock;
    bool light;        // the answer is without values: they are frozen, or rows are asked for by themselves
    pm_buffer *ids;    // rows of a sparse slice that are asked for; NULL: all
    int64_t forget_ms; // a peer that died is not answered for ever
} shard_waiter;

// A piece of a cut: references to the values and moments of that clock, held until the version is published.
typedef struct shard_cut {
    uint64_t clock;
    pm_buffer *values; // NULL: this place is free
    pm_buffer *moments[PM_MOMENTS_MAX];
    bool acknowledged;
    int64_t resend_ms;
    uint32_t tries;
} shard_cut;

typedef struct shard_slice {
    const pm_slice *place;
    uint64_t clock;
    pm_buffer *values;   // of clock; NULL until restored, and always when the slice lives elsewhere
    pm_buffer *previous; // of clock - 1; NULL at the start
    pm_buffer *moments[PM_MOMENTS_MAX]; // as many as moment_count
    uint32_t moment_count;
    bool frozen;             // the table's
    uint32_t width;          // of a row; 0: dense
    pm_buffer *previous_ids; // sparse: previous holds these rows only
    pm_lane_set in;          // nodes whose partial sums have arrived and are not yet part of a higher one
    pm_lane_set ours;        // of these, sums that were made here: only they are written to
    pm_buffer **nodes;       // 2 * lanes
    pm_buffer **node_ids;    // 2 * lanes; sparse: whose rows the node's are; NULL: there are none
    shard_waiter *waiters;
    uint32_t waiter_count, waiter_capacity;
    shard_cut cuts[CUTS_KEPT];
} shard_slice;

struct pm_shard {
    const pm_job *job;
    pm_table_spec *tables;
    uint64_t *counts;
    uint32_t *widths;
    uint32_t table_count, index, lanes;
    pm_pool *pool;
    pm_outbox outbox;
    pm_shard_stats stats;

    uint64_t epoch, start_clock;
    bool running;
    uint32_t number; // among all shards
    pm_steps steps;
    pm_placement *placement;
    shard_slice *slices; // all of the placement; only the owned ones are filled
    uint32_t *owned;
    uint32_t owned_count;
    uint32_t missing; // owned slices that are not restored yet
    char *checkpoint; // name of the service that the pieces of cuts went to, NULL: none
};

typedef enum shard_arrival {
    ARRIVAL_FIRST,     // some lanes are still missing
    ARRIVAL_DUPLICATE, // these lanes were in
    ARRIVAL_LAST       // the slice is at its next clock
} shard_arrival;

// Takes new references of the sum of a node (NULL of a frozen table, or of no rows) and of its rows' ids
// (NULL of a dense table). PM_UNAVAILABLE: no memory; the node did not arrive.
pm_status pm_shard_add(pm_shard *shard, shard_slice *slice, uint32_t node, pm_buffer *sum, pm_buffer *ids,
                       shard_arrival *arrival) PM_CHECKED;

// What a cut or an answer holds is copied before it changes: *buffer, the slice's moments. False when out of
// memory.
bool pm_shard_own(pm_shard *shard, pm_buffer **buffer);
bool pm_shard_own_moments(pm_shard *shard, shard_slice *slice);

// --- slices of sparse tables (rows.c)

// How many rows the ids are of; NULL: 0.
size_t pm_shard_id_count(const pm_buffer *ids);

// Whether the frame holds ascending ids of the slice's rows.
pm_status pm_shard_check_ids(const shard_slice *slice, const pm_buffer *ids) PM_CHECKED;

// Replaces two siblings by their parent: left + right where both have a row, a copy where one has it; false:
// no memory.
bool pm_shard_combine_rows(pm_shard *shard, shard_slice *slice, uint32_t parent);

// Applies the sum of all lanes to the rows it has; false: no memory, and nothing has changed.
bool pm_shard_update_rows(pm_shard *shard, shard_slice *slice);

// The rows of ids (NULL: all) at the slice's clock or the one before, a new reference; NULL: no memory.
pm_buffer *pm_shard_rows(pm_shard *shard, const shard_slice *slice, const pm_buffer *ids, uint64_t clock);

// Fills the slice from a piece of a version, once.
pm_status pm_shard_restore(pm_shard *shard, shard_slice *slice, const Paramill__SliceState *state,
                           const pm_message *message) PM_CHECKED;

// Makes the slices of an epoch; initial: fills them, else they wait to be restored.
pm_status pm_shard_fill(pm_shard *shard, uint32_t shards, bool initial) PM_CHECKED;
void pm_shard_empty(pm_shard *shard);

// If the slice has just reached a cut: holds its values and moments and sends them.
void pm_shard_cut(pm_shard *shard, shard_slice *slice, int64_t now_ms);
void pm_shard_cut_acknowledged(pm_shard *shard, const Paramill__Header *ack);
void pm_shard_cut_resend(pm_shard *shard, shard_slice *slice, int64_t now_ms);

// Forgets pieces up to a published clock.
void pm_shard_cut_forget(pm_shard *shard, uint64_t clock);

// A new checkpoint service has nothing yet.
void pm_shard_cut_again(pm_shard *shard, int64_t now_ms);
void pm_shard_cut_drop(shard_cut *cut);
