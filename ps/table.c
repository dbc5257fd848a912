// The slices of a shard: how partial sums combine along the tree of lanes, and the step to the next clock.
#include "ps/shard_impl.h"

#include "cluster/directive.h"

#include <stdlib.h>
#include <string.h>

uint32_t pm_table_moments(const pm_table_spec *table, const pm_job *job)
{
    return table->statistic || table->frozen ? 0 : pm_optimizer_moments(job->optimizer.kind);
}

static void drop_node(shard_slice *slice, uint32_t node)
{
    pm_buffer_unref(&slice->nodes[node]);
    if (slice->width)
        pm_buffer_unref(&slice->node_ids[node]);
    pm_lane_set_drop(&slice->in, node);
    pm_lane_set_drop(&slice->ours, node);
}

// Replaces two siblings by their parent. What came in a frame may be the sender's own memory and is never
// written.
static bool combine(pm_shard *shard, shard_slice *slice, uint32_t parent)
{
    uint32_t left = 2 * parent, right = left + 1;
    pm_buffer *sum = NULL;
    if (slice->width)
        return pm_shard_combine_rows(shard, slice, parent);
    if (slice->frozen) {
        drop_node(slice, left);
        drop_node(slice, right);
        pm_lane_set_put(&slice->in, parent);
        return true;
    }
    if (pm_lane_set_has(&slice->ours, left))
        sum = pm_buffer_ref(slice->nodes[left]);
    else if (pm_lane_set_has(&slice->ours, right))
        sum = pm_buffer_ref(slice->nodes[right]);
    else
        sum = pm_pool_take(shard->pool, slice->place->count * sizeof(float));
    if (!sum)
        return false;
    pm_kernels_get()->sum(slice->nodes[left]->data, slice->nodes[right]->data, sum->data,
                          slice->place->count);
    drop_node(slice, left);
    drop_node(slice, right);
    slice->nodes[parent] = sum;
    pm_lane_set_put(&slice->in, parent);
    pm_lane_set_put(&slice->ours, parent);
    return true;
}

bool pm_shard_own(pm_shard *shard, pm_buffer **buffer)
{
    if (!pm_buffer_is_shared(*buffer))
        return true;
    pm_buffer *copy = pm_pool_copy(shard->pool, (*buffer)->data, (*buffer)->size);
    if (!copy)
        return false;
    pm_buffer_unref(buffer);
    *buffer = copy;
    return true;
}

bool pm_shard_own_moments(pm_shard *shard, shard_slice *slice)
{
    bool enough = true;
    for (uint32_t i = 0; enough && i < slice->moment_count; i++)
        enough = pm_shard_own(shard, &slice->moments[i]);
    return enough;
}

// The buffer of the clock before last serves again unless somebody still reads it.
static pm_buffer *next_values(pm_shard *shard, shard_slice *slice)
{
    if (slice->previous && !pm_buffer_is_shared(slice->previous)) {
        pm_buffer *next = slice->previous;
        slice->previous = NULL;
        return next;
    }
    return pm_pool_take(shard->pool, slice->place->count * sizeof(float));
}

// Moves a slice without values to its next clock.
static void pass(pm_shard *shard, shard_slice *slice)
{
    if (!slice->previous)
        slice->previous = pm_buffer_ref(slice->values);
    slice->clock++;
    shard->stats.updates++;
    drop_node(slice, 1);
}

static bool update_rows(pm_shard *shard, shard_slice *slice)
{
    if (!pm_shard_update_rows(shard, slice))
        return false;
    slice->clock++;
    shard->stats.updates++;
    drop_node(slice, 1);
    return true;
}

static void apply(const pm_shard *shard, const shard_slice *slice, const pm_update *u)
{
    const pm_table_spec *table = &shard->tables[slice->place->table];
    const pm_job_optimizer *optimizer = &shard->job->optimizer;
    if (table->statistic)
        pm_statistic_apply(table->momentum, shard->lanes, u);
    else
        pm_optimizer_apply(optimizer,
                           table->rate * pm_optimizer_rate(optimizer, slice->clock, shard->steps.total),
                           slice->clock, u);
}

