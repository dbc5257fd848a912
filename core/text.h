#pragma once
// A growing string, for what has no bound known beforehand: status pages, metrics, and for whole files.
#include "core/status.h"

#include <stddef.h>

typedef struct pm_text {
    char *data; // NUL-terminated once anything was added; NULL before
    size_t size;
    size_t capacity;
    int failed; // out of memory: data is incomplete
} pm_text;

void pm_text_add(pm_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pm_text_add_bytes(pm_text *text, const void *bytes, size_t size);
void pm_text_free(pm_text *text);

// The whole of a file of at most limit bytes, NUL-terminated, owned by the caller.
pm_status pm_read_file(const char *path, size_t limit, char **bytes, size_t *size) PM_CHECKED;
