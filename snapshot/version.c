#include "core/clock.h"
#include "core/text.h"
#include "snapshot/store.h"
#include "snapshot/store_impl.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pm_version_writer {
    pm_store *store;
    uint64_t version;
    char folder[PM_PATH_MAX - 80]; // the temporary one
};

pm_status pm_store_begin_copy(pm_store *store, uint64_t version, pm_version_writer **writer)
{
    char path[PM_PATH_MAX];
    pm_store_path(store, version, "", path);
    if (!store->write)
        return pm_fail(PM_INVALID, "%s is open for reading", store->folder);
    if (access(path, F_OK) == 0)
        return pm_fail(PM_EXISTS, "%s is there already", path);
    pm_version_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pm_fail(PM_NO_MEMORY, "a version");
    w->store = store;
    w->version = version;
    snprintf(w->folder, sizeof w->folder, "%s/versions/.tmp-%d-%06llu", store->folder, (int)getpid(),
             (unsigned long long)version);
    pm_status status = pm_folder_remove(w->folder);
    if (status.code == PM_OK && mkdir(w->folder, 0755))
        status = pm_fail_errno("cannot make %s", w->folder);
    if (status.code == PM_OK)
        *writer = w;
    else
        free(w);
    return status;
}

pm_status pm_store_begin(pm_store *store, pm_version_writer **writer)
{
    uint64_t newest = 0;
    pm_status status = pm_store_resolve(store, "newest", &newest);
    if (status.code != PM_OK && status.code != PM_NOT_FOUND)
        return status;
    return pm_store_begin_copy(store, newest + 1, writer);
}

uint64_t pm_version_number(const pm_version_writer *writer)
{
    return writer->version;
}

void pm_version_path(const pm_version_writer *writer, const char *file, char path[PM_PATH_MAX])
{
    snprintf(path, PM_PATH_MAX, "%s/%.64s", writer->folder, file);
}

pm_status pm_version_write(pm_version_writer *writer, const char *file, const void *bytes, size_t size)
{
    char path[PM_PATH_MAX];
    pm_version_path(writer, file, path);
    return pm_file_write(path, bytes, size);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pm_manifest_file *)a)->name, ((const pm_manifest_file *)b)->name);
}

static pm_status add_file(const pm_version_writer *w, pm_manifest *m, const char *name)
{
    char path[PM_PATH_MAX];
    size_t size = 0;
    if (m->file_count == PM_MANIFEST_FILES || !pm_manifest_name_ok(name))
        return pm_fail(PM_INVALID, "%s: too many files in a version, or a name that is not allowed", name);
    pm_manifest_file *more = realloc(m->files, (m->file_count + 1) * sizeof *more);
    if (!more)
        return pm_fail(PM_NO_MEMORY, "a list of files");
    m->files = more;
    pm_manifest_file *file = &m->files[m->file_count];
    snprintf(file->name, sizeof file->name, "%s", name);
    pm_version_path(w, name, path);
    pm_status status = pm_digest_file(path, file->sha256, &size);
    file->bytes = size;
    m->file_count += status.code == PM_OK;
    return status;
}

static pm_status list_files(const pm_version_writer *w, pm_manifest *m)
{
    free(m->files);
    m->files = NULL;
    m->file_count = 0;
    DIR *folder = opendir(w->folder);
    if (!folder)
        return pm_fail_errno("%s", w->folder);
    pm_status status = pm_ok();
    for (struct dirent *entry; status.code == PM_OK && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            status = add_file(w, m, entry->d_name);
    closedir(folder);
    if (status.code == PM_OK && m->file_count)
        qsort(m->files, m->file_count, sizeof *m->files, by_name);
    return status;
}

// The manifest is in place last; then the folder appears under its name at once.
static pm_status commit(pm_version_writer *w, const char *json, size_t size)
{
    char path[PM_PATH_MAX], versions[PM_PATH_MAX];
    snprintf(versions, sizeof versions, "%s/versions", w->store->folder);
    pm_store_path(w->store, w->version, "", path);
    pm_status status = pm_version_write(w, "manifest.json", json, size);
    if (status.code == PM_OK)
        status = pm_folder_sync(w->folder);
    if (status.code == PM_OK && rename(w->folder, path))
        status = pm_fail_errno("cannot publish %s", path);
    return status.code == PM_OK ? pm_folder_sync(versions) : status;
}

static pm_status finish(pm_version_writer **writer, pm_status status)
{
    if (status.code != PM_OK) {
        status = pm_wrap(status, "version %llu of %s", (unsigned long long)(*writer)->version,
                         (*writer)->store->model);
        pm_version_abandon(writer);
        return status;
    }
    free(*writer);
    *writer = NULL;
    return status;
}

pm_status pm_version_publish(pm_version_writer **writer, pm_manifest *manifest)
{
    pm_version_writer *w = *writer;
    char *json = NULL;
    snprintf(manifest->model, sizeof manifest->model, "%s", w->store->model);
    manifest->version = w->version;
    pm_wall_time(manifest->created);
    pm_status status = list_files(w, manifest);
    if (status.code == PM_OK)
        status = pm_manifest_seal(manifest);
    if (status.code == PM_OK)
        status = pm_manifest_encode(manifest, &json);
    if (status.code == PM_OK)
        status = commit(w, json, strlen(json));
    free(json);
    return finish(writer, status);
}

static pm_status check_copy(const pm_version_writer *w, const pm_manifest *wanted)
{
    pm_manifest here = {0};
    pm_status status = list_files(w, &here);
    for (uint32_t i = 0; i < wanted->file_count && status.code == PM_OK; i++) {
        const pm_manifest_file *file = pm_manifest_find(&here, wanted->files[i].name);
        bool state = !strncmp(wanted->files[i].name, "state-", 6);
        if (!file && !state) // a copy for serving leaves the training state out
            status = pm_fail(PM_CORRUPT, "%s is missing", wanted->files[i].name);
        else if (file &&
                 (file->bytes != wanted->files[i].bytes || strcmp(file->sha256, wanted->files[i].sha256)))
            status = pm_fail(PM_CORRUPT, "%s is not what the manifest says", file->name);
    }
    free(here.files);
    return status;
}

pm_status pm_version_publish_copy(pm_version_writer **writer, const char *json, size_t size)
{
    pm_version_writer *w = *writer;
    pm_manifest manifest;
    pm_status status = pm_manifest_decode(&manifest, json, size);
    if (status.code == PM_OK && (manifest.version != w->version || strcmp(manifest.model, w->store->model)))
        status = pm_fail(PM_CORRUPT, "the manifest is of version %llu of %s",
                         (unsigned long long)manifest.version, manifest.model);
    if (status.code == PM_OK)
        status = check_copy(w, &manifest);
    if (status.code == PM_OK)
        status = commit(w, json, size);
    pm_manifest_free(&manifest);
    return finish(writer, status);
}

void pm_version_abandon(pm_version_writer **writer)
{
    if (!writer || !*writer)
        return;
    pm_status status = pm_folder_remove((*writer)->folder);
    (void)status; // the next writer clears it
    free(*writer);
    *writer = NULL;
}
