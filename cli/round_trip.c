#include "cli/round_trip.h"
#include "model/evaluate.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>

enum { PATH_LENGTH = 2048 };

static pm_status write_file(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[PATH_LENGTH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        return pm_fail_errno("%s", path);
    const bool written = size == 0 || fwrite(bytes, 1, size, file) == size;
    return fclose(file) == 0 && written ? pm_ok() : pm_fail_errno("%s", path);
}

// Writes the tensors' files; what they are goes into list.
static pm_status write_tensors(const char *folder, const char *kind, const pm_tensor *tensors, size_t count,
                               json_t *list)
{
    pm_status status = pm_ok();
    for (size_t i = 0; status.code == PM_OK && i < count; i++) {
        char name[64];
        json_t *shape = json_array();
        snprintf(name, sizeof name, "%s_%zu", kind, i);
        for (uint32_t d = 0; d < tensors[i].rank; d++)
            json_array_append_new(shape, json_integer(tensors[i].shape[d]));
        json_array_append_new(list, json_pack("{s:s, s:o, s:s}", "type", pm_type_name(tensors[i].type),
                                              "shape", shape, "file", name));
        status = write_file(folder, name, tensors[i].data, pm_tensor_bytes(&tensors[i]));
    }
    return status;
}

pm_status pm_round_trip_write(const char *folder, const void *model, size_t size, const pm_tensor *inputs,
                              size_t input_count, const pm_tensor *outputs, size_t output_count)
{
    char path[PATH_LENGTH];
    pm_buffer *onnx = NULL;
    json_t *in = json_array(), *out = json_array();
    pm_status status = pm_onnx_rewrite(model, size, inputs, input_count, outputs, output_count, &onnx);
    if (status.code == PM_OK && mkdir(folder, 0777) != 0)
        status = pm_fail_errno("%s", folder);
    if (status.code == PM_OK)
        status = write_file(folder, "model.onnx", onnx->data, onnx->size);
    if (status.code == PM_OK)
        status = write_tensors(folder, "input", inputs, input_count, in);
    if (status.code == PM_OK)
        status = write_tensors(folder, "output", outputs, output_count, out);
    json_t *root = json_pack("{s:o, s:o}", "inputs", in, "outputs", out);
    snprintf(path, sizeof path, "%s/tensors.json", folder);
    if (status.code == PM_OK && json_dump_file(root, path, JSON_COMPACT) != 0)
        status = pm_fail(PM_IO, "%s cannot be written", path);
    json_decref(root);
    pm_buffer_unref(&onnx);
    return status;
}
