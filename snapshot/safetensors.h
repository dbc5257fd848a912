#pragma once
// safetensors files: named tensors behind a JSON header, as published by Hugging Face (format of safetensors
// 0.3+).
//
//   8 bytes        N, the header's length, little-endian, at most PM_SAFETENSORS_HEADER_MAX
//   N bytes        a JSON object: "NAME": {"dtype": "F32", "shape": [..], "data_offsets": [BEGIN, END]}, and
//   at most
//                  one "__metadata__": {string: string}; spaces may follow the object
//   the rest       the data, row-major, little-endian; offsets count from here; no hole, no overlap, nothing
//   behind
//
// What this project writes has tensors in the order given, no space inside the JSON, and a header padded with
// spaces so that the data begin at a multiple of 64 bytes: equal input gives equal bytes.
#include "core/job.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

enum { PM_SAFETENSORS_HEADER_MAX = 100000000, PM_SAFETENSORS_ALIGN = 64 };

typedef enum pm_dtype {
    PM_DTYPE_BOOL,
    PM_DTYPE_U8,
    PM_DTYPE_I8,
    PM_DTYPE_U16,
    PM_DTYPE_I16,
    PM_DTYPE_F16,
    PM_DTYPE_BF16,
    PM_DTYPE_U32,
    PM_DTYPE_I32,
    PM_DTYPE_F32,
    PM_DTYPE_U64,
    PM_DTYPE_I64,
    PM_DTYPE_F64
} pm_dtype;

// "F32", …
const char *pm_dtype_name(pm_dtype dtype);

// Bytes of one element.
size_t pm_dtype_size(pm_dtype dtype);

// One tensor to write.
typedef struct pm_tensor_spec {
    const char *name; // the caller's
    pm_dtype dtype;
    uint32_t rank; // at most PM_MAX_RANK; 0: a scalar
    uint64_t shape[PM_MAX_RANK];
} pm_tensor_spec;

// One tensor of an open file; name and data are the file's, valid until it is closed. data is aligned to 64
// bytes at the first tensor of files written here, otherwise to nothing: check before reading it as numbers.
typedef struct pm_tensor_view {
    const char *name;
    pm_dtype dtype;
    uint32_t rank;
    uint64_t shape[PM_MAX_RANK];
    const void *data;
    size_t size; // bytes
} pm_tensor_view;

// ---- reading ----

typedef struct pm_safetensors pm_safetensors;

// Maps the file read-only. PM_CORRUPT names the file and what is wrong with it. The caller owns *file.
pm_status pm_safetensors_open(pm_safetensors **file, const char *path) PM_CHECKED;

// The same for bytes in memory, which stay the caller's and must outlive *file.
pm_status pm_safetensors_parse(pm_safetensors **file, const void *bytes, size_t size) PM_CHECKED;

void pm_safetensors_close(pm_safetensors **file);

size_t pm_safetensors_count(const pm_safetensors *file);

// Tensors in the order of their data; index < count.
const pm_tensor_view *pm_safetensors_get(const pm_safetensors *file, size_t index);

// NULL when there is no tensor of that name.
const pm_tensor_view *pm_safetensors_find(const pm_safetensors *file, const char *name);

// A value of "__metadata__", NULL when there is none.
const char *pm_safetensors_metadata(const pm_safetensors *file, const char *key);

// The whole file's bytes.
const void *pm_safetensors_bytes(const pm_safetensors *file, size_t *size);

// ---- writing ----

typedef struct pm_safetensors_writer pm_safetensors_writer;

// Creates the file (PM_EXISTS when it is there) at its full size, so that a full disk shows at once, with the
// header written. keys and values are metadata_count strings for "__metadata__". Names must differ. The
// caller owns *writer.
pm_status pm_safetensors_begin(pm_safetensors_writer **writer, const char *path,
                               const pm_tensor_spec *tensors, size_t count, const char *const *keys,
                               const char *const *values, size_t metadata_count) PM_CHECKED;

// Where the tensor's data begin in the file, in bytes: what a model.onnx refers to as external data.
uint64_t pm_safetensors_offset(const pm_safetensors_writer *writer, size_t tensor);

// Writes size bytes at byte offset of the tensor's data. Pieces come in any order; each byte is written once.
pm_status pm_safetensors_write_at(pm_safetensors_writer *writer, size_t tensor, uint64_t offset,
                                  const void *data, size_t size) PM_CHECKED;

// Syncs and closes the file. PM_INVALID names a tensor that did not get as many bytes as it has. The writer
// is gone afterwards in any case; on failure the file is removed.
pm_status pm_safetensors_finish(pm_safetensors_writer **writer) PM_CHECKED;

// Gives up: closes and removes the file. NULL is allowed.
void pm_safetensors_abandon(pm_safetensors_writer **writer);
