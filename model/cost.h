#pragma once
// What a task costs, counted from shapes.
#include "model/task.h"

// Floating-point operations of one lane: a multiply-add is two, any other element made is one times what the
// operator does for it (transcendental functions count as one); what only moves elements is free.
uint64_t pm_task_flops(const pm_task *task);

// Bytes that one lane reads and writes, each input and output once; what is shared costs a lane nothing.
size_t pm_task_lane_bytes(const pm_task *task);

// About the nanoseconds that a core takes for one lane.
uint64_t pm_task_lane_ns(const pm_task *task);
