#pragma once
// The worker's side of push and pull, without I/O: it cuts tables into slices, keeps what was sent until it
// is answered, resends, and holds incoming parameters until the model wants them.
//
// A step at clock c reads parameters of clock c and pushes gradients of clock c; the answer to a push is the
// parameters of clock c + 1. For each slice the values of the two newest clocks are held (as references to
// the received frames), so a worker that takes over lanes while it waits for c + 1 can still compute them at
// c:
//
//   pm_exchange_begin(x, directive, clock)       at RUN of a new epoch, or to start anew at another clock
//   for each step c, for each leased block (also one gained while waiting for c + 1):
//       for each table in order of use: wait until pm_exchange_have(x, table, c); pm_exchange_install(x,
//       table, c) for each table, last first:     pm_exchange_push(x, table, block, c, gradient)
//   the step is over when pm_exchange_done(x, c + 1)
//
// Messages to send are in the outbox; the port of a post is the number of the shard.
#include "cluster/lanes.h"
#include "cluster/outbox.h"
#include "cluster/placement.h"

typedef struct pm_exchange pm_exchange;

typedef struct pm_exchange_options {
    const uint64_t *counts; // floats of each table (graph parameter), copied
    const bool *frozen;     // of each table, copied; NULL: none is
    const uint32_t
        *widths; // floats of a row of each sparse table, 0 of a dense one, copied; NULL: all are dense
    uint32_t tables;
    uint32_t lanes;
    uint32_t request_ms; // a shard that is silent for so long while asked is PM_TIMEOUT
    pm_shm *shm;         // where sums lie, so that they can be lent; NULL: in private memory
} pm_exchange_options;

pm_status pm_exchange_create(pm_exchange **exchange, const pm_exchange_options *options) PM_CHECKED;
void pm_exchange_destroy(pm_exchange **exchange);

// Where pm_exchange_install writes; count floats of the table, owned by the caller, outlives the exchange.
void pm_exchange_bind(pm_exchange *exchange, uint32_t table, float *values);

// Forgets everything in flight, takes epoch, placement and servers from the directive (only read) and pulls
// all tables at clock: directive->start_clock when all begin, directive->clock when joining an epoch under
// way.
pm_status pm_exchange_begin(pm_exchange *exchange, const Paramill__Directive *directive, uint64_t clock,
                            int64_t now_ms) PM_CHECKED;

// The shards of the directive last begun, and their endpoints (owned by the exchange until the next begin).
uint32_t pm_exchange_shards(const pm_exchange *exchange);
const char *pm_exchange_endpoint(const pm_exchange *exchange, uint32_t shard);

// Memory for a dense table's next gradient (count floats, PM_ALIGN-aligned, the exchange's), which a push
// sends from there: it is not written any more after the push, and the next block has another. NULL: out of
// memory.
float *pm_exchange_push_buffer(pm_exchange *exchange, uint32_t table);

// Sends the block's tree-summed gradient of a table; gradient (count floats of the table, NULL of a frozen
// one, which only goes to the next clock) is copied, unless it lies in the table's push buffer.
// Parameters of clock must be held. Slices that have reached clock + 1 already need no push and get none.
pm_status pm_exchange_push(pm_exchange *exchange, uint32_t table, pm_block block, uint64_t clock,
                           const float *gradient, int64_t now_ms) PM_CHECKED;

// --- tables that are pulled and pushed by rows, which count as held when their clock can be had

// Asks for the rows of ids (ascending, in the table; NULL: for all) at a clock, in place of what was wanted
// of the table before.
pm_status pm_exchange_want(pm_exchange *exchange, uint32_t table, uint64_t clock, const uint32_t *ids,
                           size_t count, int64_t now_ms) PM_CHECKED;

// True when the rows last wanted are here, and of that clock.
bool pm_exchange_have_rows(const pm_exchange *exchange, uint32_t table, uint64_t clock);

// Copies them to rows, in the order of their ids, and lets go of them. PM_STALE when they are not here.
pm_status pm_exchange_take_rows(pm_exchange *exchange, uint32_t table, uint64_t clock,
                                float *rows) PM_CHECKED;

// pm_exchange_push of the rows that the block touches: ids (count, ascending) and rows (count, width) are
// copied.
pm_status pm_exchange_push_rows(pm_exchange *exchange, uint32_t table, pm_block block, uint64_t clock,
                                const uint32_t *ids, size_t count, const float *rows,
                                int64_t now_ms) PM_CHECKED;

// Takes in a message from a shard; the message is left for the caller to clear. A shard's refusal is
// returned, except of the kinds that retrying or pm_exchange_is_stale deal with.
pm_status pm_exchange_handle(pm_exchange *exchange, uint32_t shard, pm_message *message,
                             int64_t now_ms) PM_CHECKED;

// Resends what is not answered (first after 2 s, then less and less often). PM_TIMEOUT names the shard's
// rank, host, table and clock. Call it every 100 ms or so.
pm_status pm_exchange_tick(pm_exchange *exchange, int64_t now_ms) PM_CHECKED;

// True when all slices of the table, or of all tables, are held at exactly that clock.
bool pm_exchange_have(const pm_exchange *exchange, uint32_t table, uint64_t clock);
bool pm_exchange_done(const pm_exchange *exchange, uint64_t clock);

// Copies the table's values of that clock to the bound memory, unless they are there already. PM_STALE when
// they are not held.
pm_status pm_exchange_install(pm_exchange *exchange, uint32_t table, uint64_t clock) PM_CHECKED;

// The same for all slices of dense tables that are held at that clock, before the rest is here. What has
// still to be computed at an earlier clock has its parameters installed again.
void pm_exchange_install_held(pm_exchange *exchange, uint64_t clock);

// True when the job went on without this worker (it was taken for dead): begin anew at *clock.
bool pm_exchange_is_stale(const pm_exchange *exchange, uint64_t *clock);

pm_outbox *pm_exchange_outbox(pm_exchange *exchange);
