#include "core/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

pm_status pm_ok(void)
{
    pm_status status;
    status.code = PM_OK;
    status.message[0] = '\0';
    return status;
}

pm_status pm_fail(pm_code code, const char *format, ...)
{
    pm_status status;
    status.code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(status.message, sizeof status.message, format, args);
    va_end(args);
    return status;
}

pm_status pm_fail_errno(const char *format, ...)
{
    int error = errno;
    pm_status status;
    status.code = error == ENOENT ? PM_NOT_FOUND : error == EEXIST ? PM_EXISTS : PM_IO;
    va_list args;
    va_start(args, format);
    vsnprintf(status.message, sizeof status.message, format, args);
    va_end(args);
    size_t used = strlen(status.message);
    snprintf(status.message + used, sizeof status.message - used, ": %s", strerror(error));
    return status;
}

pm_status pm_wrap(pm_status status, const char *format, ...)
{
    if (status.code == PM_OK)
        return status;
    pm_status wrapped;
    wrapped.code = status.code;
    va_list args;
    va_start(args, format);
    vsnprintf(wrapped.message, sizeof wrapped.message, format, args);
    va_end(args);
    size_t used = strlen(wrapped.message);
    snprintf(wrapped.message + used, sizeof wrapped.message - used, ": %.*s", (int)sizeof status.message,
             status.message);
    return wrapped;
}

const char *pm_code_name(pm_code code)
{
    static const char *const names[] = {"ok",          "invalid",   "not_found",   "exists",   "io",
                                        "no_memory",   "timeout",   "unavailable", "protocol", "corrupt",
                                        "unsupported", "cancelled", "not_finite",  "stale",    "internal"};
    return (unsigned)code < sizeof names / sizeof names[0] ? names[code] : "unknown";
}
