// Making batches of what is queued.
#include "infer/router_impl.h"

#include <stdlib.h>
#include <string.h>

// Of the workers that can hold another batch of the model, the one that holds the fewest; NULL: none.
static pm_routed_worker *free_worker(const pm_router *router, const pm_routed_model *model)
{
    pm_routed_worker *best = NULL;
    for (uint32_t i = 0; i < router->worker_count; i++) {
        pm_routed_worker *w = router->workers[i];
        if (w->model != model || !pm_worker_serves(w) || w->credits == 0 || w->in_flight >= w->capacity ||
            w->round == router->round)
            continue;
        if (!best || w->in_flight < best->in_flight ||
            (w->in_flight == best->in_flight && w->answered_us < best->answered_us))
            best = w;
    }
    return best;
}

// Moves what goes into one batch for the worker, in the order of the queue.
static void collect(pm_router *router, pm_routed_worker *worker, pm_query_list *into, int64_t now_us)
{
    pm_query_list *queue = &worker->model->queue;
    (void)router;
    for (pm_query *q = queue->first, *next; q; q = next) {
        next = q->next;
        if (now_us >= q->deadline_us || !pm_worker_can(worker, q))
            continue; // the next tick answers the late ones
        if (into->rows + q->rows > worker->max_rows || (q->alone && into->count > 0))
            return;
        bool alone = q->alone;
        pm_query_remove(queue, q);
        pm_query_append(into, q);
        if (alone)
            return;
    }
}

static pm_buffer *gather(const pm_query_list *queries)
{
    if (queries->count == 1)
        return pm_buffer_ref(queries->first->frame);
    pm_buffer *rows = pm_buffer_create(queries->bytes);
    char *at = rows ? rows->data : NULL;
    for (const pm_query *q = queries->first; at && q; q = q->next) {
        memcpy(at, q->frame->data, q->frame->size);
        at += q->frame->size;
    }
    return rows;
}

static Paramill__Header *batch_header(const pm_batch *batch)
{
    Inference__BatchRequest request = INFERENCE__BATCH_REQUEST__INIT;
    uint32_t *rows = malloc(batch->queries.count * sizeof *rows);
    if (!rows)
        return NULL;
    request.batch = batch->id;
    request.rows = rows;
    for (const pm_query *q = batch->queries.first; q; q = q->next)
        rows[request.n_rows++] = q->rows;
    Paramill__Header *header =
        pm_envelope_seal(batch->id, 0, PARAMILL__INFER_ENVELOPE__KIND__BATCH_REQUEST, &request.base);
    free(rows);
    return header;
}

// False when there is nothing for this worker, or no memory for it now.
static bool send_batch(pm_router *router, pm_routed_worker *worker, int64_t now_us, pm_mailbox *out)
{
    pm_batch *batch = worker->batches;
    while (batch->id != 0) // a free one exists: in_flight is below capacity
        batch++;
    collect(router, worker, &batch->queries, now_us);
    if (batch->queries.count == 0)
        return false;
    batch->id = router->next_batch + 1;
    pm_buffer *rows = gather(&batch->queries);
    Paramill__Header *header = rows ? batch_header(batch) : NULL;
    if (!header) {
        pm_buffer_unref(&rows);
        pm_query_prepend(&worker->model->queue, &batch->queries);
        batch->id = 0;
        return false;
    }
    pm_metric_add(router->batches, 1);
    pm_metric_add(router->batch_rows, batch->queries.rows);
    pm_mailbox_post(out, PM_ROUTER_BACK, &worker->peer, header, rows);
    router->next_batch++;
    batch->sent_us = now_us;
    worker->in_flight++;
    worker->credits--;
    return true;
}

void pm_router_dispatch(pm_router *router, int64_t now_us, pm_mailbox *out)
{
    router->round++;
    for (uint32_t i = 0; i < router->model_count; i++) {
        pm_routed_model *model = router->models[i];
        for (pm_routed_worker *w; model->queue.count > 0 && (w = free_worker(router, model));)
            if (!send_batch(router, w, now_us, out))
                w->round = router->round;
    }
}
