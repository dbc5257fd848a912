// What comes in by the wire: the first byte says how many equal frames follow the header, the rest is the
// header. Whatever it is, a shard answers or refuses and stays in order.
#include "ps/gather.h"
#include "ps/shard.h"

#include <stdint.h>
#include <stdlib.h>

enum { FLOATS = 4, LANES = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Paramill__Member *member(Paramill__Role role)
{
    Paramill__Member *m = pm_proto_new(&paramill__member__descriptor);
    m->role = role;
    m->name = pm_proto_string("m");
    m->host = pm_proto_string("h");
    m->endpoints = calloc(1, sizeof *m->endpoints);
    m->endpoints[m->n_endpoints++] = pm_proto_string("e");
    return m;
}

static Paramill__Directive *prepare(void)
{
    Paramill__Directive *d = pm_proto_new(&paramill__directive__descriptor);
    d->number = d->epoch = d->placement = 1;
    d->verb = PARAMILL__DIRECTIVE__VERB__PREPARE;
    d->train_rows = 10 * LANES;
    d->members = calloc(2, sizeof *d->members);
    d->members[d->n_members++] = member(PARAMILL__ROLE__ROLE_SERVER);
    d->members[d->n_members++] = member(PARAMILL__ROLE__ROLE_CHECKPOINT);
    return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const float initial[FLOATS];
    static const pm_job job = {.batch = LANES,
                               .lanes = LANES,
                               .epochs = 1,
                               .optimizer = {.kind = PM_OPTIMIZER_MOMENTUM, .learning_rate = 0.1},
                               .checkpoint = {.every_steps = 2}};
    static const pm_table_spec table = {FLOATS, false, 0, 1, true, false, initial, 0};
    const pm_shard_options shard_options = {&job, &table, 1, 0, NULL};
    const pm_gather_options gather_options = {&job, &table, 1};
    pm_shard *shard = NULL;
    pm_gather *gather = NULL;
    pm_message message = {0};
    if (size < 1 || pm_message_decode(&message, data + 1, size - 1).code != PM_OK)
        return 0;
    pm_peer peer = {.size = 1};
    Paramill__Directive *d = prepare();
    if (pm_shard_create(&shard, &shard_options).code != PM_OK || pm_shard_direct(shard, d, 0).code != PM_OK ||
        pm_gather_create(&gather, &gather_options).code != PM_OK ||
        pm_gather_direct(gather, d, 0).code != PM_OK)
        abort();
    pm_status status = {.code = PM_OK};
    for (int i = 0; i < data[0] % 4 && status.code == PM_OK; i++)
        status = pm_message_add(&message, pm_buffer_copy(initial, sizeof initial));
    for (int twice = 0; twice < 2; twice++) {
        pm_shard_handle(shard, &peer, &message, twice);
        pm_gather_handle(gather, &peer, &message, twice);
    }
    pm_shard_tick(shard, 100000);
    pm_gather_tick(gather, 100000);
    pm_cut *cut = pm_gather_take(gather, 100000);
    pm_cut_destroy(&cut);
    pm_message_clear(&message);
    paramill__directive__free_unpacked(d, NULL);
    pm_shard_destroy(&shard);
    pm_gather_destroy(&gather);
    return 0;
}
