#include "ps/shard.h"

#include "cluster/placement.h"
#include "tests/unit/cluster_kit.h"

enum { LANES = 4, FLOATS = 3 };

static const float INITIAL[FLOATS] = {10, 20, 30};
static const pm_table_spec TABLE = {FLOATS, false, 0, 1, true, false, INITIAL, 0};

static pm_shard *make_of(const pm_table_spec *table, const pm_job *job, uint64_t restore_version)
{
    pm_shard *shard = NULL;
    const pm_shard_options options = {job, table, 1, 0, NULL};
    ok(pm_shard_create(&shard, &options));
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__PREPARE, 1, 1, LANES);
    d->restore_version = restore_version;
    d->start_clock = restore_version ? 4 : 0;
    ok(pm_shard_direct(shard, d, 0));
    paramill__directive__free_unpacked(d, NULL);
    return shard;
}

static pm_shard *make(const pm_job *job, uint64_t restore_version)
{
    return make_of(&TABLE, job, restore_version);
}

static void say(pm_shard *shard, uint8_t peer, pm_message message)
{
    pm_peer from = kit_peer(peer);
    pm_shard_handle(shard, &from, &message, 0);
    pm_message_clear(&message);
}

static void push(pm_shard *shard, uint8_t peer, uint64_t clock, uint32_t first, uint32_t count, float value)
{
    float values[FLOATS] = {value, value, value};
    say(shard, peer, kit_push(100 + clock * 10 + first, 1, 0, 0, clock, first, count, values, FLOATS));
}

// The posts so far, by kind; clears the outbox.
typedef struct sent {
    uint32_t parameters, acks, errors, pieces;
    uint32_t code;  // of the last error
    uint64_t clock; // of the last parameters, or of a stale error
    float values[FLOATS];
} sent;

static sent take(pm_shard *shard)
{
    sent s = {0};
    pm_outbox *out = pm_shard_outbox(shard);
    for (size_t i = 0; i < out->count; i++) {
        const Paramill__Header *h = out->posts[i].message.header;
        s.acks += h->body_case == PARAMILL__HEADER__BODY_ACK;
        s.pieces += h->body_case == PARAMILL__HEADER__BODY_SLICE_STATE;
        if (h->body_case == PARAMILL__HEADER__BODY_ERROR) {
            s.errors++;
            s.code = h->error->code;
            s.clock = h->error->clock;
        } else if (h->body_case == PARAMILL__HEADER__BODY_PARAMETERS) {
            s.parameters++;
            s.clock = h->parameters->clock;
            cr_assert_eq(out->posts[i].message.frames[0]->size, sizeof s.values);
            memcpy(s.values, out->posts[i].message.frames[0]->data, sizeof s.values);
        }
    }
    pm_outbox_clear(out);
    return s;
}

Test(shard, begins_with_the_initial_values)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    cr_assert_eq(pm_shard_phase(shard), PARAMILL__PHASE__PHASE_READY);
    say(shard, 1, kit_pull(1, 1, 0, 0, 0));
    sent s = take(shard);
    cr_assert_eq(s.parameters, 1);
    cr_assert_arr_eq(s.values, INITIAL, sizeof INITIAL);
    pm_shard_destroy(&shard);
}

Test(shard, the_last_lane_makes_the_step_and_answers_all)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    push(shard, 1, 0, 0, 2, 1);
    push(shard, 2, 0, 2, 1, 2);
    cr_assert_eq(take(shard).parameters, 0);
    push(shard, 2, 0, 3, 1, 4);
    sent s = take(shard);
    cr_assert_eq(s.parameters, 2, "one answer a peer, though one pushed twice");
    cr_assert_eq(s.clock, 1);
    cr_assert_eq(s.values[0], 10 - 7);
    cr_assert_eq(pm_shard_clock(shard), 1);
    pm_shard_destroy(&shard);
}

