// pm_manifest_decode over arbitrary bytes; what it accepts is written and read back.
#include "snapshot/manifest.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_manifest manifest = {0}, back = {0};
    char *json = NULL;
    if (pm_manifest_decode(&manifest, (const char *)data, size).code != PM_OK)
        return 0;
    if (pm_manifest_encode(&manifest, &json).code != PM_OK ||
        pm_manifest_decode(&back, json, strlen(json)).code != PM_OK ||
        strcmp(manifest.digest, back.digest) != 0)
        abort();
    free(json);
    pm_manifest_free(&back);
    pm_manifest_free(&manifest);
    return 0;
}
