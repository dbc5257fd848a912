#include "core/clock.h"

#include <time.h>

static int64_t monotonic_us(void *state)
{
    (void)state;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

pm_clock pm_clock_monotonic(void)
{
    return (pm_clock){monotonic_us, 0};
}

void pm_wall_time(char text[21])
{
    time_t now = time(0);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(text, 21, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

uint64_t pm_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}