Test(shard, a_frozen_table_moves_by_pushes_without_values)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_table_spec table = TABLE;
    table.frozen = true;
    job.optimizer.kind = PM_OPTIMIZER_ADAM; // of whose moments a frozen table has none
    pm_shard *shard = make_of(&table, &job, 0);
    push(shard, 1, 0, 0, 4, 4);
    cr_assert_eq(take(shard).code, PM_INVALID, "a push with values");
    say(shard, 1, kit_push(7, 1, 0, 0, 0, 0, 2, NULL, 0));
    say(shard, 3, kit_pull(9, 1, 0, 0, 1));
    cr_assert_eq(pm_shard_outbox(shard)->count, 0);
    say(shard, 2, kit_push(8, 1, 0, 0, 0, 2, 2, NULL, 0));
    uint32_t light = 0;
    pm_outbox *out = pm_shard_outbox(shard);
    for (size_t i = 0; i < out->count; i++) {
        const pm_message *m = &out->posts[i].message;
        if (m->header->body_case != PARAMILL__HEADER__BODY_PARAMETERS)
            continue;
        cr_assert_eq(m->header->parameters->clock, 1);
        light += m->frame_count == 0;
        if (m->frame_count == 1)
            cr_assert_arr_eq(m->frames[0]->data, INITIAL, sizeof INITIAL, "who pulls gets them");
    }
    cr_assert_eq(light, 2, "who pushes has them");
    cr_assert_eq(pm_shard_clock(shard), 1);
    pm_outbox_clear(out);
    say(shard, 3, kit_pull(10, 1, 0, 0, 0));
    cr_assert_arr_eq(take(shard).values, INITIAL, sizeof INITIAL, "the clock before is there as well");
    pm_shard_destroy(&shard);
}

Test(shard, a_table_learns_at_its_own_rate)
{
    const double rates[] = {0, 0.5, 1};
    for (int i = 0; i < 3; i++) {
        pm_job job = kit_job(LANES, 1, 1);
        pm_table_spec table = TABLE;
        table.rate = rates[i];
        pm_shard *shard = make_of(&table, &job, 0);
        push(shard, 1, 0, 0, 4, 4);
        sent s = take(shard);
        cr_assert_eq(s.clock, 1);
        cr_assert_eq(s.values[2], 30 - 4 * rates[i]);
        pm_shard_destroy(&shard);
    }
}

Test(shard, push_seen_twice_is_applied_once)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    push(shard, 1, 0, 0, 2, 1);
    push(shard, 1, 0, 0, 2, 1);
    sent s = take(shard);
    cr_assert_eq(s.acks, 1, "the one who asks again learns that the shard lives");
    push(shard, 1, 0, 2, 2, 1);
    s = take(shard);
    cr_assert_eq(s.values[0], 10 - 2);
    push(shard, 1, 0, 0, 2, 1);
    s = take(shard);
    cr_assert_eq(s.parameters, 1, "after the step the answer is its result");
    cr_assert_eq(s.clock, 1);
    cr_assert_eq(s.values[0], 10 - 2);
    cr_assert_eq(pm_shard_clock(shard), 1);
    pm_shard_destroy(&shard);
}

Test(shard, a_block_inside_one_that_is_in_is_a_duplicate)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    push(shard, 1, 0, 0, 2, 5);
    push(shard, 2, 0, 1, 1, 100);
    push(shard, 1, 0, 2, 2, 1);
    cr_assert_eq(take(shard).values[0], 10 - 6);
    pm_shard_destroy(&shard);
}

Test(shard, a_block_around_others_replaces_them)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    push(shard, 1, 0, 0, 1, 2);
    push(shard, 1, 0, 2, 1, 4);
    push(shard, 2, 0, 0, 4, 5); // says what all lanes together are
    cr_assert_eq(take(shard).values[0], 10 - 5);
    pm_shard_destroy(&shard);
}

// 1e8 + 1 - 1e8 + 1 differs in floats by the order of additions: only the tree's order gives its bits.
Test(shard, sums_follow_the_tree_and_not_the_order_of_arrival)
{
    static const float lanes[LANES] = {1e8f, 1, -1e8f, 1};
    float expected = 20 - ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
    static const uint8_t orders[][LANES] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 1, 3}, {1, 3, 0, 2}};
    for (int o = 0; o < 4; o++) {
        pm_job job = kit_job(LANES, 1, 1);
        pm_shard *shard = make(&job, 0);
        for (int i = 0; i < LANES; i++)
            push(shard, 1, 0, orders[o][i], 1, lanes[orders[o][i]]);
        cr_assert_eq(take(shard).values[1], expected);
        pm_shard_destroy(&shard);
    }
}