// The update of what the last two nodes are the halves of: their sum is made a piece at a time and goes
// through no memory but the nearest.
static void apply_halves(const pm_shard *shard, const shard_slice *slice, const pm_update *u)
{
    enum { PIECE = 2048 };
    const float *left = slice->nodes[2]->data, *right = slice->nodes[3]->data;
    float sum[PIECE];
    for (size_t first = 0; first < u->count; first += PIECE) {
        const size_t left_over = u->count - first;
        pm_update piece = {.count = left_over < PIECE ? left_over : PIECE,
                           .decays = u->decays,
                           .gradient = sum,
                           .from = u->from + first,
                           .to = u->to + first};
        for (uint32_t i = 0; i < slice->moment_count; i++)
            piece.moments[i] = u->moments[i] + first;
        pm_kernels_get()->sum(left + first, right + first, sum, piece.count);
        apply(shard, slice, &piece);
    }
}

// To the next clock, when the root is there, or both of its halves.
static bool update(pm_shard *shard, shard_slice *slice)
{
    if (slice->frozen) {
        pass(shard, slice);
        return true;
    }
    if (slice->width)
        return update_rows(shard, slice);
    if (!pm_shard_own_moments(shard, slice))
        return false;
    pm_buffer *next = next_values(shard, slice);
    if (!next)
        return false;
    const bool whole = pm_lane_set_has(&slice->in, 1);
    pm_update u = {.count = slice->place->count,
                   .decays = shard->tables[slice->place->table].decays,
                   .gradient = whole ? slice->nodes[1]->data : NULL,
                   .from = slice->values->data,
                   .to = next->data};
    for (uint32_t i = 0; i < slice->moment_count; i++)
        u.moments[i] = slice->moments[i]->data;
    if (whole)
        apply(shard, slice, &u);
    else
        apply_halves(shard, slice, &u);
    pm_buffer_unref(&slice->previous);
    slice->previous = slice->values;
    slice->values = next;
    slice->clock++;
    shard->stats.updates++;
    for (uint32_t node = 1; node <= (whole ? 1 : 3); node++)
        drop_node(slice, node);
    return true;
}

// Replaces siblings by their parent from node on up, as far as they are there. Returns where that ends: 1
// when the next clock can be made. The root of values is left to the update.
static uint32_t climb(pm_shard *shard, shard_slice *slice, uint32_t node, bool *enough)
{
    const bool sums_late = !slice->width && !slice->frozen;
    while (node > 1 && pm_lane_set_has(&slice->in, node ^ 1)) {
        if (node / 2 == 1 && sums_late)
            return 1;
        *enough = combine(shard, slice, node / 2);
        if (!*enough)
            return node;
        node /= 2;
    }
    return node;
}

pm_status pm_shard_add(pm_shard *shard, shard_slice *slice, uint32_t node, pm_buffer *sum, pm_buffer *ids,
                       shard_arrival *arrival)
{
    *arrival = ARRIVAL_DUPLICATE;
    if (pm_lane_set_covers(&slice->in, node))
        return pm_ok();
    *arrival = ARRIVAL_FIRST;
    for (uint32_t below; (below = pm_lane_set_below(&slice->in, node, shard->lanes));)
        drop_node(slice, below);
    slice->nodes[node] = sum ? pm_buffer_ref(sum) : NULL;
    if (slice->width)
        slice->node_ids[node] = ids ? pm_buffer_ref(ids) : NULL;
    pm_lane_set_put(&slice->in, node);
    bool enough = true;
    const uint32_t top = climb(shard, slice, node, &enough);
    if (enough && top == 1) {
        enough = update(shard, slice);
        *arrival = ARRIVAL_LAST;
    }
    if (enough)
        return pm_ok();
    drop_node(slice, top); // as if it had been lost on its way: its senders ask again
    if (top == 1)
        drop_node(slice, 2);
    return pm_fail(PM_UNAVAILABLE, "no memory to add table %u slice %u", slice->place->table,
                   slice->place->slice);
}

static pm_status check_state(const pm_shard *shard, const shard_slice *slice,
                             const Paramill__SliceState *state, const pm_message *message)
{
    if (state->clock != shard->start_clock)
        return pm_fail(PM_STALE, "a piece of clock %llu; epoch %llu begins at %llu",
                       (unsigned long long)state->clock, (unsigned long long)shard->epoch,
                       (unsigned long long)shard->start_clock);
    if (state->moments != slice->moment_count || message->frame_count != 1 + slice->moment_count)
        return pm_fail(PM_INVALID, "table %u slice %u comes with %u moments; the job's optimizer has %u",
                       state->table, state->slice, state->moments, slice->moment_count);
    for (uint32_t i = 0; i < message->frame_count; i++)
        if (message->frames[i]->size != (size_t)slice->place->count * sizeof(float))
            return pm_fail(PM_INVALID, "table %u slice %u comes with a frame of %zu bytes; it has %u floats",
                           state->table, state->slice, message->frames[i]->size, slice->place->count);
    return pm_ok();
}

