#include "model/onnx_external.h"

#include "model/onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL_MAX ((size_t)1 << 31)

enum { LOCATION_MAX = 1024, NUMBER_MAX = 20 };

typedef struct place {
    char location[LOCATION_MAX];
    uint64_t offset, length;
    bool has_length;
} place;

static bool read_number(pm_onnx_text text, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.bytes[i] < '0' || text.bytes[i] > '9')
            return false;
        *number = *number * 10 + (text.bytes[i] - '0');
    }
    return text.size > 0 && text.size < NUMBER_MAX; // fewer digits than would overflow
}

static bool read_location(pm_onnx_text text, char location[LOCATION_MAX])
{
    if (text.size == 0 || text.size >= LOCATION_MAX || memchr(text.bytes, '\0', text.size))
        return false;
    memcpy(location, text.bytes, text.size);
    location[text.size] = '\0';
    return true;
}

static bool read_entry(pm_wire entry, place *p)
{
    pm_wire_field field;
    pm_onnx_text key = {0}, value = {0};
    while (pm_wire_next(&entry, &field)) {
        if (field.number == ONNX_ENTRY_KEY)
            key = (pm_onnx_text){field.bytes, field.size};
        else if (field.number == ONNX_ENTRY_VALUE)
            value = (pm_onnx_text){field.bytes, field.size};
    }
    if (entry.bad)
        return false;
    if (pm_onnx_text_is(key, "location"))
        return read_location(value, p->location);
    if (pm_onnx_text_is(key, "offset"))
        return read_number(value, &p->offset);
    p->has_length = p->has_length || pm_onnx_text_is(key, "length");
    return !pm_onnx_text_is(key, "length") || read_number(value, &p->length);
}

static bool read_place(pm_wire message, place *p)
{
    pm_wire_field field;
    *p = (place){0};
    while (pm_wire_next(&message, &field))
        if (field.number == ONNX_TENSOR_EXTERNAL_DATA &&
            (field.type != PM_WIRE_BYTES || !read_entry(pm_wire_inner(&field), p)))
            return false;
    return !message.bad && p->location[0] != '\0';
}

// Opens a relative path below folder part by part, so that no link and no ".." leads out of it; -1 and errno,
// EXDEV for a path that is not of that kind.
static int open_below(const char *folder, char *path)
{
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (char *part = path, *end; at >= 0; part = end + 1) {
        end = strchr(part, '/');
        if (end)
            *end = '\0';
        const bool plain = part[0] && strcmp(part, ".") != 0 && strcmp(part, "..") != 0;
        const int next =
            plain ? openat(at, part, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (end ? O_DIRECTORY : 0))
                  : -1;
        const int why = plain ? errno : EXDEV;
        close(at);
        if (end)
            *end = '/';
        errno = why;
        if (next < 0 || !end)
            return next;
        at = next;
    }
    return at;
}

