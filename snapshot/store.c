#include "snapshot/store.h"

#include "core/text.h"
#include "snapshot/store_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LABELS_FILE_MAX = 1 << 16, VERSION_DIGITS = 6 };

static pm_status make_folder(const char *path)
{
    return mkdir(path, 0755) && errno != EEXIST ? pm_fail_errno("cannot make %s", path) : pm_ok();
}

static pm_status make_folders(const pm_store *store, const char *root)
{
    char versions[PM_PATH_MAX];
    snprintf(versions, sizeof versions, "%s/versions", store->folder);
    pm_status status = make_folder(root);
    if (status.code == PM_OK)
        status = make_folder(store->folder);
    return status.code == PM_OK ? make_folder(versions) : status;
}

// The writer's process is in the name; a label may be set, or another cache filled, while it lives.
static bool is_leftover(const char *name)
{
    int pid = 0;
    if (sscanf(name, ".tmp-%d-", &pid) != 1 && sscanf(name, ".trash-%d-", &pid) != 1)
        return false;
    return pid == getpid() || kill(pid, 0) != 0;
}

// What an earlier writer left when it died.
static void clear_leftovers(const pm_store *store)
{
    char path[PM_PATH_MAX];
    snprintf(path, sizeof path, "%s/versions", store->folder);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (!is_leftover(entry->d_name))
            continue;
        snprintf(path, sizeof path, "%s/versions/%s", store->folder, entry->d_name);
        pm_status status = pm_folder_remove(path);
        (void)status; // it will be tried again; it takes room and harms nothing
    }
    if (folder)
        closedir(folder);
}

pm_status pm_store_open(pm_store **store, const char *root, const char *model, bool write)
{
    if (!pm_manifest_name_ok(model) || strlen(root) + strlen(model) + 2 > sizeof((pm_store *)0)->folder)
        return pm_fail(PM_INVALID, "%s/%s: no usable place for a store", root, model);
    pm_store *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a store");
    snprintf(s->folder, sizeof s->folder, "%s/%s", root, model);
    snprintf(s->model, sizeof s->model, "%s", model);
    s->write = write;
    pm_status status = write ? make_folders(s, root) : pm_ok();
    if (status.code != PM_OK) {
        free(s);
        return status;
    }
    if (write)
        clear_leftovers(s);
    *store = s;
    return pm_ok();
}

void pm_store_close(pm_store **store)
{
    if (!store || !*store)
        return;
    free(*store);
    *store = NULL;
}

const char *pm_store_model(const pm_store *store)
{
    return store->model;
}

static bool parse_version(const char *name, uint64_t *version)
{
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 18 || name[digits])
        return false;
    *version = strtoull(name, NULL, 10);
    return *version > 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static pm_status collect(DIR *folder, uint64_t **versions, size_t *count)
{
    size_t capacity = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        uint64_t version;
        if (strlen(entry->d_name) < VERSION_DIGITS || !parse_version(entry->d_name, &version))
            continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            uint64_t *more = realloc(*versions, capacity * sizeof *more);
            if (!more)
                return pm_fail(PM_NO_MEMORY, "a list of versions");
            *versions = more;
        }
        (*versions)[(*count)++] = version;
    }
    if (*count)
        qsort(*versions, *count, sizeof **versions, ascending);
    return pm_ok();
}

pm_status pm_store_list(pm_store *store, uint64_t **versions, size_t *count)
{
    char path[PM_PATH_MAX];
    *versions = NULL;
    *count = 0;
    snprintf(path, sizeof path, "%s/versions", store->folder);
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? pm_ok() : pm_fail_errno("%s", path);
    pm_status status = collect(folder, versions, count);
    closedir(folder);
    if (status.code != PM_OK) {
        free(*versions);
        *versions = NULL;
        *count = 0;
    }
    return status;
}

static bool exists(const pm_store *store, uint64_t version)
{
    char path[PM_PATH_MAX];
    pm_store_path(store, version, "manifest.json", path);
    return access(path, R_OK) == 0;
}

static pm_status resolve_newest(pm_store *store, uint64_t *version)
{
    uint64_t *versions;
    size_t count;
    pm_status status = pm_store_list(store, &versions, &count);
    if (status.code == PM_OK && count == 0)
        status = pm_fail(PM_NOT_FOUND, "%s has no version yet", store->folder);
    if (status.code == PM_OK)
        *version = versions[count - 1];
    free(versions);
    return status;
}

pm_status pm_store_resolve(pm_store *store, const char *name, uint64_t *version)
{
    if (!strcmp(name, "newest"))
        return resolve_newest(store, version);
    if (parse_version(name, version))
        return exists(store, *version) ? pm_ok()
                                       : pm_fail(PM_NOT_FOUND, "%s has no version %s", store->folder, name);
    pm_label labels[PM_LABELS_MAX];
    size_t count;
    pm_status status = pm_store_labels(store, labels, &count);
    for (size_t i = 0; i < count && status.code == PM_OK; i++)
        if (!strcmp(labels[i].name, name)) {
            *version = labels[i].version;
            return exists(store, *version)
                       ? pm_ok()
                       : pm_fail(PM_NOT_FOUND, "label %s of %s names version %llu, which is gone", name,
                                 store->folder, (unsigned long long)*version);
        }
    return status.code == PM_OK ? pm_fail(PM_NOT_FOUND, "%s has no label %s", store->folder, name) : status;
}

void pm_store_path(const pm_store *store, uint64_t version, const char *file, char path[PM_PATH_MAX])
{
    snprintf(path, PM_PATH_MAX, "%s/versions/%06llu%s%s", store->folder, (unsigned long long)version,
             file[0] ? "/" : "", file);
}

