#pragma once
// Time is passed in: a role reads the clock it was given, the simulator gives its own.
#include <stdint.h>

typedef struct pm_clock {
    int64_t (*now_us)(void *state); // monotonic microseconds
    void *state;
} pm_clock;

// The machine's CLOCK_MONOTONIC.
pm_clock pm_clock_monotonic(void);

static inline int64_t pm_now_us(const pm_clock *clock)
{
    return clock->now_us(clock->state);
}

static inline int64_t pm_now_ms(const pm_clock *clock)
{
    return clock->now_us(clock->state) / 1000;
}

// Wall time as RFC 3339 in UTC, "2026-11-21T07:00:00Z"; text holds 21 bytes.
void pm_wall_time(char text[21]);

// Milliseconds since 1970: a number that grows over restarts.
uint64_t pm_wall_ms(void);
