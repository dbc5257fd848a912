#include "worker/exchange_impl.h"

#include "cluster/directive.h"
#include "model/kernels.h"

#include <stdlib.h>
#include <string.h>

enum {
    RESEND_MS = 2000,      // first; doubles up to eight times that
    RESEND_SHARE = 8,      // but not later than this part of the deadline
    INCOMPLETE_FACTOR = 10 // deadlines that a step may take while its shard shows signs of life
};

pm_status pm_exchange_create(pm_exchange **exchange, const pm_exchange_options *options)
{
    if (options->tables == 0 || !pm_lanes_valid(options->lanes))
        return pm_fail(PM_INVALID, "an exchange of %u tables and %u lanes", options->tables, options->lanes);
    pm_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return pm_fail(PM_NO_MEMORY, "an exchange");
    x->tables = options->tables;
    x->lanes = options->lanes;
    x->request_ms = options->request_ms ? options->request_ms : 30000;
    x->counts = calloc(x->tables, sizeof *x->counts);
    x->frozen = calloc(x->tables, sizeof *x->frozen);
    x->widths = calloc(x->tables, sizeof *x->widths);
    x->values = calloc(x->tables, sizeof *x->values);
    x->wanted = calloc(x->tables, sizeof *x->wanted);
    x->push_buffers = calloc(x->tables, sizeof *x->push_buffers);
    pm_status status = pm_fail(PM_NO_MEMORY, "an exchange of %u tables", x->tables);
    if (x->counts && x->frozen && x->widths && x->values && x->wanted && x->push_buffers)
        status = pm_pool_create(&x->pool, options->shm);
    if (status.code == PM_OK) {
        memcpy(x->counts, options->counts, x->tables * sizeof *x->counts);
        if (options->frozen)
            memcpy(x->frozen, options->frozen, x->tables * sizeof *x->frozen);
        if (options->widths)
            memcpy(x->widths, options->widths, x->tables * sizeof *x->widths);
        *exchange = x;
    } else {
        pm_exchange_destroy(&x);
    }
    return status;
}

static void drop_pushes(piece *p)
{
    for (uint32_t i = 0; i < p->push_count; i++) {
        pm_buffer_unref(&p->pushes[i].sum);
        pm_buffer_unref(&p->pushes[i].ids);
    }
    p->push_count = 0;
}

void pm_exchange_answered(pm_exchange *x, piece *p)
{
    pm_exchange_close(x, &p->ask);
    drop_pushes(p);
}

static void forget(pm_exchange *x)
{
    for (uint32_t i = 0; i < x->piece_count; i++) {
        piece *p = &x->pieces[i];
        drop_pushes(p);
        free(p->pushes);
        pm_buffer_unref(&p->held[0]);
        pm_buffer_unref(&p->held[1]);
        pm_buffer_unref(&p->ids);
        pm_buffer_unref(&p->rows);
    }
    for (uint32_t s = 0; s < x->shards; s++) {
        free(x->lines[s].endpoint);
        free(x->lines[s].host);
    }
    free(x->pieces);
    free(x->lines);
    pm_placement_destroy(&x->placement);
    x->pieces = NULL;
    x->lines = NULL;
    x->piece_count = x->asked_count = x->shards = 0;
    x->stale = false;
}

void pm_exchange_destroy(pm_exchange **exchange)
{
    if (!exchange || !*exchange)
        return;
    pm_exchange *x = *exchange;
    forget(x);
    pm_outbox_free(&x->outbox);
    for (uint32_t t = 0; x->push_buffers && t < x->tables; t++)
        pm_buffer_unref(&x->push_buffers[t]);
    free(x->push_buffers);
    pm_pool_destroy(&x->pool);
    free(x->counts);
    free(x->frozen);
    free(x->widths);
    free(x->values);
    free(x->wanted);
    free(x);
    *exchange = NULL;
}

void pm_exchange_bind(pm_exchange *exchange, uint32_t table, float *values)
{
    exchange->values[table] = values;
}

void pm_exchange_post_pull(pm_exchange *x, const piece *p, const inquiry *asked, pm_buffer *ids)
{
    Paramill__Pull *pull = pm_proto_new(&paramill__pull__descriptor);
    if (pull) {
        pull->table = p->place->table;
        pull->slice = p->place->slice;
        pull->clock = asked->clock;
        pull->placement = x->placement_version;
    }
    Paramill__Header *header = pm_header_create(asked->request, x->epoch, PARAMILL__HEADER__BODY_PULL, pull);
    if (header)
        header->deadline_ms = x->request_ms;
    pm_outbox_post(&x->outbox, p->place->shard, NULL, header, &ids, ids ? 1 : 0);
}