pm_status pm_shard_restore(pm_shard *shard, shard_slice *slice, const Paramill__SliceState *state,
                           const pm_message *message)
{
    pm_status status = check_state(shard, slice, state, message);
    if (status.code != PM_OK || slice->values)
        return status;
    // Copies: the frames may be the sender's memory, and these buffers will be written to.
    pm_buffer *fresh[1 + PM_MOMENTS_MAX] = {0};
    for (uint32_t i = 0; i < message->frame_count; i++) {
        fresh[i] = pm_pool_copy(shard->pool, message->frames[i]->data, message->frames[i]->size);
        if (fresh[i])
            continue;
        while (i > 0)
            pm_buffer_unref(&fresh[--i]);
        return pm_fail(PM_UNAVAILABLE, "no memory for table %u slice %u", state->table, state->slice);
    }
    slice->values = fresh[0];
    for (uint32_t i = 0; i < slice->moment_count; i++)
        slice->moments[i] = fresh[1 + i];
    shard->missing--;
    return pm_ok();
}

static pm_status fill_slice(pm_shard *shard, shard_slice *slice, bool initial)
{
    const pm_table_spec *table = &shard->tables[slice->place->table];
    size_t size = slice->place->count * sizeof(float);
    slice->clock = shard->start_clock;
    slice->moment_count = pm_table_moments(table, shard->job);
    slice->frozen = table->frozen;
    slice->width = table->width;
    slice->nodes = calloc(2 * (size_t)shard->lanes, sizeof *slice->nodes);
    slice->node_ids = slice->width ? calloc(2 * (size_t)shard->lanes, sizeof *slice->node_ids) : NULL;
    shard->owned[shard->owned_count++] = (uint32_t)(slice - shard->slices);
    if (!slice->nodes || (slice->width && !slice->node_ids))
        return pm_fail(PM_NO_MEMORY, "the lanes of a slice");
    if (!initial) {
        shard->missing++;
        return pm_ok();
    }
    slice->values = pm_pool_copy(shard->pool, table->initial + slice->place->offset, size);
    bool enough = slice->values != NULL;
    for (uint32_t i = 0; i < slice->moment_count; i++) {
        slice->moments[i] = pm_pool_take(shard->pool, size);
        for (uint32_t k = 0; slice->moments[i] && k < slice->place->count; k++)
            ((float *)slice->moments[i]->data)[k] = pm_optimizer_moment_start(&shard->job->optimizer);
        enough = enough && slice->moments[i];
    }
    return enough ? pm_ok() : pm_fail(PM_NO_MEMORY, "the values of table %u", slice->place->table);
}

pm_status pm_shard_fill(pm_shard *shard, uint32_t shards, bool initial)
{
    pm_status status =
        pm_placement_create(&shard->placement, shard->counts, shard->widths, shard->table_count, shards);
    if (status.code != PM_OK)
        return status;
    uint32_t size = pm_placement_size(shard->placement);
    shard->slices = calloc(size, sizeof *shard->slices);
    shard->owned = calloc(size, sizeof *shard->owned);
    if (!shard->slices || !shard->owned)
        return pm_fail(PM_NO_MEMORY, "%u slices", size);
    for (uint32_t i = 0; i < size && status.code == PM_OK; i++) {
        shard->slices[i].place = pm_placement_slice(shard->placement, i);
        if (shard->slices[i].place->shard == shard->number)
            status = fill_slice(shard, &shard->slices[i], initial);
    }
    return status;
}

void pm_shard_empty(pm_shard *shard)
{
    for (uint32_t i = 0; i < shard->owned_count; i++) {
        shard_slice *slice = &shard->slices[shard->owned[i]];
        pm_buffer_unref(&slice->values);
        pm_buffer_unref(&slice->previous);
        pm_buffer_unref(&slice->previous_ids);
        for (int m = 0; m < PM_MOMENTS_MAX; m++)
            pm_buffer_unref(&slice->moments[m]);
        for (uint32_t n = 0; slice->nodes && n < 2 * shard->lanes; n++)
            pm_buffer_unref(&slice->nodes[n]);
        for (uint32_t n = 0; slice->node_ids && n < 2 * shard->lanes; n++)
            pm_buffer_unref(&slice->node_ids[n]);
        for (uint32_t w = 0; w < slice->waiter_count; w++)
            pm_buffer_unref(&slice->waiters[w].ids);
        for (int c = 0; c < CUTS_KEPT; c++)
            pm_shard_cut_drop(&slice->cuts[c]);
        free(slice->nodes);
        free(slice->node_ids);
        free(slice->waiters);
    }
    free(shard->slices);
    free(shard->owned);
    pm_placement_destroy(&shard->placement);
    shard->slices = NULL;
    shard->owned = NULL;
    shard->owned_count = shard->missing = 0;
}

