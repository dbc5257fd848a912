#pragma once
// The processes of the simulated cluster: the real cores of coordinator, shard, checkpoint service,
// membership and exchange; arithmetic.h is in place of the model. Included by one test file only.
#include "cluster/directive.h"
#include "cluster/membership.h"
#include "cluster/roster.h"
#include "ps/gather.h"
#include "ps/shard.h"
#include "tests/sim/arithmetic.h"
#include "tests/sim/world.h"
#include "worker/exchange.h"

enum { SHARDS_PER_NODE_MAX = 2, TICK_EVERY_MS = 100, MEMBER_SUB = 100, STORE_MAX = 64 };

// A version in the simulated store; the store survives the checkpoint service.
typedef struct stored {
    uint64_t version;
    pm_cut *cut;
} stored;

typedef struct node {
    uint16_t id, life;
    bool alive;
    Paramill__Role role;
    pm_membership *member;
    pm_message directive; // newest
    pm_shard *shards[SHARDS_PER_NODE_MAX];
    pm_gather *gather;
    pm_cut *writing;
    pm_exchange *exchange;
    float values[TABLES][64];
    uint64_t clock;
    pm_lane_set done;
    bool begun, finished;
    uint64_t working; // number of the block that is being computed; 0: none
    pm_block block;
    bool wants; // rows of the block are asked for
} node;

typedef struct cluster {
    world w;
    pm_job job;
    pm_table_spec tables[TABLES];
    float initial[TABLES][64];
    pm_roster *roster;
    node nodes[NODES_MAX]; // 0: the coordinator
    uint32_t node_count;
    stored store[STORE_MAX];
    uint32_t stored_count;
    uint64_t works, kills, restores;
    pm_status failure; // of the first thing that must not happen
} cluster;

static void fail(cluster *c, pm_status status)
{
    if (c->failure.code == PM_OK)
        c->failure = status;
}

static bool is_ok(cluster *c, pm_status status)
{
    if (status.code != PM_OK)
        fail(c, status);
    return status.code == PM_OK;
}

static address here(const node *n, uint16_t sub)
{
    return (address){n->id, n->life, sub};
}

static Paramill__Directive *directive_of(const node *n)
{
    return n->directive.header ? n->directive.header->directive : NULL;
}

// ---- sending ----

static void flush_member(cluster *c, node *n)
{
    pm_outbox *out = pm_membership_outbox(n->member);
    for (size_t i = 0; i < out->count; i++)
        transmit(&c->w, here(n, MEMBER_SUB), (address){0, 0, 0}, &out->posts[i].message);
    out->count = 0;
}

static void flush_roster(cluster *c)
{
    pm_outbox *out = pm_roster_outbox(c->roster);
    for (size_t i = 0; i < out->count; i++)
        transmit(&c->w, (address){0, 0, 0}, address_of(&out->posts[i].to), &out->posts[i].message);
    out->count = 0;
}

static void flush_server(cluster *c, node *n)
{
    const Paramill__Member *service = directive_of(n) ? pm_directive_checkpoint(directive_of(n)) : NULL;
    for (uint16_t s = 0; s < c->job.cluster.shards_per_server; s++) {
        pm_outbox *out = pm_shard_outbox(n->shards[s]);
        for (size_t i = 0; i < out->count; i++) {
            pm_post *post = &out->posts[i];
            if (post->port == PM_SHARD_PORT_PEERS)
                transmit(&c->w, here(n, s), address_of(&post->to), &post->message);
            else if (service)
                transmit(&c->w, here(n, s), parse_endpoint(service->endpoints[0]), &post->message);
        }
        pm_outbox_clear(out);
    }
}

static void flush_gather(cluster *c, node *n)
{
    pm_outbox *out = pm_gather_outbox(n->gather);
    for (size_t i = 0; i < out->count; i++) {
        pm_post *post = &out->posts[i];
        uint32_t at = 0;
        if (post->port == PM_GATHER_PORT_PEERS) {
            transmit(&c->w, here(n, 0), address_of(&post->to), &post->message);
            continue;
        }
        const Paramill__Member *server =
            pm_directive_server(directive_of(n), post->port - PM_GATHER_PORT_SHARDS, &at);
        if (server)
            transmit(&c->w, here(n, 0), parse_endpoint(server->endpoints[at]), &post->message);
    }
    pm_outbox_clear(out);
}