Test(shard, pulls_of_the_future_wait_and_of_the_past_are_stale)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    say(shard, 9, kit_pull(1, 1, 0, 0, 2));
    cr_assert_eq(take(shard).parameters, 0);
    push(shard, 1, 0, 0, 4, 1);
    cr_assert_eq(take(shard).clock, 1);
    push(shard, 1, 1, 0, 4, 1);
    cr_assert_eq(take(shard).parameters, 2);
    say(shard, 9, kit_pull(2, 1, 0, 0, 1));
    sent s = take(shard);
    cr_assert_eq(s.clock, 1, "the clock before is kept");
    cr_assert_eq(s.values[0], 10 - 1);
    say(shard, 9, kit_pull(3, 1, 0, 0, 0));
    s = take(shard);
    cr_assert_eq(s.code, PM_STALE);
    cr_assert_eq(s.clock, 2, "and says where it is");
    pm_shard_destroy(&shard);
}

Test(shard, wrong_requests_are_refused_and_disturb_nothing)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    float v[FLOATS] = {1, 1, 1};
    const struct {
        pm_message message;
        pm_code code;
    } bad[] = {
        {kit_push(1, 0, 0, 0, 0, 0, 1, v, FLOATS), PM_STALE},       // an epoch that is over
        {kit_push(1, 2, 0, 0, 0, 0, 1, v, FLOATS), PM_UNAVAILABLE}, // one that has not begun here
        {kit_push(1, 1, 1, 0, 0, 0, 1, v, FLOATS), PM_INVALID},     // no such table
        {kit_push(1, 1, 0, 1, 0, 0, 1, v, FLOATS), PM_INVALID},     // no such slice
        {kit_push(1, 1, 0, 0, 0, 0, 1, v, FLOATS - 1), PM_INVALID}, // a frame of the wrong size
        {kit_push(1, 1, 0, 0, 0, 1, 2, v, FLOATS), PM_INVALID},     // lanes that are no block
        {kit_push(1, 1, 0, 0, 0, 0, 8, v, FLOATS), PM_INVALID},     // more lanes than there are
        {kit_push(1, 1, 0, 0, 7, 0, 1, v, FLOATS), PM_INVALID},     // a clock that is not reached
        {kit_pull(1, 1, 3, 0, 0), PM_INVALID},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        say(shard, 1, bad[i].message);
        sent s = take(shard);
        cr_assert_eq(s.errors, 1, "case %zu", i);
        cr_assert_eq(s.code, bad[i].code, "case %zu: code %u", i, s.code);
    }
    push(shard, 1, 0, 0, 4, 1);
    cr_assert_eq(take(shard).values[0], 10 - 1);
    pm_shard_destroy(&shard);
}

Test(shard, a_cut_keeps_its_values_while_training_goes_on)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    pm_message piece = {0};
    for (uint64_t c = 0; c < 8; c++) {
        push(shard, 1, c, 0, 4, 1);
        pm_outbox *out = pm_shard_outbox(shard);
        for (size_t i = 0; i < out->count; i++)
            if (c == 3 && out->posts[i].message.header->body_case == PARAMILL__HEADER__BODY_SLICE_STATE)
                pm_message_move(&piece, &out->posts[i].message);
        if (c == 3) // posts without a header are not sent in this test
            out->count = 0;
        pm_outbox_clear(out);
    }
    cr_assert_not_null(piece.header);
    cr_assert_eq(piece.header->slice_state->clock, 4);
    cr_assert_eq(((float *)piece.frames[0]->data)[0], 10 - 4);
    cr_assert_eq(pm_shard_get_stats(shard).kept, 2);
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 1, 1, LANES);
    d->published_step = 4;
    ok(pm_shard_direct(shard, d, 0));
    cr_assert_eq(pm_shard_get_stats(shard).kept, 1, "what is published is let go");
    paramill__directive__free_unpacked(d, NULL);
    pm_message_clear(&piece);
    pm_shard_destroy(&shard);
}

