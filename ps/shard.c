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

static void answer(pm_shard *shard, const shard_slice *slice, const pm_peer *to, uint64_t request,
                   uint64_t clock, bool light)
{
    Paramill__Parameters *body = pm_proto_new(&paramill__parameters__descriptor);
    if (body) {
        body->table = slice->place->table;
        body->slice = slice->place->slice;
        body->clock = clock;
    }
    Paramill__Header *header =
        pm_header_create(request, shard->epoch, PARAMILL__HEADER__BODY_PARAMETERS, body);
    pm_buffer *values = clock == slice->clock ? slice->values : slice->previous;
    pm_outbox_post(&shard->outbox, PM_SHARD_PORT_PEERS, to, header, &values, light ? 0 : 1);
}

// Answers those who wait for the clock that the slice has reached; the others wait on.
static void answer_waiters(pm_shard *shard, shard_slice *slice)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < slice->waiter_count; i++) {
        shard_waiter *w = &slice->waiters[i];
        if (w->clock <= slice->clock)
            answer(shard, slice, &w->peer, w->request, slice->clock, w->light);
        else
            slice->waiters[left++] = *w;
    }
    slice->waiter_count = left;
}

// Remembers who waits for a clock to come. One answer serves all of a peer's pushes of one step, so a peer
// waits once. again: who asks a second time is told that the shard lives.
static pm_status wait_for(pm_shard *shard, shard_slice *slice, const pm_peer *from,
                          const Paramill__Header *header, uint64_t clock, bool again, int64_t now_ms)
{
    const uint64_t request = header->request;
    const bool light = slice->frozen && header->body_case == PARAMILL__HEADER__BODY_PUSH;
    for (uint32_t i = 0; i < slice->waiter_count; i++) {
        shard_waiter *w = &slice->waiters[i];
        if (w->clock != clock || !pm_peer_equal(&w->peer, from))
            continue;
        if (again)
            acknowledge(shard, from, request);
        w->request = request;
        w->light = w->light && light;
        w->forget_ms = now_ms + WAITER_FORGET_MS;
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
    slice->waiters[slice->waiter_count++] =
        (shard_waiter){*from, request, clock, light, now_ms + WAITER_FORGET_MS};
    return pm_ok();
}

// The answer to whoever wants the values of a clock: now, later or never.
static void want(pm_shard *shard, shard_slice *slice, const pm_peer *from, const Paramill__Header *header,
                 uint64_t clock, bool again, int64_t now_ms)
{
    if (clock == slice->clock || (clock + 1 == slice->clock && slice->previous)) {
        answer(shard, slice, from, header->request, clock,
               slice->frozen && header->body_case == PARAMILL__HEADER__BODY_PUSH);
        return;
    }
    pm_status status = clock < slice->clock
                           ? pm_fail(PM_STALE, "clock %llu of table %u slice %u is gone; it is at %llu",
                                     (unsigned long long)clock, slice->place->table, slice->place->slice,
                                     (unsigned long long)slice->clock)
                           : wait_for(shard, slice, from, header, clock, again, now_ms);
    if (status.code != PM_OK)
        refuse(shard, from, header, status, slice->clock);
}

static pm_status check_push(const pm_shard *shard, const shard_slice *slice, const pm_message *message)
{
    const Paramill__Push *push = message->header->push;
    const uint32_t frames = slice->frozen ? 0 : 1;
    if (message->frame_count != frames)
        return pm_fail(PM_INVALID, "a push of table %u with %u frames; it has %u", push->table,
                       message->frame_count, frames);
    size_t size = (size_t)slice->place->count * sizeof(float);
    if (frames && message->frames[0]->size != size)
        return pm_fail(PM_INVALID, "a push of %zu bytes for table %u slice %u, which has %zu",
                       message->frames[0]->size, push->table, push->slice, size);
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
static void finish_step(pm_shard *shard, shard_slice *slice, const pm_peer *from,
                        const Paramill__Header *header, int64_t now_ms)
{
    pm_status status = wait_for(shard, slice, from, header, slice->clock, false, now_ms);
    if (status.code != PM_OK)
        refuse(shard, from, header, status, 0);
    answer_waiters(shard, slice);
    pm_shard_cut(shard, slice, now_ms);
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
    if (status.code == PM_OK && push->clock == slice->clock) {
        uint32_t node = pm_block_node((pm_block){push->lane_first, push->lane_count}, shard->lanes);
        status = pm_shard_add(shard, slice, node, slice->frozen ? NULL : message->frames[0], &arrival);
    }
    if (status.code != PM_OK) {
        refuse(shard, from, header, status, 0);
        return;
    }
    shard->stats.pushes++;
    shard->stats.duplicates += arrival == ARRIVAL_DUPLICATE;
    if (arrival == ARRIVAL_LAST)
        finish_step(shard, slice, from, header, now_ms);
    else
        want(shard, slice, from, header, push->clock + 1, arrival == ARRIVAL_DUPLICATE, now_ms);
}

static void handle_pull(pm_shard *shard, const pm_peer *from, const pm_message *message, int64_t now_ms)
{
    const Paramill__Pull *pull = message->header->pull;
    shard_slice *slice = NULL;
    pm_status status = check_slice(shard, pull->placement, pull->table, pull->slice, &slice);
    if (status.code == PM_OK && message->frame_count != 0)
        status = pm_fail(PM_INVALID, "a pull with %u frames; it has none", message->frame_count);
    if (status.code == PM_OK && !slice->values)
        status = pm_fail(PM_UNAVAILABLE, "table %u slice %u is being restored", pull->table, pull->slice);
    if (status.code != PM_OK) {
        refuse(shard, from, message->header, status, 0);
        return;
    }
    shard->stats.pulls++;
    want(shard, slice, from, message->header, pull->clock, true, now_ms);
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
