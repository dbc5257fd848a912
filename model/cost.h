#pragma once
// What a task costs, counted from shapes.
#include "model/task.h"

// Floating-point operations of one lane: a multiply-add is two, any other element made is one times what the
// operator does for it (transcendental functions count as one); what only moves elements is free.
uint64_t pm_task_flops(const pm_task *task);
