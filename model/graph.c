#include "model/graph_impl.h"

#include "model/operators.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pm_graph *pm_graph_create(void)
{
    pm_graph *graph = calloc(1, sizeof *graph);
    if (graph)
        graph->region = pm_region_create();
    if (graph && !graph->region) {
        free(graph);
        return NULL;
    }
    return graph;
}

void pm_graph_destroy(pm_graph **graph)
{
    if (!graph || !*graph)
        return;
    pm_graph *g = *graph;
    pm_region_destroy(&g->region);
    free(g->nodes);
    free(g->values);
    free(g->params);
    free(g->param_values);
    free(g->inputs);
    free(g->outputs);
    free(g);
    *graph = NULL;
}

// Makes room for one more item; false when out of memory.
static bool reserve(void **items, size_t *capacity, size_t count, size_t item_size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity ? 2 * *capacity : 16;
    void *grown = realloc(*items, wanted * item_size);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

const char *pm_value_text(const pm_value *value, char *text, size_t size)
{
    const pm_tensor *t = &value->tensor;
    if (!value->batched || t->rank == 0)
        return pm_shape_text(t->shape, t->rank, text, size);
    char rest[128];
    pm_shape_text(t->shape + 1, t->rank - 1, rest, sizeof rest);
    snprintf(text, size, t->rank > 1 ? "(N, %s" : "(N%s", rest + 1);
    return text;
}

pm_status pm_graph_add_value(pm_graph *graph, const char *name, const pm_tensor *tensor, uint32_t *value)
{
    char text[128];
    size_t count = 0;
    const char *shown = name ? name : "";
    if (tensor->rank > PM_MAX_RANK ||
        !pm_shape_count(tensor->shape, tensor->rank, PM_MAX_PARAM_COUNT, &count))
        return pm_fail(PM_INVALID, "value %.64s: shape %s is too large or of too high a rank", shown,
                       pm_shape_text(tensor->shape, tensor->rank < PM_MAX_RANK ? tensor->rank : PM_MAX_RANK,
                                     text, sizeof text));
    char *copy = name ? pm_region_text(graph->region, name) : NULL;
    if ((name && !copy) || graph->value_count >= PM_NO_VALUE ||
        !reserve((void **)&graph->values, &graph->value_capacity, graph->value_count, sizeof(pm_value)))
        return pm_fail(PM_NO_MEMORY, "value %.64s", shown);
    pm_value *v = &graph->values[graph->value_count];
    *v = (pm_value){.name = copy, .tensor = *tensor, .param = PM_NO_PARAM};
    v->tensor.count = count;
    *value = (uint32_t)graph->value_count++;
    return pm_ok();
}

pm_status pm_graph_add_constant(pm_graph *graph, const char *name, const pm_tensor *tensor, uint32_t *value)
{
    pm_status status = pm_graph_add_value(graph, name, tensor, value);
    if (status.code == PM_OK)
        graph->values[*value].constant = graph->values[*value].shared = true;
    return status;
}

pm_status pm_graph_make_param(pm_graph *graph, uint32_t value)
{
    pm_value *v = &graph->values[value];
    size_t capacity = graph->param_capacity;
    if (v->param != PM_NO_PARAM)
        return pm_ok();
    if (v->tensor.type != PM_TYPE_F32 || v->tensor.count == 0)
        return pm_fail(PM_INVALID, "parameter %.64s is empty or not float32", v->name);
    if (!reserve((void **)&graph->param_values, &capacity, graph->param_count, sizeof(uint32_t)) ||
        !reserve((void **)&graph->params, &graph->param_capacity, graph->param_count, sizeof(pm_param)))
        return pm_fail(PM_NO_MEMORY, "parameter %.64s", v->name);
    v->constant = false;
    v->shared = true;
    v->param = (int64_t)graph->param_count;
    graph->params[graph->param_count] =
        (pm_param){.rank = v->tensor.rank, .count = v->tensor.count, .initial = v->tensor.data};
    graph->param_values[graph->param_count++] = value;
    return pm_ok();
}

static bool copy_attributes(pm_graph *graph, pm_node *node)
{
    pm_attribute *copy =
        pm_region_copy(graph->region, node->attributes, node->attribute_count * sizeof *node->attributes);
    node->attributes = copy;
    for (uint32_t i = 0; copy && i < node->attribute_count; i++) {
        pm_attribute *a = &copy[i];
        if (a->type == PM_ATTRIBUTE_INTS)
            a->ints = pm_region_copy(graph->region, a->ints, a->count * sizeof *a->ints);
        if (a->type == PM_ATTRIBUTE_FLOATS)
            a->floats = pm_region_copy(graph->region, a->floats, a->count * sizeof *a->floats);
        if (a->type == PM_ATTRIBUTE_STRING)
            a->s = pm_region_text(graph->region, a->s);
        if ((a->type == PM_ATTRIBUTE_INTS && !a->ints) || (a->type == PM_ATTRIBUTE_FLOATS && !a->floats) ||
            (a->type == PM_ATTRIBUTE_STRING && !a->s))
            return false;
    }
    return copy != NULL;
}

pm_status pm_graph_add_node(pm_graph *graph, const pm_node *node)
{
    if (!reserve((void **)&graph->nodes, &graph->node_capacity, graph->node_count, sizeof(pm_node)))
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    pm_node *added = &graph->nodes[graph->node_count];
    *added = *node;
    added->name = pm_region_text(graph->region, node->name);
    added->inputs = pm_region_copy(graph->region, node->inputs, node->input_count * sizeof *node->inputs);
    added->outputs = pm_region_copy(graph->region, node->outputs, node->output_count * sizeof *node->outputs);
    if (!added->name || !added->inputs || !added->outputs || !copy_attributes(graph, added))
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    graph->node_count++;
    for (uint32_t i = 0; i < node->input_count && i < 32; i++) {
        if (node->inputs[i] == PM_NO_VALUE || !(node->op->statistic_inputs >> i & 1))
            continue;
        int64_t param = graph->values[node->inputs[i]].param;
        if (param == PM_NO_PARAM)
            continue;
        graph->params[param].kind = PM_PARAM_STATISTIC;
        graph->params[param].momentum = pm_node_float(node, "momentum", 0.9f);
    }
    return pm_ok();
}

static pm_status append(uint32_t **list, size_t *count, uint32_t value)
{
    uint32_t *grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (!grown)
        return pm_fail(PM_NO_MEMORY, "a list of %zu values", *count + 1);
    grown[(*count)++] = value;
    *list = grown;
    return pm_ok();
}

pm_status pm_graph_add_input(pm_graph *graph, uint32_t value)
{
    return append(&graph->inputs, &graph->input_count, value);
}

pm_status pm_graph_add_output(pm_graph *graph, uint32_t value)
{
    return append(&graph->outputs, &graph->output_count, value);
}

// Appends a copy of text to a list in the region, which has room for a power of two.
static pm_status keep_text(pm_graph *graph, const char ***list, size_t *count, const char *text)
{
    if ((*count & (*count - 1)) == 0) { // full
        const char **grown = pm_region_alloc(graph->region, (*count ? 2 * *count : 1) * sizeof *grown);
        if (!grown)
            return pm_fail(PM_NO_MEMORY, "a list of texts");
        if (*count > 0)
            memcpy(grown, *list, *count * sizeof *grown);
        *list = grown;
    }
    const char *copy = pm_region_text(graph->region, text);
    if (!copy)
        return pm_fail(PM_NO_MEMORY, "a text");
    (*list)[(*count)++] = copy;
    return pm_ok();
}

pm_status pm_graph_add_note(pm_graph *graph, const char *format, ...)
{
    char text[3 * PM_MAX_NAME];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return keep_text(graph, &graph->notes, &graph->note_count, text);
}

pm_status pm_graph_add_file(pm_graph *graph, const char *name)
{
    for (size_t i = graph->file_count; i-- > 0;) // most likely the last
        if (strcmp(graph->files[i], name) == 0)
            return pm_ok();
    return keep_text(graph, &graph->files, &graph->file_count, name);
}

size_t pm_graph_notes(const pm_graph *graph)
{
    return graph->note_count;
}

const char *pm_graph_note(const pm_graph *graph, size_t index)
{
    return graph->notes[index];
}

// What is left of a value's shape without the batch.
static pm_port port_of(const pm_value *v)
{
    const uint32_t skip = v->batched && v->tensor.rank > 0;
    return (pm_port){.name = v->name,
                     .type = v->tensor.type,
                     .shape = v->tensor.shape + skip,
                     .rank = v->tensor.rank - skip,
                     .count = v->tensor.count};
}

pm_status pm_graph_finish(pm_graph *graph)
{
    graph->input_ports = pm_region_alloc(graph->region, graph->input_count * sizeof(pm_port));
    graph->output_ports = pm_region_alloc(graph->region, graph->output_count * sizeof(pm_port));
    if (!graph->input_ports || !graph->output_ports)
        return pm_fail(PM_NO_MEMORY, "a graph's ports");
    for (size_t i = 0; i < graph->param_count; i++) {
        const pm_value *v = &graph->values[graph->param_values[i]];
        graph->params[i].name = v->name;
        graph->params[i].shape = v->tensor.shape;
    }
    for (size_t i = 0; i < graph->input_count; i++)
        graph->input_ports[i] = port_of(&graph->values[graph->inputs[i]]);
    for (size_t i = 0; i < graph->output_count; i++)
        graph->output_ports[i] = port_of(&graph->values[graph->outputs[i]]);
    return pm_ok();
}

size_t pm_graph_param_count(const pm_graph *graph)
{
    return graph->param_count;
}

const pm_param *pm_graph_param(const pm_graph *graph, size_t index)
{
    return &graph->params[index];
}

size_t pm_graph_inputs(const pm_graph *graph)
{
    return graph->input_count;
}

size_t pm_graph_outputs(const pm_graph *graph)
{
    return graph->output_count;
}

const pm_port *pm_graph_input(const pm_graph *graph, size_t index)
{
    return &graph->input_ports[index];
}

const pm_port *pm_graph_output(const pm_graph *graph, size_t index)
{
    return &graph->output_ports[index];
}

const char *pm_graph_input_name(const pm_graph *graph)
{
    return graph->input_ports[0].name;
}

const char *pm_graph_output_name(const pm_graph *graph)
{
    return graph->output_ports[0].name;
}

const int64_t *pm_graph_input_shape(const pm_graph *graph, uint32_t *rank)
{
    *rank = graph->input_ports[0].rank;
    return graph->input_ports[0].shape;
}

const int64_t *pm_graph_output_shape(const pm_graph *graph, uint32_t *rank)
{
    *rank = graph->output_ports[0].rank;
    return graph->output_ports[0].shape;
}

size_t pm_graph_input_count(const pm_graph *graph)
{
    return graph->input_ports[0].count;
}

size_t pm_graph_output_count(const pm_graph *graph)
{
    return graph->output_ports[0].count;
}
