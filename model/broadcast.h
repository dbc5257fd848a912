#pragma once
// Walking over inputs that are broadcast to one output, lanes included. Axes that all operands cross alike
// are merged, so that equal shapes are one long run.
#include "model/task.h"

enum { PM_BROADCAST_INPUTS = 3 };

typedef struct pm_broadcast {
    uint32_t inputs, rank;                               // axes after the lanes
    size_t extent[PM_MAX_RANK];                          // of the output, at least one axis
    size_t stride[PM_BROADCAST_INPUTS][PM_MAX_RANK];     // elements; the last axis: 0 or 1
    size_t lane_stride[PM_BROADCAST_INPUTS], lane_count; // elements from lane to lane
    bool dense;                                          // every operand is as the output, lanes included
} pm_broadcast;

// A run of n output elements starting at element at; input i's run starts at from[i] and advances by step[i]
// (0 or 1).
typedef struct pm_run {
    size_t at, n;
    size_t from[PM_BROADCAST_INPUTS], step[PM_BROADCAST_INPUTS];
} pm_run;

// The task's first inputs inputs, all there, to its output 0.
void pm_broadcast_make(pm_broadcast *b, const pm_task *task, uint32_t inputs);

// Calls body for each run of all lanes, in the order of the output.
void pm_broadcast_walk(const pm_broadcast *b, size_t lanes, void (*body)(const void *ctx, const pm_run *run),
                       const void *ctx);
