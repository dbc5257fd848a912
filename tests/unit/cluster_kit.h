#pragma once
// What the tests of the training protocol share: a small job, directives and messages made by hand.
#include "cluster/outbox.h"
#include "core/job.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ok(status)                                                                                           \
    do {                                                                                                     \
        pm_status ok_status = (status);                                                                      \
        cr_assert_eq(ok_status.code, PM_OK, "%s", ok_status.message);                                        \
    } while (0)

// sgd with rate 1 and no schedule, so that a step is old - sum: easy to follow by hand.
static inline pm_job kit_job(uint32_t lanes, uint32_t servers, uint32_t workers)
{
    return (pm_job){.name = (char *)(uintptr_t) "kit",
                    .text = (char *)(uintptr_t) "name: kit",
                    .batch = lanes,
                    .lanes = lanes,
                    .epochs = 2,
                    .optimizer = {.kind = PM_OPTIMIZER_SGD, .learning_rate = 1},
                    .cluster = {.servers = servers,
                                .workers = workers,
                                .shards_per_server = 1,
                                .heartbeat_ms = 300,
                                .lease_ms = 3000,
                                .request_ms = 30000},
                    .checkpoint = {.every_steps = 4, .keep = 5}};
}

static inline pm_peer kit_peer(uint8_t id)
{
    return (pm_peer){.size = 1, .id = {id}};
}

static inline Paramill__Member *kit_member(Paramill__Role role, uint32_t rank, const char *name)
{
    Paramill__Member *m = pm_proto_new(&paramill__member__descriptor);
    m->role = role;
    m->rank = rank;
    m->name = pm_proto_string(name);
    m->host = pm_proto_string("here");
    m->endpoints = calloc(1, sizeof *m->endpoints);
    m->endpoints[m->n_endpoints++] = pm_proto_string(name);
    return m;
}

// Servers "s0", "s1", … and the checkpoint service "c0"; 10 steps in each of 2 epochs.
static inline Paramill__Directive *kit_directive(Paramill__Directive__Verb verb, uint64_t epoch,
                                                 uint32_t servers, uint32_t lanes)
{
    Paramill__Directive *d = pm_proto_new(&paramill__directive__descriptor);
    d->number = epoch * 10 + (uint64_t)verb;
    d->epoch = d->placement = epoch;
    d->verb = verb;
    d->train_rows = 10 * (uint64_t)lanes;
    d->total_steps = 20;
    d->members = calloc((size_t)servers + 1, sizeof *d->members);
    for (uint32_t i = 0; i < servers; i++) {
        char name[16];
        snprintf(name, sizeof name, "s%u", i);
        d->members[d->n_members++] = kit_member(PARAMILL__ROLE__ROLE_SERVER, i, name);
    }
    d->members[d->n_members++] = kit_member(PARAMILL__ROLE__ROLE_CHECKPOINT, 0, "c0");
    return d;
}

static inline pm_message kit_push(uint64_t request, uint64_t epoch, uint32_t table, uint32_t slice,
                                  uint64_t clock, uint32_t first, uint32_t count, const float *values,
                                  size_t floats)
{
    Paramill__Push *push = pm_proto_new(&paramill__push__descriptor);
    push->table = table;
    push->slice = slice;
    push->clock = clock;
    push->lane_first = first;
    push->lane_count = count;
    push->placement = epoch;
    pm_message message = {.header = pm_header_create(request, epoch, PARAMILL__HEADER__BODY_PUSH, push)};
    if (values)
        ok(pm_message_add(&message, pm_buffer_copy(values, floats * sizeof(float))));
    return message;
}

static inline pm_message kit_pull(uint64_t request, uint64_t epoch, uint32_t table, uint32_t slice,
                                  uint64_t clock)
{
    Paramill__Pull *pull = pm_proto_new(&paramill__pull__descriptor);
    pull->table = table;
    pull->slice = slice;
    pull->clock = clock;
    pull->placement = epoch;
    return (pm_message){.header = pm_header_create(request, epoch, PARAMILL__HEADER__BODY_PULL, pull)};
}
