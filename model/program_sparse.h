#pragma once
// Embeddings whose gradients are of the rows that a step touches. In the training program of a graph with
// sparse parameters the ids that a step reads are known before any parameter is: what they follow from comes
// first, then one node a parameter that sorts them (Rows). The parameter itself becomes its rows of the step,
// side by side in the order of their ids, and its Gathers read them by place.
#include "model/graph_impl.h"

// Values of the program, of one sparse parameter; PM_NO_VALUE where it is not one, or nothing reads it.
typedef struct pm_sparse_values {
    uint32_t ids;   // (most rows) int32, ascending
    uint32_t count; // (1) int32: how many there are
} pm_sparse_values;

// Rewrites the Gathers of sparse parameters for steps of at most max_lanes lanes. found: (program params).
// PM_UNSUPPORTED names the parameter whose ids do not follow from the inputs alone.
pm_status pm_program_sparse(pm_graph *program, uint32_t max_lanes, pm_sparse_values *found) PM_CHECKED;

// PM_UNSUPPORTED unless nothing reads the source's parameter but Gathers of its rows.
pm_status pm_graph_check_sparse(const pm_graph *source, size_t param) PM_CHECKED;
