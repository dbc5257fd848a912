#pragma once
// The one status of the project. A function that can fail returns pm_status; on its way up each caller may
// put its context in front, so that the last reader sees "outer: inner: cause".

typedef enum pm_code {
    PM_OK = 0,
    PM_INVALID,     // the caller's or the user's input is wrong
    PM_NOT_FOUND,   // a named thing does not exist
    PM_EXISTS,      // a named thing is there already
    PM_IO,          // the operating system refused (message holds strerror)
    PM_NO_MEMORY,   // allocation failed or a bound was reached
    PM_TIMEOUT,     // a deadline passed (message names what was waited for)
    PM_UNAVAILABLE, // try again or elsewhere: no capacity, no peer
    PM_PROTOCOL,    // a peer sent something that is not the protocol
    PM_CORRUPT,     // stored bytes do not match their digest or format
    PM_UNSUPPORTED, // known, but not built
    PM_CANCELLED,   // stopped on request
    PM_NOT_FINITE,  // NaN or infinity where a number is needed
    PM_STALE,       // of an earlier epoch, placement or clock
    PM_INTERNAL     // a bug
} pm_code;

enum { PM_MESSAGE_MAX = 256 };

typedef struct pm_status {
    pm_code code;
    char message[PM_MESSAGE_MAX]; // one line, no newline; empty when code is PM_OK
} pm_status;

#define PM_CHECKED __attribute__((warn_unused_result))

pm_status pm_ok(void);

// A failure with a printf message.
pm_status pm_fail(pm_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// A PM_IO failure whose message ends in strerror(errno); ENOENT becomes PM_NOT_FOUND, EEXIST PM_EXISTS.
pm_status pm_fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The same failure with "context: " in front; a PM_OK status is returned as it is.
pm_status pm_wrap(pm_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// "invalid", "timeout", … : a stable word for logs and metrics.
const char *pm_code_name(pm_code code);
