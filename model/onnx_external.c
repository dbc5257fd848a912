#include "model/onnx_external.h"

#include "core/text.h"
#include "model/onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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

pm_status pm_onnx_external_read(pm_wire message, const char *name, const char *folder, pm_region *region,
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
    pm_status status = read_elements(file, &p, name, region, tensor);
    close(file);
    *left -= status.code == PM_OK ? bytes : 0;
    return status;
}

pm_status pm_graph_load_onnx(pm_graph **graph, const char *path)
{
    char *bytes = NULL, *folder = strdup(path);
    size_t size = 0;
    pm_status status =
        folder ? pm_read_file(path, MODEL_MAX, &bytes, &size) : pm_fail(PM_NO_MEMORY, "%s", path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash)
        slash[slash == folder] = '\0'; // "/model.onnx" lies in "/"
    if (status.code == PM_OK)
        status = pm_wrap(pm_graph_read_onnx_in(graph, bytes, size, slash ? folder : "."), "%s", path);
    free(bytes);
    free(folder);
    return status;
}
