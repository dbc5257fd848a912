#include "snapshot/safetensors.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct pm_safetensors {
    const unsigned char *bytes;
    size_t size;
    bool mapped;
    json_t *header;          // owns the names and the metadata
    const json_t *metadata;  // inside header; NULL when there is none
    pm_tensor_view *tensors; // by data
    const pm_tensor_view **by_name;
    size_t count;
};

static bool dtype_from_name(const char *name, pm_dtype *dtype)
{
    for (int d = PM_DTYPE_BOOL; d <= PM_DTYPE_F64; d++)
        if (!strcmp(name, pm_dtype_name((pm_dtype)d))) {
            *dtype = (pm_dtype)d;
            return true;
        }
    return false;
}

static pm_status check_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return pm_fail(PM_CORRUPT, "__metadata__ is no object");
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) if (!json_is_string(value)) return pm_fail(
        PM_CORRUPT, "__metadata__: %.60s is no string", key);
    return pm_ok();
}

// Extents into the view; *size gets the bytes they make.
static pm_status read_shape(pm_tensor_view *view, const json_t *shape, size_t *size)
{
    if (!json_is_array(shape))
        return pm_fail(PM_CORRUPT, "no shape");
    if (json_array_size(shape) > PM_MAX_RANK)
        return pm_fail(PM_UNSUPPORTED, "%zu dimensions; at most %d are built", json_array_size(shape),
                       PM_MAX_RANK);
    view->rank = (uint32_t)json_array_size(shape);
    *size = pm_dtype_size(view->dtype);
    for (uint32_t i = 0; i < view->rank; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return pm_fail(PM_CORRUPT, "an extent that is no size");
        view->shape[i] = (uint64_t)json_integer_value(extent);
        if (__builtin_mul_overflow(*size, view->shape[i], size))
            return pm_fail(PM_CORRUPT, "a shape beyond any memory");
    }
    return pm_ok();
}

static pm_status read_tensor(pm_tensor_view *view, const char *name, const json_t *entry,
                             const unsigned char *data, size_t data_size)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *offsets = json_object_get(entry, "data_offsets");
    size_t size = 0;
    view->name = name;
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return pm_fail(PM_CORRUPT, "an entry has dtype, shape and data_offsets, nothing else");
    if (!json_is_string(dtype) || !dtype_from_name(json_string_value(dtype), &view->dtype))
        return pm_fail(PM_CORRUPT, "an unknown dtype");
    pm_status status = read_shape(view, json_object_get(entry, "shape"), &size);
    if (status.code != PM_OK)
        return status;
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return pm_fail(PM_CORRUPT, "data_offsets are not two numbers");
    json_int_t first = json_integer_value(begin), last = json_integer_value(end);
    if (first < 0 || last < first || (uint64_t)last > data_size)
        return pm_fail(PM_CORRUPT, "data_offsets [%lld, %lld] of %zu bytes of data", (long long)first,
                       (long long)last, data_size);
    if ((size_t)(last - first) != size)
        return pm_fail(PM_CORRUPT, "%lld bytes of data for a shape of %zu", (long long)(last - first), size);
    view->data = data + first;
    view->size = size;
    return pm_ok();
}

static int compare_data(const void *a, const void *b)
{
    const pm_tensor_view *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1; // empty ones share a place
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    const pm_tensor_view *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static pm_status check_packed(const pm_safetensors *file, const unsigned char *data, size_t data_size)
{
    size_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        const pm_tensor_view *view = &file->tensors[i];
        if ((size_t)((const unsigned char *)view->data - data) != at)
            return pm_fail(PM_CORRUPT, "a hole or an overlap before %.100s", view->name);
        at += view->size;
    }
    if (at != data_size)
        return pm_fail(PM_CORRUPT, "%zu bytes behind the last tensor", data_size - at);
    return pm_ok();
}

