// The worker's one compute thread owns the sockets to the shards; the line to the coordinator, with the
// heartbeats, is another thread's (cluster/member.h), so a long step is not taken for a death.
#include "worker/worker.h"

#include "cluster/member.h"
#include "cluster/membership.h"
#include "cluster/schedule.h"
#include "net/loop.h"
#include "worker/exchange.h"
#include "worker/trainer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { AWAKE_US = 1000, TICK_MS = 100 };

typedef struct worker {
    const pm_worker_options *options;
    pm_log log;
    pm_loop *loop;
    pm_member *member;
    pm_message directive; // the newest; header NULL before the first
    bool changed;         // since it was last looked at
    pm_status lost;       // not PM_OK: the line to the coordinator, or a shard, is lost for good
    pm_trainer trainer;   // open once job is known
    bool open;
    pm_steps steps;
    pm_exchange *exchange;
    pm_socket **shards; // one a shard, in the exchange's order
    uint32_t shard_count;
    uint64_t clock;   // of the step being worked on
    pm_block block;   // being computed
    int64_t asked_us; // when the last step's gradients were all sent
    pm_metric *steps_total, *rows_total, *step_seconds;
} worker;

static const Paramill__Directive *current(const worker *w)
{
    return w->directive.header ? w->directive.header->directive : NULL;
}

static bool running(const worker *w, uint64_t epoch)
{
    const Paramill__Directive *d = current(w);
    return w->lost.code == PM_OK && d->verb == PARAMILL__DIRECTIVE__VERB__RUN && d->epoch == epoch &&
           !(w->options->stop && atomic_load(w->options->stop));
}

static void on_member(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    worker *w = context;
    (void)socket, (void)from;
    if (message->header->body_case == PARAMILL__HEADER__BODY_ERROR) {
        w->lost = pm_error_status(message->header->error);
        return;
    }
    if (message->header->body_case != PARAMILL__HEADER__BODY_DIRECTIVE)
        return;
    if (w->directive.header && !w->open) // two at once: the job came with the first
        pm_directive_inherit(message->header->directive, w->directive.header->directive);
    pm_message_clear(&w->directive);
    pm_message_move(&w->directive, message);
    w->changed = true;
}

static void on_shard(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    worker *w = context;
    (void)from;
    for (uint32_t i = 0; i < w->shard_count; i++) {
        if (w->shards[i] != socket)
            continue;
        pm_status status = pm_exchange_handle(w->exchange, i, message, pm_now_ms(&w->options->clock));
        if (status.code != PM_OK && w->lost.code == PM_OK)
            w->lost = status;
    }
}

static void flush(worker *w)
{
    if (w->exchange && w->shard_count > 0)
        pm_outbox_send(pm_exchange_outbox(w->exchange), w->shards, w->shard_count);
}

static void on_tick(void *context)
{
    worker *w = context;
    pm_status status = pm_member_flush(w->member);
    if (status.code == PM_OK && w->exchange && w->shard_count > 0)
        status = pm_exchange_tick(w->exchange, pm_now_ms(&w->options->clock));
    if (status.code != PM_OK && w->lost.code == PM_OK)
        w->lost = status;
    flush(w);
}

// What answers a step comes within microseconds: for so long the thread lends its core instead of sleeping,
// since waking a core takes as long again.
static pm_status turn(worker *w)
{
    const bool soon = pm_now_us(&w->options->clock) < w->asked_us + AWAKE_US;
    pm_status status = pm_loop_turn(w->loop, soon ? 0 : TICK_MS);
    if (soon)
        sched_yield();
    flush(w);
    return status.code == PM_OK ? w->lost : status;
}

static pm_status tell(worker *w, Paramill__Phase phase)
{
    pm_member_state state = {.phase = phase, .epoch = current(w)->epoch, .clock = w->clock};
    return pm_member_tell(w->member, &state);
}

static void close_shards(worker *w)
{
    for (uint32_t i = 0; i < w->shard_count; i++) {
        pm_loop_remove(w->loop, w->shards[i]);
        pm_socket_destroy(&w->shards[i]);
    }
    free(w->shards);
    w->shards = NULL;
    w->shard_count = 0;
}

