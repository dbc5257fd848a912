#pragma once
// Counters, gauges and histograms, rendered as Prometheus text (exposition format 0.0.4). A metric is made
// once and then updated from any thread without a lock; rendering reads a moment's values.
#include "core/status.h"
#include "core/text.h"

#include <stdint.h>

typedef struct pm_metrics pm_metrics;
typedef struct pm_metric pm_metric; // owned by its registry

pm_status pm_metrics_create(pm_metrics **metrics) PM_CHECKED;
void pm_metrics_destroy(pm_metrics **metrics);

// name: [a-z_]+ with the unit as suffix, help: one line, labels: `role="server",rank="0"` or "". The same
// name may be made again with other labels (same help and kind). NULL metrics or lack of memory gives NULL,
// which every update accepts and ignores, so a role without metrics needs no branches.
pm_metric *pm_counter(pm_metrics *metrics, const char *name, const char *help, const char *labels);
pm_metric *pm_gauge(pm_metrics *metrics, const char *name, const char *help, const char *labels);

// A histogram of seconds with bounds 0.1 ms · 2^i, i = 0 … 19, and +Inf.
pm_metric *pm_histogram(pm_metrics *metrics, const char *name, const char *help, const char *labels);

void pm_metric_add(pm_metric *counter, uint64_t amount);
void pm_metric_set(pm_metric *gauge, double value);
void pm_metric_observe_us(pm_metric *histogram, int64_t microseconds);

// Appends the whole registry.
void pm_metrics_render(pm_metrics *metrics, pm_text *text);
