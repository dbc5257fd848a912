// paramill convert: a model as this engine writes it, for other tools.
#include "cli/commands.h"
#include "model/graph.h"
#include "snapshot/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: paramill convert MODEL.onnx OUT.onnx\n"
    "writes the model for inference, in opset 13 or the newer one that it has, functions and branches "
    "inlined,\n"
    "its parameters beside it in OUT.safetensors, which the model refers to as external data\n";

// Writes the parameters; offsets: (params), where they begin in the file.
static pm_status write_weights(const pm_graph *graph, const char *path, uint64_t *offsets)
{
    const size_t count = pm_graph_param_count(graph);
    pm_safetensors_writer *writer = NULL;
    pm_tensor_spec *specs = calloc(count + 1, sizeof *specs);
    if (!specs)
        return pm_fail(PM_NO_MEMORY, "%zu parameters", count);
    for (size_t i = 0; i < count; i++) {
        const pm_param *param = pm_graph_param(graph, i);
        specs[i] = (pm_tensor_spec){.name = param->name, .dtype = PM_DTYPE_F32, .rank = param->rank};
        for (uint32_t d = 0; d < param->rank; d++)
            specs[i].shape[d] = (uint64_t)param->shape[d];
    }
    pm_status status = pm_safetensors_begin(&writer, path, specs, count, NULL, NULL, 0);
    for (size_t i = 0; status.code == PM_OK && i < count; i++) {
        offsets[i] = pm_safetensors_offset(writer, i);
        status = pm_safetensors_write_at(writer, i, 0, pm_graph_param(graph, i)->initial,
                                         pm_graph_param(graph, i)->count * sizeof(float));
    }
    if (status.code == PM_OK)
        status = pm_safetensors_finish(&writer);
    else
        pm_safetensors_abandon(&writer);
    free(specs);
    return status;
}

static pm_status write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wbx");
    if (!file)
        return pm_fail_errno("%s", path);
    const bool written = fwrite(bytes, 1, size, file) == size;
    return fclose(file) == 0 && written ? pm_ok() : pm_fail_errno("%s", path);
}

// OUT.onnx to OUT.safetensors; the caller frees it.
static char *weights_path(const char *out)
{
    static const char end[] = ".safetensors";
    const char *dot = strrchr(out, '.');
    const size_t length = dot && strcmp(dot, ".onnx") == 0 ? (size_t)(dot - out) : strlen(out);
    char *path = malloc(length + sizeof end);
    if (path) {
        memcpy(path, out, length);
        memcpy(path + length, end, sizeof end);
    }
    return path;
}

static pm_status convert(const char *model, const char *out)
{
    pm_graph *graph = NULL;
    pm_buffer *onnx = NULL;
    uint64_t *offsets = NULL;
    char *weights = weights_path(out);
    pm_status status = weights ? pm_graph_load_onnx(&graph, model) : pm_fail(PM_NO_MEMORY, "a path");
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_notes(graph); i++)
        fprintf(stderr, "paramill convert: %s\n", pm_graph_note(graph, i));
    if (status.code == PM_OK) {
        offsets = calloc(pm_graph_param_count(graph) + 1, sizeof *offsets);
        status = offsets ? pm_ok() : pm_fail(PM_NO_MEMORY, "offsets");
    }
    if (status.code == PM_OK && pm_graph_param_count(graph) > 0)
        status = write_weights(graph, weights, offsets);
    if (status.code == PM_OK) {
        const char *slash = strrchr(weights, '/');
        status = pm_graph_write_onnx(graph, slash ? slash + 1 : weights, offsets, &onnx);
    }
    if (status.code == PM_OK)
        status = write_file(out, onnx->data, onnx->size);
    if (status.code == PM_OK)
        printf("%s: %zu parameters in %s\n", out, pm_graph_param_count(graph), weights);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&graph);
    free(offsets);
    free(weights);
    return status;
}

int pm_cli_convert(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(USAGE, stdout), 0;
    if (argc != 3 || argv[1][0] == '-' || argv[2][0] == '-')
        return fputs(USAGE, stderr), 2;
    return pm_cli_finish("convert", convert(argv[1], argv[2]));
}