static pm_status open_shards(worker *w)
{
    close_shards(w);
    uint32_t count = pm_exchange_shards(w->exchange);
    w->shards = calloc(count, sizeof *w->shards);
    if (!w->shards)
        return pm_fail(PM_NO_MEMORY, "%u lines to shards", count);
    for (uint32_t i = 0; i < count; i++) {
        pm_status status = pm_socket_create(&w->shards[i], w->options->net, PM_SOCKET_DEALER);
        if (status.code == PM_OK)
            w->shard_count = i + 1;
        if (status.code == PM_OK)
            status = pm_socket_connect(w->shards[i], pm_exchange_endpoint(w->exchange, i));
        if (status.code == PM_OK)
            status = pm_loop_add(w->loop, w->shards[i], on_shard, w);
        if (status.code != PM_OK)
            return status;
    }
    return pm_ok();
}

// The first directive carries the job; everything that follows from it is made once.
static pm_status open_job(worker *w)
{
    const Paramill__Directive *d = current(w);
    if (w->open || !d->job || !d->job[0])
        return pm_ok();
    pm_status status = pm_trainer_open(&w->trainer, d->job, d->model_digest);
    if (status.code != PM_OK)
        return status;
    w->open = true;
    const pm_job *job = w->trainer.job;
    status = pm_steps_make(&w->steps, job, pm_dataset_rows(w->trainer.train));
    if (status.code == PM_OK && d->train_rows != pm_dataset_rows(w->trainer.train))
        status = pm_fail(PM_INVALID, "%s has %lu rows here and %lu at the coordinator", pm_job_data_path(job),
                         (unsigned long)pm_dataset_rows(w->trainer.train), (unsigned long)d->train_rows);
    const char *vocabulary = pm_dataset_vocabulary(w->trainer.train);
    if (status.code == PM_OK && strcmp(vocabulary ? vocabulary : "", d->vocabulary) != 0)
        status = pm_fail(PM_INVALID, "%s has other characters here than at the coordinator",
                         pm_job_data_path(job));
    const pm_exchange_options options = {.counts = w->trainer.counts,
                                         .frozen = w->trainer.frozen,
                                         .widths = w->trainer.widths,
                                         .tables = w->trainer.tables,
                                         .lanes = job->lanes,
                                         .request_ms = job->cluster.request_ms,
                                         .shm = pm_net_shm(w->options->net)};
    if (status.code == PM_OK)
        status = pm_exchange_create(&w->exchange, &options);
    for (uint32_t i = 0; i < w->trainer.tables && status.code == PM_OK; i++)
        if (!w->trainer.widths[i])
            pm_exchange_bind(w->exchange, i, pm_plan_param(w->trainer.training, i));
    return status;
}

// ---- one block of one step ----

// Whether what the step needs of a table is here.
static bool have(const worker *w, uint32_t table)
{
    return w->trainer.widths[table] ? pm_exchange_have_rows(w->exchange, table, w->clock)
                                    : pm_exchange_have(w->exchange, table, w->clock);
}

static pm_status await_table(worker *w, uint32_t table)
{
    uint64_t epoch = current(w)->epoch;
    while (!have(w, table)) {
        uint64_t other;
        pm_status status = turn(w);
        if (status.code != PM_OK)
            return status;
        if (!running(w, epoch) || pm_exchange_is_stale(w->exchange, &other))
            return pm_fail(PM_STALE, "the job went on");
    }
    return pm_ok();
}

// Rows of a sparse table go where the caller wants them, a dense table to where it is bound.
static pm_status install(worker *w, uint32_t table, float *rows)
{
    pm_status status = await_table(w, table);
    if (status.code != PM_OK)
        return status;
    return w->trainer.widths[table] ? pm_exchange_take_rows(w->exchange, table, w->clock, rows)
                                    : pm_exchange_install(w->exchange, table, w->clock);
}

static pm_status before_param(void *context, size_t param)
{
    worker *w = context;
    return install(w, (uint32_t)param, pm_plan_param(w->trainer.training, param));
}

