// pm_graph_read_onnx over arbitrary bytes; what it accepts must write and read back.
#include "model/graph.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_graph *graph = NULL, *back = NULL;
    pm_buffer *onnx = NULL;
    if (pm_graph_read_onnx(&graph, data, size).code != PM_OK)
        return 0;
    uint64_t *offsets = calloc(pm_graph_param_count(graph) + 1, sizeof *offsets);
    if (offsets && pm_graph_write_onnx(graph, "weights", offsets, &onnx).code == PM_OK &&
        pm_graph_read_onnx(&back, onnx->data, onnx->size).code != PM_OK)
        abort();
    free(offsets);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
    return 0;
}
