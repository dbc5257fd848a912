#include "worker/exchange.h"

#include "core/arena.h"
#include "tests/unit/cluster_kit.h"

// Two tables on two shards; the second table has three slices.
enum { LANES = 4, BIG = 2 * PM_SLICE_FLOATS + 7 };
static const uint64_t COUNTS[] = {5, BIG};

typedef struct kit {
    pm_exchange *x;
    float *values[2];
} kit;

static kit make(void)
{
    kit k = {0};
    const pm_exchange_options options = {COUNTS, NULL, NULL, 2, LANES, 30000, NULL};
    ok(pm_exchange_create(&k.x, &options));
    for (uint32_t t = 0; t < 2; t++) {
        k.values[t] = calloc(COUNTS[t], sizeof(float));
        pm_exchange_bind(k.x, t, k.values[t]);
    }
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 3, 2, LANES);
    ok(pm_exchange_begin(k.x, d, 0, 0));
    paramill__directive__free_unpacked(d, NULL);
    return k;
}

static void drop(kit *k)
{
    pm_exchange_destroy(&k->x);
    free(k->values[0]);
    free(k->values[1]);
}

static pm_message parameters(uint32_t table, uint32_t slice, uint64_t clock, float value, size_t floats)
{
    Paramill__Parameters *body = pm_proto_new(&paramill__parameters__descriptor);
    body->table = table;
    body->slice = slice;
    body->clock = clock;
    pm_message m = {.header = pm_header_create(1, 3, PARAMILL__HEADER__BODY_PARAMETERS, body)};
    ok(pm_message_add(&m, pm_buffer_create(floats * sizeof(float))));
    for (size_t i = 0; i < floats; i++)
        ((float *)m.frames[0]->data)[i] = value;
    return m;
}

// Answers everything in the outbox as shards would, with `value`; returns how many requests there were.
static uint32_t answer(kit *k, float value)
{
    pm_outbox *out = pm_exchange_outbox(k->x);
    uint32_t count = (uint32_t)out->count;
    for (size_t i = 0; i < out->count; i++) {
        const Paramill__Header *h = out->posts[i].message.header;
        bool push = h->body_case == PARAMILL__HEADER__BODY_PUSH;
        uint32_t table = push ? h->push->table : h->pull->table,
                 slice = push ? h->push->slice : h->pull->slice;
        uint64_t clock = push ? h->push->clock + 1 : h->pull->clock;
        size_t floats = table == 0 ? 5 : slice < 2 ? PM_SLICE_FLOATS : 7;
        if (push)
            cr_assert_eq(out->posts[i].message.frames[0]->size, floats * sizeof(float));
        pm_message m = parameters(table, slice, clock, value, floats);
        ok(pm_exchange_handle(k->x, out->posts[i].port, &m, 0));
        pm_message_clear(&m);
    }
    pm_outbox_clear(out);
    return count;
}

Test(exchange, a_frozen_table_is_pulled_once_and_pushed_without_values)
{
    pm_exchange *x = NULL;
    float values[3] = {0};
    const pm_exchange_options options = {
        (const uint64_t[]){3}, (const bool[]){true}, NULL, 1, LANES, 30000, NULL};
    ok(pm_exchange_create(&x, &options));
    pm_exchange_bind(x, 0, values);
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 3, 1, LANES);
    ok(pm_exchange_begin(x, d, 0, 0));
    paramill__directive__free_unpacked(d, NULL);
    pm_message m = parameters(0, 0, 0, 7, 3);
    ok(pm_exchange_handle(x, 0, &m, 0));
    pm_message_clear(&m);
    pm_outbox_clear(pm_exchange_outbox(x));
    for (uint64_t clock = 0; clock < 3; clock++) {
        ok(pm_exchange_install(x, 0, clock));
        cr_assert_eq(values[2], 7);
        ok(pm_exchange_push(x, 0, (pm_block){0, LANES}, clock, NULL, 0));
        cr_assert_eq(pm_exchange_outbox(x)->count, 1);
        cr_assert_eq(pm_exchange_outbox(x)->posts[0].message.frame_count, 0);
        pm_outbox_clear(pm_exchange_outbox(x));
        Paramill__Parameters *body = pm_proto_new(&paramill__parameters__descriptor);
        body->clock = clock + 1;
        m = (pm_message){.header = pm_header_create(1, 3, PARAMILL__HEADER__BODY_PARAMETERS, body)};
        ok(pm_exchange_handle(x, 0, &m, 0));
        pm_message_clear(&m);
        cr_assert(pm_exchange_done(x, clock + 1));
    }
    pm_exchange_destroy(&x);
}