static void post_push(pm_exchange *x, const piece *p, const push *s)
{
    Paramill__Push *body = pm_proto_new(&paramill__push__descriptor);
    if (body) {
        body->table = p->place->table;
        body->slice = p->place->slice;
        body->clock = p->ask.clock - 1;
        body->lane_first = s->block.first;
        body->lane_count = s->block.count;
        body->placement = x->placement_version;
    }
    Paramill__Header *header = pm_header_create(p->ask.request, x->epoch, PARAMILL__HEADER__BODY_PUSH, body);
    if (header)
        header->deadline_ms = x->request_ms;
    pm_buffer *const frames[] = {s->ids ? s->ids : s->sum, s->sum};
    pm_outbox_post(&x->outbox, p->place->shard, NULL, header, frames, s->ids ? 2 : s->sum ? 1 : 0);
}

static int64_t resend_after(const pm_exchange *x, uint32_t tries)
{
    int64_t wait = RESEND_MS < x->request_ms / RESEND_SHARE ? RESEND_MS : x->request_ms / RESEND_SHARE;
    wait = wait > 0 ? wait : 1;
    return wait << (tries < 3 ? tries : 3);
}

// The request's number tells the slice: an answer without a body about it is assigned by it.
void pm_exchange_ask(pm_exchange *x, const piece *p, inquiry *about, uint64_t clock, int64_t now_ms)
{
    if (!about->open)
        x->asked_count++;
    about->open = true;
    about->clock = clock;
    about->request = (uint64_t)(p - x->pieces + 1) << 32 | (++x->requests & UINT32_MAX);
    about->asked_ms = about->sign_ms = now_ms;
    about->resend_ms = now_ms + resend_after(x, 0);
    about->tries = 0;
}

void pm_exchange_close(pm_exchange *x, inquiry *about)
{
    x->asked_count -= about->open;
    about->open = false;
}

static pm_status copy_lines(pm_exchange *x, const Paramill__Directive *directive)
{
    uint32_t shards = pm_directive_shards(directive);
    if (shards == 0)
        return pm_fail(PM_PROTOCOL, "directive %llu names no servers", (unsigned long long)directive->number);
    x->lines = calloc(shards, sizeof *x->lines);
    if (!x->lines)
        return pm_fail(PM_NO_MEMORY, "%u shards", shards);
    x->shards = shards;
    for (uint32_t s = 0; s < shards; s++) {
        uint32_t endpoint = 0;
        const Paramill__Member *server = pm_directive_server(directive, s, &endpoint);
        x->lines[s] = (line){strdup(server->endpoints[endpoint]), strdup(server->host), server->rank};
        if (!x->lines[s].endpoint || !x->lines[s].host)
            return pm_fail(PM_NO_MEMORY, "%u shards", shards);
    }
    return pm_ok();
}

static pm_status make_pieces(pm_exchange *x)
{
    pm_status status = pm_placement_create(&x->placement, x->counts, x->widths, x->tables, x->shards);
    if (status.code != PM_OK)
        return status;
    uint32_t size = pm_placement_size(x->placement);
    x->pieces = calloc(size, sizeof *x->pieces);
    if (!x->pieces)
        return pm_fail(PM_NO_MEMORY, "%u slices", size);
    x->piece_count = size;
    for (uint32_t i = 0; i < size; i++) {
        const pm_slice *place = pm_placement_slice(x->placement, i);
        x->pieces[i] = (piece){.place = place,
                               .frozen = x->frozen[place->table],
                               .width = x->widths[place->table],
                               .held_clock = {NO_CLOCK, NO_CLOCK},
                               .installed = NO_CLOCK};
    }
    return status;
}

pm_status pm_exchange_begin(pm_exchange *exchange, const Paramill__Directive *directive, uint64_t clock,
                            int64_t now_ms)
{
    forget(exchange);
    pm_outbox_clear(&exchange->outbox);
    exchange->epoch = directive->epoch;
    exchange->placement_version = directive->placement;
    for (uint32_t t = 0; t < exchange->tables; t++)
        exchange->wanted[t] = NO_CLOCK;
    pm_status status = copy_lines(exchange, directive);
    if (status.code == PM_OK)
        status = make_pieces(exchange);
    for (uint32_t i = 0; i < exchange->piece_count && status.code == PM_OK; i++) {
        piece *p = &exchange->pieces[i];
        p->reached = clock;
        if (p->width)
            continue; // its rows are pulled when they are known
        pm_exchange_ask(exchange, p, &p->ask, clock, now_ms);
        pm_exchange_post_pull(exchange, p, &p->ask, NULL);
    }
    return status;
}

