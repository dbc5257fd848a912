#include "ps/gather.h"

#include "cluster/directive.h"
#include "cluster/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUTS_OPEN = 4, SCORES_MS = 30000, RESEND_MS = 2000 };

typedef struct open_cut {
    pm_cut *cut; // NULL: this place is free
    uint32_t missing;
    int64_t complete_ms;
} open_cut;

typedef struct score {
    uint64_t clock;
    bool validated;
    double train_loss, train_accuracy, validation_loss, validation_accuracy;
    double metrics[PM_QUALITIES_MAX];
    char kernel_set[48];
} score;

struct pm_gather {
    const pm_job *job;
    pm_table_spec *tables;
    uint64_t *counts;
    uint32_t *widths;
    uint32_t table_count;
    pm_outbox outbox;

    uint64_t epoch, start_clock;
    pm_steps steps;
    Paramill__Phase phase;
    pm_placement *placement;
    open_cut cuts[CUTS_OPEN];
    uint64_t done_clock;            // cuts up to it are published
    uint64_t version, version_step; // newest of the store
    score scores[CUTS_OPEN];        // of the newest clocks: they may come before the cut's first piece

    uint64_t restore_version;
    bool wanted;     // the caller has not been told
    pm_cut *restore; // being handed out
    bool *restored;  // slices that were acknowledged
    uint32_t restore_left;
    int64_t resend_ms;
};

pm_status pm_cut_create(pm_cut **cut, uint32_t size)
{
    pm_cut *c = calloc(1, sizeof *c);
    if (!c)
        return pm_fail(PM_NO_MEMORY, "a cut of %u slices", size);
    c->size = size;
    c->train_loss = c->train_accuracy = c->validation_loss = c->validation_accuracy = NAN;
    c->values = calloc(size, sizeof *c->values);
    bool enough = c->values != NULL;
    for (int m = 0; m < PM_MOMENTS_MAX; m++) {
        c->moments[m] = calloc(size, sizeof *c->moments[m]);
        enough = enough && c->moments[m];
    }
    if (!enough) {
        pm_cut_destroy(&c);
        return pm_fail(PM_NO_MEMORY, "a cut of %u slices", size);
    }
    *cut = c;
    return pm_ok();
}

void pm_cut_destroy(pm_cut **cut)
{
    if (!cut || !*cut)
        return;
    pm_cut *c = *cut;
    for (uint32_t i = 0; i < c->size; i++) {
        if (c->values)
            pm_buffer_unref(&c->values[i]);
        for (int m = 0; m < PM_MOMENTS_MAX; m++)
            if (c->moments[m])
                pm_buffer_unref(&c->moments[m][i]);
    }
    free(c->values);
    for (int m = 0; m < PM_MOMENTS_MAX; m++)
        free(c->moments[m]);
    free(c);
    *cut = NULL;
}

pm_status pm_gather_create(pm_gather **gather, const pm_gather_options *options)
{
    pm_gather *g = calloc(1, sizeof *g);
    if (!g)
        return pm_fail(PM_NO_MEMORY, "a checkpoint service");
    g->job = options->job;
    g->table_count = options->table_count;
    g->tables = calloc(g->table_count, sizeof *g->tables);
    g->counts = calloc(g->table_count, sizeof *g->counts);
    g->widths = calloc(g->table_count, sizeof *g->widths);
    if (!g->tables || !g->counts || !g->widths) {
        pm_gather_destroy(&g);
        return pm_fail(PM_NO_MEMORY, "a checkpoint service");
    }
    for (uint32_t t = 0; t < g->table_count; t++) {
        g->tables[t] = options->tables[t];
        g->counts[t] = options->tables[t].count;
        g->widths[t] = options->tables[t].width;
    }
    *gather = g;
    return pm_ok();
}

static void discard(pm_gather *g)
{
    for (int i = 0; i < CUTS_OPEN; i++)
        pm_cut_destroy(&g->cuts[i].cut);
    pm_cut_destroy(&g->restore);
    free(g->restored);
    g->restored = NULL;
    g->restore_left = 0;
    g->wanted = false;
    memset(g->scores, 0, sizeof g->scores);
}

void pm_gather_destroy(pm_gather **gather)
{
    if (!gather || !*gather)
        return;
    pm_gather *g = *gather;
    discard(g);
    pm_placement_destroy(&g->placement);
    pm_outbox_free(&g->outbox);
    free(g->tables);
    free(g->counts);
    free(g->widths);
    free(g);
    *gather = NULL;
}

