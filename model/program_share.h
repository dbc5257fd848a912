#pragma once
// Common subexpressions of a program.
#include "model/graph_impl.h"

// Nodes of one operator, inputs and attributes become the first of them: whoever reads another's outputs
// reads the first's. The others are left without readers, for pm_program_prune. Random numbers stay apart, as
// does what gathers statistics.
pm_status pm_program_share(pm_graph *program) PM_CHECKED;