// Asks for the rows of all tables at once.
static pm_status rows_known(void *context)
{
    worker *w = context;
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < w->trainer.tables && status.code == PM_OK; i++) {
        size_t count;
        const uint32_t *ids = pm_plan_rows(w->trainer.training, i, &count);
        if (w->trainer.widths[i])
            status = pm_exchange_want(w->exchange, i, w->clock, ids, count, pm_now_ms(&w->options->clock));
    }
    flush(w);
    return status;
}

static pm_status after_gradient(void *context, size_t param)
{
    worker *w = context;
    const uint32_t table = (uint32_t)param;
    const float *gradient = pm_plan_gradient(w->trainer.training, param);
    const int64_t now = pm_now_ms(&w->options->clock);
    size_t count;
    const uint32_t *ids = pm_plan_rows(w->trainer.training, param, &count);
    pm_status status =
        w->trainer.widths[table]
            ? pm_exchange_push_rows(w->exchange, table, w->block, w->clock, ids, count, gradient, now)
            : pm_exchange_push(w->exchange, table, w->block, w->clock, gradient, now);
    flush(w);
    return status;
}

// What is frozen has no gradient; its tables go along to the next clock.
static pm_status push_frozen(worker *w)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < w->trainer.tables && status.code == PM_OK; i++)
        if (w->trainer.frozen[i])
            status =
                pm_exchange_push(w->exchange, i, w->block, w->clock, NULL, pm_now_ms(&w->options->clock));
    flush(w);
    return status;
}

// Scores of steps wait for company, but for the last before a version, which is published with their mean.
static pm_status tell_score(worker *w, bool evaluation, const pm_evaluation *sums)
{
    Paramill__Score score = PARAMILL__SCORE__INIT;
    score.clock = w->clock;
    score.lane_first = w->block.first;
    score.lane_count = w->block.count;
    score.evaluation = evaluation;
    score.loss_sum = sums->loss_sum;
    score.correct = sums->correct;
    score.rows = sums->rows;
    score.counters = sums->counters;
    score.n_counters = sums->counter_count;
    pm_status status = pm_member_score(w->member, &score);
    return status.code == PM_OK && pm_steps_is_cut(&w->steps, w->clock + 1) ? pm_member_flush(w->member)
                                                                            : status;
}

static pm_status evaluate_block(worker *w)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < w->trainer.tables && status.code == PM_OK; i++)
        if (w->trainer.widths[i])
            status = pm_exchange_want(w->exchange, i, w->clock, NULL, 0, pm_now_ms(&w->options->clock));
    flush(w);
    for (uint32_t i = 0; i < w->trainer.tables && status.code == PM_OK; i++)
        status = install(w, i, w->trainer.whole[i]);
    if (status.code != PM_OK)
        return status;
    pm_evaluation result;
    status = pm_evaluator_run(w->trainer.evaluator, w->block, w->trainer.job->lanes, &result);
    return status.code == PM_OK ? tell_score(w, true, &result) : status;
}

static pm_status train_block(worker *w)
{
    int64_t begin = pm_now_us(&w->options->clock);
    const pm_step_hooks hooks = {
        .before_param = before_param, .after_gradient = after_gradient, .ctx = w, .rows_known = rows_known};
    pm_step step;
    for (uint32_t i = 0; i < w->trainer.tables; i++) // made where they are sent from
        if (!w->trainer.frozen[i] && !w->trainer.widths[i])
            pm_plan_bind_gradient(w->trainer.training, i, pm_exchange_push_buffer(w->exchange, i));
    pm_status status = pm_trainer_step(&w->trainer, w->clock, w->block, &hooks, &step);
    if (status.code == PM_OK)
        status = push_frozen(w);
    if (status.code != PM_OK)
        return status;
    w->asked_us = pm_now_us(&w->options->clock);
    uint64_t rows = (uint64_t)w->block.count * w->trainer.sampler.rows_per_lane;
    pm_metric_add(w->steps_total, 1);
    pm_metric_add(w->rows_total, rows);
    pm_metric_observe_us(w->step_seconds, pm_now_us(&w->options->clock) - begin);
    const pm_evaluation sums = {
        .loss_sum = step.loss, .correct = step.correct, .rows = rows * w->trainer.shape.places};
    return tell_score(w, false, &sums);
}

