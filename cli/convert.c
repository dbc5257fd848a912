// paramill convert: a model as this engine writes it, for other tools.
#include "cli/commands.h"
#include "cli/param_file.h"
#include "snapshot/files.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: paramill convert [--output NAME] MODEL.onnx OUT.onnx\n"
    "writes the model for inference, in opset 13 or the newer one that it has, functions and branches "
    "inlined,\n"
    "its parameters beside it in OUT.safetensors, which the model refers to as external data\n"
    "  --output NAME  the value that becomes its one output, with the nodes that it follows from\n";

static const float *initial(const void *graph, size_t index)
{
    return pm_graph_param(graph, index)->initial;
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

static pm_status convert(const char *model, const char *output, const char *out)
{
    pm_graph *graph = NULL;
    pm_buffer *onnx = NULL;
    uint64_t *offsets = NULL;
    char *weights = weights_path(out);
    pm_status status = weights ? pm_graph_load_onnx(&graph, model, output) : pm_fail(PM_NO_MEMORY, "a path");
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_notes(graph); i++)
        fprintf(stderr, "paramill convert: %s\n", pm_graph_note(graph, i));
    if (status.code == PM_OK) {
        offsets = calloc(pm_graph_param_count(graph) + 1, sizeof *offsets);
        status = offsets ? pm_ok() : pm_fail(PM_NO_MEMORY, "offsets");
    }
    if (status.code == PM_OK && pm_graph_param_count(graph) > 0)
        status = pm_param_file_write(weights, graph, initial, graph, NULL, NULL, offsets);
    if (status.code == PM_OK) {
        const char *slash = strrchr(weights, '/');
        status = pm_graph_write_onnx(graph, slash ? slash + 1 : weights, offsets, &onnx);
    }
    if (status.code == PM_OK)
        status = pm_file_write(out, onnx->data, onnx->size);
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
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *output = NULL;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c != 'o')
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
        output = optarg;
    }
    if (optind + 2 != argc)
        return fputs(USAGE, stderr), 2;
    return pm_cli_finish("convert", convert(argv[optind], output, argv[optind + 1]));
}
