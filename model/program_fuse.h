#pragma once
// Joins what one kernel does as fast as its first part alone: a product, convolution, sum or normalization by
// the batch's statistics with the rectifier over it, a convolution with rectifier and the pool over that,
// and, where nothing is trained, a convolution with the normalization over it, whose factors go into the
// weights. The first two change no bit; the third is done in every plan for inference alike, so that
// validation and serving agree.
#include "model/program.h"

// Call it before gradients are appended. In inference the nodes that make weights come last afterwards: they
// must be sorted.
pm_status pm_program_fuse(pm_graph *program, bool training) PM_CHECKED;
