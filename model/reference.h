#pragma once
// Plain twins of the kernels: the shortest loops that say what is meant, summing in double. Tests hold the
// fast kernels against them.
#include "model/blas.h"
#include "model/kernels.h"
