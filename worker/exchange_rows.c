// Tables that are pulled and pushed by rows: a step's rows are asked for once their ids are known, and the
// answer to a push only says that the clock has come.
#include "worker/exchange_impl.h"

#include <string.h>

// The ids that fall into the slice; *first is where they begin.
static size_t ids_inside(const piece *p, const uint32_t *ids, size_t count, size_t *first)
{
    const uint64_t begin = p->place->offset / p->width, end = begin + p->place->count / p->width;
    size_t bounds[2];
    for (int i = 0; i < 2; i++) { // the first id that is not below begin, then end
        size_t low = 0, high = count;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (ids[middle] < (i == 0 ? begin : end))
                low = middle + 1;
            else
                high = middle;
        }
        bounds[i] = low;
    }
    *first = bounds[0];
    return bounds[1] - bounds[0];
}

// Ids as the slice counts them.
static pm_buffer *local_ids(pm_exchange *x, const piece *p, const uint32_t *ids, size_t count)
{
    const uint32_t begin = (uint32_t)(p->place->offset / p->width);
    pm_buffer *local = pm_pool_take(x->pool, count * sizeof *ids);
    for (size_t i = 0; local && i < count; i++)
        ((uint32_t *)local->data)[i] = ids[i] - begin;
    return local;
}

static pm_status want_piece(pm_exchange *x, piece *p, uint64_t clock, const uint32_t *ids, size_t count,
                            int64_t now_ms)
{
    size_t first = 0;
    const size_t mine = ids ? ids_inside(p, ids, count, &first) : 0;
    pm_exchange_close(x, &p->pull);
    pm_buffer_unref(&p->ids);
    pm_buffer_unref(&p->rows);
    p->all = !ids;
    if (ids && mine == 0)
        return pm_ok();
    p->ids = ids ? local_ids(x, p, ids + first, mine) : NULL;
    if (ids && !p->ids)
        return pm_fail(PM_NO_MEMORY, "ids of table %u", p->place->table);
    pm_exchange_ask(x, p, &p->pull, clock, now_ms);
    pm_exchange_post_pull(x, p, &p->pull, p->ids);
    return pm_ok();
}

static pm_status check_table(const pm_exchange *x, uint32_t table)
{
    return x->placement && table < x->tables && x->widths[table]
               ? pm_ok()
               : pm_fail(PM_INVALID, "table %u is not pulled and pushed by rows", table);
}

pm_status pm_exchange_want(pm_exchange *exchange, uint32_t table, uint64_t clock, const uint32_t *ids,
                           size_t count, int64_t now_ms)
{
    pm_status status = check_table(exchange, table);
    if (status.code != PM_OK)
        return status;
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t pieces = pm_placement_count(exchange->placement, table);
    for (uint32_t i = first; i < first + pieces && status.code == PM_OK; i++)
        status = want_piece(exchange, &exchange->pieces[i], clock, ids, count, now_ms);
    exchange->wanted[table] = clock;
    return status;
}

bool pm_exchange_have_rows(const pm_exchange *exchange, uint32_t table, uint64_t clock)
{
    if (check_table(exchange, table).code != PM_OK || exchange->wanted[table] != clock)
        return false;
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t pieces = pm_placement_count(exchange->placement, table);
    for (uint32_t i = first; i < first + pieces; i++)
        if (exchange->pieces[i].pull.open)
            return false;
    return true;
}

pm_status pm_exchange_take_rows(pm_exchange *exchange, uint32_t table, uint64_t clock, float *rows)
{
    if (!pm_exchange_have_rows(exchange, table, clock))
        return pm_fail(PM_STALE, "rows of table %u are not here at clock %llu", table,
                       (unsigned long long)clock);
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t pieces = pm_placement_count(exchange->placement, table);
    char *to = (char *)rows;
    for (uint32_t i = first; i < first + pieces; i++) {
        pm_buffer *held = exchange->pieces[i].rows;
        if (!held)
            continue;
        memcpy(to, held->data, held->size);
        to += held->size;
        pm_buffer_unref(&exchange->pieces[i].rows);
    }
    exchange->wanted[table] = NO_CLOCK;
    return pm_ok();
}

static pm_status push_rows(pm_exchange *x, piece *p, pm_block block, uint64_t clock, const uint32_t *ids,
                           size_t count, const float *rows, int64_t now_ms)
{
    size_t first = 0;
    bool wanted = false;
    pm_status status = pm_exchange_check_push(p, block, clock, &wanted);
    if (status.code != PM_OK || !wanted)
        return status;
    const size_t mine = ids_inside(p, ids, count, &first);
    push made = {.block = block};
    if (mine > 0) {
        made.ids = local_ids(x, p, ids + first, mine);
        made.sum = pm_pool_copy(x->pool, rows + first * p->width, mine * p->width * sizeof(float));
        if (!made.ids || !made.sum) {
            pm_buffer_unref(&made.ids);
            pm_buffer_unref(&made.sum);
            return pm_fail(PM_NO_MEMORY, "a push of table %u", p->place->table);
        }
    }
    return pm_exchange_push_piece(x, p, block, clock, &made, now_ms);
}

pm_status pm_exchange_push_rows(pm_exchange *exchange, uint32_t table, pm_block block, uint64_t clock,
                                const uint32_t *ids, size_t count, const float *rows, int64_t now_ms)
{
    pm_status status = check_table(exchange, table);
    if (status.code == PM_OK && !pm_block_valid(block, exchange->lanes))
        status = pm_fail(PM_INVALID, "a push of table %u, lanes %u + %u", table, block.first, block.count);
    if (status.code != PM_OK)
        return status;
    uint32_t first = pm_placement_first(exchange->placement, table);
    uint32_t pieces = pm_placement_count(exchange->placement, table);
    for (uint32_t i = first; i < first + pieces && status.code == PM_OK; i++)
        status = push_rows(exchange, &exchange->pieces[i], block, clock, ids, count, rows, now_ms);
    return status;
}

static pm_status take_pulled(pm_exchange *x, piece *p, uint32_t shard, pm_message *message)
{
    const size_t size = p->all ? (size_t)p->place->count * sizeof(float) : p->ids->size * p->width;
    if (message->frame_count != 1 || message->frames[0]->size != size)
        return pm_fail(PM_PROTOCOL, "shard %u sends rows of table %u slice %u in a frame of the wrong size",
                       shard, p->place->table, p->place->slice);
    p->rows = pm_buffer_ref(message->frames[0]);
    pm_buffer_unref(&p->ids);
    pm_exchange_close(x, &p->pull);
    return pm_ok();
}

pm_status pm_exchange_take_answer(pm_exchange *x, piece *p, uint32_t shard, pm_message *message)
{
    const Paramill__Header *header = message->header;
    const uint64_t clock = header->parameters->clock;
    if (p->pull.open && header->request == p->pull.request && clock == p->pull.clock)
        return take_pulled(x, p, shard, message);
    if (message->frame_count > 0 || !p->ask.open || clock != p->ask.clock)
        return pm_ok(); // the second answer to a request sent twice
    p->reached = clock;
    pm_exchange_answered(x, p);
    return pm_ok();
}
