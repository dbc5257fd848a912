#pragma once
// The snapshot store: the versions of one model in a folder.
//
//   ROOT/MODEL/versions/000042/{manifest.json, model.onnx, model.safetensors, state-NNNN.safetensors}
//   ROOT/MODEL/labels.json            {"stable": 42}
//
// A version is written in versions/.tmp-PID-000042, every file and the folder synced, then renamed: it exists
// completely or not at all. What a dead writer left is removed when the next one opens the store. Labels
// change by the same way: a temporary file, synced and renamed. Removal renames to .trash-… first, so a
// half-removed version is never seen. One process writes, any number read.
#include "core/status.h"
#include "snapshot/manifest.h"
#include "snapshot/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

enum { PM_PATH_MAX = 1024 };

typedef struct pm_store pm_store;

// write: makes the folders and clears what dead writers left. Reading a store that is not there yet is no
// failure: it has no versions. PM_INVALID when model is no safe folder name. The caller owns *store.
pm_status pm_store_open(pm_store **store, const char *root, const char *model, bool write) PM_CHECKED;
void pm_store_close(pm_store **store);

const char *pm_store_model(const pm_store *store);

// All complete versions, ascending. *versions is the caller's to free; NULL when *count is 0.
pm_status pm_store_list(pm_store *store, uint64_t **versions, size_t *count) PM_CHECKED;

// "newest", a number, or a label. PM_NOT_FOUND says what there is none of.
pm_status pm_store_resolve(pm_store *store, const char *name, uint64_t *version) PM_CHECKED;

// The path of a version's file (or of the folder, file ""); at most PM_PATH_MAX bytes.
void pm_store_path(const pm_store *store, uint64_t version, const char *file, char path[PM_PATH_MAX]);

pm_status pm_store_manifest(pm_store *store, uint64_t version, pm_manifest *manifest) PM_CHECKED;

// Reads every file again and holds it against the manifest. PM_CORRUPT names the first that differs.
pm_status pm_store_verify(pm_store *store, uint64_t version) PM_CHECKED;

// Labels: names like versions' but not numbers, nor "newest". Setting 0 removes. Training moves "best" to the
// version with the least validation loss.
typedef struct pm_label {
    char name[64];
    uint64_t version;
} pm_label;

enum { PM_LABELS_MAX = 64 };

pm_status pm_store_labels(pm_store *store, pm_label labels[PM_LABELS_MAX], size_t *count) PM_CHECKED;
pm_status pm_store_label(pm_store *store, const char *name, uint64_t version) PM_CHECKED;

// Keeps the newest `keep` versions and every labelled one; removes the others.
pm_status pm_store_retain(pm_store *store, uint32_t keep) PM_CHECKED;

// ---- writing a version ----

typedef struct pm_version_writer pm_version_writer;

// Begins the version after the newest one. The caller owns *writer.
pm_status pm_store_begin(pm_store *store, pm_version_writer **writer) PM_CHECKED;

uint64_t pm_version_number(const pm_version_writer *writer);

// The path at which to write a file of the version.
void pm_version_path(const pm_version_writer *writer, const char *file, char path[PM_PATH_MAX]);

// Writes a small file whole.
pm_status pm_version_write(pm_version_writer *writer, const char *file, const void *bytes,
                           size_t size) PM_CHECKED;

// Digests the files that are there, completes the manifest (model, version, created, files, digest), writes
// it, syncs and renames. The writer is gone afterwards in any case; on failure nothing is left of the
// version.
pm_status pm_version_publish(pm_version_writer **writer, pm_manifest *manifest) PM_CHECKED;

// The same for a version pulled from elsewhere: the manifest's JSON is kept as it is, the files must match
// it.
pm_status pm_version_publish_copy(pm_version_writer **writer, const char *json, size_t size) PM_CHECKED;

// Begins a given version, for a copy. PM_EXISTS when it is there.
pm_status pm_store_begin_copy(pm_store *store, uint64_t version, pm_version_writer **writer) PM_CHECKED;

// Gives up and removes what was written; NULL is allowed.
void pm_version_abandon(pm_version_writer **writer);
