#include "model/evaluate.h"

#include "model/onnx.h"
#include "model/onnx_tensor.h"
#include "model/plan_impl.h"

#include <stdlib.h>
#include <string.h>

pm_status pm_tensor_read_onnx(const void *bytes, size_t size, pm_region *region, pm_tensor *tensor)
{
    bool external = false;
    pm_status status = pm_onnx_tensor_read(pm_wire_open(bytes, size), "", region, tensor, &external);
    return status.code == PM_OK && external ? pm_fail(PM_UNSUPPORTED, "a tensor with external data") : status;
}

enum { SHOWN = 64 };

static bool has_field(pm_wire wire, uint32_t number)
{
    pm_wire_field field;
    bool found = false;
    while (pm_wire_next(&wire, &field))
        found = found || field.number == number;
    return found;
}

// Whether a ValueInfoProto is of something else than a tensor.
static bool is_no_tensor(pm_wire info)
{
    pm_wire_field field;
    bool other = false;
    while (pm_wire_next(&info, &field))
        if (field.number == ONNX_VALUE_TYPE && field.size > 0)
            other = !has_field(pm_wire_inner(&field), ONNX_TYPE_TENSOR);
    return other;
}

static pm_status check_ports(pm_wire graph)
{
    pm_wire_field field;
    while (pm_wire_next(&graph, &field))
        if ((field.number == ONNX_GRAPH_INPUT || field.number == ONNX_GRAPH_OUTPUT) &&
            is_no_tensor(pm_wire_inner(&field)))
            return pm_fail(PM_UNSUPPORTED, "an %s of the graph is a sequence, an optional or the like",
                           field.number == ONNX_GRAPH_INPUT ? "input" : "output");
    return pm_ok();
}

pm_status pm_onnx_check_ports(const void *bytes, size_t size)
{
    pm_wire wire = pm_wire_open(bytes, size);
    pm_wire_field field;
    pm_status status = pm_ok();
    while (status.code == PM_OK && pm_wire_next(&wire, &field))
        if (field.number == ONNX_MODEL_GRAPH)
            status = check_ports(pm_wire_inner(&field));
    return status;
}

static void copy_text(const pm_wire_field *field, char *text)
{
    const size_t size = field->size < SHOWN ? field->size : SHOWN - 1;
    if (size > 0)
        memcpy(text, field->bytes, size);
    text[size] = '\0';
}

static bool each_node(pm_wire graph, void (*each)(void *ctx, const char *domain, const char *op), void *ctx)
{
    pm_wire_field field;
    while (pm_wire_next(&graph, &field)) {
        if (field.number != ONNX_GRAPH_NODE)
            continue;
        char domain[SHOWN] = "", op[SHOWN] = "";
        pm_wire node = pm_wire_inner(&field);
        while (pm_wire_next(&node, &field)) {
            if (field.number == ONNX_NODE_OP_TYPE)
                copy_text(&field, op);
            else if (field.number == ONNX_NODE_DOMAIN)
                copy_text(&field, domain);
        }
        each(ctx, domain, op);
    }
    return !graph.bad;
}

bool pm_onnx_each_operator(const void *bytes, size_t size,
                           void (*each)(void *ctx, const char *domain, const char *op), void *ctx)
{
    pm_wire wire = pm_wire_open(bytes, size);
    pm_wire_field field;
    bool good = true;
    while (good && pm_wire_next(&wire, &field))
        if (field.number == ONNX_MODEL_GRAPH)
            good = each_node(pm_wire_inner(&field), each, ctx);
    return good && !wire.bad;
}

// Which inputs are known before the graph is planned. Later ones know more and run less.
typedef enum knowledge {
    KNOWN_NONE,
    KNOWN_INTEGERS, // and single elements
    KNOWN_ALL,
    KNOWN_END
} knowledge;

static bool is_known(knowledge known, const pm_tensor *t)
{
    const bool number = t->type == PM_TYPE_F32 || t->type == PM_TYPE_F64 || t->type == PM_TYPE_F16;
    return known == KNOWN_ALL || (known == KNOWN_INTEGERS && (!number || t->count <= 1));
}

static pm_status make_plan(pm_plan **plan, const pm_graph *graph, const pm_tensor *inputs, size_t count)
{
    pm_status status = pm_fail(PM_INTERNAL, "no plan");
    pm_tensor *given = calloc(count + 1, sizeof *given);
    if (!given)
        return pm_fail(PM_NO_MEMORY, "inputs");
    for (int known = KNOWN_NONE; known < KNOWN_END && status.code != PM_OK; known++) {
        for (size_t i = 0; i < count; i++) {
            given[i] = inputs[i];
            given[i].type = graph->values[graph->inputs[i]].tensor.type;
            given[i].data = is_known((knowledge)known, &inputs[i]) ? inputs[i].data : NULL;
        }
        status = pm_plan_create_evaluation(plan, graph, given);
    }
    free(given);
    return status;
}

static pm_status run(pm_plan *plan, const pm_tensor *inputs, size_t input_count, pm_region *region,
                     pm_tensor **outputs, size_t *output_count)
{
    const pm_graph *p = plan->program;
    const void **in = pm_region_alloc(region, (input_count + 1) * sizeof *in);
    void **out = pm_region_alloc(region, (p->output_count + 1) * sizeof *out);
    *outputs = pm_region_alloc(region, (p->output_count + 1) * sizeof **outputs);
    *output_count = p->output_count;
    if (!in || !out || !*outputs)
        return pm_fail(PM_NO_MEMORY, "outputs");
    for (size_t i = 0; i < input_count; i++)
        in[i] = inputs[i].data;
    for (size_t i = 0; i < p->output_count; i++) {
        pm_tensor *t = &(*outputs)[i];
        *t = p->values[p->outputs[i]].tensor;
        t->data = out[i] = pm_region_alloc(region, pm_tensor_bytes(t));
        if (!out[i])
            return pm_fail(PM_NO_MEMORY, "an output of %zu elements", t->count);
    }
    return pm_plan_run(plan, in, 1, out);
}

pm_status pm_evaluate_onnx(const void *bytes, size_t size, const pm_tensor *inputs, size_t input_count,
                           pm_region *region, pm_tensor **outputs, size_t *output_count)
{
    pm_graph *graph = NULL;
    pm_plan *plan = NULL;
    pm_status status = pm_onnx_graph_read(&graph, bytes, size, inputs, input_count);
    if (status.code == PM_OK)
        status = make_plan(&plan, graph, inputs, input_count);
    if (status.code == PM_OK)
        status = run(plan, inputs, input_count, region, outputs, output_count);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
    return status;
}

pm_status pm_onnx_rewrite(const void *bytes, size_t size, const pm_tensor *inputs, size_t input_count,
                          const pm_tensor *outputs, size_t output_count, pm_buffer **onnx)
{
    pm_graph *graph = NULL;
    pm_status status = pm_onnx_graph_read(&graph, bytes, size, inputs, input_count);
    if (status.code == PM_OK && graph->output_count != output_count)
        status = pm_fail(PM_INVALID, "%zu outputs, the model has %zu", output_count, graph->output_count);
    for (size_t i = 0; status.code == PM_OK && i < output_count; i++) {
        pm_tensor *declared = &graph->values[graph->outputs[i]].tensor;
        if (declared->type == PM_TYPE_NONE)
            *declared = outputs[i];
    }
    if (status.code == PM_OK)
        status = pm_graph_write_onnx(graph, "", NULL, onnx);
    pm_graph_destroy(&graph);
    return status;
}