static pm_status copy_tables(pm_shard *s, const pm_shard_options *o)
{
    s->tables = calloc(o->table_count, sizeof *s->tables);
    s->counts = calloc(o->table_count, sizeof *s->counts);
    s->widths = calloc(o->table_count, sizeof *s->widths);
    if (!s->tables || !s->counts || !s->widths)
        return pm_fail(PM_NO_MEMORY, "a shard of %u tables", o->table_count);
    for (uint32_t t = 0; t < o->table_count; t++) {
        s->tables[t] = o->tables[t];
        s->counts[t] = o->tables[t].count;
        s->widths[t] = o->tables[t].width;
    }
    return pm_pool_create(&s->pool, o->shm);
}

pm_status pm_shard_create(pm_shard **shard, const pm_shard_options *options)
{
    if (!pm_lanes_valid(options->job->lanes) || options->table_count == 0)
        return pm_fail(PM_INVALID, "a shard of %u tables and %u lanes", options->table_count,
                       options->job->lanes);
    pm_shard *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a shard");
    s->job = options->job;
    s->table_count = options->table_count;
    s->index = options->index;
    s->lanes = options->job->lanes;
    pm_status status = copy_tables(s, options);
    if (status.code == PM_OK)
        *shard = s;
    else
        pm_shard_destroy(&s);
    return status;
}

void pm_shard_destroy(pm_shard **shard)
{
    if (!shard || !*shard)
        return;
    pm_shard *s = *shard;
    pm_shard_empty(s);
    pm_outbox_free(&s->outbox);
    pm_pool_destroy(&s->pool);
    free(s->tables);
    free(s->counts);
    free(s->widths);
    free(s->checkpoint);
    free(s);
    *shard = NULL;
}

static pm_status prepare(pm_shard *shard, const Paramill__Directive *directive)
{
    uint32_t shards = pm_directive_shards(directive);
    pm_shard_empty(shard);
    shard->epoch = 0; // until all slices are made
    shard->number = pm_directive_first_shard(directive, directive->rank) + shard->index;
    if (shard->number >= shards)
        return pm_fail(PM_PROTOCOL, "directive %llu lists %u shards; this is shard %u",
                       (unsigned long long)directive->number, shards, shard->number);
    pm_status status = pm_steps_make(&shard->steps, shard->job, directive->train_rows);
    if (status.code != PM_OK)
        return status;
    shard->start_clock = directive->start_clock;
    shard->running = false;
    status = pm_shard_fill(shard, shards, directive->restore_version == 0);
    if (status.code == PM_OK)
        shard->epoch = directive->epoch;
    return status;
}

// Pieces of cuts go to the service of this name; a new one, restarted perhaps, has none of them.
static pm_status follow_checkpoint(pm_shard *shard, const Paramill__Directive *directive, int64_t now_ms)
{
    const Paramill__Member *service = pm_directive_checkpoint(directive);
    if (!service || (shard->checkpoint && !strcmp(shard->checkpoint, service->name)))
        return pm_ok();
    free(shard->checkpoint);
    shard->checkpoint = strdup(service->name);
    if (!shard->checkpoint)
        return pm_fail(PM_NO_MEMORY, "the name of the checkpoint service");
    pm_shard_cut_again(shard, now_ms);
    return pm_ok();
}

pm_status pm_shard_direct(pm_shard *shard, const Paramill__Directive *directive, int64_t now_ms)
{
    pm_status status = pm_ok();
    if (directive->verb == PARAMILL__DIRECTIVE__VERB__PREPARE && directive->epoch > shard->epoch)
        status = prepare(shard, directive);
    if (directive->verb == PARAMILL__DIRECTIVE__VERB__RUN && directive->epoch == shard->epoch)
        shard->running = true;
    if (status.code == PM_OK)
        status = follow_checkpoint(shard, directive, now_ms);
    if (directive->epoch == shard->epoch)
        pm_shard_cut_forget(shard, directive->published_step);
    return status;
}