static pm_status enter_epoch(pm_gather *g, const Paramill__Directive *directive)
{
    uint32_t shards = pm_directive_shards(directive);
    if (shards == 0)
        return pm_fail(PM_PROTOCOL, "directive %llu names no servers", (unsigned long long)directive->number);
    discard(g);
    pm_placement_destroy(&g->placement);
    pm_status status = pm_steps_make(&g->steps, g->job, directive->train_rows);
    if (status.code == PM_OK)
        status = pm_placement_create(&g->placement, g->counts, g->widths, g->table_count, shards);
    if (status.code != PM_OK)
        return status;
    g->epoch = directive->epoch;
    g->start_clock = g->done_clock = directive->start_clock;
    g->restore_version = directive->restore_version;
    g->wanted = directive->verb == PARAMILL__DIRECTIVE__VERB__PREPARE && g->restore_version > 0;
    g->phase = g->wanted ? PARAMILL__PHASE__PHASE_PREPARING : PARAMILL__PHASE__PHASE_READY;
    return pm_ok();
}

pm_status pm_gather_direct(pm_gather *gather, const Paramill__Directive *directive, int64_t now_ms)
{
    (void)now_ms;
    bool active = directive->verb == PARAMILL__DIRECTIVE__VERB__PREPARE ||
                  directive->verb == PARAMILL__DIRECTIVE__VERB__RUN;
    if (active && directive->epoch > gather->epoch) {
        pm_status status = enter_epoch(gather, directive);
        if (status.code != PM_OK)
            return status;
    }
    if (directive->epoch != gather->epoch)
        return pm_ok();
    if (directive->published_step > gather->done_clock)
        gather->done_clock = directive->published_step;
    if (directive->verb == PARAMILL__DIRECTIVE__VERB__RUN && gather->phase == PARAMILL__PHASE__PHASE_READY)
        gather->phase = PARAMILL__PHASE__PHASE_RUNNING;
    return pm_ok();
}

static void acknowledge(pm_gather *g, const pm_peer *to, uint64_t request)
{
    pm_outbox_post(&g->outbox, PM_GATHER_PORT_PEERS, to,
                   pm_header_create(request, g->epoch, PARAMILL__HEADER__BODY_ACK,
                                    pm_proto_new(&paramill__ack__descriptor)),
                   NULL, 0);
}

static void set_score(pm_cut *cut, const score *s)
{
    cut->scored = true;
    cut->train_loss = s->train_loss;
    cut->train_accuracy = s->train_accuracy;
    cut->validated = s->validated;
    cut->validation_loss = s->validation_loss;
    cut->validation_accuracy = s->validation_accuracy;
    memcpy(cut->metrics, s->metrics, sizeof cut->metrics);
    memcpy(cut->kernel_set, s->kernel_set, sizeof cut->kernel_set);
}

static open_cut *find_cut(pm_gather *g, uint64_t clock)
{
    for (int i = 0; i < CUTS_OPEN; i++)
        if (g->cuts[i].cut && g->cuts[i].cut->clock == clock)
            return &g->cuts[i];
    return NULL;
}

// The open cut of a clock; a new one takes a free place or that of the oldest incomplete one, which the
// shards have given up as well.
static open_cut *open_at(pm_gather *g, uint64_t clock)
{
    open_cut *found = find_cut(g, clock), *place = NULL;
    if (found)
        return found;
    for (int i = 0; i < CUTS_OPEN; i++) {
        open_cut *c = &g->cuts[i];
        if (!c->cut) {
            place = c;
            break;
        }
        if (c->missing > 0 && c->cut->clock < clock && (!place || c->cut->clock < place->cut->clock))
            place = c;
    }
    if (!place)
        return NULL;
    pm_cut_destroy(&place->cut);
    pm_status status = pm_cut_create(&place->cut, pm_placement_size(g->placement));
    if (status.code != PM_OK)
        return NULL;
    place->missing = place->cut->size;
    place->cut->clock = clock;
    place->cut->epoch = g->epoch;
    place->cut->parent = g->restore_version;
    place->cut->shards = pm_placement_shards(g->placement);
    for (int i = 0; i < CUTS_OPEN; i++)
        if (g->scores[i].clock == clock)
            set_score(place->cut, &g->scores[i]);
    return place;
}

