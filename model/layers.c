// From the short layer list of a job to a graph.
#include "core/rng.h"
#include "model/operators.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct builder {
    pm_graph *graph;
    const pm_job *job;
    uint32_t layer;                      // being built
    uint32_t numbers[PM_OPERATOR_COUNT]; // layers of each kind so far
    uint32_t value;                      // the running activation
    char node_name[64];
} builder;

static const pm_operator *operator_of(pm_op op)
{
    static const pm_operator_id ids[] = {
        [PM_OP_GEMM] = PM_OPERATOR_GEMM,
        [PM_OP_RELU] = PM_OPERATOR_RELU,
        [PM_OP_SIGMOID] = PM_OPERATOR_SIGMOID,
        [PM_OP_TANH] = PM_OPERATOR_TANH,
        [PM_OP_DROPOUT] = PM_OPERATOR_DROPOUT,
        [PM_OP_CONV] = PM_OPERATOR_CONV,
        [PM_OP_MAX_POOL] = PM_OPERATOR_MAX_POOL,
        [PM_OP_AVERAGE_POOL] = PM_OPERATOR_AVERAGE_POOL,
        [PM_OP_BATCH_NORMALIZATION] = PM_OPERATOR_BATCH_NORMALIZATION,
        [PM_OP_FLATTEN] = PM_OPERATOR_FLATTEN,
        [PM_OP_SOFTMAX] = PM_OPERATOR_SOFTMAX,
    };
    return (unsigned)op < sizeof ids / sizeof ids[0] ? pm_operator_get(ids[op]) : NULL;
}

// Whether the next activation after this layer is Relu: then He's variance keeps the signal's size, else
// Glorot's.
static bool relu_follows(const builder *b)
{
    for (uint32_t i = b->layer + 1; i < b->job->model.layer_count; i++) {
        pm_op op = b->job->model.layers[i].op;
        if (op == PM_OP_RELU)
            return true;
        if (op == PM_OP_SIGMOID || op == PM_OP_TANH || op == PM_OP_SOFTMAX || op == PM_OP_GEMM ||
            op == PM_OP_CONV)
            return false;
    }
    return false;
}

// Adds the parameter NODE.ROLE to node's inputs, filled with constant, or uniform in +-limit when limit > 0.
static pm_status add_param(builder *b, pm_node *node, const char *role, const int64_t *shape, uint32_t rank,
                           double limit, float constant)
{
    char name[PM_MAX_NAME], purpose[PM_MAX_NAME + 8];
    snprintf(name, sizeof name, "%s.%s", b->node_name, role);
    snprintf(purpose, sizeof purpose, "init:%s", name);
    size_t count = 0;
    if (!pm_shape_count(shape, rank, PM_MAX_PARAM_COUNT, &count))
        return pm_fail(PM_INVALID, "parameter %s is empty or too large", name);
    float *initial = malloc(count * sizeof *initial);
    if (!initial)
        return pm_fail(PM_NO_MEMORY, "parameter %s of %zu values", name, count);
    pm_rng_key key = pm_rng_key_make(b->job->seed, purpose);
    for (size_t i = 0; i < count; i++)
        initial[i] = limit > 0 ? (float)(limit * (2 * pm_rng_uniform(key, 0, i) - 1)) : constant;
    return pm_graph_add_param(b->graph, name, shape, rank, initial, &node->inputs[node->input_count++]);
}

// Weight (out, in, ...) and bias (out) of Gemm and Conv; area is the window's size.
static pm_status add_weights(builder *b, pm_node *node, const int64_t *shape, uint32_t rank, double area,
                             bool no_bias)
{
    double fan_in = (double)shape[1] * area, fan_out = (double)shape[0] * area;
    double limit = sqrt(relu_follows(b) ? 6 / fan_in : 6 / (fan_in + fan_out));
    pm_status status = add_param(b, node, "weight", shape, rank, limit, 0);
    if (status.code == PM_OK && !no_bias)
        status = add_param(b, node, "bias", shape, 1, 0, 0);
    return status;
}

static void set_window(pm_node *node, const pm_layer *layer, uint32_t default_stride)
{
    int64_t kernel = layer->kernel, stride = layer->stride ? layer->stride : default_stride, pad = layer->pad;
    pm_node_set_ints(node, "kernel_shape", (int64_t[]){kernel, kernel}, 2);
    pm_node_set_ints(node, "strides", (int64_t[]){stride, stride}, 2);
    pm_node_set_ints(node, "pads", (int64_t[]){pad, pad, pad, pad}, 4);
}

static pm_status build_gemm(builder *b, pm_node *node, const pm_layer *layer)
{
    const pm_value *x = &b->graph->values[b->value];
    if (layer->units == 0)
        return pm_fail(PM_INVALID, "units must be given");
    pm_node_set_int(node, "transB", 1);
    int64_t shape[] = {layer->units, x->rank == 2 ? x->shape[1] : 1}; // rank is refused by shape inference
    return add_weights(b, node, shape, 2, 1, layer->no_bias);
}

