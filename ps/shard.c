#include "ps/shard.h"

#include "ps/shard_impl.h"

#include <stdlib.h>
#include <string.h>

enum { WAITERS_MAX = 4096, WAITER_FORGET_MS = 120000 };

static pm_status check_slice(const pm_shard *shard, uint64_t placement, uint32_t table, uint32_t slice,
                             shard_slice **found)
{
    if (placement != shard->epoch)
        return pm_fail(PM_STALE, "placement %llu; this is %llu", (unsigned long long)placement,
                       (unsigned long long)shard->epoch);
    int64_t index = pm_placement_find(shard->placement, table, slice);
    if (index < 0)
        return pm_fail(PM_INVALID, "there is no slice %u of table %u", slice, table);
    if (shard->slices[index].place->shard != shard->number)
        return pm_fail(PM_INVALID, "slice %u of table %u lives on shard %u, this is shard %u", slice, table,
                       shard->slices[index].place->shard, shard->number);
    *found = &shard->slices[index];
    return pm_ok();
}

static pm_status check_epoch(const pm_shard *shard, const Paramill__Header *header)
{
    if (shard->epoch == 0 || header->epoch > shard->epoch)
        return pm_fail(PM_UNAVAILABLE, "epoch %llu has not begun here", (unsigned long long)header->epoch);
    if (header->epoch < shard->epoch)
        return pm_fail(PM_STALE, "epoch %llu is over; this is %llu", (unsigned long long)header->epoch,
                       (unsigned long long)shard->epoch);
    return pm_ok();
}

static void refuse(pm_shard *shard, const pm_peer *to, const Paramill__Header *request, pm_status why,
                   uint64_t clock)
{
    Paramill__Header *header =
        pm_header_error(request->request, shard->epoch, why, why.code == PM_UNAVAILABLE ? 100 : 0);
    if (header)
        header->error->clock = clock;
    pm_outbox_post(&shard->outbox, PM_SHARD_PORT_PEERS, to, header, NULL, 0);
    shard->stats.refused++;
}

static void acknowledge(pm_shard *shard, const pm_peer *to, uint64_t request)
{
    Paramill__Header *header = pm_header_create(request, shard->epoch, PARAMILL__HEADER__BODY_ACK,
                                                pm_proto_new(&paramill__ack__descriptor));
    pm_outbox_post(&shard->outbox, PM_SHARD_PORT_PEERS, to, header, NULL, 0);
}

// What an answer with values holds, a new reference; NULL: no memory, and the asker asks again.
static pm_buffer *values_of(pm_shard *shard, const shard_slice *slice, const pm_buffer *ids, uint64_t clock)
{
    if (slice->width)
        return pm_shard_rows(shard, slice, ids, clock);
    return pm_buffer_ref(clock == slice->clock ? slice->values : slice->previous);
}

static void answer(pm_shard *shard, const shard_slice *slice, const shard_waiter *to, uint64_t clock)
{
    pm_buffer *values = to->light ? NULL : values_of(shard, slice, to->ids, clock);
    if (!to->light && !values)
        return;
    Paramill__Parameters *body = pm_proto_new(&paramill__parameters__descriptor);
    if (body) {
        body->table = slice->place->table;
        body->slice = slice->place->slice;
        body->clock = clock;
    }
    Paramill__Header *header =
        pm_header_create(to->request, shard->epoch, PARAMILL__HEADER__BODY_PARAMETERS, body);
    pm_outbox_post(&shard->outbox, PM_SHARD_PORT_PEERS, &to->peer, header, &values, values ? 1 : 0);
    pm_buffer_unref(&values);
}

// Answers those who wait for the clock that the slice has reached; the others wait on.
static void answer_waiters(pm_shard *shard, shard_slice *slice)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < slice->waiter_count; i++) {
        shard_waiter *w = &slice->waiters[i];
        if (w->clock > slice->clock) {
            slice->waiters[left++] = *w;
            continue;
        }
        answer(shard, slice, w, slice->clock);
        pm_buffer_unref(&w->ids);
    }
    slice->waiter_count = left;
}

