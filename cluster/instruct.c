// Directives: what each member is to do, made afresh from the coordinator's state each time one is sent.
#include "cluster/roster_impl.h"

#include <stdlib.h>

// The workers that are here share the lanes in rank order.
uint32_t pm_roster_lease(const pm_roster *roster, const place *p, pm_block blocks[PM_BLOCKS_MAX])
{
    uint32_t workers = 0, index = 0;
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *other = &roster->places[i];
        if (other->role != PARAMILL__ROLE__ROLE_WORKER || !other->here)
            continue;
        index += other->rank < p->rank;
        workers++;
    }
    return workers ? pm_lanes_share(roster->job->lanes, workers, index, blocks) : 0;
}

// A lower bound of the oldest slice: what the servers said last, and they only go forward.
uint64_t pm_roster_clock(const pm_roster *roster)
{
    uint64_t oldest = roster->end;
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        if (p->role != PARAMILL__ROLE__ROLE_SERVER)
            continue;
        bool known = p->here && p->epoch == roster->epoch && p->clock >= roster->start_clock;
        uint64_t clock = known ? p->clock : roster->start_clock;
        oldest = clock < oldest ? clock : oldest;
    }
    return oldest;
}

static Paramill__Member *make_member(const place *p)
{
    Paramill__Member *m = pm_proto_new(&paramill__member__descriptor);
    if (!m)
        return NULL;
    m->role = p->role;
    m->rank = p->rank;
    m->name = pm_proto_string(p->name);
    m->host = pm_proto_string(p->host);
    m->endpoints = calloc((size_t)p->endpoint_count + 1, sizeof *m->endpoints);
    for (uint32_t i = 0; m->endpoints && i < p->endpoint_count; i++)
        m->endpoints[m->n_endpoints++] = pm_proto_string(p->endpoints[i]);
    return m;
}

static void add_members(const pm_roster *roster, Paramill__Directive *directive)
{
    directive->members = calloc(roster->place_count, sizeof(Paramill__Member *));
    for (uint32_t i = 0; directive->members && i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        Paramill__Member *m = p->here && p->role != PARAMILL__ROLE__ROLE_WORKER ? make_member(p) : NULL;
        if (m)
            directive->members[directive->n_members++] = m;
    }
}

static void add_leases(const pm_roster *roster, const place *p, Paramill__Directive *directive)
{
    pm_block blocks[PM_BLOCKS_MAX];
    uint32_t count = pm_roster_lease(roster, p, blocks);
    directive->leases = calloc((size_t)count + 1, sizeof(Paramill__LaneBlock *));
    for (uint32_t i = 0; directive->leases && i < count; i++) {
        Paramill__LaneBlock *block = pm_proto_new(&paramill__lane_block__descriptor);
        if (!block)
            continue;
        block->first = blocks[i].first;
        block->count = blocks[i].count;
        directive->leases[directive->n_leases++] = block;
    }
}

static Paramill__Directive *make_directive(const pm_roster *roster, const place *p)
{
    static const Paramill__Directive__Verb verbs[] = {
        PARAMILL__DIRECTIVE__VERB__WAIT, PARAMILL__DIRECTIVE__VERB__PREPARE, PARAMILL__DIRECTIVE__VERB__RUN,
        PARAMILL__DIRECTIVE__VERB__STOP};
    Paramill__Directive *d = pm_proto_new(&paramill__directive__descriptor);
    if (!d)
        return NULL;
    d->number = roster->number;
    d->epoch = roster->epoch;
    d->verb = verbs[roster->phase];
    d->rank = p->rank;
    if (p->directive == 0) {
        d->job = pm_proto_string(roster->job->text ? roster->job->text : "");
        d->vocabulary = pm_proto_string(roster->vocabulary);
    }
    d->model_digest = pm_proto_string(roster->job->model.digest);
    d->start_clock = roster->start_clock;
    d->restore_version = roster->restore_version;
    d->reason = pm_proto_string(roster->result.message);
    d->code = roster->result.code;
    d->placement = roster->epoch;
    d->train_rows = roster->train_rows;
    d->total_steps = roster->end;
    d->limit = pm_roster_limit(roster);
    d->clock = pm_roster_clock(roster);
    d->published_step = roster->version ? roster->version_step : 0;
    d->heartbeat_ms = roster->job->cluster.heartbeat_ms;
    add_members(roster, d);
    if (p->role == PARAMILL__ROLE__ROLE_WORKER && (roster->phase == PREPARE || roster->phase == RUN))
        add_leases(roster, p, d);
    return d;
}

void pm_roster_instruct(pm_roster *roster, const place *p)
{
    Paramill__Directive *directive = make_directive(roster, p);
    pm_outbox_post(&roster->outbox, 0, &p->peer,
                   pm_header_create(0, roster->epoch, PARAMILL__HEADER__BODY_DIRECTIVE, directive), NULL, 0);
}

void pm_roster_changed(pm_roster *roster)
{
    roster->number++;
    for (uint32_t i = 0; i < roster->place_count; i++)
        if (roster->places[i].here)
            pm_roster_instruct(roster, &roster->places[i]);
}