uint32_t pm_exchange_shards(const pm_exchange *exchange)
{
    return exchange->shards;
}

const char *pm_exchange_endpoint(const pm_exchange *exchange, uint32_t shard)
{
    return exchange->lines[shard].endpoint;
}

bool pm_exchange_holds(const piece *p, uint64_t clock)
{
    if (p->width)
        return p->reached == clock || p->reached == clock + 1;
    return p->held[clock % 2] && p->held_clock[clock % 2] == clock;
}

static bool is_pushed(const piece *p, pm_block block)
{
    for (uint32_t i = 0; i < p->push_count; i++)
        if (pm_block_contains(p->pushes[i].block, block))
            return true;
    return false;
}

// Not when all lanes of the slice are in.
pm_status pm_exchange_check_push(const piece *p, pm_block block, uint64_t clock, bool *wanted)
{
    const bool open = p->ask.open && p->ask.clock == clock + 1;
    *wanted = false;
    if (p->width ? p->reached == clock + 1 : pm_exchange_holds(p, clock + 1))
        return pm_ok();
    if (!pm_exchange_holds(p, clock))
        return pm_fail(PM_INTERNAL, "a push of table %u at clock %llu, whose parameters are not here",
                       p->place->table, (unsigned long long)clock);
    *wanted = !open || !is_pushed(p, block);
    return pm_ok();
}

pm_status pm_exchange_push_piece(pm_exchange *x, piece *p, pm_block block, uint64_t clock, push *made,
                                 int64_t now_ms)
{
    if (!p->ask.open || p->ask.clock != clock + 1) {
        drop_pushes(p);
        pm_exchange_ask(x, p, &p->ask, clock + 1, now_ms);
    }
    if (p->push_count == p->push_capacity) {
        uint32_t capacity = p->push_capacity ? p->push_capacity * 2 : 2;
        push *pushes = realloc(p->pushes, capacity * sizeof *pushes);
        if (!pushes) {
            pm_buffer_unref(&made->sum);
            pm_buffer_unref(&made->ids);
            return pm_fail(PM_NO_MEMORY, "a push of table %u", p->place->table);
        }
        p->pushes = pushes;
        p->push_capacity = capacity;
    }
    made->block = block;
    p->pushes[p->push_count] = *made;
    post_push(x, p, &p->pushes[p->push_count++]);
    return pm_ok();
}

float *pm_exchange_push_buffer(pm_exchange *exchange, uint32_t table)
{
    pm_buffer **buffer = &exchange->push_buffers[table];
    if (!*buffer)
        *buffer = pm_pool_take(exchange->pool, exchange->counts[table] * sizeof(float));
    return *buffer ? (*buffer)->data : NULL;
}

static bool in_push_buffer(const pm_exchange *x, uint32_t table, const float *gradient)
{
    return x->push_buffers[table] && x->push_buffers[table]->data == gradient;
}

// A slice of the table's gradient, a new reference; NULL: no memory.
static pm_buffer *slice_of(pm_exchange *x, const pm_slice *place, const float *gradient)
{
    const size_t size = place->count * sizeof(float);
    if (in_push_buffer(x, place->table, gradient))
        return pm_buffer_part(x->push_buffers[place->table], place->offset * sizeof(float), size);
    return pm_pool_copy(x->pool, gradient + place->offset, size);
}

static pm_status push_dense(pm_exchange *x, piece *p, pm_block block, uint64_t clock, const float *gradient,
                            int64_t now_ms)
{
    push made = {.block = block};
    bool wanted = false;
    pm_status status = pm_exchange_check_push(p, block, clock, &wanted);
    if (status.code != PM_OK || !wanted)
        return status;
    if (!p->frozen)
        made.sum = slice_of(x, p->place, gradient);
    if (!p->frozen && !made.sum)
        return pm_fail(PM_NO_MEMORY, "a push of table %u", p->place->table);
    return pm_exchange_push_piece(x, p, block, clock, &made, now_ms);
}

