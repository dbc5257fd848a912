#include "snapshot/manifest.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pm_manifest_set_metric(pm_manifest *manifest, const char *name, double value)
{
    uint32_t i = 0;
    while (i < manifest->metric_count && strcmp(manifest->metrics[i].name, name) != 0)
        i++;
    if (i == PM_MANIFEST_METRICS || !isfinite(value))
        return;
    snprintf(manifest->metrics[i].name, sizeof manifest->metrics[i].name, "%s", name);
    manifest->metrics[i].value = value;
    if (i == manifest->metric_count)
        manifest->metric_count++;
}

const pm_manifest_file *pm_manifest_find(const pm_manifest *manifest, const char *name)
{
    for (uint32_t i = 0; i < manifest->file_count; i++)
        if (!strcmp(manifest->files[i].name, name))
            return &manifest->files[i];
    return NULL;
}

bool pm_manifest_name_ok(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return length > 0 && length < sizeof((pm_manifest_file *)0)->name && name[length] == '\0' &&
           name[0] != '.';
}

static pm_status model_digest(const pm_manifest *manifest, char hex[PM_DIGEST_HEX])
{
    static const char *const names[] = {"model.onnx", "model.safetensors"};
    char lines[2 * (PM_DIGEST_HEX + 64)];
    size_t used = 0;
    for (size_t i = 0; i < 2; i++) {
        const pm_manifest_file *file = pm_manifest_find(manifest, names[i]);
        if (!file)
            return pm_fail(PM_INVALID, "the manifest has no %s", names[i]);
        used += (size_t)snprintf(lines + used, sizeof lines - used, "%s  %s\n", file->sha256, file->name);
    }
    return pm_digest_bytes(lines, used, hex);
}

pm_status pm_manifest_seal(pm_manifest *manifest)
{
    return model_digest(manifest, manifest->digest);
}

// ---- writing ----

static json_t *encode_lists(const pm_manifest *m, json_t *root)
{
    json_t *data = json_array(), *metrics = json_object(), *files = json_array();
    for (uint32_t i = 0; i < m->data_count; i++)
        json_array_append_new(data, json_pack("{s:s, s:s, s:I}", "path", m->data[i].path, "sha256",
                                              m->data[i].sha256, "rows", (json_int_t)m->data[i].rows));
    for (uint32_t i = 0; i < m->metric_count; i++)
        json_object_set_new(metrics, m->metrics[i].name, json_real(m->metrics[i].value));
    for (uint32_t i = 0; i < m->file_count; i++)
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "name", m->files[i].name, "bytes",
                                               (json_int_t)m->files[i].bytes, "sha256", m->files[i].sha256));
    json_object_set_new(root, "data", data);
    json_object_set_new(root, "metrics", metrics);
    json_object_set_new(root, "files", files);
    return root;
}

pm_status pm_manifest_encode(const pm_manifest *manifest, char **json)
{
    const pm_manifest *m = manifest;
    json_t *root = json_pack(
        "{s:i, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:s, s:s, s:s, s:s}", "format", 1, "model",
        m->model, "version", (json_int_t)m->version, "digest", m->digest, "created", m->created, "step",
        (json_int_t)m->step, "epoch", (json_int_t)m->epoch, "parent", (json_int_t)m->parent, "seed",
        (json_int_t)m->seed, "lanes", (int)m->lanes, "batch", (int)m->batch, "kernel_set", m->kernel_set,
        "code_version", m->code_version, "job", m->job ? m->job : "", "job_digest", m->job_digest);
    if (root && m->vocabulary)
        json_object_set_new(root, "vocabulary", json_string(m->vocabulary));
    *json = root ? json_dumps(encode_lists(m, root), JSON_INDENT(1)) : NULL;
    json_decref(root);
    return *json ? pm_ok()
                 : pm_fail(PM_INVALID, "a manifest with text that is no UTF-8, or no memory for it");
}

// ---- reading ----

static pm_status read_text(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) >= size)
        return pm_fail(PM_CORRUPT, "%s: no text of less than %zu bytes", key, size);
    memcpy(out, text, strlen(text) + 1);
    return pm_ok();
}

static pm_status read_number(const json_t *object, const char *key, uint64_t most, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) ||
        (most != UINT64_MAX && (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > most)))
        return pm_fail(PM_CORRUPT, "%s: no whole number in its range", key);
    *out = (uint64_t)json_integer_value(value);
    return pm_ok();
}

static pm_status read_digest(const json_t *object, const char *key, bool may_be_empty,
                             char out[PM_DIGEST_HEX])
{
    pm_status status = read_text(object, key, out, PM_DIGEST_HEX);
    size_t length = status.code == PM_OK ? strspn(out, "0123456789abcdef") : 0;
    if (status.code == PM_OK && (out[length] || (length != 64 && !(may_be_empty && length == 0))))
        return pm_fail(PM_CORRUPT, "%s: no SHA-256 in hex", key);
    return status;
}

static pm_status read_files(pm_manifest *m, const json_t *files)
{
    size_t count = json_array_size(files);
    if (count == 0 || count > PM_MANIFEST_FILES)
        return pm_fail(PM_CORRUPT, "files: 1 to %d are allowed", PM_MANIFEST_FILES);
    m->files = calloc(count, sizeof *m->files);
    if (!m->files)
        return pm_fail(PM_NO_MEMORY, "a list of %zu files", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(files, i);
        pm_manifest_file *file = &m->files[i];
        pm_status status = read_text(entry, "name", file->name, sizeof file->name);
        if (status.code == PM_OK && (!pm_manifest_name_ok(file->name) || pm_manifest_find(m, file->name)))
            status = pm_fail(PM_CORRUPT, "files: a name that is unsafe or given twice");
        if (status.code == PM_OK)
            status = read_number(entry, "bytes", INT64_MAX, &file->bytes);
        if (status.code == PM_OK)
            status = read_digest(entry, "sha256", false, file->sha256);
        if (status.code != PM_OK)
            return status;
        m->file_count++;
    }
    return pm_ok();
}

