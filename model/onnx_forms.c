// What exporters leave behind: forms of training, half floats, batch normalizations folded into weights.
#include "model/convert.h"
#include "model/onnx_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pm_status pm_onnx_widen(pm_region *region, pm_tensor *tensor)
{
    float *wide = pm_region_alloc(region, tensor->count * sizeof *wide);
    if (!wide)
        return pm_fail(PM_NO_MEMORY, "a tensor of %zu elements", tensor->count);
    pm_convert_cast(tensor->type, tensor->data, PM_TYPE_F32, wide, tensor->count);
    tensor->type = PM_TYPE_F32;
    tensor->data = wide;
    return pm_ok();
}

static void remove_attribute(pm_node *node, pm_attribute *attributes, const char *name)
{
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (strcmp(attributes[i].name, name) == 0) {
            node->attribute_count--;
            memmove(&attributes[i], &attributes[i + 1], (node->attribute_count - i) * sizeof *attributes);
        }
}

// Conversions to half floats are to float32 here, and so are constants of them.
static pm_status widen_attributes(pm_graph *graph, const pm_node *node, pm_attribute *attributes)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; status.code == PM_OK && i < node->attribute_count; i++) {
        pm_attribute *a = &attributes[i];
        const bool to = strcmp(a->name, "to") == 0 || strcmp(a->name, "dtype") == 0;
        if (a->type == PM_ATTRIBUTE_INT && to && (a->i == PM_TYPE_F16 || a->i == PM_TYPE_BF16))
            a->i = PM_TYPE_F32;
        if (a->type != PM_ATTRIBUTE_TENSOR || !pm_onnx_is_half(a->tensor->type))
            continue;
        pm_tensor *wide = pm_region_copy(graph->region, a->tensor, sizeof *wide);
        status = wide ? pm_onnx_widen(graph->region, wide) : pm_fail(PM_NO_MEMORY, "a tensor");
        a->tensor = wide;
    }
    return status;
}

// PyTorch's exporter makes names "onnx::Conv_12", or "12", for weights that are no longer the module's own.
static bool is_folded(const char *name)
{
    return strncmp(name, "onnx::Conv_", 11) == 0 || (name[0] && strspn(name, "0123456789") == strlen(name));
}

static pm_status note_folded(pm_graph *graph, const pm_node *node)
{
    const pm_value *weight =
        node->input_count > 1 && node->inputs[1] != PM_NO_VALUE ? &graph->values[node->inputs[1]] : NULL;
    if (!weight || !weight->weight || strcmp(node->op->name, "Conv") != 0 || !is_folded(weight->name))
        return pm_ok();
    return pm_graph_add_note(graph,
                             "node %s: its weights %s seem to have taken in a batch normalization, which "
                             "will not be trained as one; export the model in training mode to keep it",
                             node->name, weight->name);
}

pm_status pm_onnx_settle_node(pm_graph *graph, pm_node *node, pm_attribute *attributes)
{
    const char *op = node->op->name;
    if (strcmp(op, "BatchNormalization") == 0)
        remove_attribute(node, attributes, "training_mode");
    if (strcmp(op, "Dropout") == 0 && node->input_count > 2)
        node->input_count = 2; // whether it is training
    pm_status status = widen_attributes(graph, node, attributes);
    return status.code == PM_OK ? note_folded(graph, node) : status;
}

static bool has_extras(const pm_node *node)
{
    return node->output_count > 1 && !node->op->domain[0] &&
           (strcmp(node->op->name, "BatchNormalization") == 0 || strcmp(node->op->name, "Dropout") == 0);
}

pm_status pm_onnx_drop_unread(pm_graph *graph)
{
    bool *read = calloc(graph->value_count + 1, sizeof *read);
    if (!read)
        return pm_fail(PM_NO_MEMORY, "%zu values", graph->value_count);
    for (size_t i = 0; i < graph->output_count; i++)
        read[graph->outputs[i]] = true;
    for (size_t n = 0; n < graph->node_count; n++)
        for (uint32_t i = 0; i < graph->nodes[n].input_count; i++)
            if (graph->nodes[n].inputs[i] != PM_NO_VALUE)
                read[graph->nodes[n].inputs[i]] = true;
    for (size_t n = 0; n < graph->node_count; n++) {
        pm_node *node = &graph->nodes[n];
        while (has_extras(node)) {
            const uint32_t last = node->outputs[node->output_count - 1];
            if (last != PM_NO_VALUE && read[last])
                break;
            node->output_count--;
        }
    }
    free(read);
    return pm_ok();
}

