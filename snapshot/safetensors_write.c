#include "core/text.h"
#include "snapshot/safetensors.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pm_safetensors_writer {
    int fd;
    char *path;
    size_t count;
    uint64_t *offsets; // count + 1, from the beginning of the file
    uint64_t *written; // bytes a tensor got so far
    char **names;
};

static pm_status spec_size(const pm_tensor_spec *spec, uint64_t *size)
{
    if (!spec->name || !strcmp(spec->name, "__metadata__") || spec->rank > PM_MAX_RANK)
        return pm_fail(PM_INVALID, "a tensor without a usable name and rank");
    *size = pm_dtype_size(spec->dtype);
    for (uint32_t i = 0; i < spec->rank; i++)
        if (__builtin_mul_overflow(*size, spec->shape[i], size) || *size > INT64_MAX)
            return pm_fail(PM_INVALID, "tensor %s: a shape beyond any memory", spec->name);
    return pm_ok();
}

// One entry; 0 when the name is taken or no text.
static int add_entry(json_t *header, const pm_tensor_spec *spec, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();
    for (uint32_t i = 0; i < spec->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)spec->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", pm_dtype_name(spec->dtype), "shape", shape,
                              "data_offsets", (json_int_t)begin, (json_int_t)end);
    if (!entry || json_object_get(header, spec->name)) {
        json_decref(entry);
        return 0;
    }
    return json_object_set_new(header, spec->name, entry) == 0;
}

static int add_metadata(json_t *header, const char *const *keys, const char *const *values, size_t count)
{
    if (count == 0)
        return 1;
    json_t *metadata = json_object();
    for (size_t i = 0; i < count; i++)
        if (json_object_set_new(metadata, keys[i], json_string(values[i]))) {
            json_decref(metadata);
            return 0;
        }
    return json_object_set_new(header, "__metadata__", metadata) == 0;
}

// Fills offsets relative to the data and the JSON header.
static pm_status lay_out(pm_safetensors_writer *w, json_t *header, const pm_tensor_spec *tensors)
{
    w->offsets[0] = 0;
    for (size_t i = 0; i < w->count; i++) {
        uint64_t size = 0;
        pm_status status = spec_size(&tensors[i], &size);
        if (status.code != PM_OK)
            return status;
        if (__builtin_add_overflow(w->offsets[i], size, &w->offsets[i + 1]) ||
            w->offsets[i + 1] > INT64_MAX / 2)
            return pm_fail(PM_INVALID, "tensor %s: more data than a file can hold", tensors[i].name);
        if (!add_entry(header, &tensors[i], w->offsets[i], w->offsets[i + 1]))
            return pm_fail(PM_INVALID, "tensor %s: named twice, or a name that is no UTF-8", tensors[i].name);
        w->names[i] = strdup(tensors[i].name);
        if (!w->names[i])
            return pm_fail(PM_NO_MEMORY, "a tensor's name");
    }
    return pm_ok();
}

static pm_status write_all(int fd, const void *data, size_t size, uint64_t at, const char *path)
{
    const char *next = data;
    while (size > 0) {
        ssize_t wrote = pwrite(fd, next, size, (off_t)at);
        if (wrote < 0)
            return pm_fail_errno("cannot write %s", path);
        next += wrote;
        at += (uint64_t)wrote;
        size -= (size_t)wrote;
    }
    return pm_ok();
}

static pm_status write_header(pm_safetensors_writer *w, const json_t *header)
{
    char *json = json_dumps(header, JSON_COMPACT);
    if (!json)
        return pm_fail(PM_NO_MEMORY, "the header of %s", w->path);
    pm_text text = {0};
    pm_text_add_bytes(&text, "\0\0\0\0\0\0\0", 8);
    pm_text_add_bytes(&text, json, strlen(json));
    free(json);
    while (!text.failed && text.size % PM_SAFETENSORS_ALIGN)
        pm_text_add_bytes(&text, " ", 1);
    pm_status status = pm_ok();
    if (text.failed)
        status = pm_fail(PM_NO_MEMORY, "the header of %s", w->path);
    else if (text.size - 8 > PM_SAFETENSORS_HEADER_MAX)
        status = pm_fail(PM_INVALID, "%s: a header of %zu bytes; %d are allowed", w->path, text.size,
                         PM_SAFETENSORS_HEADER_MAX);
    if (status.code == PM_OK) {
        for (int i = 0; i < 8; i++)
            text.data[i] = (char)((text.size - 8) >> (8 * i));
        for (size_t i = 0; i <= w->count; i++)
            w->offsets[i] += text.size;
        int error = posix_fallocate(w->fd, 0, (off_t)w->offsets[w->count]);
        if (error)
            status = pm_fail(PM_IO, "cannot write %s (%llu bytes): %s", w->path,
                             (unsigned long long)w->offsets[w->count], strerror(error));
        else
            status = write_all(w->fd, text.data, text.size, 0, w->path);
    }
    pm_text_free(&text);
    return status;
}

