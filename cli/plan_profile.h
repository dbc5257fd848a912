#pragma once
// Times the tasks of a plan on random numbers.
#include "model/plan_view.h"

typedef struct pm_plan_profile_options {
    bool training;
    uint32_t rows, lanes; // of the run; lanes in training
    uint32_t repetitions; // odd
} pm_plan_profile_options;

// *median_ns: (tasks of the plan), the median of each task over the repetitions after one run to warm up;
// 0 for a task that does not run. Parameters without values get random ones, which do not outlive the call:
// the plan must not run again. The caller frees *median_ns.
pm_status pm_plan_profile(pm_plan *plan, const pm_graph *graph, pm_plan_profile_options options,
                          int64_t **median_ns) PM_CHECKED;