static pm_status read_data(pm_manifest *m, const json_t *data)
{
    if (!json_is_array(data) || json_array_size(data) > PM_MANIFEST_DATA)
        return pm_fail(PM_CORRUPT, "data: at most %d entries", PM_MANIFEST_DATA);
    for (size_t i = 0; i < json_array_size(data); i++) {
        const json_t *entry = json_array_get(data, i);
        pm_status status = read_text(entry, "path", m->data[i].path, sizeof m->data[i].path);
        if (status.code == PM_OK)
            status = read_digest(entry, "sha256", true, m->data[i].sha256);
        if (status.code == PM_OK)
            status = read_number(entry, "rows", INT64_MAX, &m->data[i].rows);
        if (status.code != PM_OK)
            return status;
        m->data_count++;
    }
    return pm_ok();
}

static pm_status read_metrics(pm_manifest *m, const json_t *metrics)
{
    const char *name;
    json_t *value;
    if (!json_is_object(metrics) || json_object_size(metrics) > PM_MANIFEST_METRICS)
        return pm_fail(PM_CORRUPT, "metrics: an object of at most %d numbers", PM_MANIFEST_METRICS);
    json_object_foreach((json_t *)(uintptr_t)metrics, name, value)
    {
        if (!json_is_number(value) || strlen(name) >= sizeof m->metrics[0].name)
            return pm_fail(PM_CORRUPT, "metrics: %.40s is no number or its name is too long", name);
        pm_manifest_set_metric(m, name, json_number_value(value));
    }
    return pm_ok();
}

static pm_status read_scalars(pm_manifest *m, const json_t *root)
{
    uint64_t format = 0, lanes = 0, batch = 0;
    const struct {
        const char *key;
        uint64_t most, *out;
    } numbers[] = {{"format", UINT32_MAX, &format},   {"version", INT64_MAX, &m->version},
                   {"step", INT64_MAX, &m->step},     {"epoch", INT64_MAX, &m->epoch},
                   {"parent", INT64_MAX, &m->parent}, {"seed", UINT64_MAX, &m->seed},
                   {"lanes", UINT32_MAX, &lanes},     {"batch", UINT32_MAX, &batch}};
    const struct {
        const char *key;
        char *out;
        size_t size;
    } texts[] = {{"model", m->model, sizeof m->model},
                 {"created", m->created, sizeof m->created},
                 {"kernel_set", m->kernel_set, sizeof m->kernel_set},
                 {"code_version", m->code_version, sizeof m->code_version}};
    pm_status status = pm_ok();
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status.code == PM_OK; i++)
        status = read_number(root, numbers[i].key, numbers[i].most, numbers[i].out);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status.code == PM_OK; i++)
        status = read_text(root, texts[i].key, texts[i].out, texts[i].size);
    if (status.code == PM_OK && format != 1)
        return pm_fail(PM_UNSUPPORTED, "format %llu; this build reads 1", (unsigned long long)format);
    m->lanes = (uint32_t)lanes;
    m->batch = (uint32_t)batch;
    if (status.code == PM_OK)
        status = read_digest(root, "digest", false, m->digest);
    if (status.code == PM_OK)
        status = read_digest(root, "job_digest", true, m->job_digest);
    return status;
}

static pm_status read_root(pm_manifest *m, const json_t *root)
{
    pm_status status = read_scalars(m, root);
    const char *job = json_string_value(json_object_get(root, "job"));
    if (status.code == PM_OK && !job)
        status = pm_fail(PM_CORRUPT, "job: no text");
    if (status.code == PM_OK && !(m->job = strdup(job)))
        status = pm_fail(PM_NO_MEMORY, "the job's text");
    const json_t *vocabulary = json_object_get(root, "vocabulary");
    if (status.code == PM_OK && vocabulary && !json_is_string(vocabulary))
        status = pm_fail(PM_CORRUPT, "vocabulary: no text");
    if (status.code == PM_OK && vocabulary && !(m->vocabulary = strdup(json_string_value(vocabulary))))
        status = pm_fail(PM_NO_MEMORY, "a vocabulary");
    if (status.code == PM_OK)
        status = read_data(m, json_object_get(root, "data"));
    if (status.code == PM_OK)
        status = read_metrics(m, json_object_get(root, "metrics"));
    if (status.code == PM_OK)
        status = read_files(m, json_object_get(root, "files"));
    char digest[PM_DIGEST_HEX];
    if (status.code == PM_OK)
        status = model_digest(m, digest);
    if (status.code == PM_OK && strcmp(digest, m->digest) != 0)
        status = pm_fail(PM_CORRUPT, "the digest does not follow from the files");
    return status;
}

pm_status pm_manifest_decode(pm_manifest *manifest, const char *json, size_t size)
{
    memset(manifest, 0, sizeof *manifest);
    if (size > PM_MANIFEST_MAX)
        return pm_fail(PM_CORRUPT, "a manifest of %zu bytes", size);
    json_error_t error;
    json_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return pm_fail(PM_CORRUPT, "line %d: %s", error.line, error.text);
    pm_status status = read_root(manifest, root);
    json_decref(root);
    if (status.code != PM_OK)
        pm_manifest_free(manifest);
    return status;
}

void pm_manifest_free(pm_manifest *manifest)
{
    free(manifest->job);
    free(manifest->vocabulary);
    free(manifest->files);
    memset(manifest, 0, sizeof *manifest);
}