Test(shard, pieces_are_sent_until_acknowledged_and_again_to_a_new_service)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    for (uint64_t c = 0; c < 4; c++)
        push(shard, 1, c, 0, 4, 1);
    uint64_t request = 0;
    pm_outbox *out = pm_shard_outbox(shard);
    for (size_t i = 0; i < out->count; i++)
        if (out->posts[i].message.header->body_case == PARAMILL__HEADER__BODY_SLICE_STATE)
            request = out->posts[i].message.header->request;
    cr_assert_eq(take(shard).pieces, 1);
    pm_shard_tick(shard, 10000);
    cr_assert_eq(take(shard).pieces, 1);
    say(shard, 8,
        (pm_message){.header = pm_header_create(request, 1, PARAMILL__HEADER__BODY_ACK,
                                                pm_proto_new(&paramill__ack__descriptor))});
    pm_shard_tick(shard, 90000);
    cr_assert_eq(take(shard).pieces, 0);
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 1, 1, LANES);
    free(d->members[1]->name);
    d->members[1]->name = pm_proto_string("c1");
    ok(pm_shard_direct(shard, d, 90000));
    pm_shard_tick(shard, 90000);
    cr_assert_eq(take(shard).pieces, 1);
    paramill__directive__free_unpacked(d, NULL);
    pm_shard_destroy(&shard);
}

static pm_message piece(uint64_t clock, size_t floats)
{
    static const float values[8] = {1, 2, 3};
    Paramill__SliceState *state = pm_proto_new(&paramill__slice_state__descriptor);
    state->clock = clock;
    pm_message m = {.header = pm_header_create(1, 1, PARAMILL__HEADER__BODY_SLICE_STATE, state)};
    ok(pm_message_add(&m, pm_buffer_copy(values, floats * sizeof(float))));
    return m;
}

Test(shard, a_restore_fills_it_once_and_only_with_what_fits)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 7);
    cr_assert_eq(pm_shard_phase(shard), PARAMILL__PHASE__PHASE_PREPARING);
    say(shard, 1, kit_pull(1, 1, 0, 0, 4));
    cr_assert_eq(take(shard).code, PM_UNAVAILABLE);
    say(shard, 1, piece(3, FLOATS));
    cr_assert_eq(take(shard).code, PM_STALE);
    say(shard, 1, piece(4, FLOATS + 1));
    cr_assert_eq(take(shard).code, PM_INVALID);
    say(shard, 1, piece(4, FLOATS));
    say(shard, 1, piece(4, FLOATS));
    cr_assert_eq(take(shard).acks, 2);
    cr_assert_eq(pm_shard_phase(shard), PARAMILL__PHASE__PHASE_READY);
    push(shard, 1, 4, 0, 4, 1);
    cr_assert_eq(take(shard).values[2], 3 - 1);
    pm_shard_destroy(&shard);
}

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

Test(shard, a_hundred_thousand_broken_messages_do_no_harm, .timeout = 60)
{
    pm_job job = kit_job(LANES, 1, 1);
    pm_shard *shard = make(&job, 0);
    float v[FLOATS] = {1, 1, 1};
    pm_message seeds[] = {kit_push(1, 1, 0, 0, 0, 0, 1, v, FLOATS), kit_pull(2, 1, 0, 0, 0),
                          piece(0, FLOATS)};
    uint64_t state = 42;
    uint32_t decoded = 0;
    for (int i = 0; i < 100000; i++) {
        const pm_message *seed = &seeds[i % 3];
        pm_buffer *bytes = pm_message_encode(seed->header);
        unsigned char text[256];
        size_t size = bytes->size;
        memcpy(text, bytes->data, size);
        pm_buffer_unref(&bytes);
        for (uint32_t k = next(&state) % 3 + 1; k > 0; k--)
            text[next(&state) % size] ^= (unsigned char)(1u << next(&state) % 8);
        size -= next(&state) % 8 == 0 ? next(&state) % size : 0;
        pm_message m = {0};
        if (pm_message_decode(&m, text, size).code != PM_OK)
            continue;
        decoded++;
        for (uint32_t f = next(&state) % 3; f > 0; f--)
            ok(pm_message_add(&m, pm_buffer_copy(v, next(&state) % (sizeof v + 1))));
        say(shard, 1, m);
        pm_outbox_clear(pm_shard_outbox(shard));
    }
    cr_assert_gt(decoded, 10000);
    pm_shard_tick(shard, 1000000);
    for (int i = 0; i < 3; i++)
        pm_message_clear(&seeds[i]);
    pm_shard_destroy(&shard);
}