Test(exchange, begins_by_pulling_every_slice_from_its_shard)
{
    kit k = make();
    cr_assert_eq(pm_exchange_shards(k.x), 2);
    cr_assert_str_eq(pm_exchange_endpoint(k.x, 1), "s1");
    cr_assert_not(pm_exchange_have(k.x, 0, 0));
    cr_assert_eq(answer(&k, 7), 4);
    cr_assert(pm_exchange_done(k.x, 0));
    ok(pm_exchange_install(k.x, 1, 0));
    cr_assert_eq(k.values[1][0], 7);
    cr_assert_eq(k.values[1][BIG - 1], 7);
    drop(&k);
}

Test(exchange, new_parameters_wait_until_they_are_installed)
{
    kit k = make();
    answer(&k, 1);
    ok(pm_exchange_install(k.x, 0, 0));
    ok(pm_exchange_push(k.x, 0, (pm_block){0, 4}, 0, k.values[0], 0));
    cr_assert_eq(answer(&k, 2), 1);
    cr_assert(pm_exchange_have(k.x, 0, 1));
    cr_assert(pm_exchange_have(k.x, 0, 0), "lanes gained now still find the clock before");
    cr_assert_eq(k.values[0][0], 1);
    ok(pm_exchange_install(k.x, 0, 1));
    cr_assert_eq(k.values[0][0], 2);
    ok(pm_exchange_install(k.x, 0, 0));
    cr_assert_eq(k.values[0][0], 1);
    cr_assert_eq(pm_exchange_install(k.x, 0, 2).code, PM_STALE);
    drop(&k);
}

Test(exchange, slices_are_installed_as_they_come_and_earlier_ones_again_where_lanes_are_left)
{
    kit k = make();
    answer(&k, 1);
    pm_exchange_install_held(k.x, 0);
    cr_assert_eq(k.values[0][0], 1);
    cr_assert_eq(k.values[1][BIG - 1], 1);
    ok(pm_exchange_push(k.x, 1, (pm_block){0, 4}, 0, k.values[1], 0));
    const pm_outbox *out = pm_exchange_outbox(k.x);
    cr_assert_eq(out->posts[1].message.header->push->slice, 1);
    pm_message m = parameters(1, 1, 1, 2, PM_SLICE_FLOATS);
    ok(pm_exchange_handle(k.x, out->posts[1].port, &m, 0));
    pm_message_clear(&m);
    pm_exchange_install_held(k.x, 1);
    cr_assert_eq(k.values[0][0], 1);
    cr_assert_eq(k.values[1][PM_SLICE_FLOATS - 1], 1);
    cr_assert_eq(k.values[1][PM_SLICE_FLOATS], 2);
    cr_assert_eq(pm_exchange_install(k.x, 1, 1).code, PM_STALE, "the other slices are not here");
    ok(pm_exchange_install(k.x, 1, 0));
    cr_assert_eq(k.values[1][PM_SLICE_FLOATS], 1);
    drop(&k);
}

Test(exchange, what_lies_in_a_push_buffer_is_sent_from_there_and_the_next_block_has_another)
{
    kit k = make();
    answer(&k, 1);
    float *first = pm_exchange_push_buffer(k.x, 1);
    cr_assert_eq((uintptr_t)first % PM_ALIGN, 0);
    cr_assert_eq(pm_exchange_push_buffer(k.x, 1), first, "it was not pushed");
    first[0] = 3;
    first[BIG - 1] = 5;
    ok(pm_exchange_push(k.x, 1, (pm_block){0, 2}, 0, first, 0));
    float *next = pm_exchange_push_buffer(k.x, 1);
    cr_assert_neq(next, first);
    ok(pm_exchange_push(k.x, 1, (pm_block){2, 2}, 0, k.values[1], 0));
    cr_assert_eq(pm_exchange_push_buffer(k.x, 1), next, "what lies elsewhere is copied");
    const pm_outbox *out = pm_exchange_outbox(k.x);
    cr_assert_eq(out->count, 6);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(out->posts[i].message.frames[0]->data, first + i * PM_SLICE_FLOATS);
    cr_assert_neq(out->posts[3].message.frames[0]->data, k.values[1]);
    answer(&k, 2);
    first = next;
    ok(pm_exchange_push(k.x, 1, (pm_block){0, 4}, 1, first, 0));
    cr_assert_eq(pm_exchange_outbox(k.x)->count, 3);
    drop(&k);
}

Test(exchange, each_block_is_pushed_and_one_answer_is_enough)
{
    kit k = make();
    answer(&k, 1);
    ok(pm_exchange_push(k.x, 0, (pm_block){0, 1}, 0, k.values[0], 0));
    ok(pm_exchange_push(k.x, 0, (pm_block){2, 2}, 0, k.values[0], 0));
    ok(pm_exchange_push(k.x, 0, (pm_block){2, 2}, 0, k.values[0], 0));
    ok(pm_exchange_push(k.x, 0, (pm_block){3, 1}, 0, k.values[0], 0));
    cr_assert_eq(pm_exchange_outbox(k.x)->count, 2, "what is pushed is not pushed again");
    answer(&k, 2);
    cr_assert(pm_exchange_have(k.x, 0, 1));
    ok(pm_exchange_push(k.x, 0, (pm_block){1, 1}, 0, k.values[0], 0));
    cr_assert_eq(pm_exchange_outbox(k.x)->count, 0, "a slice at the next clock needs no push");
    drop(&k);
}

