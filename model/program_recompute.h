#pragma once
// Less memory for more work: activations that the backward pass makes again instead of keeping them (gradient
// checkpointing; Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost",
// https://arxiv.org/abs/1604.06174).
#include "model/graph_impl.h"

// Cuts the forward nodes [0, forward_count) of a program with its gradient into segments of about equally
// many kept bytes. What the backward nodes read of a segment, the last one aside, is made again before they
// first read it, from what crossed into the segment. Bits do not change: the same kernels see the same
// operands, and a random mask is a function of its place. segments of 0 and 1 change nothing.
pm_status pm_program_recompute(pm_graph *program, size_t forward_count, uint32_t segments) PM_CHECKED;