static void flush_worker(cluster *c, node *n)
{
    pm_outbox *out = pm_exchange_outbox(n->exchange);
    for (size_t i = 0; i < out->count; i++)
        transmit(&c->w, here(n, 0), parse_endpoint(pm_exchange_endpoint(n->exchange, out->posts[i].port)),
                 &out->posts[i].message);
    out->count = 0;
}

static void flush(cluster *c, node *n)
{
    flush_member(c, n);
    if (n->role == PARAMILL__ROLE__ROLE_SERVER)
        flush_server(c, n);
    if (n->role == PARAMILL__ROLE__ROLE_CHECKPOINT)
        flush_gather(c, n);
    if (n->role == PARAMILL__ROLE__ROLE_WORKER)
        flush_worker(c, n);
}

// ---- life and death ----

static void kill_node(cluster *c, node *n)
{
    (void)c;
    pm_membership_destroy(&n->member);
    pm_message_clear(&n->directive);
    for (int s = 0; s < SHARDS_PER_NODE_MAX; s++)
        pm_shard_destroy(&n->shards[s]);
    pm_gather_destroy(&n->gather);
    pm_cut_destroy(&n->writing);
    pm_exchange_destroy(&n->exchange);
    n->alive = n->begun = n->finished = n->wants = false;
    n->working = 0;
}

static void make_role(cluster *c, node *n)
{
    bool frozen[TABLES];
    uint32_t widths[TABLES];
    for (uint32_t t = 0; t < TABLES; t++) {
        frozen[t] = c->tables[t].frozen;
        widths[t] = c->tables[t].width;
    }
    const pm_exchange_options exchange = {
        COUNTS, frozen, widths, TABLES, c->job.lanes, c->job.cluster.request_ms, NULL};
    const pm_gather_options gather = {&c->job, c->tables, TABLES};
    if (n->role == PARAMILL__ROLE__ROLE_SERVER)
        for (uint32_t s = 0; s < c->job.cluster.shards_per_server; s++) {
            const pm_shard_options shard = {&c->job, c->tables, TABLES, s, NULL};
            is_ok(c, pm_shard_create(&n->shards[s], &shard));
        }
    if (n->role == PARAMILL__ROLE__ROLE_CHECKPOINT && is_ok(c, pm_gather_create(&n->gather, &gather))) {
        const stored *newest = c->stored_count ? &c->store[c->stored_count - 1] : NULL;
        pm_gather_saved(n->gather, newest ? newest->version : 0, newest ? newest->cut->clock : 0);
    }
    if (n->role == PARAMILL__ROLE__ROLE_WORKER && is_ok(c, pm_exchange_create(&n->exchange, &exchange)))
        for (uint32_t t = 0; t < TABLES; t++)
            pm_exchange_bind(n->exchange, t, n->values[t]);
}

static void start_node(cluster *c, node *n)
{
    n->life++;
    n->alive = true;
    char name[32], host[32], text[SHARDS_PER_NODE_MAX][64];
    snprintf(name, sizeof name, "node%u.%u", n->id, n->life);
    snprintf(host, sizeof host, "host%u", n->id);
    const char *endpoints[SHARDS_PER_NODE_MAX];
    uint32_t count = n->role == PARAMILL__ROLE__ROLE_SERVER ? c->job.cluster.shards_per_server
                                                            : n->role == PARAMILL__ROLE__ROLE_CHECKPOINT;
    for (uint16_t s = 0; s < count; s++) {
        endpoint_of(here(n, s), text[s]);
        endpoints[s] = text[s];
    }
    const pm_member_options member = {
        .role = n->role, .coordinator = "sim:0:0:0", .endpoints = endpoints, .endpoint_count = count};
    const pm_membership_options options = {&member, name, host, n->id};
    is_ok(c, pm_membership_create(&n->member, &options, c->w.now_ms));
    make_role(c, n);
    schedule(&c->w, 0, TICK, here(n, 0), 0);
}

