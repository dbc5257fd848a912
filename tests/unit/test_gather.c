#include "ps/gather.h"

#include "tests/unit/cluster_kit.h"

enum { LANES = 4 };
static const pm_table_spec TABLES[] = {{3, false, 0, 1, true, false, NULL, 0},
                                       {2, true, 0.9, 1, true, false, NULL, 0}};

static pm_gather *make(pm_job *job)
{
    *job = kit_job(LANES, 2, 1);
    job->optimizer.kind = PM_OPTIMIZER_MOMENTUM;
    pm_gather *g = NULL;
    const pm_gather_options options = {job, TABLES, 2};
    ok(pm_gather_create(&g, &options));
    return g;
}

static void direct(pm_gather *g, Paramill__Directive__Verb verb, uint64_t epoch, uint64_t restore,
                   uint64_t published)
{
    Paramill__Directive *d = kit_directive(verb, epoch, 2, LANES);
    d->restore_version = restore;
    d->start_clock = restore ? 4 : 0;
    d->published_step = published;
    ok(pm_gather_direct(g, d, 0));
    paramill__directive__free_unpacked(d, NULL);
}

// Body kind of the answer.
static int piece(pm_gather *g, uint64_t epoch, uint32_t table, uint64_t clock, uint32_t frames, int64_t now)
{
    static const float values[3] = {1, 2, 3};
    pm_peer from = kit_peer(1);
    Paramill__SliceState *s = pm_proto_new(&paramill__slice_state__descriptor);
    s->table = table;
    s->clock = clock;
    s->moments = frames - 1;
    pm_message m = {.header = pm_header_create(7, epoch, PARAMILL__HEADER__BODY_SLICE_STATE, s)};
    for (uint32_t i = 0; i < frames; i++)
        ok(pm_message_add(&m, pm_buffer_copy(values, (table == 0 ? 3 : 2) * sizeof(float))));
    pm_gather_handle(g, &from, &m, now);
    pm_message_clear(&m);
    pm_outbox *out = pm_gather_outbox(g);
    cr_assert_eq(out->count, 1);
    int kind = (int)out->posts[0].message.header->body_case;
    pm_outbox_clear(out);
    return kind;
}

static void score(pm_gather *g, uint64_t epoch, uint64_t clock)
{
    Paramill__Published *p = pm_proto_new(&paramill__published__descriptor);
    p->clock = clock;
    p->train_loss = 0.5;
    pm_message m = {.header = pm_header_create(0, epoch, PARAMILL__HEADER__BODY_PUBLISHED, p)};
    pm_gather_handle(g, NULL, &m, 0);
    pm_message_clear(&m);
}

Test(gather, a_cut_is_taken_when_all_pieces_and_the_scores_are_in)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 0, 0);
    score(g, 1, 4); // may come first
    cr_assert_eq(piece(g, 1, 0, 4, 2, 0), PARAMILL__HEADER__BODY_ACK);
    cr_assert_eq(piece(g, 1, 0, 4, 2, 0), PARAMILL__HEADER__BODY_ACK, "sent twice, acknowledged twice");
    cr_assert_null(pm_gather_take(g, 0));
    cr_assert_eq(piece(g, 1, 1, 4, 1, 0), PARAMILL__HEADER__BODY_ACK);
    pm_cut *cut = pm_gather_take(g, 0);
    cr_assert_not_null(cut);
    cr_assert_eq(cut->clock, 4);
    cr_assert_eq(cut->shards, 2);
    cr_assert_eq(cut->train_loss, 0.5);
    cr_assert_not_null(cut->moments[0][0]);
    cr_assert_null(cut->moments[0][1], "a statistic has no moments");
    pm_cut_destroy(&cut);
    cr_assert_null(pm_gather_take(g, 0));
    pm_gather_destroy(&g);
}

Test(gather, scores_that_do_not_come_are_waited_for_half_a_minute)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 0, 0);
    piece(g, 1, 0, 4, 2, 1000);
    piece(g, 1, 1, 4, 1, 1000);
    cr_assert_null(pm_gather_take(g, 30999));
    pm_cut *cut = pm_gather_take(g, 31000);
    cr_assert_not_null(cut);
    cr_assert_not(cut->scored);
    pm_cut_destroy(&cut);
    pm_gather_destroy(&g);
}