// Until the coordinator lets the step begin: with early stopping, it waits for the last validation but one.
static pm_status await_limit(worker *w)
{
    uint64_t epoch = current(w)->epoch;
    pm_status status = pm_ok();
    while (status.code == PM_OK && w->clock >= current(w)->limit && w->clock < current(w)->total_steps) {
        if (!running(w, epoch))
            return pm_fail(PM_STALE, "the job went on");
        status = turn(w);
    }
    return status;
}

// What is to be done for a block at a clock: validation at an epoch's end, then the step, unless it was the
// last.
static pm_status work_block(worker *w)
{
    pm_status status = pm_ok();
    if (w->trainer.evaluator && w->clock > 0 && pm_steps_is_epoch_end(&w->steps, w->clock))
        status = evaluate_block(w);
    if (status.code == PM_OK && w->clock < current(w)->total_steps)
        status = await_limit(w);
    if (status.code == PM_OK && w->clock < current(w)->total_steps)
        status = train_block(w);
    return status;
}

// ---- an epoch of the job: from a RUN directive to the next rollback or the end ----

// The first leased block whose lanes are not all done in this step; false when there is none.
static bool next_block(const worker *w, const pm_lane_set *done, pm_block *next)
{
    const Paramill__Directive *d = current(w);
    uint32_t lanes = w->trainer.job->lanes;
    for (size_t i = 0; i < d->n_leases; i++) {
        pm_block block = {d->leases[i]->first, d->leases[i]->count};
        if (!pm_block_valid(block, lanes) || pm_lane_set_covers(done, pm_block_node(block, lanes)))
            continue;
        *next = block;
        return true;
    }
    return false;
}

// While the next parameters are on their way.
static void read_ahead(worker *w)
{
    const pm_lane_set none = {{0}};
    pm_block block;
    if (w->clock + 1 < current(w)->total_steps && next_block(w, &none, &block))
        pm_trainer_read(&w->trainer, w->clock + 1, block);
}

static pm_status begin(worker *w, uint64_t clock)
{
    w->clock = clock;
    pm_status status = pm_exchange_begin(w->exchange, current(w), clock, pm_now_ms(&w->options->clock));
    if (status.code == PM_OK)
        status = open_shards(w);
    if (status.code == PM_OK)
        flush(w);
    return status;
}

// One clock: all leased blocks, also those gained on the way, until the next parameters are here. *idle: no
// lanes.
static pm_status work_clock(worker *w, uint64_t epoch, bool *idle)
{
    pm_lane_set done = {{0}};
    *idle = false;
    while (running(w, epoch)) {
        uint64_t other;
        pm_status status = pm_ok();
        if (pm_exchange_is_stale(w->exchange, &other))
            return pm_fail(PM_STALE, "the job went on");
        if (next_block(w, &done, &w->block)) {
            status = work_block(w);
            pm_lane_set_put(&done, pm_block_node(w->block, w->trainer.job->lanes));
        } else if (current(w)->n_leases == 0) {
            *idle = true;
            return pm_ok();
        } else if (w->clock >= current(w)->total_steps || pm_exchange_done(w->exchange, w->clock + 1)) {
            return pm_ok();
        } else {
            read_ahead(w);
            status = turn(w);
            pm_exchange_install_held(w->exchange, w->clock + 1);
        }
        if (status.code != PM_OK)
            return status;
    }
    return pm_fail(PM_STALE, "the job went on");
}

static pm_status wait_for_change(worker *w)
{
    w->changed = false;
    while (!w->changed && w->lost.code == PM_OK && !(w->options->stop && atomic_load(w->options->stop))) {
        pm_status status = turn(w);
        if (status.code != PM_OK)
            return status;
    }
    return w->lost;
}