// What a message asks for: pushes of frozen and of sparse tables want no values, a pull of a sparse one may
// name rows. The ids are the message's.
static shard_waiter asker_of(const shard_slice *slice, const pm_peer *from, const pm_message *message,
                             uint64_t clock, int64_t now_ms)
{
    const bool push = message->header->body_case == PARAMILL__HEADER__BODY_PUSH;
    return (shard_waiter){.peer = *from,
                          .request = message->header->request,
                          .clock = clock,
                          .light = push && (slice->frozen || slice->width > 0),
                          .ids = !push && message->frame_count > 0 ? message->frames[0] : NULL,
                          .forget_ms = now_ms + WAITER_FORGET_MS};
}

// Remembers who waits for a clock to come. One answer serves all of a peer's pushes of one step, so a peer
// waits once, at a sparse slice once more for rows. again: who asks a second time is told that the shard
// lives.
static pm_status wait_for(pm_shard *shard, shard_slice *slice, const shard_waiter *asker, bool again)
{
    for (uint32_t i = 0; i < slice->waiter_count; i++) {
        shard_waiter *w = &slice->waiters[i];
        if (w->clock != asker->clock || !pm_peer_equal(&w->peer, &asker->peer) ||
            (slice->width && w->light != asker->light))
            continue;
        if (again)
            acknowledge(shard, &asker->peer, asker->request);
        pm_buffer *ids = asker->ids ? pm_buffer_ref(asker->ids) : NULL;
        const bool light = w->light && asker->light;
        pm_buffer_unref(&w->ids);
        *w = *asker;
        w->ids = ids;
        w->light = light;
        return pm_ok();
    }
    if (slice->waiter_count == WAITERS_MAX)
        return pm_fail(PM_UNAVAILABLE, "%d requests wait for one slice", WAITERS_MAX);
    if (slice->waiter_count == slice->waiter_capacity) {
        uint32_t capacity = slice->waiter_capacity ? slice->waiter_capacity * 2 : 8;
        shard_waiter *waiters = realloc(slice->waiters, capacity * sizeof *waiters);
        if (!waiters)
            return pm_fail(PM_UNAVAILABLE, "no memory for another request that waits");
        slice->waiters = waiters;
        slice->waiter_capacity = capacity;
    }
    shard_waiter *w = &slice->waiters[slice->waiter_count++];
    *w = *asker;
    w->ids = asker->ids ? pm_buffer_ref(asker->ids) : NULL;
    return pm_ok();
}

// The answer to whoever wants the values of a clock: now, later or never.
static void want(pm_shard *shard, shard_slice *slice, const shard_waiter *asker,
                 const Paramill__Header *header, bool again)
{
    const uint64_t clock = asker->clock;
    if (clock == slice->clock || (clock + 1 == slice->clock && slice->previous)) {
        answer(shard, slice, asker, clock);
        return;
    }
    pm_status status = clock < slice->clock
                           ? pm_fail(PM_STALE, "clock %llu of table %u slice %u is gone; it is at %llu",
                                     (unsigned long long)clock, slice->place->table, slice->place->slice,
                                     (unsigned long long)slice->clock)
                           : wait_for(shard, slice, asker, again);
    if (status.code != PM_OK)
        refuse(shard, &asker->peer, header, status, slice->clock);
}

// The frames of a push: the values of a dense slice, ids and rows of a sparse one (none where it touches
// none), nothing of a frozen one.
static pm_status check_frames(const shard_slice *slice, const pm_message *message)
{
    const uint32_t table = slice->place->table, frames = slice->frozen ? 0 : slice->width ? 2 : 1;
    if (message->frame_count != frames && !(slice->width && message->frame_count == 0))
        return pm_fail(PM_INVALID, "a push of table %u with %u frames; it has %u", table,
                       message->frame_count, frames);
    if (message->frame_count == 0)
        return pm_ok();
    pm_status status = slice->width ? pm_shard_check_ids(slice, message->frames[0]) : pm_ok();
    const size_t count =
        slice->width ? pm_shard_id_count(message->frames[0]) * slice->width : (size_t)slice->place->count;
    const pm_buffer *values = message->frames[frames - 1];
    if (status.code == PM_OK && values->size != count * sizeof(float))
        status = pm_fail(PM_INVALID, "a push of %zu bytes for table %u slice %u, which has %zu", values->size,
                         table, slice->place->slice, count * sizeof(float));
    return status;
}

