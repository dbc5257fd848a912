#pragma once
// The small HTTP face of every role: GET /metrics (Prometheus text), /healthz (200 while the process answers)
// and /readyz (200 or 503). Runs on its own thread.
#include "core/metrics.h"
#include "core/status.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct pm_http pm_http;

// listen: "host:port" or ":port" (all addresses); port 0 takes any free one. metrics and ready stay the
// caller's and outlive the server. A port in use is PM_EXISTS.
pm_status pm_http_create(pm_http **http, const char *listen, pm_metrics *metrics,
                         const atomic_bool *ready) PM_CHECKED;
void pm_http_destroy(pm_http **http);

uint16_t pm_http_port(const pm_http *http);
