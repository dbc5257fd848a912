#include "core/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 20 };

typedef enum kind { COUNTER, GAUGE, HISTOGRAM } kind;

struct pm_metric {
    pm_metric *next;
    kind kind;
    char *name, *help, *labels;
    _Atomic uint64_t count;  // counter value, histogram observations
    _Atomic double value;    // gauge
    _Atomic uint64_t sum_us; // histogram
    _Atomic uint64_t
        buckets[BUCKETS]; // histogram: observations at or below the bound and above the one before
};

struct pm_metrics {
    pthread_mutex_t lock; // guards the list, not the values
    pm_metric *first;
};

pm_status pm_metrics_create(pm_metrics **metrics)
{
    pm_metrics *m = calloc(1, sizeof *m);
    if (!m)
        return pm_fail(PM_NO_MEMORY, "a metrics registry");
    pthread_mutex_init(&m->lock, NULL);
    *metrics = m;
    return pm_ok();
}

static void metric_free(pm_metric *metric)
{
    free(metric->name);
    free(metric->help);
    free(metric->labels);
    free(metric);
}

void pm_metrics_destroy(pm_metrics **metrics)
{
    if (!metrics || !*metrics)
        return;
    for (pm_metric *m = (*metrics)->first, *next; m; m = next) {
        next = m->next;
        metric_free(m);
    }
    pthread_mutex_destroy(&(*metrics)->lock);
    free(*metrics);
    *metrics = NULL;
}

static pm_metric *metric_new(kind k, const char *name, const char *help, const char *labels)
{
    pm_metric *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->kind = k;
    m->name = strdup(name);
    m->help = strdup(help);
    m->labels = strdup(labels ? labels : "");
    if (m->name && m->help && m->labels)
        return m;
    metric_free(m);
    return NULL;
}

// Keeps metrics of one name together, as the text format asks; the same name and labels give the same metric.
static pm_metric *metric_add(pm_metrics *metrics, kind k, const char *name, const char *help,
                             const char *labels)
{
    if (!metrics)
        return NULL;
    pthread_mutex_lock(&metrics->lock);
    pm_metric **place = &metrics->first, **after_name = NULL, *found = NULL;
    for (; *place && !found; place = &(*place)->next) {
        if (strcmp((*place)->name, name) != 0)
            continue;
        after_name = &(*place)->next;
        if (!strcmp((*place)->labels, labels ? labels : ""))
            found = *place;
    }
    if (!found && (found = metric_new(k, name, help, labels))) {
        pm_metric **at = after_name ? after_name : place;
        found->next = *at;
        *at = found;
    }
    pthread_mutex_unlock(&metrics->lock);
    return found;
}

pm_metric *pm_counter(pm_metrics *metrics, const char *name, const char *help, const char *labels)
{
    return metric_add(metrics, COUNTER, name, help, labels);
}

pm_metric *pm_gauge(pm_metrics *metrics, const char *name, const char *help, const char *labels)
{
    return metric_add(metrics, GAUGE, name, help, labels);
}

pm_metric *pm_histogram(pm_metrics *metrics, const char *name, const char *help, const char *labels)
{
    return metric_add(metrics, HISTOGRAM, name, help, labels);
}

void pm_metric_add(pm_metric *counter, uint64_t amount)
{
    if (counter)
        atomic_fetch_add_explicit(&counter->count, amount, memory_order_relaxed);
}

void pm_metric_set(pm_metric *gauge, double value)
{
    if (gauge)
        atomic_store_explicit(&gauge->value, value, memory_order_relaxed);
}

void pm_metric_observe_us(pm_metric *histogram, int64_t microseconds)
{
    if (!histogram)
        return;
    uint64_t us = microseconds > 0 ? (uint64_t)microseconds : 0;
    int bucket = 0;
    while (bucket < BUCKETS && us > UINT64_C(100) << bucket)
        bucket++;
    if (bucket < BUCKETS)
        atomic_fetch_add_explicit(&histogram->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->count, 1, memory_order_relaxed);
}

static void render_histogram(pm_metric *m, pm_text *text)
{
    const char *comma = m->labels[0] ? "," : "";
    uint64_t total = 0;
    for (int i = 0; i < BUCKETS; i++) {
        total += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
        pm_text_add(text, "%s_bucket{%s%sle=\"%g\"} %llu\n", m->name, m->labels, comma,
                    (double)(UINT64_C(100) << i) * 1e-6, (unsigned long long)total);
    }
    unsigned long long count = atomic_load_explicit(&m->count, memory_order_relaxed);
    if (count < total)
        count = total; // an observation between the two reads
    pm_text_add(text, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", m->name, m->labels, comma, count);
    const char *open = m->labels[0] ? "{" : "", *close = m->labels[0] ? "}" : "";
    pm_text_add(text, "%s_sum%s%s%s %.6f\n", m->name, open, m->labels, close,
                (double)atomic_load_explicit(&m->sum_us, memory_order_relaxed) * 1e-6);
    pm_text_add(text, "%s_count%s%s%s %llu\n", m->name, open, m->labels, close, count);
}

void pm_metrics_render(pm_metrics *metrics, pm_text *text)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const char *previous = "";
    pthread_mutex_lock(&metrics->lock);
    for (pm_metric *m = metrics->first; m; m = m->next) {
        if (strcmp(previous, m->name) != 0)
            pm_text_add(text, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
        previous = m->name;
        if (m->kind == HISTOGRAM) {
            render_histogram(m, text);
            continue;
        }
        const char *open = m->labels[0] ? "{" : "", *close = m->labels[0] ? "}" : "";
        if (m->kind == COUNTER)
            pm_text_add(text, "%s%s%s%s %llu\n", m->name, open, m->labels, close,
                        (unsigned long long)atomic_load_explicit(&m->count, memory_order_relaxed));
        else
            pm_text_add(text, "%s%s%s%s %.17g\n", m->name, open, m->labels, close,
                        atomic_load_explicit(&m->value, memory_order_relaxed));
    }
    pthread_mutex_unlock(&metrics->lock);
}