static pm_status check_push(const pm_shard *shard, const shard_slice *slice, const pm_message *message)
{
    const Paramill__Push *push = message->header->push;
    pm_status status = check_frames(slice, message);
    if (status.code != PM_OK)
        return status;
    if (!pm_block_valid((pm_block){push->lane_first, push->lane_count}, shard->lanes))
        return pm_fail(PM_INVALID, "lanes %u + %u are no aligned block of %u", push->lane_first,
                       push->lane_count, shard->lanes);
    if (!slice->values || push->clock > slice->clock)
        return pm_fail(PM_INVALID, "a push of clock %llu for table %u slice %u, which is at %llu",
                       (unsigned long long)push->clock, push->table, push->slice,
                       (unsigned long long)slice->clock);
    return pm_ok();
}

// The last lanes of the step: the pusher waits with the others, so that it gets one answer as well.
static void finish_step(pm_shard *shard, shard_slice *slice, const shard_waiter *asker,
                        const Paramill__Header *header, int64_t now_ms)
{
    pm_status status = wait_for(shard, slice, asker, false);
    if (status.code != PM_OK)
        refuse(shard, &asker->peer, header, status, 0);
    answer_waiters(shard, slice);
    pm_shard_cut(shard, slice, now_ms);
}

static pm_status add_push(pm_shard *shard, shard_slice *slice, const pm_message *message,
                          shard_arrival *arrival)
{
    const Paramill__Push *push = message->header->push;
    uint32_t node = pm_block_node((pm_block){push->lane_first, push->lane_count}, shard->lanes);
    const uint32_t frames = message->frame_count;
    return pm_shard_add(shard, slice, node, frames > 0 ? message->frames[frames - 1] : NULL,
                        frames > 1 ? message->frames[0] : NULL, arrival);
}

static void handle_push(pm_shard *shard, const pm_peer *from, const pm_message *message, int64_t now_ms)
{
    const Paramill__Header *header = message->header;
    const Paramill__Push *push = header->push;
    shard_slice *slice = NULL;
    shard_arrival arrival = ARRIVAL_DUPLICATE;
    pm_status status = check_slice(shard, push->placement, push->table, push->slice, &slice);
    if (status.code == PM_OK)
        status = check_push(shard, slice, message);
    if (status.code == PM_OK && push->clock == slice->clock)
        status = add_push(shard, slice, message, &arrival);
    if (status.code != PM_OK) {
        refuse(shard, from, header, status, 0);
        return;
    }
    shard->stats.pushes++;
    shard->stats.duplicates += arrival == ARRIVAL_DUPLICATE;
    const shard_waiter asker = asker_of(slice, from, message, push->clock + 1, now_ms);
    if (arrival == ARRIVAL_LAST)
        finish_step(shard, slice, &asker, header, now_ms);
    else
        want(shard, slice, &asker, header, arrival == ARRIVAL_DUPLICATE);
}

static pm_status check_pull(const shard_slice *slice, const pm_message *message)
{
    const Paramill__Pull *pull = message->header->pull;
    if (message->frame_count > (slice->width ? 1 : 0))
        return pm_fail(PM_INVALID, "a pull of table %u with %u frames", pull->table, message->frame_count);
    if (!slice->values)
        return pm_fail(PM_UNAVAILABLE, "table %u slice %u is being restored", pull->table, pull->slice);
    return message->frame_count > 0 ? pm_shard_check_ids(slice, message->frames[0]) : pm_ok();
}

