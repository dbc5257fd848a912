#include "cluster/directive.h"

#include <stdbool.h>
#include <stddef.h>

uint32_t pm_directive_shards(const Paramill__Directive *directive)
{
    uint32_t rank = 0;
    size_t shards = 0;
    for (size_t i = 0; i < directive->n_members; i++) {
        const Paramill__Member *m = directive->members[i];
        if (m->role != PARAMILL__ROLE__ROLE_SERVER)
            continue;
        if (m->rank != rank++)
            return 0;
        shards += m->n_endpoints;
        if (shards > PM_SHARDS_MAX)
            return 0;
    }
    return (uint32_t)shards;
}

const Paramill__Member *pm_directive_server(const Paramill__Directive *directive, uint32_t shard,
                                            uint32_t *endpoint)
{
    for (size_t i = 0; i < directive->n_members; i++) {
        const Paramill__Member *m = directive->members[i];
        if (m->role != PARAMILL__ROLE__ROLE_SERVER)
            continue;
        if (shard < m->n_endpoints) {
            *endpoint = shard;
            return m;
        }
        shard -= (uint32_t)m->n_endpoints;
    }
    return NULL;
}

uint32_t pm_directive_first_shard(const Paramill__Directive *directive, uint32_t rank)
{
    size_t first = 0;
    for (size_t i = 0; i < directive->n_members; i++)
        if (directive->members[i]->role == PARAMILL__ROLE__ROLE_SERVER && directive->members[i]->rank < rank)
            first += directive->members[i]->n_endpoints;
    return (uint32_t)first;
}

const Paramill__Member *pm_directive_checkpoint(const Paramill__Directive *directive)
{
    for (size_t i = 0; i < directive->n_members; i++)
        if (directive->members[i]->role == PARAMILL__ROLE__ROLE_CHECKPOINT &&
            directive->members[i]->n_endpoints > 0)
            return directive->members[i];
    return NULL;
}

pm_status pm_directive_result(const Paramill__Directive *directive)
{
    if (!directive->reason || !directive->reason[0])
        return pm_ok();
    bool known = directive->code > PM_OK && directive->code <= PM_INTERNAL;
    return pm_fail(known ? (pm_code)directive->code : PM_CANCELLED, "%s", directive->reason);
}
