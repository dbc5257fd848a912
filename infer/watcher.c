#include "infer/watcher.h"

#include "net/actor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// Below whatever answers requests, but not so low that a busy machine never gets to load a version.
enum { NICE = 10, RETRY_MS = 1000 };

struct pm_watcher {
    pm_watcher_options options;
    pm_source *source;
    pm_actor *actor;
    atomic_bool halt;
    _Atomic(pm_model *) ready;   // loaded, not taken yet
    _Atomic(pm_model *) retired; // a list, to be freed
    // The rest is the thread's own.
    uint64_t loaded, bad;           // versions: handed over last; not to be tried again
    int64_t retry_us;               // no attempt before
    char complaint[PM_MESSAGE_MAX]; // logged last
    pm_metric *swaps, *failures, *seconds;
};

static void free_list(pm_model *model)
{
    for (pm_model *next; model; model = next) {
        next = model->next;
        pm_model_destroy(&model);
    }
}

// The same complaint is logged once.
static void complain(pm_watcher *w, pm_status why)
{
    if (strcmp(w->complaint, why.message) != 0)
        pm_log_warn(&w->options.log, "no_version", "version=%s why=\"%s\"", w->options.version, why.message);
    snprintf(w->complaint, sizeof w->complaint, "%s", why.message);
}

static bool may_pass(pm_code code)
{
    return code == PM_NO_MEMORY || code == PM_UNAVAILABLE || code == PM_TIMEOUT || code == PM_IO ||
           code == PM_CANCELLED;
}

static void fail(pm_watcher *w, uint64_t version, pm_status why)
{
    pm_metric_add(w->failures, 1);
    pm_log_error(&w->options.log, "load_failed", "version=%llu code=%s why=\"%s\"",
                 (unsigned long long)version, pm_code_name(why.code), why.message);
    if (may_pass(why.code))
        w->retry_us = pm_now_us(&w->options.clock) + (int64_t)RETRY_MS * 1000;
    else
        w->bad = version;
}

static void hand_over(pm_watcher *w, pm_model *model, pm_socket *pipe)
{
    w->loaded = model->version;
    w->bad = 0;
    w->complaint[0] = '\0';
    pm_model *overtaken = atomic_exchange(&w->ready, model);
    pm_model_destroy(&overtaken);
    pm_metric_add(w->swaps, 1);
    pm_message wake = {.header = pm_header_create(0, 0, PARAMILL__HEADER__BODY_ACK,
                                                  pm_proto_new(&paramill__ack__descriptor))};
    if (!wake.header)
        return; // the worker looks by itself, a little later
    pm_status sent = pm_socket_send(pipe, NULL, &wake);
    (void)sent;
}

static void look(pm_watcher *w, pm_socket *pipe)
{
    uint64_t version = 0;
    pm_model *model = NULL;
    if (pm_now_us(&w->options.clock) < w->retry_us)
        return;
    pm_status status = pm_source_resolve(w->source, w->options.version, &version);
    if (status.code != PM_OK) {
        complain(w, status);
        return;
    }
    if (version == w->loaded || version == w->bad)
        return;
    int64_t begin_us = pm_now_us(&w->options.clock);
    status = pm_source_fetch(w->source, version);
    if (status.code == PM_OK)
        status = pm_model_load(&model, pm_source_store(w->source), version, w->options.max_rows,
                               w->options.threads);
    if (status.code != PM_OK) {
        fail(w, version, status);
        return;
    }
    int64_t took_us = pm_now_us(&w->options.clock) - begin_us;
    pm_metric_observe_us(w->seconds, took_us);
    pm_log_info(&w->options.log, "loaded", "version=%llu digest=%.12s ms=%lld", (unsigned long long)version,
                model->digest, (long long)took_us / 1000);
    hand_over(w, model, pipe);
    status = pm_source_trim(w->source);
    if (status.code != PM_OK)
        pm_log_warn(&w->options.log, "cache", "why=\"%s\"", status.message);
}

static pm_status watch(void *argument, pm_socket *pipe)
{
    pm_watcher *w = argument;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    while (!atomic_load(&w->halt)) {
        pm_message message = {0};
        look(w, pipe);
        free_list(atomic_exchange(&w->retired, NULL));
        pm_status slept = pm_socket_receive(pipe, NULL, &message, (int)w->options.poll_ms);
        (void)slept; // a message only ends the sleep
        pm_message_clear(&message);
    }
    return pm_ok();
}

pm_status pm_watcher_start(pm_watcher **watcher, const pm_watcher_options *options)
{
    pm_watcher *w = calloc(1, sizeof *w);
    if (!w)
        return pm_fail(PM_NO_MEMORY, "a loader");
    w->options = *options;
    w->options.source.stop = &w->halt;
    w->swaps = pm_counter(options->metrics, "paramill_infer_loads_total", "versions loaded", "");
    w->failures = pm_counter(options->metrics, "paramill_infer_load_failures_total",
                             "versions that could not be loaded", "");
    w->seconds = pm_histogram(options->metrics, "paramill_infer_load_seconds", "time to load a version", "");
    pm_status status = pm_source_create(&w->source, &w->options.source);
    if (status.code == PM_OK)
        status = pm_actor_start(&w->actor, options->source.net, "loader", watch, w);
    if (status.code == PM_OK)
        *watcher = w;
    else
        pm_watcher_stop(&w);
    return status;
}

pm_socket *pm_watcher_pipe(pm_watcher *watcher)
{
    return pm_actor_pipe(watcher->actor);
}

pm_model *pm_watcher_take(pm_watcher *watcher)
{
    return atomic_exchange(&watcher->ready, NULL);
}

void pm_watcher_retire(pm_watcher *watcher, pm_model *model)
{
    if (!model)
        return;
    model->next = atomic_load(&watcher->retired);
    while (!atomic_compare_exchange_weak(&watcher->retired, &model->next, model))
        ;
}

void pm_watcher_stop(pm_watcher **watcher)
{
    if (!watcher || !*watcher)
        return;
    pm_watcher *w = *watcher;
    atomic_store(&w->halt, true);
    pm_status ended = pm_actor_join(&w->actor);
    (void)ended; // the thread's function does not fail
    free_list(atomic_exchange(&w->retired, NULL));
    free_list(atomic_exchange(&w->ready, NULL));
    pm_source_destroy(&w->source);
    free(w);
    *watcher = NULL;
}