static pm_status read_entries(pm_safetensors *file, const unsigned char *data, size_t data_size)
{
    size_t entries = json_object_size(file->header);
    file->tensors = calloc(entries ? entries : 1, sizeof *file->tensors);
    file->by_name = calloc(entries ? entries : 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name)
        return pm_fail(PM_NO_MEMORY, "a table of %zu tensors", entries);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        pm_status status = pm_ok();
        if (!strcmp(name, "__metadata__")) {
            status = check_metadata(entry);
            file->metadata = entry;
        } else {
            status = read_tensor(&file->tensors[file->count], name, entry, data, data_size);
            file->count++;
        }
        if (status.code != PM_OK)
            return pm_wrap(status, "tensor %.60s", name);
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_data);
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, file->count, sizeof(void *), compare_names);
    return check_packed(file, data, data_size);
}

static pm_status parse(pm_safetensors *file)
{
    uint64_t length = 0;
    if (file->size < 8)
        return pm_fail(PM_CORRUPT, "%zu bytes are no safetensors file", file->size);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | file->bytes[i];
    if (length > PM_SAFETENSORS_HEADER_MAX || length > file->size - 8)
        return pm_fail(PM_CORRUPT, "a header of %llu bytes in a file of %zu", (unsigned long long)length,
                       file->size);
    const char *text = (const char *)file->bytes + 8;
    if (length == 0 || text[0] != '{')
        return pm_fail(PM_CORRUPT, "the header does not begin with {");
    json_error_t error;
    file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header)
        return pm_fail(PM_CORRUPT, "header: %s", error.text);
    return read_entries(file, file->bytes + 8 + length, file->size - 8 - (size_t)length);
}

pm_status pm_safetensors_parse(pm_safetensors **file, const void *bytes, size_t size)
{
    pm_safetensors *f = calloc(1, sizeof *f);
    if (!f)
        return pm_fail(PM_NO_MEMORY, "a safetensors file");
    f->bytes = bytes;
    f->size = size;
    pm_status status = parse(f);
    if (status.code != PM_OK)
        pm_safetensors_close(&f);
    else
        *file = f;
    return status;
}

static pm_status map_file(const char *path, const void **bytes, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno("%s", path);
    struct stat stat;
    void *map = MAP_FAILED;
    pm_status status = pm_ok();
    if (fstat(fd, &stat))
        status = pm_fail_errno("%s", path);
    else if (!S_ISREG(stat.st_mode) || stat.st_size < 8)
        status = pm_fail(PM_CORRUPT, "%s: no safetensors file", path);
    else if ((map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        status = pm_fail_errno("cannot map %s", path);
    close(fd);
    if (status.code != PM_OK)
        return status;
    *bytes = map;
    *size = (size_t)stat.st_size;
    return pm_ok();
}

pm_status pm_safetensors_open(pm_safetensors **file, const char *path)
{
    const void *bytes = NULL;
    size_t size = 0;
    pm_status status = map_file(path, &bytes, &size);
    if (status.code != PM_OK)
        return status;
    status = pm_safetensors_parse(file, bytes, size);
    if (status.code != PM_OK) {
        munmap((void *)(uintptr_t)bytes, size);
        return pm_wrap(status, "%s", path);
    }
    (*file)->mapped = true;
    return pm_ok();
}

void pm_safetensors_close(pm_safetensors **file)
{
    if (!file || !*file)
        return;
    if ((*file)->mapped)
        munmap((void *)(uintptr_t)(*file)->bytes, (*file)->size);
    json_decref((*file)->header);
    free((*file)->tensors);
    free((*file)->by_name);
    free(*file);
    *file = NULL;
}

size_t pm_safetensors_count(const pm_safetensors *file)
{
    return file->count;
}

const pm_tensor_view *pm_safetensors_get(const pm_safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const pm_tensor_view *pm_safetensors_find(const pm_safetensors *file, const char *name)
{
    pm_tensor_view key = {.name = name};
    const pm_tensor_view *wanted = &key;
    const pm_tensor_view **found =
        bsearch(&wanted, file->by_name, file->count, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

const char *pm_safetensors_metadata(const pm_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->metadata, key));
}

const void *pm_safetensors_bytes(const pm_safetensors *file, size_t *size)
{
    *size = file->size;
    return file->bytes;
}