pm_status pm_exchange_push(pm_exchange *exchange, uint32_t table, pm_block block, uint64_t clock,
                           const float *gradient, int64_t now_ms)
{
    if (!exchange->placement || table >= exchange->tables || !pm_block_valid(block, exchange->lanes))
        return pm_fail(PM_INVALID, "a push of table %u, lanes %u + %u", table, block.first, block.count);
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t count = pm_placement_count(exchange->placement, table);
    pm_status status = pm_ok();
    for (uint32_t i = first; i < first + count && status.code == PM_OK; i++)
        status = push_dense(exchange, &exchange->pieces[i], block, clock, gradient, now_ms);
    if (in_push_buffer(exchange, table, gradient))
        pm_buffer_unref(&exchange->push_buffers[table]);
    return status;
}

static pm_status take_parameters(pm_exchange *x, uint32_t shard, pm_message *message)
{
    const Paramill__Parameters *body = message->header->parameters;
    int64_t index = pm_placement_find(x->placement, body->table, body->slice);
    if (index < 0 || x->pieces[index].place->shard != shard)
        return pm_fail(PM_PROTOCOL, "shard %u sends table %u slice %u, which it does not have", shard,
                       body->table, body->slice);
    piece *p = &x->pieces[index];
    if (p->width)
        return pm_exchange_take_answer(x, p, shard, message);
    const uint32_t at = body->clock % 2;
    const bool light = p->frozen && message->frame_count == 0; // as they were a clock before
    if (!light && (message->frame_count != 1 || message->frames[0]->size != p->place->count * sizeof(float)))
        return pm_fail(PM_PROTOCOL, "shard %u sends table %u slice %u in a frame of the wrong size", shard,
                       body->table, body->slice);
    if (!p->ask.open || body->clock != p->ask.clock)
        return pm_ok(); // the second answer to a request sent twice
    if (light && !p->held[1 - at])
        return pm_fail(PM_PROTOCOL, "shard %u sends table %u slice %u without values", shard, body->table,
                       body->slice);
    pm_buffer *values = pm_buffer_ref(light ? p->held[1 - at] : message->frames[0]);
    pm_buffer_unref(&p->held[at]);
    p->held[at] = values;
    p->held_clock[at] = body->clock;
    pm_exchange_answered(x, p);
    return pm_ok();
}

static pm_status refusal(const pm_exchange *x, uint32_t shard, const Paramill__Error *error)
{
    const line *l = &x->lines[shard];
    return pm_wrap(pm_error_status(error), "server %u on %s refuses", l->rank, l->host);
}

// What a request is about, if it still waits.
static inquiry *asker(pm_exchange *x, const Paramill__Header *header)
{
    uint64_t index = (header->request >> 32) - 1;
    if (index >= x->piece_count)
        return NULL;
    piece *p = &x->pieces[index];
    inquiry *about = p->pull.request == header->request ? &p->pull : &p->ask;
    return about->open && about->request == header->request ? about : NULL;
}

static pm_status take_error(pm_exchange *x, uint32_t shard, const Paramill__Header *header, int64_t now_ms)
{
    const Paramill__Error *error = header->error;
    if (header->request == 0)
        return refusal(x, shard, error); // the shard cannot read what this worker sends
    inquiry *p = asker(x, header);
    if (!p)
        return pm_ok();
    p->sign_ms = now_ms;
    if (error->code == PM_UNAVAILABLE) {
        p->resend_ms = now_ms + (error->retry_after_ms ? error->retry_after_ms : 100);
        return pm_ok();
    }
    if (error->code != PM_STALE)
        return refusal(x, shard, error);
    if (error->clock > 0 && header->epoch == x->epoch) {
        uint64_t clock = error->clock - 1; // the oldest that the slice still has
        x->stale_clock = x->stale && x->stale_clock > clock ? x->stale_clock : clock;
        x->stale = true;
    }
    return pm_ok(); // of another epoch: a directive is on its way
}

pm_status pm_exchange_handle(pm_exchange *exchange, uint32_t shard, pm_message *message, int64_t now_ms)
{
    const Paramill__Header *header = message->header;
    if (!exchange->placement || shard >= exchange->shards)
        return pm_ok();
    if (header->body_case == PARAMILL__HEADER__BODY_ERROR)
        return take_error(exchange, shard, header, now_ms);
    if (header->epoch != exchange->epoch)
        return pm_ok();
    if (header->body_case == PARAMILL__HEADER__BODY_PARAMETERS)
        return take_parameters(exchange, shard, message);
    inquiry *p = header->body_case == PARAMILL__HEADER__BODY_ACK ? asker(exchange, header) : NULL;
    if (p)
        p->sign_ms = now_ms;
    return pm_ok();
}