static void free_writer(pm_safetensors_writer **writer)
{
    pm_safetensors_writer *w = *writer;
    if (w->fd >= 0)
        close(w->fd);
    for (size_t i = 0; w->names && i < w->count; i++)
        free(w->names[i]);
    free(w->names);
    free(w->offsets);
    free(w->written);
    free(w->path);
    free(w);
    *writer = NULL;
}

static pm_status make_writer(pm_safetensors_writer **writer, const char *path, size_t count)
{
    pm_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pm_fail(PM_NO_MEMORY, "a writer for %s", path);
    w->fd = -1;
    w->count = count;
    w->path = strdup(path);
    w->offsets = calloc(count + 1, sizeof *w->offsets);
    w->written = calloc(count + 1, sizeof *w->written);
    w->names = calloc(count + 1, sizeof *w->names);
    *writer = w;
    if (!w->path || !w->offsets || !w->written || !w->names) {
        free_writer(writer);
        return pm_fail(PM_NO_MEMORY, "a writer for %s", path);
    }
    return pm_ok();
}

pm_status pm_safetensors_begin(pm_safetensors_writer **writer, const char *path,
                               const pm_tensor_spec *tensors, size_t count, const char *const *keys,
                               const char *const *values, size_t metadata_count)
{
    pm_safetensors_writer *w = NULL;
    pm_status status = make_writer(&w, path, count);
    if (status.code != PM_OK)
        return status;
    json_t *header = json_object();
    if (!header || !add_metadata(header, keys, values, metadata_count))
        status = pm_fail(PM_INVALID, "%s: metadata that are no UTF-8", path);
    if (status.code == PM_OK)
        status = lay_out(w, header, tensors);
    if (status.code == PM_OK) {
        w->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (w->fd < 0)
            status = pm_fail_errno("cannot create %s", path);
        else
            status = write_header(w, header);
    }
    json_decref(header);
    if (status.code == PM_OK)
        *writer = w;
    else
        pm_safetensors_abandon(&w);
    return status;
}

uint64_t pm_safetensors_offset(const pm_safetensors_writer *writer, size_t tensor)
{
    return writer->offsets[tensor];
}

pm_status pm_safetensors_write_at(pm_safetensors_writer *writer, size_t tensor, uint64_t offset,
                                  const void *data, size_t size)
{
    if (tensor >= writer->count)
        return pm_fail(PM_INVALID, "%s has no tensor %zu", writer->path, tensor);
    uint64_t whole = writer->offsets[tensor + 1] - writer->offsets[tensor];
    if (offset > whole || size > whole - offset)
        return pm_fail(PM_INVALID, "%s: a piece beyond the end of tensor %s", writer->path,
                       writer->names[tensor]);
    pm_status status = write_all(writer->fd, data, size, writer->offsets[tensor] + offset, writer->path);
    if (status.code == PM_OK)
        writer->written[tensor] += size;
    return status;
}

pm_status pm_safetensors_finish(pm_safetensors_writer **writer)
{
    pm_safetensors_writer *w = *writer;
    pm_status status = pm_ok();
    for (size_t i = 0; i < w->count && status.code == PM_OK; i++)
        if (w->written[i] != w->offsets[i + 1] - w->offsets[i])
            status = pm_fail(PM_INVALID, "%s: tensor %s got %llu of its %llu bytes", w->path, w->names[i],
                             (unsigned long long)w->written[i],
                             (unsigned long long)(w->offsets[i + 1] - w->offsets[i]));
    if (status.code == PM_OK && fsync(w->fd))
        status = pm_fail_errno("cannot sync %s", w->path);
    if (status.code == PM_OK)
        free_writer(writer);
    else
        pm_safetensors_abandon(writer);
    return status;
}

void pm_safetensors_abandon(pm_safetensors_writer **writer)
{
    if (!writer || !*writer)
        return;
    if ((*writer)->fd >= 0)
        unlink((*writer)->path);
    free_writer(writer);
}
