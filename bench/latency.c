#include "bench/latency.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int64_t pm_quantile(int64_t *values, size_t count, double q)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, ascending);
    size_t rank = (size_t)ceil(q * (double)count);
    return values[rank > 0 ? rank - 1 : 0];
}