Test(gather, a_cut_that_an_epoch_interrupts_is_discarded)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 0, 0);
    piece(g, 1, 0, 4, 2, 0);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 2, 0, 0);
    cr_assert_eq(piece(g, 1, 1, 4, 1, 0), PARAMILL__HEADER__BODY_ERROR, "of the epoch before");
    piece(g, 2, 1, 4, 1, 0);
    cr_assert_null(pm_gather_take(g, 100000));
    pm_gather_destroy(&g);
}

Test(gather, what_is_published_already_is_acknowledged_and_dropped)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__RUN, 1, 0, 4);
    cr_assert_eq(piece(g, 1, 0, 4, 2, 0), PARAMILL__HEADER__BODY_ACK);
    cr_assert_eq(piece(g, 1, 1, 4, 1, 0), PARAMILL__HEADER__BODY_ACK);
    cr_assert_null(pm_gather_take(g, 100000));
    pm_gather_destroy(&g);
}

Test(gather, pieces_that_fit_no_cut_are_refused)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 0, 0);
    cr_assert_eq(piece(g, 1, 0, 5, 2, 0), PARAMILL__HEADER__BODY_ERROR, "no cut at this clock");
    cr_assert_eq(piece(g, 1, 0, 400, 2, 0), PARAMILL__HEADER__BODY_ERROR, "after the end of the job");
    cr_assert_eq(piece(g, 1, 2, 4, 2, 0), PARAMILL__HEADER__BODY_ERROR, "no such table");
    cr_assert_eq(piece(g, 1, 0, 4, 1, 0), PARAMILL__HEADER__BODY_ERROR, "moments are missing");
    cr_assert_eq(piece(g, 1, 1, 4, 2, 0), PARAMILL__HEADER__BODY_ERROR, "moments too many");
    pm_gather_destroy(&g);
}

Test(gather, a_newer_complete_cut_overtakes_an_incomplete_one)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 0, 0);
    piece(g, 1, 0, 4, 2, 0);
    piece(g, 1, 0, 8, 2, 0);
    piece(g, 1, 1, 8, 1, 0);
    pm_cut *cut = pm_gather_take(g, 30000);
    cr_assert_eq(cut->clock, 8);
    pm_cut_destroy(&cut);
    pm_gather_saved(g, 3, 8);
    cr_assert_eq(piece(g, 1, 1, 4, 1, 0), PARAMILL__HEADER__BODY_ACK);
    cr_assert_null(pm_gather_take(g, 100000));
    cr_assert_eq(pm_gather_state(g).version, 3);
    pm_gather_destroy(&g);
}

Test(gather, a_restore_hands_out_slices_until_each_is_acknowledged)
{
    pm_job job;
    pm_gather *g = make(&job);
    direct(g, PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 9, 0);
    uint64_t version = 0;
    cr_assert(pm_gather_wants(g, &version));
    cr_assert_eq(version, 9);
    cr_assert_not(pm_gather_wants(g, &version), "asked once");
    pm_cut *cut = NULL;
    ok(pm_cut_create(&cut, 2));
    cut->clock = 4;
    for (uint32_t i = 0; i < 2; i++)
        cut->values[i] = pm_buffer_create(TABLES[i].count * sizeof(float));
    cut->moments[0][0] = pm_buffer_create(TABLES[0].count * sizeof(float));
    ok(pm_gather_loaded(g, 9, cut, 0));
    pm_outbox *out = pm_gather_outbox(g);
    cr_assert_eq(out->count, 2);
    cr_assert_eq(out->posts[0].message.frame_count, 2);
    cr_assert_eq(out->posts[1].message.frame_count, 1);
    cr_assert_neq(out->posts[0].port, out->posts[1].port, "each to its shard");
    uint64_t requests[] = {out->posts[0].message.header->request, out->posts[1].message.header->request};
    pm_outbox_clear(out);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pm_gather_state(g).phase, PARAMILL__PHASE__PHASE_PREPARING);
        pm_message ack = {.header = pm_header_create(requests[i], 1, PARAMILL__HEADER__BODY_ACK,
                                                     pm_proto_new(&paramill__ack__descriptor))};
        pm_gather_handle(g, NULL, &ack, 0);
        pm_message_clear(&ack);
        pm_gather_tick(g, 5000 * (i + 1));
        cr_assert_eq(out->count, i == 0 ? 1 : 0, "only what is missing is sent again");
        pm_outbox_clear(out);
    }
    cr_assert_eq(pm_gather_state(g).phase, PARAMILL__PHASE__PHASE_READY);
    pm_gather_destroy(&g);
}
