#include "core/log.h"

#include "core/clock.h"

#include <stdarg.h>
#include <string.h>

static const char *const LEVELS[] = {"debug", "info", "warn", "error", "off"};

pm_log pm_log_make(const char *role, int rank, const char *level)
{
    pm_log log = {stderr, PM_LOG_INFO, "", rank};
    snprintf(log.role, sizeof log.role, "%s", role);
    for (int i = PM_LOG_DEBUG; level && i <= PM_LOG_OFF; i++)
        if (!strcmp(level, LEVELS[i]))
            log.level = (pm_log_level)i;
    return log;
}

void pm_log_write(const pm_log *log, pm_log_level level, const char *event, const char *format, ...)
{
    if (level < log->level || level >= PM_LOG_OFF)
        return;
    char time[21], rank[24] = "", line[1024];
    pm_wall_time(time);
    if (log->rank >= 0)
        snprintf(rank, sizeof rank, " rank=%d", log->rank);
    int used = snprintf(line, sizeof line, "time=%s level=%s role=%s%s event=%s", time, LEVELS[level],
                        log->role, rank, event);
    if (*format) {
        line[used++] = ' ';
        va_list args;
        va_start(args, format);
        int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
        va_end(args);
        used = more < 0 ? used : used + more;
    }
    if ((size_t)used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    fwrite(line, 1, (size_t)used, log->stream);
}
