// Pieces of cuts: a slice that reaches a cut's clock holds references to its values and moments, sends them
// to the checkpoint service until that acknowledges, and lets go of them when the version is published.
// Should the service die in between, the next one gets them again.
#include "ps/shard_impl.h"

#include <string.h>

enum { RESEND_MS = 2000, RESEND_MAX_MS = 30000 };

void pm_shard_cut_drop(shard_cut *cut)
{
    pm_buffer_unref(&cut->values);
    for (int m = 0; m < PM_MOMENTS_MAX; m++)
        pm_buffer_unref(&cut->moments[m]);
    memset(cut, 0, sizeof *cut);
}

static uint64_t request_of(const pm_shard *shard, const shard_slice *slice, const shard_cut *cut)
{
    return (uint64_t)(slice - shard->slices + 1) << 40 | (cut->clock & ((UINT64_C(1) << 40) - 1));
}

static void send(pm_shard *shard, const shard_slice *slice, shard_cut *cut, int64_t now_ms)
{
    int64_t wait = (int64_t)RESEND_MS << (cut->tries < 4 ? cut->tries : 4);
    cut->resend_ms = now_ms + (wait < RESEND_MAX_MS ? wait : RESEND_MAX_MS);
    cut->tries++;
    Paramill__SliceState *state = pm_proto_new(&paramill__slice_state__descriptor);
    if (state) {
        state->table = slice->place->table;
        state->slice = slice->place->slice;
        state->clock = cut->clock;
        state->moments = slice->moment_count;
        state->shard = shard->number;
    }
    pm_buffer *frames[1 + PM_MOMENTS_MAX] = {cut->values, cut->moments[0], cut->moments[1]};
    Paramill__Header *header = pm_header_create(request_of(shard, slice, cut), shard->epoch,
                                                PARAMILL__HEADER__BODY_SLICE_STATE, state);
    pm_outbox_post(&shard->outbox, PM_SHARD_PORT_CHECKPOINT, NULL, header, frames, 1 + slice->moment_count);
}

void pm_shard_cut(pm_shard *shard, shard_slice *slice, int64_t now_ms)
{
    if (!pm_steps_is_cut(&shard->steps, slice->clock))
        return;
    shard_cut *cut =
        &slice->cuts[0]; // a free place, or that of the older piece: the newest cut is never given up
    for (int i = 0; i < CUTS_KEPT; i++)
        if (!slice->cuts[i].values || (cut->values && slice->cuts[i].clock < cut->clock))
            cut = &slice->cuts[i];
    pm_shard_cut_drop(cut);
    cut->clock = slice->clock;
    cut->values = pm_buffer_ref(slice->values);
    for (uint32_t m = 0; m < slice->moment_count; m++)
        cut->moments[m] = pm_buffer_ref(slice->moments[m]);
    if (shard->checkpoint)
        send(shard, slice, cut, now_ms);
}

void pm_shard_cut_acknowledged(pm_shard *shard, const Paramill__Header *ack)
{
    uint64_t index = (ack->request >> 40) - 1;
    if (ack->epoch != shard->epoch || !shard->placement || index >= pm_placement_size(shard->placement))
        return;
    shard_slice *slice = &shard->slices[index];
    for (int i = 0; i < CUTS_KEPT; i++)
        if (slice->cuts[i].values && request_of(shard, slice, &slice->cuts[i]) == ack->request)
            slice->cuts[i].acknowledged = true;
}

void pm_shard_cut_resend(pm_shard *shard, shard_slice *slice, int64_t now_ms)
{
    for (int i = 0; i < CUTS_KEPT; i++) {
        shard_cut *cut = &slice->cuts[i];
        if (cut->values && !cut->acknowledged && shard->checkpoint && now_ms >= cut->resend_ms)
            send(shard, slice, cut, now_ms);
    }
}

void pm_shard_cut_forget(pm_shard *shard, uint64_t clock)
{
    for (uint32_t s = 0; s < shard->owned_count; s++)
        for (int i = 0; i < CUTS_KEPT; i++) {
            shard_cut *cut = &shard->slices[shard->owned[s]].cuts[i];
            if (cut->values && cut->clock <= clock)
                pm_shard_cut_drop(cut);
        }
}

void pm_shard_cut_again(pm_shard *shard, int64_t now_ms)
{
    for (uint32_t s = 0; s < shard->owned_count; s++)
        for (int i = 0; i < CUTS_KEPT; i++) {
            shard_cut *cut = &shard->slices[shard->owned[s]].cuts[i];
            cut->acknowledged = false;
            cut->tries = 0;
            cut->resend_ms = now_ms;
        }
}