pm_status pm_store_manifest(pm_store *store, uint64_t version, pm_manifest *manifest)
{
    char path[PM_PATH_MAX], *json;
    size_t size;
    pm_store_path(store, version, "manifest.json", path);
    pm_status status = pm_read_file(path, PM_MANIFEST_MAX, &json, &size);
    if (status.code != PM_OK)
        return status;
    status = pm_wrap(pm_manifest_decode(manifest, json, size), "%s", path);
    free(json);
    if (status.code == PM_OK && manifest->version != version) {
        status =
            pm_fail(PM_CORRUPT, "%s: speaks of version %llu", path, (unsigned long long)manifest->version);
        pm_manifest_free(manifest);
    }
    return status;
}

pm_status pm_store_verify(pm_store *store, uint64_t version)
{
    pm_manifest manifest;
    pm_status status = pm_store_manifest(store, version, &manifest);
    if (status.code != PM_OK)
        return status;
    for (uint32_t i = 0; i < manifest.file_count && status.code == PM_OK; i++) {
        char path[PM_PATH_MAX], sha256[PM_DIGEST_HEX];
        size_t size = 0;
        pm_store_path(store, version, manifest.files[i].name, path);
        status = pm_digest_file(path, sha256, &size);
        if (status.code == PM_OK &&
            (size != manifest.files[i].bytes || strcmp(sha256, manifest.files[i].sha256)))
            status = pm_fail(PM_CORRUPT, "%s: not the bytes that the manifest names", path);
    }
    pm_manifest_free(&manifest);
    return status;
}

// ---- labels ----

static pm_status read_labels(const pm_store *store, json_t **root)
{
    char path[PM_PATH_MAX], *json;
    size_t size;
    snprintf(path, sizeof path, "%s/labels.json", store->folder);
    pm_status status = pm_read_file(path, LABELS_FILE_MAX, &json, &size);
    if (status.code == PM_NOT_FOUND) {
        *root = json_object();
        return *root ? pm_ok() : pm_fail(PM_NO_MEMORY, "the labels");
    }
    if (status.code != PM_OK)
        return status;
    *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, NULL);
    free(json);
    if (json_is_object(*root))
        return pm_ok();
    json_decref(*root);
    return pm_fail(PM_CORRUPT, "%s: no JSON object", path);
}

pm_status pm_store_labels(pm_store *store, pm_label labels[PM_LABELS_MAX], size_t *count)
{
    json_t *root = NULL;
    *count = 0;
    pm_status status = read_labels(store, &root);
    if (status.code != PM_OK)
        return status;
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (*count == PM_LABELS_MAX || !json_is_integer(value) || !pm_manifest_name_ok(name))
            continue;
        snprintf(labels[*count].name, sizeof labels[0].name, "%s", name);
        labels[(*count)++].version = (uint64_t)json_integer_value(value);
    }
    json_decref(root);
    return pm_ok();
}

static pm_status check_label(pm_store *store, const char *name, uint64_t version)
{
    uint64_t number;
    if (!pm_manifest_name_ok(name) || parse_version(name, &number) || !strcmp(name, "newest"))
        return pm_fail(PM_INVALID, "\"%s\" is no label: letters, digits, - _ ., not a number, not newest",
                       name);
    if (version != 0 && !exists(store, version))
        return pm_fail(PM_NOT_FOUND, "%s has no version %llu", store->folder, (unsigned long long)version);
    return pm_ok();
}

pm_status pm_store_label(pm_store *store, const char *name, uint64_t version)
{
    json_t *root = NULL;
    pm_status status = check_label(store, name, version);
    if (status.code == PM_OK)
        status = read_labels(store, &root);
    if (status.code != PM_OK)
        return status;
    if (version == 0)
        json_object_del(root, name);
    else if (!json_object_get(root, name) && json_object_size(root) >= PM_LABELS_MAX)
        status = pm_fail(PM_INVALID, "%s has %d labels, as many as it can", store->folder, PM_LABELS_MAX);
    else
        json_object_set_new(root, name, json_integer((json_int_t)version));
    char *json = json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS);
    json_decref(root);
    if (status.code == PM_OK)
        status = json ? pm_file_replace(store->folder, "labels.json", json, strlen(json))
                      : pm_fail(PM_NO_MEMORY, "the labels");
    free(json);
    return status;
}

// ---- retention ----

static pm_status remove_version(pm_store *store, uint64_t version)
{
    char path[PM_PATH_MAX], trash[PM_PATH_MAX];
    pm_store_path(store, version, "", path);
    snprintf(trash, sizeof trash, "%s/versions/.trash-%d-%06llu", store->folder, (int)getpid(),
             (unsigned long long)version);
    if (rename(path, trash))
        return pm_fail_errno("cannot remove %s", path);
    return pm_folder_remove(trash);
}

pm_status pm_store_retain(pm_store *store, uint32_t keep)
{
    uint64_t *versions;
    size_t count, label_count;
    pm_label labels[PM_LABELS_MAX];
    pm_status status = pm_store_list(store, &versions, &count);
    if (status.code == PM_OK)
        status = pm_store_labels(store, labels, &label_count);
    keep = keep ? keep : 1;
    for (size_t i = 0; i + keep < count && status.code == PM_OK; i++) {
        bool labelled = false;
        for (size_t l = 0; l < label_count; l++)
            labelled |= labels[l].version == versions[i];
        if (!labelled)
            status = remove_version(store, versions[i]);
    }
    free(versions);
    return status;
}