static pm_status build_conv(builder *b, pm_node *node, const pm_layer *layer)
{
    const pm_value *x = &b->graph->values[b->value];
    if (layer->channels == 0 || layer->kernel == 0)
        return pm_fail(PM_INVALID, "channels and kernel must be given");
    set_window(node, layer, 1);
    int64_t shape[] = {layer->channels, x->rank == 4 ? x->shape[1] : 1, layer->kernel, layer->kernel};
    return add_weights(b, node, shape, 4, (double)layer->kernel * layer->kernel, layer->no_bias);
}

static pm_status build_batch_normalization(builder *b, pm_node *node, const pm_layer *layer)
{
    const pm_value *x = &b->graph->values[b->value];
    pm_node_set_float(node, "epsilon", layer->epsilon > 0 ? (float)layer->epsilon : 1e-5f);
    pm_node_set_float(node, "momentum", layer->momentum > 0 ? (float)layer->momentum : 0.9f);
    int64_t shape[] = {x->rank > 1 ? x->shape[1] : 1};
    pm_status status = add_param(b, node, "scale", shape, 1, 0, 1);
    if (status.code == PM_OK)
        status = add_param(b, node, "bias", shape, 1, 0, 0);
    if (status.code == PM_OK)
        status = add_param(b, node, "mean", shape, 1, 0, 0);
    if (status.code == PM_OK)
        status = add_param(b, node, "var", shape, 1, 0, 1);
    return status;
}

static pm_status build_node(builder *b, pm_node *node, const pm_layer *layer)
{
    switch (layer->op) {
    case PM_OP_GEMM:
        return build_gemm(b, node, layer);
    case PM_OP_CONV:
        return build_conv(b, node, layer);
    case PM_OP_BATCH_NORMALIZATION:
        return build_batch_normalization(b, node, layer);
    case PM_OP_MAX_POOL:
    case PM_OP_AVERAGE_POOL:
        if (layer->kernel == 0)
            return pm_fail(PM_INVALID, "kernel must be given");
        set_window(node, layer, layer->kernel);
        return pm_ok();
    case PM_OP_DROPOUT:
        pm_node_set_float(node, "ratio", layer->ratio > 0 ? (float)layer->ratio : 0.5f);
        return pm_ok();
    case PM_OP_FLATTEN:
        pm_node_set_int(node, "axis", 1);
        return pm_ok();
    case PM_OP_SOFTMAX:
        if (b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY && b->layer + 1 == b->job->model.layer_count)
            return pm_fail(PM_INVALID,
                           "the loss softmax_cross_entropy applies Softmax itself: remove this layer");
        pm_node_set_int(node, "axis", -1);
        return pm_ok();
    default:
        return pm_ok();
    }
}

static pm_status build_layer(builder *b)
{
    const pm_layer *layer = &b->job->model.layers[b->layer];
    const pm_operator *op = operator_of(layer->op);
    if (!op)
        return pm_fail(PM_INVALID, "model.layers[%u]: unknown operator %d", b->layer, (int)layer->op);
    snprintf(b->node_name, sizeof b->node_name, "%s%u", op->prefix, ++b->numbers[op->id]);
    pm_node node = {.op = op, .name = b->node_name, .inputs = {b->value}, .input_count = 1};
    char output[PM_MAX_NAME];
    if (b->layer + 1 == b->job->model.layer_count)
        snprintf(output, sizeof output, "%s",
                 b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY ? "logits" : "output");
    else
        snprintf(output, sizeof output, "%s.y", b->node_name);
    pm_status status = build_node(b, &node, layer);
    if (status.code == PM_OK)
        status = pm_graph_add_node(b->graph, &node, output);
    if (status.code != PM_OK)
        return pm_wrap(status, "model.layers[%u] (%s)", b->layer, op->name);
    b->value = b->graph->nodes[b->graph->node_count - 1].output;
    return status;
}

pm_status pm_graph_from_job(pm_graph **graph, const pm_job *job)
{
    const pm_job_model *model = &job->model;
    if (model->layer_count == 0 || model->layer_count > PM_MAX_NODES)
        return pm_fail(PM_INVALID, "model.layers must hold 1 to %d layers", PM_MAX_NODES);
    if (model->input_rank == 0 || model->input_rank >= PM_MAX_RANK)
        return pm_fail(PM_INVALID, "model.input.shape must have 1 to %d extents", PM_MAX_RANK - 1);
    builder b = {.graph = pm_graph_create(), .job = job};
    if (!b.graph)
        return pm_fail(PM_NO_MEMORY, "a graph");
    int64_t shape[PM_MAX_RANK] = {PM_BATCH};
    memcpy(shape + 1, model->input_shape, model->input_rank * sizeof *shape);
    pm_status status = pm_graph_add_value(b.graph, model->input_name, shape, model->input_rank + 1, &b.value);
    b.graph->input = b.value;
    for (; status.code == PM_OK && b.layer < model->layer_count; b.layer++)
        status = build_layer(&b);
    for (size_t i = 1; status.code == PM_OK && i < b.graph->value_count; i++)
        if (strcmp(b.graph->values[i].name, model->input_name) == 0)
            status = pm_fail(PM_INVALID, "model.input.name: %.64s is the name of an inner value",
                             model->input_name);
    if (status.code != PM_OK) {
        pm_graph_destroy(&b.graph);
        return status;
    }
    pm_graph_finish(b.graph, b.value);
    *graph = b.graph;
    return status;
}
