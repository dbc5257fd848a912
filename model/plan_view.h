#pragma once
// What is inside a plan, to be looked at: its tasks in order, its values and where they lie, what each task
// computes and moves, how long it takes. Everything viewed is owned by the plan and lives as long.
#include "model/plan.h"

// Where a value lies.
typedef enum pm_value_place {
    PM_VALUE_CONSTANT, // the graph's
    PM_VALUE_BOUND,    // the caller's: bound parameters, a request's inputs and outputs
    PM_VALUE_KEPT,     // in the plan's reservation, as long as the plan lives
    PM_VALUE_SHARED    // in the plan's reservation, in a place that serves others at other times
} pm_value_place;

typedef struct pm_value_view {
    const char *name;     // NULL: the plan's own
    const char *type;     // "float32"
    const int64_t *shape; // rank extents, of one lane
    uint32_t rank;
    bool per_lane; // one for each lane, side by side; else one for all
    pm_value_place place;
    uint32_t root;        // the value whose memory it uses: itself, or that of an alias
    size_t offset, bytes; // KEPT, SHARED: in the reservation; bytes for all lanes that are there at once
    uint32_t first, last; // the tasks between which the memory of root is taken, inclusive
} pm_value_view;

typedef struct pm_task_view {
    const char *node, *op; // of the model's node that it comes from
    bool backward;         // after the loss
    bool view;             // renames its input: nothing runs
    bool pairs;            // rounds its operands to bfloat16
    bool once;             // the same for every lane; in inference made once, when the plan is prepared
    const uint32_t *inputs, *outputs; // values; UINT32_MAX where left out
    uint32_t input_count, output_count;
    uint64_t flops; // a step or request of all lanes: floating-point operations by the usual count
    uint64_t moved; // and bytes read and written, each input and output once
    size_t scratch_offset, scratch_bytes; // 0 bytes: none
    size_t packed_offset, packed_bytes;   // frozen inputs in the kernel's layout
} pm_task_view;

size_t pm_plan_values(const pm_plan *plan);
size_t pm_plan_tasks(const pm_plan *plan);

// The value at index < pm_plan_values. A value that no task makes or reads has first > last.
pm_value_view pm_plan_value(const pm_plan *plan, size_t index);

// The task at index < pm_plan_tasks.
pm_task_view pm_plan_task(const pm_plan *plan, size_t index);

// The highest byte of the reservation in use, kept and shared; pm_plan_bytes is this rounded up to pages.
size_t pm_plan_peak(const pm_plan *plan);

// From now on each run leaves the nanoseconds of every task in nanoseconds (pm_plan_tasks), the caller's;
// tasks that do not run keep what is there. now_ns is a clock. NULL ends it.
void pm_plan_time_tasks(pm_plan *plan, int64_t (*now_ns)(void), int64_t *nanoseconds);
