#include "model/graph_impl.h"

#include "model/operators.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pm_graph *pm_graph_create(void)
{
    return calloc(1, sizeof(pm_graph));
}

void pm_graph_destroy(pm_graph **graph)
{
    if (!graph || !*graph)
        return;
    pm_graph *g = *graph;
    for (size_t i = 0; i < g->node_count; i++)
        free(g->nodes[i].name);
    for (size_t i = 0; i < g->param_count; i++)
        free((void *)g->params[i].initial);
    for (size_t i = 0; i < g->value_count; i++)
        free(g->values[i].name);
    free(g->nodes);
    free(g->values);
    free(g->params);
    free(g->param_values);
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

bool pm_shape_count(const int64_t *shape, uint32_t rank, size_t limit, size_t *count)
{
    size_t product = 1;
    for (uint32_t i = 0; i < rank; i++) {
        if (shape[i] <= 0 || (uint64_t)shape[i] > limit / product)
            return false;
        product *= (size_t)shape[i];
    }
    *count = product;
    return true;
}

const char *pm_shape_text(const int64_t *shape, uint32_t rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (uint32_t i = 0; i < rank && used < size; i++) {
        if (shape[i] == PM_BATCH)
            used += (size_t)snprintf(text + used, size - used, "%sN", i ? ", " : "");
        else
            used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    }
    if (used < size)
        snprintf(text + used, size - used, ")");
    return text;
}

pm_status pm_graph_add_value(pm_graph *graph, const char *name, const int64_t *shape, uint32_t rank,
                             uint32_t *value)
{
    size_t count = 0;
    char text[128];
    bool batched = rank > 0 && shape[0] == PM_BATCH;
    if (rank > PM_MAX_RANK || !pm_shape_count(shape + batched, rank - batched,
                                              batched ? PM_MAX_ROW_COUNT : PM_MAX_PARAM_COUNT, &count))
        return pm_fail(PM_INVALID, "value %.64s: shape %s is empty, too large or of too high a rank", name,
                       pm_shape_text(shape, rank < PM_MAX_RANK ? rank : PM_MAX_RANK, text, sizeof text));
    char *copy = strdup(name);
    if (!copy ||
        !reserve((void **)&graph->values, &graph->value_capacity, graph->value_count, sizeof(pm_value))) {
        free(copy);
        return pm_fail(PM_NO_MEMORY, "value %.64s", name);
    }
    pm_value *v = &graph->values[graph->value_count];
    *v = (pm_value){.name = copy, .rank = rank, .count = count, .param = PM_NO_PARAM};
    if (rank > 0)
        memcpy(v->shape, shape, rank * sizeof *shape);
    *value = (uint32_t)graph->value_count++;
    return pm_ok();
}

pm_status pm_graph_add_param(pm_graph *graph, const char *name, const int64_t *shape, uint32_t rank,
                             float *initial, uint32_t *value)
{
    size_t capacity = graph->param_capacity;
    if (!reserve((void **)&graph->param_values, &capacity, graph->param_count, sizeof(uint32_t)) ||
        !reserve((void **)&graph->params, &graph->param_capacity, graph->param_count, sizeof(pm_param))) {
        free(initial);
        return pm_fail(PM_NO_MEMORY, "parameter %.64s", name);
    }
    if (rank > 0 && shape[0] == PM_BATCH) {
        free(initial);
        return pm_fail(PM_INVALID, "parameter %.64s has a negative extent", name);
    }
    pm_status status = pm_graph_add_value(graph, name, shape, rank, value);
    if (status.code != PM_OK) {
        free(initial);
        return status;
    }
    pm_value *v = &graph->values[*value];
    v->param = (int64_t)graph->param_count;
    graph->params[graph->param_count] = (pm_param){.rank = rank, .count = v->count, .initial = initial};
    graph->param_values[graph->param_count++] = *value;
    return pm_ok();
}

pm_status pm_graph_add_node(pm_graph *graph, const pm_node *node, const char *output_name)
{
    pm_value shape = {0};
    pm_status status = node->op->infer(graph, node, &shape);
    if (status.code != PM_OK)
        return status;
    char *name = strdup(node->name);
    if (!name ||
        !reserve((void **)&graph->nodes, &graph->node_capacity, graph->node_count, sizeof(pm_node))) {
        free(name);
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    }
    uint32_t output = 0;
    status = pm_graph_add_value(graph, output_name, shape.shape, shape.rank, &output);
    if (status.code != PM_OK) {
        free(name);
        return status;
    }
    pm_node *added = &graph->nodes[graph->node_count++];
    *added = *node;
    added->name = name;
    added->output = output;
    for (uint32_t i = 0; i < node->input_count; i++) {
        int64_t param = graph->values[node->inputs[i]].param;
        if (param == PM_NO_PARAM || !(node->op->statistic_inputs >> i & 1))
            continue;
        graph->params[param].kind = PM_PARAM_STATISTIC;
        graph->params[param].momentum = pm_node_float(node, "momentum", 0.9f);
    }
    return pm_ok();
}

void pm_graph_finish(pm_graph *graph, uint32_t output)
{
    graph->output = output;
    for (size_t i = 0; i < graph->param_count; i++) {
        const pm_value *v = &graph->values[graph->param_values[i]];
        graph->params[i].name = v->name;
        graph->params[i].shape = v->shape;
    }
}

const pm_attribute *pm_node_attribute(const pm_node *node, const char *name)
{
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (strcmp(node->attributes[i].name, name) == 0)
            return &node->attributes[i];
    return NULL;
}

int64_t pm_node_int(const pm_node *node, const char *name, int64_t otherwise)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    return a && a->type == PM_ATTRIBUTE_INT ? a->i : otherwise;
}

