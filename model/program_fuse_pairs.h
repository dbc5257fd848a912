#pragma once
// A Gather of constant places along the products of a row's vectors with each other, as in DLRM:
// Gather(Flatten(MatMul(x, Transpose(x)))) becomes one PairProducts, which never writes all products down.
// Elements are the same sums.
#include "model/graph_impl.h"

pm_status pm_program_fuse_pairs(pm_graph *program) PM_CHECKED;