// What a supervisor does with a process that ended by itself.
static void end_node(cluster *c, node *n)
{
    kill_node(c, n);
    schedule(&c->w, 200 + (int64_t)below(&c->w, 800), START, here(n, 0), 0);
}

// ---- the worker: the step loop of the real one, with time instead of arithmetic ----

static void tell_worker(cluster *c, node *n, Paramill__Phase phase)
{
    pm_member_state state = {.phase = phase, .epoch = directive_of(n)->epoch, .clock = n->clock};
    pm_membership_tell(n->member, &state, c->w.now_ms);
}

static void begin(cluster *c, node *n, uint64_t clock)
{
    n->clock = clock;
    n->begun = true;
    n->finished = n->wants = false;
    n->working = 0;
    memset(&n->done, 0, sizeof n->done);
    is_ok(c, pm_exchange_begin(n->exchange, directive_of(n), clock, c->w.now_ms));
}

static bool next_block(cluster *c, node *n)
{
    const Paramill__Directive *d = directive_of(n);
    for (size_t i = 0; i < d->n_leases; i++) {
        n->block = (pm_block){d->leases[i]->first, d->leases[i]->count};
        if (!pm_lane_set_covers(&n->done, pm_block_node(n->block, c->job.lanes)))
            return true;
    }
    return false;
}

// Whether what the block needs is here; asks for it first.
static bool has_rows(cluster *c, node *n, pm_block before)
{
    uint32_t ids[ROWS];
    const bool same = n->wants && before.first == n->block.first && before.count == n->block.count;
    if (!c->tables[SPARSE].width)
        return true;
    if (!same)
        is_ok(c, pm_exchange_want(n->exchange, SPARSE, n->clock, ids, touched_rows(n->clock, n->block, ids),
                                  c->w.now_ms));
    n->wants = true;
    return pm_exchange_have_rows(n->exchange, SPARSE, n->clock);
}

static void poke_worker(cluster *c, node *n)
{
    const pm_block before = n->block;
    const Paramill__Directive *d = directive_of(n);
    uint64_t other;
    if (!n->begun || !d || d->verb != PARAMILL__DIRECTIVE__VERB__RUN || n->working || n->finished)
        return;
    if (pm_exchange_is_stale(n->exchange, &other))
        begin(c, n, other);
    while (n->clock < d->total_steps && pm_exchange_done(n->exchange, n->clock + 1)) {
        n->clock++;
        n->wants = false;
        memset(&n->done, 0, sizeof n->done);
        tell_worker(c, n, PARAMILL__PHASE__PHASE_RUNNING);
    }
    if (!pm_exchange_done(n->exchange, n->clock))
        return;
    if (n->clock == d->total_steps) {
        n->finished = true;
        tell_worker(c, n, PARAMILL__PHASE__PHASE_FINISHED);
    } else if (next_block(c, n) && has_rows(c, n, before)) {
        n->wants = false;
        n->working = ++c->works;
        schedule(&c->w, 1 + (int64_t)below(&c->w, 30), WORK, here(n, 0), n->working);
    }
}

static void push_rows(cluster *c, node *n)
{
    float *values = n->values[SPARSE], rows[ROWS * WIDTH], sum[ROWS * WIDTH];
    uint32_t ids[ROWS];
    bool has[ROWS];
    const uint32_t count = touched_rows(n->clock, n->block, ids);
    if (!is_ok(c, pm_exchange_take_rows(n->exchange, SPARSE, n->clock, rows)))
        return;
    for (uint32_t i = 0; i < count; i++)
        memcpy(values + ids[i] * WIDTH, rows + i * WIDTH, WIDTH * sizeof *rows);
    block_rows(values, n->clock, n->block, sum, has);
    pack_rows(sum, n->clock, n->block, ids, rows);
    is_ok(c, pm_exchange_push_rows(n->exchange, SPARSE, n->block, n->clock, ids, count, rows, c->w.now_ms));
}

