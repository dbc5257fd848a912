#pragma once
// What the parts of the exchange share: exchange.c (dense tables, the dialogue with shards) and
// exchange_rows.c (tables that are pulled and pushed by rows).
#include "worker/exchange.h"

#include "net/pool.h"

#define NO_CLOCK UINT64_MAX

typedef struct push {
    pm_block block;
    pm_buffer *sum; // NULL of what is frozen, or of no rows
    pm_buffer *ids; // of the rows; NULL of a dense table
} push;

// What a shard is asked for and has not answered.
typedef struct inquiry {
    bool open;
    uint64_t clock, request;
    int64_t asked_ms, sign_ms, resend_ms; // sign: when the shard last showed life
    uint32_t tries;
} inquiry;

// One slice: what is held, and what is asked for. Of a dense table at most one clock is asked for at a time:
// the one after a push, or the one of a pull. Of a sparse one the rows of a clock may be asked for as well.
typedef struct piece {
    const pm_slice *place;
    bool frozen;        // pushes and their answers are without values
    uint32_t width;     // of a row; 0: dense
    pm_buffer *held[2]; // dense: the values of held_clock[i]; clock c in place c % 2
    uint64_t held_clock[2];
    uint64_t installed; // dense: the clock of what lies where the table is bound
    uint64_t reached;   // sparse: the newest clock that the slice is known to have come to
    inquiry ask;
    push *pushes; // of ask.clock - 1, not answered; none: it is a pull
    uint32_t push_count, push_capacity;
    inquiry pull;          // sparse: of rows
    pm_buffer *ids, *rows; // asked for (NULL: all, where all is set), and answered
    bool all;
} piece;

typedef struct line {
    char *endpoint, *host;
    uint32_t rank;
} line;

struct pm_exchange {
    uint64_t *counts;
    bool *frozen;
    uint32_t *widths;
    uint32_t tables, lanes, request_ms;
    float **values;           // where tables are installed
    pm_buffer **push_buffers; // (tables), for gradients to come; NULL: not asked for
    uint64_t *wanted;         // of a sparse table: the clock whose rows are wanted
    pm_pool *pool;
    pm_outbox outbox;

    uint64_t epoch, placement_version, requests;
    pm_placement *placement;
    line *lines; // one a shard
    uint32_t shards;
    piece *pieces;
    uint32_t piece_count, asked_count; // open inquiries
    bool stale;
    uint64_t stale_clock;
};

// Opens the piece's inquiry of a clock.
void pm_exchange_ask(pm_exchange *exchange, const piece *p, inquiry *about, uint64_t clock, int64_t now_ms);
void pm_exchange_close(pm_exchange *exchange, inquiry *about);

// Sends the pull that was asked; of rows where ids are given.
void pm_exchange_post_pull(pm_exchange *exchange, const piece *p, const inquiry *asked, pm_buffer *ids);

// What the piece's pushes or pull asked for is here.
void pm_exchange_answered(pm_exchange *exchange, piece *p);

// Whether the slice's values of the clock are held; of a sparse one, can be had.
bool pm_exchange_holds(const piece *p, uint64_t clock);

// Sends a block's sum and keeps it until it is answered; takes sum and ids over.
pm_status pm_exchange_push_piece(pm_exchange *exchange, piece *p, pm_block block, uint64_t clock, push *made,
                                 int64_t now_ms) PM_CHECKED;

// Whether the block still has to be pushed for the slice at this clock.
pm_status pm_exchange_check_push(const piece *p, pm_block block, uint64_t clock, bool *wanted) PM_CHECKED;

// --- exchange_rows.c

// An answer about a sparse slice.
pm_status pm_exchange_take_answer(pm_exchange *exchange, piece *p, uint32_t shard,
                                  pm_message *message) PM_CHECKED;
