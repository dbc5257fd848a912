// pm_characters_parse over arbitrary bytes: every number is below the vocabulary's size.
#include "worker/characters.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_characters c;
    if (pm_characters_parse(&c, data, size).code != PM_OK)
        return 0;
    for (size_t i = 0; i < c.count; i++)
        if (c.numbers[i] >= c.size)
            abort();
    pm_characters_free(&c);
    return 0;
}
