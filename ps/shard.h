#pragma once
// The shard's protocol core: the slices it owns, each with its clock, values, moments and the tree of partial
// sums that have arrived for the current step. No I/O, no lock, no time of its own.
//
// A slice at clock c takes pushes of clock c. When the sums of all lanes are in, it applies the optimizer,
// moves to c + 1 and answers all who wait. It keeps the values of c and c - 1. Values are never changed in
// place while somebody holds a reference (a frame on its way, a cut): new values go to another buffer.
//
// Of a sparse table a push carries the rows that its lanes touch, and the answer to it only says that the
// clock has come; rows are pulled. Its slices are changed in place, row by row (in a copy, where somebody
// holds a reference), and the rows of c - 1 that the last step changed are kept aside.
#include "cluster/outbox.h"
#include "core/job.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pm_shard pm_shard;

// Ports of the outbox.
enum { PM_SHARD_PORT_PEERS, PM_SHARD_PORT_CHECKPOINT, PM_SHARD_PORTS };

typedef struct pm_table_spec {
    uint64_t count;
    bool statistic;
    double momentum;      // statistic: weight of the old value
    double rate;          // parameter: factor of the learning rate
    bool decays;          // parameter: weight_decay is for it
    bool frozen;          // values stay: pushes carry none and only move the clock, as do the answers to them
    const float *initial; // count floats
    uint32_t width;       // sparse: floats of a row; 0: dense
} pm_table_spec;

// How many arrays of moments a slice of the table has.
uint32_t pm_table_moments(const pm_table_spec *table, const pm_job *job);

typedef struct pm_shard_options {
    const pm_job *job;           // outlives the shard
    const pm_table_spec *tables; // the graph's parameters, in order; copied, initial arrays outlive the shard
    uint32_t table_count;
    uint32_t index; // among the shards of its server
    pm_shm *shm;    // where slices lie, so that they can be lent; NULL: in private memory
} pm_shard_options;

// Counted since the start of the shard.
typedef struct pm_shard_stats {
    uint64_t pushes, duplicates, pulls, refused;
    uint64_t updates; // slices that moved to the next clock
    uint64_t waiting; // requests that wait now
    uint64_t kept;    // pieces of cuts that are held now
} pm_shard_stats;

pm_status pm_shard_create(pm_shard **shard, const pm_shard_options *options) PM_CHECKED;
void pm_shard_destroy(pm_shard **shard);

// Follows a directive: a new epoch makes it forget everything and prepare (initial values, or wait for the
// pieces of a restore), a new checkpoint service gets the pieces of cuts that are not published yet. The
// directive is only read.
pm_status pm_shard_direct(pm_shard *shard, const Paramill__Directive *directive, int64_t now_ms) PM_CHECKED;

// Takes in a message; the message is left for the caller to clear. What is wrong with it goes back as an
// Error.
void pm_shard_handle(pm_shard *shard, const pm_peer *from, pm_message *message, int64_t now_ms);

// Resends what the checkpoint service has not acknowledged. Call it every 100 ms or so.
void pm_shard_tick(pm_shard *shard, int64_t now_ms);

pm_outbox *pm_shard_outbox(pm_shard *shard);

// PREPARING, READY or RUNNING in the epoch; JOINED before the first.
Paramill__Phase pm_shard_phase(const pm_shard *shard);
uint64_t pm_shard_epoch(const pm_shard *shard);

// The oldest clock of its slices; the job's end when it owns none.
uint64_t pm_shard_clock(const pm_shard *shard);
pm_shard_stats pm_shard_get_stats(const pm_shard *shard);
