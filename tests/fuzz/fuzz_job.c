// pm_job_parse over arbitrary text; a refusal is one line.
#include "core/job.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1);
    pm_job *job = NULL;
    if (!text)
        return 0;
    memcpy(text, data, size);
    pm_status status = pm_job_parse(&job, text, "fuzz");
    if (status.code != PM_OK && (!status.message[0] || strchr(status.message, '\n')))
        abort();
    pm_job_destroy(&job);
    free(text);
    return 0;
}
