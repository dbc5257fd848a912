#include "model/replace_last.h"

#include "core/rng.h"
#include "model/operators.h"
#include "model/program.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct last {
    uint32_t weight, bias; // values; bias may be PM_NO_VALUE
    bool turned;           // weight is (outputs, inputs)
} last;

static const pm_node *maker_of(const pm_graph *g, uint32_t value)
{
    for (size_t n = 0; n < g->node_count; n++)
        for (uint32_t i = 0; i < g->nodes[n].output_count; i++)
            if (g->nodes[n].outputs[i] == value)
                return &g->nodes[n];
    return NULL;
}

static bool is_op(const pm_node *node, const char *name)
{
    return node && strcmp(node->op->name, name) == 0 && node->op->domain[0] == '\0';
}

// A parameter of the rank that nothing else reads.
static bool is_own(const pm_graph *g, uint32_t value, uint32_t rank)
{
    uint32_t readers = 0;
    if (value == PM_NO_VALUE || g->values[value].param == PM_NO_PARAM || g->values[value].tensor.rank != rank)
        return false;
    for (size_t n = 0; n < g->node_count; n++)
        for (uint32_t i = 0; i < g->nodes[n].input_count; i++)
            readers += g->nodes[n].inputs[i] == value;
    return readers == 1;
}

static bool find_last(const pm_graph *g, last *l)
{
    const pm_node *node = maker_of(g, g->outputs[0]);
    *l = (last){PM_NO_VALUE, PM_NO_VALUE, false};
    if (is_op(node, "Gemm")) {
        l->weight = node->inputs[1];
        l->bias = node->input_count > 2 ? node->inputs[2] : PM_NO_VALUE;
        l->turned = pm_node_int(node, "transB", 0) != 0;
    } else {
        if (is_op(node, "Add")) {
            const uint32_t side = is_own(g, node->inputs[0], 1) ? 0 : 1;
            l->bias = node->inputs[side];
            node = maker_of(g, node->inputs[1 - side]);
        }
        if (!is_op(node, "MatMul"))
            return false;
        l->weight = node->inputs[1];
    }
    return is_own(g, l->weight, 2) && (l->bias == PM_NO_VALUE || is_own(g, l->bias, 1));
}

// New elements of the shape for a parameter: uniform in +-limit, 0 when limit is.
static pm_status renew(pm_graph *g, uint32_t value, uint64_t seed, double limit)
{
    pm_value *v = &g->values[value];
    pm_tensor *t = &v->tensor;
    char purpose[PM_MAX_NAME + 8];
    snprintf(purpose, sizeof purpose, "init:%s", v->name);
    if (!pm_shape_count(t->shape, t->rank, PM_MAX_PARAM_COUNT, &t->count) || t->count == 0)
        return pm_fail(PM_INVALID, "parameter %.64s is empty or too large", v->name);
    float *data = pm_region_alloc(g->region, pm_tensor_bytes(t));
    if (!data)
        return pm_fail(PM_NO_MEMORY, "parameter %.64s of %zu values", v->name, t->count);
    const pm_rng_key key = pm_rng_key_make(seed, purpose);
    for (size_t i = 0; limit > 0 && i < t->count; i++)
        data[i] = (float)(limit * (2 * pm_rng_uniform(key, 0, i) - 1));
    t->data = data;
    g->params[v->param].count = t->count;
    g->params[v->param].initial = data;
    return pm_ok();
}

pm_status pm_graph_replace_last(pm_graph *graph, uint64_t seed, uint32_t units)
{
    last l;
    if (!find_last(graph, &l))
        return pm_fail(PM_INVALID,
                       "replace_last: output %.64s is not made by a Gemm, or a MatMul with or "
                       "without an Add, of weights of its own",
                       graph->values[graph->outputs[0]].name);
    int64_t *shape = graph->values[l.weight].tensor.shape;
    const int64_t inputs = shape[l.turned];
    shape[!l.turned] = units;
    pm_status status = renew(graph, l.weight, seed, sqrt(6.0 / ((double)inputs + units)));
    if (status.code == PM_OK && l.bias != PM_NO_VALUE) {
        graph->values[l.bias].tensor.shape[0] = units;
        status = renew(graph, l.bias, seed, 0);
    }
    graph->values[graph->outputs[0]].tensor = (pm_tensor){.type = PM_TYPE_NONE};
    if (status.code == PM_OK)
        status = pm_program_check_rows(graph);
    return status.code == PM_OK ? pm_graph_finish(graph) : status;
}