static pm_status run_epoch(worker *w)
{
    uint64_t epoch = current(w)->epoch;
    pm_status status = begin(w, current(w)->clock);
    while (status.code == PM_OK && running(w, epoch)) {
        bool idle;
        uint64_t other;
        status = tell(w, PARAMILL__PHASE__PHASE_RUNNING);
        if (status.code == PM_OK)
            status = work_clock(w, epoch, &idle);
        if (status.code == PM_STALE && w->lost.code == PM_OK && running(w, epoch) &&
            pm_exchange_is_stale(w->exchange, &other)) {
            status = begin(w, other);
            continue;
        }
        if (status.code != PM_OK)
            break;
        if (!idle && w->clock < current(w)->total_steps) {
            w->clock++;
            continue;
        }
        status = tell(w, idle ? PARAMILL__PHASE__PHASE_RUNNING : PARAMILL__PHASE__PHASE_FINISHED);
        if (status.code == PM_OK)
            status = wait_for_change(w);
        if (status.code == PM_OK && idle && running(w, epoch) && current(w)->n_leases > 0)
            status = begin(w, current(w)->clock);
    }
    return status.code == PM_STALE && w->lost.code == PM_OK ? pm_ok() : status;
}

// ---- the role ----

static pm_status follow(worker *w)
{
    const Paramill__Directive *d = current(w);
    pm_status status = pm_ok();
    switch (d->verb) {
    case PARAMILL__DIRECTIVE__VERB__PREPARE:
        status = tell(w, PARAMILL__PHASE__PHASE_READY);
        if (w->options->ready)
            atomic_store(w->options->ready, true);
        break;
    case PARAMILL__DIRECTIVE__VERB__RUN:
        if (w->options->ready)
            atomic_store(w->options->ready, true);
        w->changed = false;
        status = run_epoch(w);
        if (status.code == PM_OK && w->changed)
            return status;
        break;
    default:
        break;
    }
    return status.code == PM_OK ? wait_for_change(w) : status;
}

static pm_status run(worker *w)
{
    pm_status status = wait_for_change(w);
    while (status.code == PM_OK) {
        if (w->options->stop && atomic_load(w->options->stop))
            return pm_fail(PM_CANCELLED, "stopped on request");
        const Paramill__Directive *d = current(w);
        if (d->verb == PARAMILL__DIRECTIVE__VERB__STOP)
            return d->reason && d->reason[0] ? pm_fail(PM_CANCELLED, "%s", d->reason) : pm_ok();
        status = open_job(w);
        if (status.code == PM_OK)
            status = follow(w);
        if (status.code == PM_OK || w->lost.code != PM_OK)
            continue;
        pm_status told = pm_member_fail(w->member, status); // the coordinator's STOP brings the reason back
        (void)told;
        pm_status waited = wait_for_change(w);
        return waited.code == PM_OK ? status : waited;
    }
    return status;
}

static pm_status join(worker *w)
{
    const pm_worker_options *o = w->options;
    pm_member_options member = {.role = PARAMILL__ROLE__ROLE_WORKER,
                                .coordinator = o->coordinator,
                                .host = o->host,
                                .kernel_set = pm_kernel_set(PM_PRECISION_F32),
                                .kernel_set_bf16 = pm_kernel_set(PM_PRECISION_BF16),
                                .absent_ms = o->absent_ms,
                                .clock = o->clock,
                                .log = o->log};
    pm_status status = pm_loop_create(&w->loop, o->clock, NULL);
    if (status.code == PM_OK)
        status = pm_member_start(&w->member, o->net, &member);
    if (status.code == PM_OK)
        status = pm_loop_add(w->loop, pm_member_pipe(w->member), on_member, w);
    if (status.code == PM_OK)
        status = pm_loop_timer(w->loop, TICK_MS, on_tick, w);
    return status;
}

pm_status pm_worker_run(const pm_worker_options *options)
{
    worker w = {.options = options, .log = options->log, .lost = pm_ok()};
    w.steps_total = pm_counter(options->metrics, "paramill_worker_blocks_total", "Lane blocks computed.", "");
    w.rows_total = pm_counter(options->metrics, "paramill_worker_rows_total", "Training rows computed.", "");
    w.step_seconds = pm_histogram(options->metrics, "paramill_worker_block_seconds",
                                  "Time of one lane block's step, waiting included.", "");
    pm_status status = join(&w);
    if (status.code == PM_OK)
        status = run(&w);
    if (options->ready)
        atomic_store(options->ready, false);
    close_shards(&w);
    pm_member_stop(&w.member);
    pm_loop_destroy(&w.loop);
    pm_exchange_destroy(&w.exchange);
    if (w.open)
        pm_trainer_close(&w.trainer);
    pm_message_clear(&w.directive);
    return status;
}
