#pragma once
// The task tables of operators with files of their own, for model/tasks.c.
#include "model/plan_impl.h"

extern const pm_task_kind PM_TASK_GEMM, PM_TASK_CONV, PM_TASK_MAX_POOL, PM_TASK_AVERAGE_POOL,
    PM_TASK_BATCH_NORMALIZATION;