static pm_status overdue(const pm_exchange *x, const piece *p, const inquiry *about, int64_t now_ms)
{
    const line *l = &x->lines[p->place->shard];
    if (now_ms - about->sign_ms > x->request_ms)
        return pm_fail(
            PM_TIMEOUT, "server %u on %s (%s) is silent for %u ms: asked for table %u at clock %llu", l->rank,
            l->host, l->endpoint, x->request_ms, p->place->table, (unsigned long long)about->clock);
    if (now_ms - about->asked_ms > (int64_t)INCOMPLETE_FACTOR * x->request_ms)
        return pm_fail(
            PM_TIMEOUT,
            "server %u on %s answers, but table %u does not reach clock %llu: a worker's lanes are missing",
            l->rank, l->host, p->place->table, (unsigned long long)about->clock);
    return pm_ok();
}

static void ask_again(pm_exchange *x, const piece *p, const inquiry *about)
{
    if (about == &p->pull)
        pm_exchange_post_pull(x, p, &p->pull, p->ids);
    for (uint32_t k = 0; about == &p->ask && k < p->push_count; k++)
        post_push(x, p, &p->pushes[k]);
    if (about == &p->ask && p->push_count == 0)
        pm_exchange_post_pull(x, p, &p->ask, NULL);
}

static pm_status look_after(pm_exchange *x, piece *p, inquiry *about, int64_t now_ms)
{
    pm_status status = overdue(x, p, about, now_ms);
    if (status.code != PM_OK || now_ms < about->resend_ms)
        return status;
    about->resend_ms = now_ms + resend_after(x, ++about->tries);
    ask_again(x, p, about);
    return status;
}

pm_status pm_exchange_tick(pm_exchange *exchange, int64_t now_ms)
{
    pm_status status = pm_ok();
    uint32_t left = exchange->asked_count;
    for (uint32_t i = 0; left > 0 && i < exchange->piece_count; i++) {
        piece *p = &exchange->pieces[i];
        inquiry *both[] = {&p->ask, &p->pull};
        for (int k = 0; k < 2 && status.code == PM_OK; k++) {
            left -= both[k]->open;
            if (both[k]->open)
                status = look_after(exchange, p, both[k], now_ms);
        }
        if (status.code != PM_OK)
            return status;
    }
    return status;
}

bool pm_exchange_have(const pm_exchange *exchange, uint32_t table, uint64_t clock)
{
    if (!exchange->placement)
        return false;
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t count = pm_placement_count(exchange->placement, table);
    for (uint32_t i = first; i < first + count; i++)
        if (!pm_exchange_holds(&exchange->pieces[i], clock))
            return false;
    return true;
}

bool pm_exchange_done(const pm_exchange *exchange, uint64_t clock)
{
    for (uint32_t i = 0; i < exchange->piece_count; i++)
        if (!pm_exchange_holds(&exchange->pieces[i], clock))
            return false;
    return exchange->piece_count > 0;
}

// What is frozen has the same values at every clock.
static void install(const pm_exchange *x, piece *p, uint64_t clock)
{
    const pm_buffer *held = p->held[clock % 2];
    if (p->installed != clock && !(p->frozen && p->installed != NO_CLOCK))
        pm_kernels_get()->copy(held->data, x->values[p->place->table] + p->place->offset, p->place->count);
    p->installed = clock;
}

pm_status pm_exchange_install(pm_exchange *exchange, uint32_t table, uint64_t clock)
{
    if (!pm_exchange_have(exchange, table, clock))
        return pm_fail(PM_STALE, "table %u is not here at clock %llu", table, (unsigned long long)clock);
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t count = pm_placement_count(exchange->placement, table);
    for (uint32_t i = first; i < first + count; i++)
        install(exchange, &exchange->pieces[i], clock);
    return pm_ok();
}

void pm_exchange_install_held(pm_exchange *exchange, uint64_t clock)
{
    for (uint32_t i = 0; i < exchange->piece_count; i++) {
        piece *p = &exchange->pieces[i];
        if (!p->width && pm_exchange_holds(p, clock))
            install(exchange, p, clock);
    }
}

bool pm_exchange_is_stale(const pm_exchange *exchange, uint64_t *clock)
{
    if (exchange->stale)
        *clock = exchange->stale_clock;
    return exchange->stale;
}

pm_outbox *pm_exchange_outbox(pm_exchange *exchange)
{
    return &exchange->outbox;
}
