#pragma once
// What a person sees of a job that runs: a line that moves on a terminal, a line every few seconds elsewhere,
// and one line for each validation and each version.
#include "cluster/coordinator.h"

typedef struct pm_progress_view {
    bool terminal;
    bool open; // an unfinished line is on the terminal
    int64_t shown_ms;
    pm_clock clock;
} pm_progress_view;

// The events write to standard output; view outlives them.
pm_coordinator_events pm_progress_events(pm_progress_view *view);

// Ends an unfinished line.
void pm_progress_end(pm_progress_view *view);