static void report_block(cluster *c, node *n)
{
    Paramill__Report *report = pm_proto_new(&paramill__report__descriptor);
    Paramill__Score *score = pm_proto_new(&paramill__score__descriptor);
    report->scores = malloc(sizeof *report->scores);
    report->scores[report->n_scores++] = score;
    score->clock = n->clock;
    score->lane_first = n->block.first;
    score->lane_count = n->block.count;
    score->rows = n->block.count;
    for (uint32_t l = n->block.first; l < n->block.first + n->block.count; l++)
        score->loss_sum += (double)(l + 1) / (double)(n->clock + 1);
    pm_membership_report(n->member, report, c->w.now_ms);
}

static void finish_block(cluster *c, node *n, uint64_t number)
{
    if (n->working != number)
        return;
    n->working = 0;
    for (uint32_t t = TABLES; t-- > 0;) {
        float sum[64];
        if (c->tables[t].width) {
            push_rows(c, n);
            continue;
        }
        if (!is_ok(c, pm_exchange_install(n->exchange, t, n->clock)))
            return;
        block_gradient(n->values[t], t, n->clock, n->block, sum);
        is_ok(c, pm_exchange_push(n->exchange, t, n->block, n->clock, c->tables[t].frozen ? NULL : sum,
                                  c->w.now_ms));
    }
    report_block(c, n);
    pm_lane_set_put(&n->done, pm_block_node(n->block, c->job.lanes));
}

static void direct_worker(cluster *c, node *n, uint64_t epoch_before, size_t leases_before)
{
    const Paramill__Directive *d = directive_of(n);
    if (d->verb == PARAMILL__DIRECTIVE__VERB__PREPARE)
        tell_worker(c, n, PARAMILL__PHASE__PHASE_READY);
    if (d->verb != PARAMILL__DIRECTIVE__VERB__RUN) {
        n->begun = false;
        n->working = 0;
    } else if (!n->begun || d->epoch != epoch_before || (leases_before == 0 && d->n_leases > 0)) {
        begin(c, n, d->clock);
        tell_worker(c, n, PARAMILL__PHASE__PHASE_RUNNING);
    }
}

// ---- server and checkpoint service ----

static void tell_server(cluster *c, node *n)
{
    pm_member_state state = {.phase = PARAMILL__PHASE__PHASE_RUNNING, .clock = UINT64_MAX};
    for (uint32_t s = 0; s < c->job.cluster.shards_per_server; s++) {
        Paramill__Phase phase = pm_shard_phase(n->shards[s]);
        uint64_t clock = pm_shard_clock(n->shards[s]);
        state.phase = phase < state.phase ? phase : state.phase;
        state.clock = clock < state.clock ? clock : state.clock;
        state.epoch = pm_shard_epoch(n->shards[s]);
    }
    pm_membership_tell(n->member, &state, c->w.now_ms);
}

static pm_cut *copy_cut(cluster *c, const pm_cut *cut)
{
    pm_cut *copy = NULL;
    if (!is_ok(c, pm_cut_create(&copy, cut->size)))
        return NULL;
    copy->clock = cut->clock;
    for (uint32_t i = 0; i < cut->size; i++) {
        copy->values[i] = pm_buffer_copy(cut->values[i]->data, cut->values[i]->size);
        for (int m = 0; m < PM_MOMENTS_MAX; m++)
            if (cut->moments[m][i])
                copy->moments[m][i] = pm_buffer_copy(cut->moments[m][i]->data, cut->moments[m][i]->size);
    }
    return copy;
}

static void poke_gather(cluster *c, node *n)
{
    uint64_t version;
    pm_gather_tick(n->gather, c->w.now_ms);
    bool wanted = pm_gather_wants(n->gather, &version);
    c->restores += wanted;
    if (wanted)
        for (uint32_t i = 0; i < c->stored_count; i++)
            if (c->store[i].version == version)
                is_ok(c, pm_gather_loaded(n->gather, version, copy_cut(c, c->store[i].cut), c->w.now_ms));
    if (!n->writing && (n->writing = pm_gather_take(n->gather, c->w.now_ms)))
        schedule(&c->w, 5 + (int64_t)below(&c->w, 300), STORED, here(n, 0), 0);
    pm_member_state state = pm_gather_state(n->gather);
    pm_membership_tell(n->member, &state, c->w.now_ms);
}

