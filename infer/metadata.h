#pragma once
// What a version takes and gives: one tensor in, one out, each float32 or int64, the batch first.
#include "core/job.h"
#include "core/status.h"
#include "model/tensor.h"
#include "proto/inference.pb-c.h"

enum { PM_TENSOR_NAME_MAX = 128, PM_BATCH_ROWS_MAX = 65536 };

typedef struct pm_tensor_info {
    char name[PM_TENSOR_NAME_MAX];
    int64_t shape[PM_MAX_RANK]; // extents of one row, without the batch
    uint32_t rank;
    pm_type type;
    size_t row_bytes;
} pm_tensor_info;

typedef struct pm_signature {
    pm_tensor_info input, output;
} pm_signature;

// What the protocol calls a type: "FP32", "INT64"; NULL for those that are not served.
const char *pm_datatype_name(pm_type type);

// Reads what a worker announced. PM_INVALID says what it is not: exactly one such tensor each way, extents
// positive behind a batch of -1, max_rows rows of it within PM_FRAME_MAX.
pm_status pm_signature_read(pm_signature *signature, const Inference__ModelMetadataResponse *metadata,
                            uint32_t max_rows) PM_CHECKED;

// A tensor's protobuf message on the caller's stack: name, type, shape with -1 in front. The storage and
// info outlive the message.
void pm_tensor_info_write(const pm_tensor_info *info, int64_t storage[PM_MAX_RANK + 1],
                          Inference__ModelMetadataResponse__TensorMetadata *message);
