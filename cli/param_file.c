#include "cli/param_file.h"

#include <stdlib.h>

static pm_tensor_spec spec_of(const pm_param *param)
{
    pm_tensor_spec spec = {.name = param->name, .dtype = PM_DTYPE_F32, .rank = param->rank};
    for (uint32_t d = 0; d < param->rank; d++)
        spec.shape[d] = (uint64_t)param->shape[d];
    return spec;
}

pm_status pm_param_file_write(const char *path, const pm_graph *graph, pm_param_values values,
                              const void *ctx, const char *key, const char *value, uint64_t *offsets)
{
    const size_t count = pm_graph_param_count(graph);
    pm_safetensors_writer *writer = NULL;
    pm_tensor_spec *specs = calloc(count + 1, sizeof *specs);
    if (!specs)
        return pm_fail(PM_NO_MEMORY, "%zu parameters", count);
    for (size_t i = 0; i < count; i++)
        specs[i] = spec_of(pm_graph_param(graph, i));
    pm_status status = pm_safetensors_begin(&writer, path, specs, count, &key, &value, key != NULL);
    for (size_t i = 0; status.code == PM_OK && i < count; i++) {
        if (offsets)
            offsets[i] = pm_safetensors_offset(writer, i);
        status = pm_safetensors_write_at(writer, i, 0, values(ctx, i),
                                         pm_graph_param(graph, i)->count * sizeof(float));
    }
    if (status.code == PM_OK)
        status = pm_safetensors_finish(&writer);
    else
        pm_safetensors_abandon(&writer);
    free(specs);
    return status;
}