static void finish_writing(cluster *c, node *n)
{
    if (c->stored_count == STORE_MAX) {
        fail(c, pm_fail(PM_INTERNAL, "the store is full"));
        return;
    }
    stored *s = &c->store[c->stored_count++];
    s->version = c->stored_count;
    s->cut = copy_cut(c, n->writing);
    pm_cut_destroy(&n->writing);
    pm_gather_saved(n->gather, s->version, s->cut->clock);
}

// ---- events ----

static void follow_directive(cluster *c, node *n)
{
    pm_message newest = {0};
    if (!pm_membership_take(n->member, &newest))
        return;
    uint64_t epoch = directive_of(n) ? directive_of(n)->epoch : 0;
    size_t leases = directive_of(n) ? directive_of(n)->n_leases : 0;
    pm_message_clear(&n->directive);
    pm_message_move(&n->directive, &newest);
    if (directive_of(n)->verb == PARAMILL__DIRECTIVE__VERB__STOP) {
        pm_membership_goodbye(n->member);
        flush_member(c, n);
        kill_node(c, n);
        return;
    }
    for (uint32_t s = 0; n->shards[0] && s < c->job.cluster.shards_per_server; s++)
        is_ok(c, pm_shard_direct(n->shards[s], directive_of(n), c->w.now_ms));
    if (n->gather)
        is_ok(c, pm_gather_direct(n->gather, directive_of(n), c->w.now_ms));
    if (n->exchange)
        direct_worker(c, n, epoch, leases);
}

static void hear(cluster *c, node *n, event *e)
{
    pm_peer from = peer_of(e->from);
    if (e->to.sub == MEMBER_SUB && e->message.header->body_case == PARAMILL__HEADER__BODY_PUBLISHED)
        pm_gather_handle(n->gather, NULL, &e->message, c->w.now_ms);
    else if (e->to.sub == MEMBER_SUB)
        pm_membership_handle(n->member, &e->message, c->w.now_ms);
    else if (n->gather)
        pm_gather_handle(n->gather, &from, &e->message, c->w.now_ms);
    else if (n->shards[0])
        pm_shard_handle(n->shards[e->to.sub], &from, &e->message, c->w.now_ms);
    for (uint32_t s = 0; n->exchange && e->to.sub == 0 && s < pm_exchange_shards(n->exchange); s++) {
        address shard = parse_endpoint(pm_exchange_endpoint(n->exchange, s));
        if (!memcmp(&shard, &e->from, sizeof shard))
            is_ok(c, pm_exchange_handle(n->exchange, s, &e->message, c->w.now_ms));
    }
}

static void tick(cluster *c, node *n)
{
    pm_status status = pm_membership_tick(n->member, c->w.now_ms);
    if (n->exchange && status.code == PM_OK)
        status = pm_exchange_tick(n->exchange, c->w.now_ms);
    if (status.code != PM_OK) { // as in a real cluster: the process ends and is started again
        end_node(c, n);
        return;
    }
    for (uint32_t s = 0; n->shards[0] && s < c->job.cluster.shards_per_server; s++)
        pm_shard_tick(n->shards[s], c->w.now_ms);
    schedule(&c->w, TICK_EVERY_MS, TICK, here(n, 0), 0);
}

static void live(cluster *c, node *n, event *e)
{
    switch (e->kind) {
    case DELIVER:
        hear(c, n, e);
        break;
    case TICK:
        tick(c, n);
        break;
    case WORK:
        finish_block(c, n, e->number);
        break;
    case STORED:
        finish_writing(c, n);
        break;
    default:
        break;
    }
    if (n->alive)
        follow_directive(c, n);
    if (!n->alive)
        return;
    if (n->gather)
        poke_gather(c, n);
    if (n->shards[0])
        tell_server(c, n);
    if (n->exchange)
        poke_worker(c, n);
    flush(c, n);
}