Test(exchange, what_is_not_answered_is_sent_again_and_then_named)
{
    kit k = make();
    answer(&k, 1);
    ok(pm_exchange_push(k.x, 0, (pm_block){0, 4}, 0, k.values[0], 1000));
    pm_outbox_clear(pm_exchange_outbox(k.x));
    ok(pm_exchange_tick(k.x, 2900));
    cr_assert_eq(pm_exchange_outbox(k.x)->count, 0);
    ok(pm_exchange_tick(k.x, 3000));
    cr_assert_eq(pm_exchange_outbox(k.x)->count, 1);
    cr_assert_eq(pm_exchange_outbox(k.x)->posts[0].message.header->push->lane_count, 4);
    pm_status status = pm_exchange_tick(k.x, 31001);
    cr_assert_eq(status.code, PM_TIMEOUT);
    cr_assert_not_null(strstr(status.message, "server"));
    cr_assert_not_null(strstr(status.message, "here"));
    cr_assert_not_null(strstr(status.message, "table 0 at clock 1"));
    drop(&k);
}

Test(exchange, a_shard_that_answers_slowly_is_not_silent)
{
    kit k = make();
    answer(&k, 1);
    ok(pm_exchange_push(k.x, 0, (pm_block){0, 4}, 0, k.values[0], 0));
    uint64_t request = pm_exchange_outbox(k.x)->posts[0].message.header->request;
    uint32_t shard = pm_exchange_outbox(k.x)->posts[0].port;
    pm_message ack = {.header = pm_header_create(request, 3, PARAMILL__HEADER__BODY_ACK,
                                                 pm_proto_new(&paramill__ack__descriptor))};
    ok(pm_exchange_handle(k.x, shard, &ack, 20000));
    pm_message_clear(&ack);
    ok(pm_exchange_tick(k.x, 45000));
    drop(&k);
}

static pm_message refusal(const kit *k, uint32_t code, uint64_t clock, uint64_t epoch)
{
    pm_message m = {.header =
                        pm_header_error(pm_exchange_outbox(k->x)->posts[0].message.header->request, epoch,
                                        pm_fail((pm_code)code, "no"), code == PM_UNAVAILABLE ? 50 : 0)};
    m.header->error->clock = clock;
    return m;
}

Test(exchange, refusals_are_sorted_into_later_elsewhere_and_never)
{
    kit k = make();
    uint64_t clock = 0;
    uint32_t shard = pm_exchange_outbox(k.x)->posts[0].port;
    pm_message later = refusal(&k, PM_UNAVAILABLE, 0, 3), old = refusal(&k, PM_STALE, 0, 4);
    ok(pm_exchange_handle(k.x, shard, &later, 10));
    ok(pm_exchange_handle(k.x, shard, &old, 10));
    cr_assert_not(pm_exchange_is_stale(k.x, &clock));
    pm_message gone = refusal(&k, PM_STALE, 9, 3);
    ok(pm_exchange_handle(k.x, shard, &gone, 10));
    cr_assert(pm_exchange_is_stale(k.x, &clock));
    cr_assert_eq(clock, 8, "the oldest clock that the shard still has");
    pm_message never = refusal(&k, PM_INVALID, 0, 3);
    cr_assert_eq(pm_exchange_handle(k.x, shard, &never, 10).code, PM_INVALID);
    pm_message_clear(&later);
    pm_message_clear(&old);
    pm_message_clear(&gone);
    pm_message_clear(&never);
    drop(&k);
}

Test(exchange, parameters_that_were_not_asked_for_change_nothing)
{
    kit k = make();
    answer(&k, 1);
    pm_message again = parameters(0, 0, 1, 9, 5), other_epoch = parameters(0, 0, 0, 9, 5);
    other_epoch.header->epoch = 2;
    uint32_t shard = 0;
    while (pm_exchange_handle(k.x, shard, &again, 0).code != PM_OK)
        shard++;
    cr_assert_not(pm_exchange_have(k.x, 0, 1));
    ok(pm_exchange_handle(k.x, shard, &other_epoch, 0));
    ok(pm_exchange_install(k.x, 0, 0));
    cr_assert_eq(k.values[0][0], 1);
    pm_message wrong = parameters(0, 0, 0, 9, 4);
    cr_assert_eq(pm_exchange_handle(k.x, shard, &wrong, 0).code, PM_PROTOCOL);
    cr_assert_eq(pm_exchange_handle(k.x, 1 - shard, &again, 0).code, PM_PROTOCOL);
    pm_message_clear(&again);
    pm_message_clear(&other_epoch);
    pm_message_clear(&wrong);
    drop(&k);
}