static pm_status check_piece(const pm_gather *g, const pm_message *message, uint32_t *index)
{
    const Paramill__Header *header = message->header;
    const Paramill__SliceState *state = header->slice_state;
    if (!g->placement || header->epoch != g->epoch)
        return pm_fail(PM_STALE, "a piece of epoch %llu; this is %llu", (unsigned long long)header->epoch,
                       (unsigned long long)g->epoch);
    int64_t found = pm_placement_find(g->placement, state->table, state->slice);
    if (found < 0 || !pm_steps_is_cut(&g->steps, state->clock) || state->clock > g->steps.total)
        return pm_fail(PM_INVALID, "no cut has slice %u of table %u at clock %llu", state->slice,
                       state->table, (unsigned long long)state->clock);
    uint32_t moments = pm_table_moments(&g->tables[state->table], g->job);
    if (state->moments != moments || message->frame_count != 1 + moments)
        return pm_fail(PM_INVALID, "a piece of table %u with %u moments in %u frames; it has %u",
                       state->table, state->moments, message->frame_count, moments);
    size_t size = pm_placement_slice(g->placement, (uint32_t)found)->count * sizeof(float);
    for (uint32_t i = 0; i < message->frame_count; i++)
        if (message->frames[i]->size != size)
            return pm_fail(PM_INVALID, "a piece of table %u with a frame of %zu bytes; it has %zu",
                           state->table, message->frames[i]->size, size);
    *index = (uint32_t)found;
    return pm_ok();
}

static void take_piece(pm_gather *g, const pm_peer *from, pm_message *message, int64_t now_ms)
{
    const Paramill__SliceState *state = message->header->slice_state;
    uint32_t index = 0;
    pm_status status = check_piece(g, message, &index);
    open_cut *c = NULL;
    if (status.code == PM_OK && state->clock > g->done_clock && !(c = open_at(g, state->clock)))
        status = pm_fail(PM_UNAVAILABLE, "%d cuts wait to be written", CUTS_OPEN);
    if (status.code != PM_OK) {
        pm_outbox_refuse(&g->outbox, PM_GATHER_PORT_PEERS, from, message->header, status, 1000);
        return;
    }
    acknowledge(g, from, message->header->request);
    if (!c || c->cut->values[index])
        return;
    c->cut->values[index] = pm_buffer_ref(message->frames[0]);
    for (uint32_t m = 0; m < state->moments; m++)
        c->cut->moments[m][index] = pm_buffer_ref(message->frames[1 + m]);
    if (--c->missing == 0)
        c->complete_ms = now_ms;
}

static void take_score(pm_gather *g, const Paramill__Header *header)
{
    const Paramill__Published *p = header->published;
    if (header->epoch != g->epoch)
        return;
    score *place = &g->scores[0];
    for (int i = 0; i < CUTS_OPEN && place->clock != p->clock; i++)
        if (g->scores[i].clock == p->clock || g->scores[i].clock < place->clock)
            place = &g->scores[i];
    *place = (score){.clock = p->clock,
                     .validated = p->validated,
                     .train_loss = p->train_loss,
                     .train_accuracy = p->train_accuracy,
                     .validation_loss = p->validation_loss,
                     .validation_accuracy = p->validation_accuracy};
    for (size_t i = 0; i < PM_QUALITIES_MAX; i++)
        place->metrics[i] = i < p->n_metrics ? p->metrics[i] : NAN;
    snprintf(place->kernel_set, sizeof place->kernel_set, "%s", p->kernel_set);
    open_cut *c = find_cut(g, p->clock);
    if (c)
        set_score(c->cut, place);
}

static void take_ack(pm_gather *g, const Paramill__Header *header)
{
    uint64_t index = header->request - 1;
    if (!g->restore || header->epoch != g->epoch || index >= g->restore->size || g->restored[index])
        return;
    g->restored[index] = true;
    pm_buffer_unref(&g->restore->values[index]);
    for (int m = 0; m < PM_MOMENTS_MAX; m++)
        pm_buffer_unref(&g->restore->moments[m][index]);
    if (--g->restore_left > 0)
        return;
    pm_cut_destroy(&g->restore);
    g->phase = PARAMILL__PHASE__PHASE_READY;
}

void pm_gather_handle(pm_gather *gather, const pm_peer *from, pm_message *message, int64_t now_ms)
{
    const Paramill__Header *header = message->header;
    switch (header->body_case) {
    case PARAMILL__HEADER__BODY_SLICE_STATE:
        take_piece(gather, from, message, now_ms);
        break;
    case PARAMILL__HEADER__BODY_PUBLISHED:
        take_score(gather, header);
        break;
    case PARAMILL__HEADER__BODY_ACK:
        take_ack(gather, header);
        break;
    case PARAMILL__HEADER__BODY_ERROR: // the shard is not prepared yet: it is sent again
        break;
    default:
        pm_outbox_refuse(
            &gather->outbox, PM_GATHER_PORT_PEERS, from, header,
            pm_fail(PM_PROTOCOL, "a checkpoint service takes no message of kind %d", (int)header->body_case),
            0);
    }
}

