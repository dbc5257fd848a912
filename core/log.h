#pragma once
// Logs: one key=value line an event on one stream, e.g.
//   time=2026-11-21T07:00:00Z level=info role=server rank=1 event=joined coordinator=tcp://…
// A line is written with one call, so lines of several threads and processes do not mix.
#include <stdio.h>

typedef enum pm_log_level { PM_LOG_DEBUG, PM_LOG_INFO, PM_LOG_WARN, PM_LOG_ERROR, PM_LOG_OFF } pm_log_level;

typedef struct pm_log {
    FILE *stream;       // not owned
    pm_log_level level; // lines below are dropped
    char role[16];
    int rank; // -1: not known yet, left out
} pm_log;

// A log on stderr; the level comes from the text ("debug", "info", "warn", "error", "off"), info when NULL or
// unknown.
pm_log pm_log_make(const char *role, int rank, const char *level);

// event is a word; format gives further "key=value" pairs, separated by spaces. Values with spaces: use
// "key=\"%s\"".
void pm_log_write(const pm_log *log, pm_log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define pm_log_debug(log, event, ...) pm_log_write(log, PM_LOG_DEBUG, event, __VA_ARGS__)
#define pm_log_info(log, event, ...) pm_log_write(log, PM_LOG_INFO, event, __VA_ARGS__)
#define pm_log_warn(log, event, ...) pm_log_write(log, PM_LOG_WARN, event, __VA_ARGS__)
#define pm_log_error(log, event, ...) pm_log_write(log, PM_LOG_ERROR, event, __VA_ARGS__)
