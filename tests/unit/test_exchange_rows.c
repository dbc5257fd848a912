#include "worker/exchange.h"

#include "tests/unit/cluster_kit.h"

// A table of three slices, of whole rows of three floats, on two shards.
enum { LANES = 4, WIDTH = 3, SLICE_ROWS = PM_SLICE_FLOATS / WIDTH, ROWS = 2 * SLICE_ROWS + 5 };

static pm_exchange *make(void)
{
    pm_exchange *x = NULL;
    const pm_exchange_options options = {
        (const uint64_t[]){(uint64_t)ROWS * WIDTH}, NULL, (const uint32_t[]){WIDTH}, 1, LANES, 30000, NULL};
    ok(pm_exchange_create(&x, &options));
    Paramill__Directive *d = kit_directive(PARAMILL__DIRECTIVE__VERB__RUN, 3, 2, LANES);
    ok(pm_exchange_begin(x, d, 0, 0));
    paramill__directive__free_unpacked(d, NULL);
    cr_assert_eq(pm_exchange_outbox(x)->count, 0, "nothing is pulled before ids are known");
    return x;
}

static pm_message parameters(const Paramill__Header *asked, uint32_t slice, uint64_t clock)
{
    Paramill__Parameters *body = pm_proto_new(&paramill__parameters__descriptor);
    body->slice = slice;
    body->clock = clock;
    return (pm_message){.header =
                            pm_header_create(asked->request, 3, PARAMILL__HEADER__BODY_PARAMETERS, body)};
}

// Answers a pull as its shard would: each row's floats are its id in the table.
static void answer_pull(pm_exchange *x, const pm_post *post)
{
    const Paramill__Header *h = post->message.header;
    const pm_buffer *ids = post->message.frame_count ? post->message.frames[0] : NULL;
    const uint32_t slice = h->pull->slice, rows = slice < 2 ? SLICE_ROWS : 5;
    const size_t count = ids ? ids->size / sizeof(uint32_t) : rows;
    pm_message m = parameters(h, slice, h->pull->clock);
    ok(pm_message_add(&m, pm_buffer_create(count * WIDTH * sizeof(float))));
    for (size_t i = 0; i < count; i++) {
        const uint32_t id = ids ? ((const uint32_t *)ids->data)[i] : (uint32_t)i;
        cr_assert_lt(id, rows);
        for (size_t k = 0; k < WIDTH; k++)
            ((float *)m.frames[0]->data)[i * WIDTH + k] = (float)(slice * SLICE_ROWS + id);
    }
    ok(pm_exchange_handle(x, post->port, &m, 0));
    pm_message_clear(&m);
}

static void answer_pulls(pm_exchange *x)
{
    pm_outbox *out = pm_exchange_outbox(x);
    for (size_t i = 0; i < out->count; i++)
        answer_pull(x, &out->posts[i]);
    pm_outbox_clear(out);
}

Test(exchange_rows, rows_are_pulled_from_their_slices_and_come_in_the_order_of_ids)
{
    pm_exchange *x = make();
    const uint32_t ids[] = {0, 7, SLICE_ROWS - 1, 2 * SLICE_ROWS + 4};
    float rows[4 * WIDTH];
    cr_assert_not(pm_exchange_have_rows(x, 0, 0));
    ok(pm_exchange_want(x, 0, 0, ids, 4, 0));
    cr_assert_eq(pm_exchange_outbox(x)->count, 2, "the slice in the middle has none of them");
    cr_assert_not(pm_exchange_have_rows(x, 0, 0));
    cr_assert_eq(pm_exchange_take_rows(x, 0, 0, rows).code, PM_STALE);
    answer_pulls(x);
    cr_assert(pm_exchange_have_rows(x, 0, 0));
    cr_assert_not(pm_exchange_have_rows(x, 0, 1));
    ok(pm_exchange_take_rows(x, 0, 0, rows));
    for (int i = 0; i < 4; i++)
        cr_assert_eq(rows[i * WIDTH + 2], (float)ids[i]);
    cr_assert_not(pm_exchange_have_rows(x, 0, 0), "they are taken once");
    pm_exchange_destroy(&x);
}

Test(exchange_rows, all_rows_of_a_table_can_be_pulled)
{
    pm_exchange *x = make();
    float *rows = calloc((size_t)ROWS * WIDTH, sizeof *rows);
    ok(pm_exchange_want(x, 0, 0, NULL, 0, 0));
    cr_assert_eq(pm_exchange_outbox(x)->count, 3);
    answer_pulls(x);
    ok(pm_exchange_take_rows(x, 0, 0, rows));
    for (size_t i = 0; i < ROWS; i++)
        cr_assert_eq(rows[i * WIDTH], (float)i);
    free(rows);
    pm_exchange_destroy(&x);
}

