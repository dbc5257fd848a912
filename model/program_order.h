#pragma once
#include "model/graph_impl.h"
#include "model/operators.h"
pm_status pm_program_order(pm_graph *p, size_t forward) PM_CHECKED;
