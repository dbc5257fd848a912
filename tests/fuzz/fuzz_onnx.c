// pm_graph_read_onnx over arbitrary bytes; what it accepts must write and read back, and can be planned
// within a bound; small plans run.
#include "model/plan_view.h"

#include <stdlib.h>

enum { MOST_BYTES = 1 << 24, MOST_FLOPS = 1 << 22, MOST_PARAMS = 1 << 20, ROWS = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t bytes_of(const pm_port *port)
{
    return port->count * pm_type_size(port->type) * ROWS;
}

static bool is_small(const pm_plan *plan, const pm_graph *graph)
{
    uint64_t flops = 0;
    size_t params = 0;
    for (size_t i = 0; i < pm_plan_tasks(plan); i++)
        flops += pm_plan_task(plan, i).flops;
    for (size_t i = 0; i < pm_graph_param_count(graph) && params <= MOST_PARAMS; i++)
        params += pm_graph_param(graph, i)->count;
    return flops <= MOST_FLOPS && params <= MOST_PARAMS;
}

// Inputs and unbound parameters are zeros; outputs have exactly their size.
static void run(pm_plan *plan, const pm_graph *graph)
{
    const size_t inputs = pm_graph_inputs(graph), outputs = pm_graph_outputs(graph);
    void **in = calloc(inputs + 1, sizeof *in), **out = calloc(outputs + 1, sizeof *out);
    float *zeros = calloc(MOST_PARAMS, sizeof *zeros);
    pm_status status = in && out && zeros ? pm_ok() : pm_fail(PM_NO_MEMORY, "a run");
    for (size_t i = 0; status.code == PM_OK && i < inputs; i++)
        in[i] = calloc(1, bytes_of(pm_graph_input(graph, i)) + 1);
    for (size_t i = 0; status.code == PM_OK && i < outputs; i++)
        out[i] = malloc(bytes_of(pm_graph_output(graph, i)));
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_param_count(graph); i++)
        if (!pm_graph_param(graph, i)->initial)
            status = pm_plan_bind(plan, i, zeros);
    if (status.code == PM_OK)
        status = pm_plan_run(plan, (const void *const *)in, 1, out);
    if (status.code == PM_OK)
        status = pm_plan_prepare(plan);
    if (status.code == PM_OK)
        status = pm_plan_run(plan, (const void *const *)in, ROWS, out);
    for (size_t i = 0; in && i < inputs; i++)
        free(in[i]);
    for (size_t i = 0; out && i < outputs; i++)
        free(out[i]);
    free(in);
    free(out);
    free(zeros);
}

static void plan_and_run(const pm_graph *graph)
{
    pm_plan *plan = NULL;
    const pm_plan_options options = {.most_bytes = MOST_BYTES};
    if (pm_plan_create_inference_with(&plan, graph, ROWS, &options).code == PM_OK && is_small(plan, graph))
        run(plan, graph);
    pm_plan_destroy(&plan);
}

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
    plan_and_run(graph);
    free(offsets);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
    return 0;
}
