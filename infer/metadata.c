#include "infer/metadata.h"

#include "proto/message.h"

#include <stdio.h>
#include <string.h>

const char *pm_datatype_name(pm_type type)
{
    return type == PM_TYPE_F32 ? "FP32" : type == PM_TYPE_I64 ? "INT64" : NULL;
}

static pm_type type_of(const char *datatype)
{
    static const pm_type types[] = {PM_TYPE_F32, PM_TYPE_I64};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(datatype, pm_datatype_name(types[i])) == 0)
            return types[i];
    return PM_TYPE_NONE;
}

static pm_status read_tensor(pm_tensor_info *info,
                             const Inference__ModelMetadataResponse__TensorMetadata *message,
                             uint32_t max_rows)
{
    if (strlen(message->name) >= sizeof info->name)
        return pm_fail(PM_INVALID, "a tensor name of %zu bytes", strlen(message->name));
    info->type = type_of(message->datatype);
    if (info->type == PM_TYPE_NONE)
        return pm_fail(PM_INVALID, "%s is %.16s; FP32 and INT64 are built", message->name, message->datatype);
    if (message->n_shape < 1 || message->n_shape > PM_MAX_RANK || message->shape[0] != -1)
        return pm_fail(PM_INVALID, "%s has rank %zu; the batch and up to %d dimensions are understood",
                       message->name, message->n_shape, PM_MAX_RANK - 1);
    snprintf(info->name, sizeof info->name, "%s", message->name);
    info->rank = (uint32_t)message->n_shape - 1;
    info->row_bytes = pm_type_size(info->type);
    size_t limit = PM_FRAME_MAX / max_rows;
    for (uint32_t i = 0; i < info->rank; i++) {
        int64_t extent = message->shape[i + 1];
        if (extent < 1 || (uint64_t)extent > limit / info->row_bytes)
            return pm_fail(PM_INVALID, "%s: dimension %u is %lld; %u rows must fit in a frame of %d bytes",
                           info->name, i + 1, (long long)extent, max_rows, PM_FRAME_MAX);
        info->shape[i] = extent;
        info->row_bytes *= (size_t)extent;
    }
    return pm_ok();
}

pm_status pm_signature_read(pm_signature *signature, const Inference__ModelMetadataResponse *metadata,
                            uint32_t max_rows)
{
    memset(signature, 0, sizeof *signature);
    if (max_rows < 1 || max_rows > PM_BATCH_ROWS_MAX)
        return pm_fail(PM_INVALID, "batches of %u rows; 1 to %d are allowed", max_rows, PM_BATCH_ROWS_MAX);
    if (!metadata || metadata->n_inputs != 1 || metadata->n_outputs != 1)
        return pm_fail(PM_INVALID, "the model has not exactly one input and one output");
    pm_status status = read_tensor(&signature->input, metadata->inputs[0], max_rows);
    if (status.code == PM_OK)
        status = read_tensor(&signature->output, metadata->outputs[0], max_rows);
    return status;
}

void pm_tensor_info_write(const pm_tensor_info *info, int64_t storage[PM_MAX_RANK + 1],
                          Inference__ModelMetadataResponse__TensorMetadata *message)
{
    inference__model_metadata_response__tensor_metadata__init(message);
    storage[0] = -1;
    memcpy(storage + 1, info->shape, info->rank * sizeof *storage);
    message->name = (char *)(uintptr_t)info->name;
    message->datatype = (char *)(uintptr_t)pm_datatype_name(info->type);
    message->shape = storage;
    message->n_shape = info->rank + 1;
}