static void hand_out(pm_gather *g, uint32_t index)
{
    const pm_slice *place = pm_placement_slice(g->placement, index);
    pm_buffer *frames[1 + PM_MOMENTS_MAX] = {g->restore->values[index]};
    uint32_t moments = 0;
    while (moments < PM_MOMENTS_MAX && g->restore->moments[moments][index]) {
        frames[1 + moments] = g->restore->moments[moments][index];
        moments++;
    }
    Paramill__SliceState *state = pm_proto_new(&paramill__slice_state__descriptor);
    if (state) {
        state->table = place->table;
        state->slice = place->slice;
        state->clock = g->start_clock;
        state->moments = moments;
        state->shard = place->shard;
    }
    pm_outbox_post(&g->outbox, PM_GATHER_PORT_SHARDS + place->shard, NULL,
                   pm_header_create((uint64_t)index + 1, g->epoch, PARAMILL__HEADER__BODY_SLICE_STATE, state),
                   frames, 1 + moments);
}

void pm_gather_tick(pm_gather *gather, int64_t now_ms)
{
    if (!gather->restore || now_ms < gather->resend_ms)
        return;
    gather->resend_ms = now_ms + RESEND_MS;
    for (uint32_t i = 0; i < gather->restore->size; i++)
        if (!gather->restored[i])
            hand_out(gather, i);
}

bool pm_gather_wants(pm_gather *gather, uint64_t *version)
{
    bool wanted = gather->wanted;
    gather->wanted = false;
    *version = gather->restore_version;
    return wanted;
}

pm_status pm_gather_loaded(pm_gather *gather, uint64_t version, pm_cut *cut, int64_t now_ms)
{
    pm_gather *g = gather;
    bool expected =
        g->phase == PARAMILL__PHASE__PHASE_PREPARING && version == g->restore_version && !g->restore;
    pm_status status = pm_ok();
    if (expected && (cut->size != pm_placement_size(g->placement) || cut->clock != g->start_clock))
        status = pm_fail(PM_INVALID, "version %llu is of another model or step", (unsigned long long)version);
    if (expected && status.code == PM_OK) {
        g->restored = calloc(cut->size, sizeof *g->restored);
        if (!g->restored)
            status = pm_fail(PM_NO_MEMORY, "a restore");
    }
    if (!expected || status.code != PM_OK) {
        pm_cut_destroy(&cut);
        return status;
    }
    g->restore = cut;
    g->restore_left = cut->size;
    g->resend_ms = now_ms;
    pm_gather_tick(g, now_ms);
    return status;
}

// Once a newer cut is complete, or published, older incomplete ones have no use.
static void drop_overtaken(pm_gather *g)
{
    uint64_t newest = g->done_clock;
    for (int i = 0; i < CUTS_OPEN; i++)
        if (g->cuts[i].cut && g->cuts[i].missing == 0 && g->cuts[i].cut->clock > newest)
            newest = g->cuts[i].cut->clock;
    for (int i = 0; i < CUTS_OPEN; i++) {
        open_cut *c = &g->cuts[i];
        if (c->cut && ((c->missing > 0 && c->cut->clock < newest) || c->cut->clock <= g->done_clock))
            pm_cut_destroy(&c->cut);
    }
}

pm_cut *pm_gather_take(pm_gather *gather, int64_t now_ms)
{
    drop_overtaken(gather);
    open_cut *oldest = NULL;
    for (int i = 0; i < CUTS_OPEN; i++) {
        open_cut *c = &gather->cuts[i];
        if (c->cut && c->missing == 0 && (!oldest || c->cut->clock < oldest->cut->clock))
            oldest = c;
    }
    if (!oldest || (!oldest->cut->scored && now_ms - oldest->complete_ms < SCORES_MS))
        return NULL;
    pm_cut *cut = oldest->cut;
    oldest->cut = NULL;
    return cut;
}

void pm_gather_saved(pm_gather *gather, uint64_t version, uint64_t step)
{
    gather->version = version;
    gather->version_step = step;
    if (gather->epoch == 0) { // what the store had before the run
        gather->phase = PARAMILL__PHASE__PHASE_READY;
        return;
    }
    if (step > gather->done_clock)
        gather->done_clock = step;
    if (step == gather->steps.total)
        gather->phase = PARAMILL__PHASE__PHASE_FINISHED;
}

pm_member_state pm_gather_state(const pm_gather *gather)
{
    uint64_t waiting = gather->restore_left;
    for (int i = 0; i < CUTS_OPEN; i++)
        waiting += gather->cuts[i].cut ? gather->cuts[i].missing : 0;
    return (pm_member_state){.phase = gather->phase,
                             .epoch = gather->epoch,
                             .clock = gather->done_clock,
                             .queue = waiting,
                             .version = gather->version,
                             .version_step = gather->version_step};
}

const pm_placement *pm_gather_placement(const pm_gather *gather)
{
    return gather->placement;
}

pm_outbox *pm_gather_outbox(pm_gather *gather)
{
    return &gather->outbox;
}
