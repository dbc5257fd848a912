// pm_idx_parse over arbitrary bytes: the values it finds lie inside them.
#include "worker/idx.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_idx idx;
    if (pm_idx_parse(&idx, data, size).code != PM_OK)
        return 0;
    size_t values = idx.row_count * idx.shape[0] * (idx.type == PM_IDX_F32 ? sizeof(float) : 1);
    if ((const uint8_t *)idx.values < data || (size_t)((const uint8_t *)idx.values - data) + values > size)
        abort();
    return 0;
}
