#pragma once
// manifest.json: what a version is, whence it came, and the digest of each of its files. UTF-8 JSON, one
// object:
//   format 1, model, version, digest, created (RFC 3339, UTC), step, epoch, parent (0: none), seed, lanes,
//   batch, kernel_set, code_version, job (the job file's text), job_digest, vocabulary (only of a model of a
//   text: number i of its input and output stands for character i), data [{path, sha256, rows}],
//   metrics {name: number}, files [{name, bytes, sha256}]
// digest is the SHA-256 of the lines "SHA256  NAME\n" of model.onnx and model.safetensors, in this order:
// equal models have equal digests, whatever their history.
#include "core/digest.h"
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PM_MANIFEST_MAX = 4 << 20, // bytes of JSON
    PM_MANIFEST_FILES = 4096,
    PM_MANIFEST_METRICS = 32,
    PM_MANIFEST_DATA = 8
};

typedef struct pm_manifest_file {
    char name[64]; // [A-Za-z0-9._-]+, no leading dot
    uint64_t bytes;
    char sha256[PM_DIGEST_HEX];
} pm_manifest_file;

typedef struct pm_manifest_metric {
    char name[48];
    double value;
} pm_manifest_metric;

typedef struct pm_manifest_data {
    char path[256];
    char sha256[PM_DIGEST_HEX]; // empty when not known where the snapshot was made
    uint64_t rows;
} pm_manifest_data;

typedef struct pm_manifest {
    char model[72];
    uint64_t version;
    char digest[PM_DIGEST_HEX];
    char created[24];
    uint64_t step, epoch; // epoch: the job epoch, which grows with each rollback
    uint64_t parent;      // version the run was resumed from; 0: none
    uint64_t seed;
    uint32_t lanes, batch;
    char kernel_set[48], code_version[48];
    char *job; // owned; may be NULL
    char job_digest[PM_DIGEST_HEX];
    char *vocabulary; // owned; NULL: the model's numbers stand for no characters
    pm_manifest_data data[PM_MANIFEST_DATA];
    uint32_t data_count;
    pm_manifest_metric metrics[PM_MANIFEST_METRICS];
    uint32_t metric_count;
    pm_manifest_file *files; // owned
    uint32_t file_count;
} pm_manifest;

// Adds or replaces a metric; what does not fit, or is not finite, is left out.
void pm_manifest_set_metric(pm_manifest *manifest, const char *name, double value);

// The file of that name; NULL when there is none.
const pm_manifest_file *pm_manifest_find(const pm_manifest *manifest, const char *name);

// True for names that are safe inside a version's folder.
bool pm_manifest_name_ok(const char *name);

// Computes manifest->digest from its files. PM_INVALID when a model file is missing.
pm_status pm_manifest_seal(pm_manifest *manifest) PM_CHECKED;

// JSON on the heap, NUL-terminated, owned by the caller.
pm_status pm_manifest_encode(const pm_manifest *manifest, char **json) PM_CHECKED;

// Reads hostile JSON: types, bounds and names are checked, and that the digest follows from the files. To be
// freed.
pm_status pm_manifest_decode(pm_manifest *manifest, const char *json, size_t size) PM_CHECKED;

void pm_manifest_free(pm_manifest *manifest);