static bool read_all(int file, unsigned char *data, size_t size, uint64_t offset)
{
    for (size_t done = 0; done < size;) {
        const ssize_t got = pread(file, data + done, size - done, (off_t)(offset + done));
        if (got == 0 || (got < 0 && errno != EINTR))
            return false;
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static pm_status read_elements(int file, const place *p, const char *name, pm_region *region, pm_tensor *t)
{
    struct stat info;
    const size_t bytes = pm_tensor_bytes(t);
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
        return pm_fail(PM_INVALID, "tensor %.64s: %.80s is no regular file", name, p->location);
    if (p->offset > (uint64_t)info.st_size || bytes > (uint64_t)info.st_size - p->offset)
        return pm_fail(PM_CORRUPT, "tensor %.64s: %.80s has %lld bytes, wanted %zu from %llu on", name,
                       p->location, (long long)info.st_size, bytes, (unsigned long long)p->offset);
    unsigned char *data = pm_region_alloc(region, bytes);
    if (!data)
        return pm_fail(PM_NO_MEMORY, "tensor %.64s", name);
    if (!read_all(file, data, bytes, p->offset))
        return pm_fail(PM_IO, "tensor %.64s: %.80s cannot be read", name, p->location);
    for (size_t i = 0; t->type == PM_TYPE_BOOL && i < bytes; i++)
        data[i] = data[i] != 0;
    t->data = data;
    return pm_ok();
}

pm_status pm_onnx_external_read(pm_wire message, const char *name, const char *folder, pm_graph *graph,
                                pm_tensor *tensor, size_t *left)
{
    place p;
    const size_t bytes = pm_tensor_bytes(tensor);
    if (!read_place(message, &p))
        return pm_fail(PM_INVALID, "tensor %.64s: its external data have no proper place", name);
    if (p.has_length && p.length != bytes)
        return pm_fail(PM_INVALID, "tensor %.64s: %llu bytes of external data for %zu values", name,
                       (unsigned long long)p.length, tensor->count);
    if (bytes > *left)
        return pm_fail(PM_INVALID, "tensor %.64s: the model's external data exceed %zu bytes", name,
                       PM_ONNX_EXTERNAL_MAX);
    const int file = open_below(folder, p.location);
    if (file < 0 && (errno == EXDEV || errno == ELOOP || errno == ENOTDIR))
        return pm_fail(PM_INVALID, "tensor %.64s: %.80s is no path inside the model's folder", name,
                       p.location);
    if (file < 0)
        return pm_fail(PM_IO, "tensor %.64s: %.80s: %s", name, p.location, strerror(errno));
    pm_status status = read_elements(file, &p, name, graph->region, tensor);
    close(file);
    if (status.code == PM_OK)
        status = pm_graph_add_file(graph, p.location);
    *left -= status.code == PM_OK ? bytes : 0;
    return status;
}

// The folder that a file lies in; the caller frees it.
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? strdup(".")
                  : strndup(path, slash == path ? 1 : (size_t)(slash - path)); // "/a" lies in "/"
}

// Maps the file; an empty one is NULL.
static pm_status map_file(const char *path, void **bytes, size_t *size)
{
    struct stat info;
    pm_status status = pm_ok();
    const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    *bytes = NULL;
    *size = 0;
    if (file < 0)
        return pm_fail_errno("%s", path);
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
        status = pm_fail(PM_IO, "%s: it is no regular file", path);
    else if ((uint64_t)info.st_size > MODEL_MAX)
        status = pm_fail(PM_INVALID, "%s: it has %lld bytes, at most %zu are read", path,
                         (long long)info.st_size, MODEL_MAX);
    else if (info.st_size > 0)
        *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (*bytes == MAP_FAILED) {
        *bytes = NULL;
        status = pm_fail_errno("%s", path);
    }
    *size = *bytes ? (size_t)info.st_size : 0;
    close(file);
    return status;
}

pm_status pm_graph_load_onnx(pm_graph **graph, const char *path, const char *output)
{
    void *bytes = NULL;
    size_t size = 0;
    char *folder = folder_of(path);
    pm_status status = folder ? map_file(path, &bytes, &size) : pm_fail(PM_NO_MEMORY, "%s", path);
    if (status.code == PM_OK)
        status = pm_wrap(pm_graph_read_onnx_in(graph, bytes ? bytes : "", size, folder, output), "%s", path);
    if (bytes)
        munmap(bytes, size);
    free(folder);
    return status;
}

static void add_line(pm_digest *digest, const char *hex, const char *name)
{
    pm_digest_update(digest, hex, strlen(hex));
    pm_digest_update(digest, "  ", 2);
    pm_digest_update(digest, name, strlen(name));
    pm_digest_update(digest, "\n", 1);
}

pm_status pm_graph_digest_onnx(const pm_graph *graph, const char *path, char hex[PM_DIGEST_HEX])
{
    pm_digest *digest = NULL;
    char *folder = NULL;
    pm_status status = pm_digest_file(path, hex, NULL);
    if (status.code != PM_OK || graph->file_count == 0)
        return status;
    folder = folder_of(path);
    status = folder ? pm_digest_create(&digest) : pm_fail(PM_NO_MEMORY, "%s", path);
    if (status.code == PM_OK)
        add_line(digest, hex, "model");
    for (size_t i = 0; status.code == PM_OK && i < graph->file_count; i++) {
        char data[PATH_MAX];
        if (snprintf(data, sizeof data, "%s/%s", folder, graph->files[i]) >= (int)sizeof data)
            status = pm_fail(PM_INVALID, "%s: too long a path", graph->files[i]);
        if (status.code == PM_OK)
            status = pm_digest_file(data, hex, NULL);
        if (status.code == PM_OK)
            add_line(digest, hex, graph->files[i]);
    }
    if (status.code == PM_OK)
        pm_digest_finish(digest, hex);
    pm_digest_destroy(&digest);
    free(folder);
    return status;
}
