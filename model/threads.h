#pragma once
// The threads that a plan's work is shared among: one that calls and others that wait for work. How work is
// cut never changes a bit: a part is lanes that do not depend on each other, or elements of a sum that is
// made along the same tree.
#include "core/status.h"

#include <stdint.h>

typedef struct pm_threads pm_threads;

enum { PM_THREADS_MAX = 256 };

// Starts count - 1 threads, 1 <= count <= PM_THREADS_MAX (PM_INVALID). They keep looking for work for some
// hundred microseconds after the last, then sleep. The caller owns *threads.
pm_status pm_threads_create(pm_threads **threads, uint32_t count) PM_CHECKED;

// The caller's included; 1 for NULL.
uint32_t pm_threads_count(const pm_threads *threads);

// part(ctx, i) for each i in [0, count of threads), i = 0 on the calling thread; returns when all are done.
// For one caller at a time. NULL: part(ctx, 0).
void pm_threads_run(pm_threads *threads, void (*part)(void *ctx, uint32_t index), void *ctx);

// Ends the threads, frees them and sets *threads to NULL; NULL is allowed.
void pm_threads_destroy(pm_threads **threads);