static void handle_pull(pm_shard *shard, const pm_peer *from, const pm_message *message, int64_t now_ms)
{
    const Paramill__Pull *pull = message->header->pull;
    shard_slice *slice = NULL;
    pm_status status = check_slice(shard, pull->placement, pull->table, pull->slice, &slice);
    if (status.code == PM_OK)
        status = check_pull(slice, message);
    if (status.code != PM_OK) {
        refuse(shard, from, message->header, status, 0);
        return;
    }
    shard->stats.pulls++;
    const shard_waiter asker = asker_of(slice, from, message, pull->clock, now_ms);
    want(shard, slice, &asker, message->header, true);
}

static void handle_slice_state(pm_shard *shard, const pm_peer *from, const pm_message *message)
{
    const Paramill__SliceState *state = message->header->slice_state;
    shard_slice *slice = NULL;
    pm_status status = check_slice(shard, shard->epoch, state->table, state->slice, &slice);
    if (status.code == PM_OK)
        status = pm_shard_restore(shard, slice, state, message);
    if (status.code == PM_OK)
        acknowledge(shard, from, message->header->request);
    else
        refuse(shard, from, message->header, status, 0);
}

void pm_shard_handle(pm_shard *shard, const pm_peer *from, pm_message *message, int64_t now_ms)
{
    const Paramill__Header *header = message->header;
    if (header->body_case == PARAMILL__HEADER__BODY_ACK) {
        pm_shard_cut_acknowledged(shard, header);
        return;
    }
    if (header->body_case == PARAMILL__HEADER__BODY_ERROR)
        return; // the checkpoint service could not take a piece; it is sent again
    pm_status status = check_epoch(shard, header);
    if (status.code != PM_OK) {
        refuse(shard, from, header, status, 0);
        return;
    }
    switch (header->body_case) {
    case PARAMILL__HEADER__BODY_PUSH:
        handle_push(shard, from, message, now_ms);
        break;
    case PARAMILL__HEADER__BODY_PULL:
        handle_pull(shard, from, message, now_ms);
        break;
    case PARAMILL__HEADER__BODY_SLICE_STATE:
        handle_slice_state(shard, from, message);
        break;
    default:
        refuse(shard, from, header,
               pm_fail(PM_PROTOCOL, "a shard takes no message of kind %d", (int)header->body_case), 0);
    }
}

void pm_shard_tick(pm_shard *shard, int64_t now_ms)
{
    for (uint32_t i = 0; i < shard->owned_count; i++) {
        shard_slice *slice = &shard->slices[shard->owned[i]];
        uint32_t left = 0;
        for (uint32_t k = 0; k < slice->waiter_count; k++)
            if (slice->waiters[k].forget_ms > now_ms)
                slice->waiters[left++] = slice->waiters[k];
            else
                pm_buffer_unref(&slice->waiters[k].ids);
        slice->waiter_count = left;
        pm_shard_cut_resend(shard, slice, now_ms);
    }
}

pm_outbox *pm_shard_outbox(pm_shard *shard)
{
    return &shard->outbox;
}

uint64_t pm_shard_epoch(const pm_shard *shard)
{
    return shard->epoch;
}

Paramill__Phase pm_shard_phase(const pm_shard *shard)
{
    if (shard->epoch == 0)
        return PARAMILL__PHASE__PHASE_JOINED;
    if (shard->missing > 0)
        return PARAMILL__PHASE__PHASE_PREPARING;
    return shard->running ? PARAMILL__PHASE__PHASE_RUNNING : PARAMILL__PHASE__PHASE_READY;
}

uint64_t pm_shard_clock(const pm_shard *shard)
{
    uint64_t oldest = shard->steps.total;
    for (uint32_t i = 0; i < shard->owned_count; i++)
        if (shard->slices[shard->owned[i]].clock < oldest)
            oldest = shard->slices[shard->owned[i]].clock;
    return oldest;
}

pm_shard_stats pm_shard_get_stats(const pm_shard *shard)
{
    pm_shard_stats stats = shard->stats;
    for (uint32_t i = 0; i < shard->owned_count; i++) {
        const shard_slice *slice = &shard->slices[shard->owned[i]];
        stats.waiting += slice->waiter_count;
        for (int k = 0; k < CUTS_KEPT; k++)
            stats.kept += slice->cuts[k].values != NULL;
    }
    return stats;
}
