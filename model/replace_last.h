#pragma once
// A fresh last layer for a model that came in as a file.
#include "model/graph_impl.h"

// Gives the layer that makes the first output, a Gemm or a MatMul with or without an Add, units outputs:
// weights drawn anew as pm_graph_from_job says, biases 0, under their old names. PM_INVALID when the output
// is made otherwise, or its weights are not its own.
pm_status pm_graph_replace_last(pm_graph *graph, uint64_t seed, uint32_t units) PM_CHECKED;
