#include "cluster/coordinator.h"

#include "cluster/roster.h"
#include "net/loop.h"

#include <stdlib.h>

enum { TICK_MS = 50 };

typedef struct coordinator {
    const pm_coordinator_options *options;
    pm_roster *roster;
    pm_loop *loop;
    pm_socket *socket;
    pm_metric *step, *loss, *rate, *version, *running;
} coordinator;

static void settle(coordinator *c)
{
    pm_outbox_send(pm_roster_outbox(c->roster), &c->socket, 1);
    bool running = pm_roster_is_running(c->roster);
    pm_metric_set(c->running, running);
    if (c->options->ready)
        atomic_store(c->options->ready, running);
    if (pm_roster_is_over(c->roster, pm_now_ms(&c->options->clock)))
        pm_loop_end(c->loop);
}

static void on_message(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    coordinator *c = context;
    (void)socket;
    pm_roster_handle(c->roster, from, message, pm_now_ms(&c->options->clock));
    settle(c);
}

static void on_tick(void *context)
{
    coordinator *c = context;
    int64_t now = pm_now_ms(&c->options->clock);
    if (c->options->stop && atomic_load(c->options->stop))
        pm_roster_stop(c->roster, pm_fail(PM_CANCELLED, "stopped on request"), now);
    pm_roster_tick(c->roster, now);
    settle(c);
}

// ---- events: to the log and metrics, then on to the caller ----

static void on_phase(void *context, const char *text)
{
    coordinator *c = context;
    pm_log_info(&c->options->log, "phase", "text=\"%s\"", text);
    if (c->options->events.on_phase)
        c->options->events.on_phase(c->options->events.context, text);
}

static void on_step(void *context, const pm_progress *progress)
{
    coordinator *c = context;
    pm_metric_set(c->step, (double)progress->step);
    pm_metric_set(c->loss, progress->loss);
    pm_metric_set(c->rate, progress->images_per_second);
    if (c->options->events.on_step)
        c->options->events.on_step(c->options->events.context, progress);
}

static void on_validation(void *context, uint64_t clock, double loss, double accuracy, uint64_t rows)
{
    coordinator *c = context;
    pm_log_info(&c->options->log, "validation", "clock=%llu loss=%.6f accuracy=%.6f rows=%llu",
                (unsigned long long)clock, loss, accuracy, (unsigned long long)rows);
    if (c->options->events.on_validation)
        c->options->events.on_validation(c->options->events.context, clock, loss, accuracy, rows);
}

static void on_metric(void *context, uint64_t clock, const char *name, double value)
{
    coordinator *c = context;
    pm_log_info(&c->options->log, "metric", "clock=%llu name=%s value=%.6f", (unsigned long long)clock, name,
                value);
    if (c->options->events.on_metric)
        c->options->events.on_metric(c->options->events.context, clock, name, value);
}

static void on_version(void *context, uint64_t version, uint64_t step)
{
    coordinator *c = context;
    pm_metric_set(c->version, (double)version);
    pm_log_info(&c->options->log, "version", "version=%llu step=%llu", (unsigned long long)version,
                (unsigned long long)step);
    if (c->options->events.on_version)
        c->options->events.on_version(c->options->events.context, version, step);
}

static void make_metrics(coordinator *c, pm_metrics *m)
{
    c->step = pm_gauge(m, "paramill_job_step", "Steps that all lanes have done.", "");
    c->loss = pm_gauge(m, "paramill_job_train_loss", "Training loss of the newest step.", "");
    c->rate = pm_gauge(m, "paramill_job_rows_per_second", "Training rows a second.", "");
    c->version = pm_gauge(m, "paramill_job_version", "Newest version that this run published.", "");
    c->running = pm_gauge(m, "paramill_job_running", "1 while the job runs.", "");
}

static pm_status open(coordinator *c)
{
    const pm_coordinator_options *o = c->options;
    make_metrics(c, o->metrics);
    const pm_roster_options roster = {
        .job = o->job,
        .train_rows = o->train_rows,
        .vocabulary = o->vocabulary,
        .resume = o->resume,
        .stay = o->stay,
        .absent_ms = o->absent_ms,
        .first_epoch = pm_wall_ms(),
        .events = {c, on_phase, on_step, on_validation, on_metric, on_version, NULL}};
    pm_status status = pm_roster_create(&c->roster, &roster, pm_now_ms(&o->clock));
    if (status.code == PM_OK)
        status = pm_socket_create(&c->socket, o->net, PM_SOCKET_ROUTER);
    if (status.code == PM_OK)
        status = pm_socket_bind(c->socket, o->bind);
    if (status.code == PM_OK)
        status = pm_loop_create(&c->loop, o->clock, NULL);
    if (status.code == PM_OK)
        status = pm_loop_add(c->loop, c->socket, on_message, c);
    if (status.code == PM_OK)
        status = pm_loop_timer(c->loop, TICK_MS, on_tick, c);
    return status;
}

pm_status pm_coordinator_run(const pm_coordinator_options *options)
{
    coordinator c = {.options = options};
    pm_status status = open(&c);
    if (status.code == PM_OK) {
        if (options->events.on_bound)
            options->events.on_bound(options->events.context, pm_socket_endpoint(c.socket));
        status = pm_loop_run(c.loop);
    }
    if (status.code == PM_OK)
        status = pm_roster_result(c.roster);
    if (options->ready)
        atomic_store(options->ready, false);
    pm_loop_destroy(&c.loop);
    pm_socket_destroy(&c.socket);
    pm_roster_destroy(&c.roster);
    return status;
}