float pm_node_float(const pm_node *node, const char *name, float otherwise)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    return a && a->type == PM_ATTRIBUTE_FLOAT ? a->f : otherwise;
}

void pm_node_set_int(pm_node *node, const char *name, int64_t value)
{
    node->attributes[node->attribute_count++] =
        (pm_attribute){.name = name, .type = PM_ATTRIBUTE_INT, .i = value};
}

void pm_node_set_float(pm_node *node, const char *name, float value)
{
    node->attributes[node->attribute_count++] =
        (pm_attribute){.name = name, .type = PM_ATTRIBUTE_FLOAT, .f = value};
}

void pm_node_set_ints(pm_node *node, const char *name, const int64_t *values, uint32_t count)
{
    pm_attribute *a = &node->attributes[node->attribute_count++];
    *a = (pm_attribute){.name = name, .type = PM_ATTRIBUTE_INTS, .int_count = count};
    memcpy(a->ints, values, count * sizeof *values);
}

size_t pm_graph_param_count(const pm_graph *graph)
{
    return graph->param_count;
}

const pm_param *pm_graph_param(const pm_graph *graph, size_t index)
{
    return &graph->params[index];
}

const char *pm_graph_input_name(const pm_graph *graph)
{
    return graph->values[graph->input].name;
}

const char *pm_graph_output_name(const pm_graph *graph)
{
    return graph->values[graph->output].name;
}

const int64_t *pm_graph_input_shape(const pm_graph *graph, uint32_t *rank)
{
    const pm_value *v = &graph->values[graph->input];
    *rank = v->rank - 1;
    return v->shape + 1;
}

const int64_t *pm_graph_output_shape(const pm_graph *graph, uint32_t *rank)
{
    const pm_value *v = &graph->values[graph->output];
    *rank = v->rank - 1;
    return v->shape + 1;
}

size_t pm_graph_input_count(const pm_graph *graph)
{
    return graph->values[graph->input].count;
}

size_t pm_graph_output_count(const pm_graph *graph)
{
    return graph->values[graph->output].count;
}
