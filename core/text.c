#include "core/text.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int reserve(pm_text *text, size_t more)
{
    if (text->failed)
        return 0;
    size_t need = text->size + more + 1;
    if (need <= text->capacity)
        return 1;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = 1;
        return 0;
    }
    text->data = data;
    text->capacity = capacity;
    return 1;
}

void pm_text_add(pm_text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (need >= 0 && reserve(text, (size_t)need)) {
        vsnprintf(text->data + text->size, (size_t)need + 1, format, again);
        text->size += (size_t)need;
    }
    va_end(again);
}

void pm_text_add_bytes(pm_text *text, const void *bytes, size_t size)
{
    if (!reserve(text, size))
        return;
    memcpy(text->data + text->size, bytes, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void pm_text_free(pm_text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

static pm_status read_all(int fd, const char *path, size_t limit, char **bytes, size_t *size)
{
    pm_text text = {0};
    char piece[65536];
    for (;;) {
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0) {
            pm_text_free(&text);
            return pm_fail_errno("%s", path);
        }
        if (got == 0)
            break;
        if (text.size + (size_t)got > limit) {
            pm_text_free(&text);
            return pm_fail(PM_INVALID, "%s: larger than %zu bytes", path, limit);
        }
        pm_text_add_bytes(&text, piece, (size_t)got);
    }
    pm_text_add_bytes(&text, "", 0);
    if (text.failed) {
        pm_text_free(&text);
        return pm_fail(PM_NO_MEMORY, "%s: no memory to read it", path);
    }
    *bytes = text.data;
    *size = text.size;
    return pm_ok();
}

pm_status pm_read_file(const char *path, size_t limit, char **bytes, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno("%s", path);
    pm_status status = read_all(fd, path, limit, bytes, size);
    close(fd);
    return status;
}
