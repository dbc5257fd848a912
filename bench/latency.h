#pragma once
// Quantiles of latencies.
#include <stddef.h>
#include <stdint.h>

// The q-quantile (0 … 1) of count values by nearest rank; sorts them. 0 when there are none.
int64_t pm_quantile(int64_t *values, size_t count, double q);
