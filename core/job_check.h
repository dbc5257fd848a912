#pragma once
// What core/job.c does with a job once it is read: defaults, and what the schema cannot say.
#include "core/job.h"

// Puts the defaults of core/job.h where the file says nothing.
void pm_job_complete(pm_job *job);

// PM_INVALID names what is wrong, without the file; PM_UNSUPPORTED what is not built.
pm_status pm_job_check(const pm_job *job) PM_CHECKED;