Test(exchange_rows, what_was_wanted_before_is_forgotten)
{
    pm_exchange *x = make();
    float rows[WIDTH];
    ok(pm_exchange_want(x, 0, 0, (const uint32_t[]){3}, 1, 0));
    pm_outbox *out = pm_exchange_outbox(x);
    pm_post first = out->posts[0];
    out->count = 0;
    ok(pm_exchange_want(x, 0, 0, (const uint32_t[]){4}, 1, 0));
    answer_pull(x, &first);
    cr_assert_not(pm_exchange_have_rows(x, 0, 0));
    answer_pulls(x);
    ok(pm_exchange_take_rows(x, 0, 0, rows));
    cr_assert_eq(rows[0], 4);
    pm_message_clear(&first.message);
    pm_exchange_destroy(&x);
}

Test(exchange_rows, a_push_tells_every_slice_and_its_answer_moves_the_clock)
{
    pm_exchange *x = make();
    const uint32_t ids[] = {1, SLICE_ROWS, SLICE_ROWS + 1};
    const float rows[3 * WIDTH] = {1, 1, 1, 2, 2, 2, 3, 3, 3};
    cr_assert(pm_exchange_done(x, 0));
    cr_assert_not(pm_exchange_done(x, 1));
    ok(pm_exchange_push_rows(x, 0, (pm_block){0, LANES}, 0, ids, 3, rows, 0));
    ok(pm_exchange_push_rows(x, 0, (pm_block){0, LANES}, 0, ids, 3, rows, 0));
    pm_outbox *out = pm_exchange_outbox(x);
    cr_assert_eq(out->count, 3, "once");
    for (size_t i = 0; i < out->count; i++) {
        const pm_message *m = &out->posts[i].message;
        const uint32_t slice = m->header->push->slice;
        cr_assert_eq(m->frame_count, slice < 2 ? 2 : 0);
        if (slice == 1) {
            cr_assert_arr_eq(m->frames[0]->data, ((const uint32_t[]){0, 1}), 8);
            cr_assert_arr_eq(m->frames[1]->data, rows + WIDTH, m->frames[1]->size);
        }
        pm_message answer = parameters(m->header, slice, 1);
        ok(pm_exchange_handle(x, out->posts[i].port, &answer, 0));
        pm_message_clear(&answer);
    }
    cr_assert(pm_exchange_done(x, 1));
    pm_outbox_clear(out);
    ok(pm_exchange_push_rows(x, 0, (pm_block){0, 1}, 0, ids, 3, rows, 0));
    cr_assert_eq(out->count, 0, "all lanes are in");
    pm_exchange_destroy(&x);
}

Test(exchange_rows, unanswered_pulls_are_sent_again_until_the_shard_is_named)
{
    pm_exchange *x = make();
    ok(pm_exchange_want(x, 0, 0, (const uint32_t[]){3}, 1, 0));
    pm_outbox_clear(pm_exchange_outbox(x));
    ok(pm_exchange_tick(x, 1000));
    cr_assert_eq(pm_exchange_outbox(x)->count, 0);
    ok(pm_exchange_tick(x, 2500));
    cr_assert_eq(pm_exchange_outbox(x)->count, 1);
    cr_assert_eq(pm_exchange_outbox(x)->posts[0].message.frame_count, 1);
    pm_status status = pm_exchange_tick(x, 31000);
    cr_assert_eq(status.code, PM_TIMEOUT);
    cr_assert(strstr(status.message, "silent"), "%s", status.message);
    pm_exchange_destroy(&x);
}

Test(exchange_rows, answers_that_do_not_fit_are_refused)
{
    pm_exchange *x = make();
    ok(pm_exchange_want(x, 0, 0, (const uint32_t[]){3}, 1, 0));
    pm_post *post = &pm_exchange_outbox(x)->posts[0];
    pm_message m = parameters(post->message.header, 0, 0);
    cr_assert_eq(pm_exchange_handle(x, post->port, &m, 0).code, PM_PROTOCOL, "no rows");
    ok(pm_message_add(&m, pm_buffer_create(2 * WIDTH * sizeof(float))));
    cr_assert_eq(pm_exchange_handle(x, post->port, &m, 0).code, PM_PROTOCOL, "too many");
    cr_assert_not(pm_exchange_have_rows(x, 0, 0));
    pm_message_clear(&m);
    pm_exchange_destroy(&x);
}