// Which values have an influence on an output that can be differentiated.
static void find_influence(const pm_graph *graph, bool *matters)
{
    for (size_t i = 0; i < graph->output_count; i++)
        matters[graph->outputs[i]] = true;
    for (size_t n = graph->node_count; n-- > 0;) {
        const pm_node *node = &graph->nodes[n];
        bool passes = false;
        for (uint32_t i = 0; i < node->output_count; i++)
            passes = passes || (node->outputs[i] != PM_NO_VALUE && matters[node->outputs[i]]);
        passes = passes && (node->op->gradient || node->op->lower);
        for (uint32_t i = 0; passes && i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                matters[node->inputs[i]] = true;
    }
}

pm_status pm_onnx_keep_trainable(pm_graph *graph)
{
    bool *matters = calloc(graph->value_count + 1, sizeof *matters);
    size_t kept = 0;
    if (!matters)
        return pm_fail(PM_NO_MEMORY, "%zu values", graph->value_count);
    find_influence(graph, matters);
    for (size_t i = 0; i < graph->param_count; i++) {
        const uint32_t value = graph->param_values[i];
        pm_value *v = &graph->values[value];
        if (matters[value] || !v->tensor.data) {
            v->param = (int64_t)kept;
            graph->params[kept] = graph->params[i];
            graph->param_values[kept++] = value;
        } else {
            v->param = PM_NO_PARAM;
            v->constant = true;
        }
    }
    graph->param_count = kept;
    free(matters);
    return pm_ok();
}

// "NAME.float32", or with more behind it, for the value of a float32 beside one of half floats. All other
// names are taken by then.
static pm_status name_wide(pm_onnx_reader *r, uint32_t value, const char *beside)
{
    char text[PM_MAX_NAME];
    uint32_t k = 0;
    int size = snprintf(text, sizeof text, "%.*s.float32", PM_MAX_NAME - 32, beside);
    while (pm_names_find(r->taken, text, (size_t)size) != PM_NO_NAME)
        size = snprintf(text, sizeof text, "%.*s.float32_%u", PM_MAX_NAME - 32, beside, ++k);
    r->graph->values[value].name = pm_region_text(r->graph->region, text);
    return r->graph->values[value].name ? pm_onnx_take_name(r, value) : pm_fail(PM_NO_MEMORY, "a name");
}

pm_status pm_onnx_widen_input(pm_onnx_reader *r, uint32_t *value)
{
    const pm_attribute to = pm_attribute_int("to", PM_TYPE_F32);
    return pm_onnx_add_plain(r->graph, "Cast", *value, NULL, &to, value);
}

pm_status pm_onnx_name_widened(pm_onnx_reader *r)
{
    const pm_graph *graph = r->graph;
    pm_status status = pm_ok();
    for (size_t n = 0; status.code == PM_OK && n < graph->node_count; n++) {
        const pm_node *node = &graph->nodes[n];
        if (node->output_count > 0 && node->outputs[0] != PM_NO_VALUE &&
            !graph->values[node->outputs[0]].name)
            status = name_wide(r, node->outputs[0], graph->values[node->inputs[0]].name);
    }
    return status;
}

pm_status pm_onnx_narrow_output(pm_onnx_reader *r, pm_type declared, uint32_t *value)
{
    const pm_value *v = &r->graph->values[*value];
    const pm_attribute to = pm_attribute_int("to", declared);
    const char *shown = v->name;
    if (v->tensor.type != PM_TYPE_NONE)
        return pm_fail(PM_UNSUPPORTED, "output %.64s of %s is an input or a constant", v->name,
                       pm_type_name(declared));
    pm_status status = name_wide(r, *value, shown);
    return status.code == PM_OK ? pm_onnx_add_plain(r->graph, "Cast", *value, shown, &to, value) : status;
}
