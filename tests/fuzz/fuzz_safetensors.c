// pm_safetensors_parse over arbitrary bytes: every tensor it gives lies inside them.
#include "snapshot/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_safetensors *file = NULL;
    if (pm_safetensors_parse(&file, data, size).code != PM_OK)
        return 0;
    for (size_t i = 0; i < pm_safetensors_count(file); i++) {
        const pm_tensor_view *view = pm_safetensors_get(file, i);
        if (pm_safetensors_find(file, view->name) != view || view->size > size)
            abort();
        unsigned char sum = 0; // reads every byte, so that a sanitizer sees one too far
        for (size_t k = 0; k < view->size; k++)
            sum ^= ((const unsigned char *)view->data)[k];
        if (sum == 0x5A && view->size == SIZE_MAX)
            abort();
    }
    pm_safetensors_close(&file);
    return 0;
}
