// From the short layer list of a job to a graph.
#include "core/rng.h"
#include "model/onnx.h"
#include "model/operators.h"
#include "model/program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What the builder says of a layer kind: the ONNX operator's form, and how nodes and parameters are named.
typedef struct kind {
    const char *prefix; // "conv" gives conv1, conv1.weight
    int64_t opset;
} kind;

static const kind KINDS[] = {
    [PM_OP_GEMM] = {"gemm", 13},
    [PM_OP_RELU] = {"relu", 13},
    [PM_OP_SIGMOID] = {"sigmoid", 13},
    [PM_OP_TANH] = {"tanh", 13},
    [PM_OP_DROPOUT] = {"dropout", 11}, // its ratio is an attribute there; what is written has no Dropout
    [PM_OP_CONV] = {"conv", 13},
    [PM_OP_MAX_POOL] = {"maxpool", 13},
    [PM_OP_AVERAGE_POOL] = {"averagepool", 13},
    [PM_OP_BATCH_NORMALIZATION] = {"batchnorm", 13},
    [PM_OP_FLATTEN] = {"flatten", 13},
    [PM_OP_SOFTMAX] = {"softmax", 13},
};

enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0], LAYER_INPUTS = 5, LAYER_ATTRIBUTES = 4 };

typedef struct builder {
    pm_graph *graph;
    const pm_job *job;
    uint32_t layer;               // being built
    uint32_t numbers[KIND_COUNT]; // layers of each kind so far
    uint32_t value;               // the running activation
    char node_name[64];
    // Of the node being built:
    uint32_t inputs[LAYER_INPUTS], input_count;
    pm_attribute attributes[LAYER_ATTRIBUTES];
    uint32_t attribute_count;
} builder;

static const pm_tensor *running(const builder *b)
{
    return &b->graph->values[b->value].tensor;
}

static void set(builder *b, pm_attribute attribute)
{
    b->attributes[b->attribute_count++] = attribute;
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

// Adds the parameter NODE.ROLE to the node's inputs, filled with constant, or uniform in +-limit when
// limit > 0.
static pm_status add_param(builder *b, const char *role, const int64_t *shape, uint32_t rank, double limit,
                           float constant)
{
    char name[PM_MAX_NAME], purpose[PM_MAX_NAME + 8];
    snprintf(name, sizeof name, "%s.%s", b->node_name, role);
    snprintf(purpose, sizeof purpose, "init:%s", name);
    pm_tensor tensor = {.type = PM_TYPE_F32, .rank = rank};
    memcpy(tensor.shape, shape, rank * sizeof *shape);
    if (!pm_shape_count(shape, rank, PM_MAX_PARAM_COUNT, &tensor.count) || tensor.count == 0)
        return pm_fail(PM_INVALID, "parameter %s is empty or too large", name);
    float *initial = pm_region_alloc(b->graph->region, pm_tensor_bytes(&tensor));
    if (!initial)
        return pm_fail(PM_NO_MEMORY, "parameter %s of %zu values", name, tensor.count);
    pm_rng_key key = pm_rng_key_make(b->job->seed, purpose);
    for (size_t i = 0; i < tensor.count; i++)
        initial[i] = limit > 0 ? (float)(limit * (2 * pm_rng_uniform(key, 0, i) - 1)) : constant;
    tensor.data = initial;
    uint32_t *value = &b->inputs[b->input_count++];
    pm_status status = pm_graph_add_value(b->graph, name, &tensor, value);
    return status.code == PM_OK ? pm_graph_make_param(b->graph, *value) : status;
}

// Weight (out, in, ...) and bias (out) of Gemm and Conv; area is the window's size.
static pm_status add_weights(builder *b, const int64_t *shape, uint32_t rank, double area, bool no_bias)
{
    double fan_in = (double)shape[1] * area, fan_out = (double)shape[0] * area;
    double limit = sqrt(relu_follows(b) ? 6 / fan_in : 6 / (fan_in + fan_out));
    pm_status status = add_param(b, "weight", shape, rank, limit, 0);
    if (status.code == PM_OK && !no_bias)
        status = add_param(b, "bias", shape, 1, 0, 0);
    return status;
}

static pm_status set_window(builder *b, const pm_layer *layer, uint32_t default_stride)
{
    const int64_t stride = layer->stride ? layer->stride : default_stride;
    const int64_t lists[] = {layer->kernel, layer->kernel, stride,     stride,
                             layer->pad,    layer->pad,    layer->pad, layer->pad};
    const int64_t *kept = pm_region_copy(b->graph->region, lists, sizeof lists);
    if (!kept)
        return pm_fail(PM_NO_MEMORY, "attributes");
    set(b, pm_attribute_ints("kernel_shape", kept, 2));
    set(b, pm_attribute_ints("strides", kept + 2, 2));
    set(b, pm_attribute_ints("pads", kept + 4, 4));
    return pm_ok();
}

static pm_status build_gemm(builder *b, const pm_layer *layer)
{
    const pm_tensor *x = running(b);
    if (layer->units == 0)
        return pm_fail(PM_INVALID, "units must be given");
    set(b, pm_attribute_int("transB", 1));
    int64_t shape[] = {layer->units, x->rank == 2 ? x->shape[1] : 1}; // rank is refused by shape inference
    return add_weights(b, shape, 2, 1, layer->no_bias);
}

static pm_status build_conv(builder *b, const pm_layer *layer)
{
    const pm_tensor *x = running(b);
    if (layer->channels == 0 || layer->kernel == 0)
        return pm_fail(PM_INVALID, "channels and kernel must be given");
    int64_t shape[] = {layer->channels, x->rank == 4 ? x->shape[1] : 1, layer->kernel, layer->kernel};
    pm_status status = set_window(b, layer, 1);
    return status.code == PM_OK
               ? add_weights(b, shape, 4, (double)layer->kernel * layer->kernel, layer->no_bias)
               : status;
}

static pm_status build_batch_normalization(builder *b, const pm_layer *layer)
{
    const pm_tensor *x = running(b);
    set(b, pm_attribute_float("epsilon", layer->epsilon > 0 ? (float)layer->epsilon : 1e-5f));
    set(b, pm_attribute_float("momentum", layer->momentum > 0 ? (float)layer->momentum : 0.9f));
    int64_t shape[] = {x->rank > 1 ? x->shape[1] : 1};
    static const char *const roles[] = {"scale", "bias", "mean", "var"};
    static const float values[] = {1, 0, 0, 1};
    pm_status status = pm_ok();
    for (size_t i = 0; i < 4 && status.code == PM_OK; i++)
        status = add_param(b, roles[i], shape, 1, 0, values[i]);
    return status;
}

static pm_status build_node(builder *b, const pm_layer *layer)
{
    switch (layer->op) {
    case PM_OP_GEMM:
        return build_gemm(b, layer);
    case PM_OP_CONV:
        return build_conv(b, layer);
    case PM_OP_BATCH_NORMALIZATION:
        return build_batch_normalization(b, layer);
    case PM_OP_MAX_POOL:
    case PM_OP_AVERAGE_POOL:
        if (layer->kernel == 0)
            return pm_fail(PM_INVALID, "kernel must be given");
        return set_window(b, layer, layer->kernel);
    case PM_OP_DROPOUT:
        set(b, pm_attribute_float("ratio", layer->ratio > 0 ? (float)layer->ratio : 0.5f));
        return pm_ok();
    case PM_OP_FLATTEN:
        set(b, pm_attribute_int("axis", 1));
        return pm_ok();
    case PM_OP_SOFTMAX:
        if (b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY && b->layer + 1 == b->job->model.layer_count)
            return pm_fail(PM_INVALID,
                           "the loss softmax_cross_entropy applies Softmax itself: remove this layer");
        set(b, pm_attribute_int("axis", -1));
        return pm_ok();
    default:
        return pm_ok();
    }
}

// Adds the built node with its output, whose first extent is the batch.
static pm_status add_node(builder *b, const pm_operator *op)
{
    char output[PM_MAX_NAME];
    if (b->layer + 1 == b->job->model.layer_count)
        snprintf(output, sizeof output, "%s",
                 b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY ? "logits" : "output");
    else
        snprintf(output, sizeof output, "%s.y", b->node_name);
    uint32_t value = PM_NO_VALUE;
    pm_tensor tensor;
    const pm_node node = {.op = op,
                          .name = b->node_name,
                          .inputs = b->inputs,
                          .input_count = b->input_count,
                          .outputs = &value,
                          .output_count = 1,
                          .attributes = b->attributes,
                          .attribute_count = b->attribute_count};
    pm_status status = pm_program_infer(b->graph, &node, &tensor);
    if (status.code == PM_OK)
        status = pm_graph_add_value(b->graph, output, &tensor, &value);
    if (status.code != PM_OK)
        return status;
    b->graph->values[value].batched = true;
    b->value = value;
    return pm_graph_add_node(b->graph, &node);
}

static pm_status build_layer(builder *b)
{
    const pm_layer *layer = &b->job->model.layers[b->layer];
    if ((unsigned)layer->op >= KIND_COUNT)
        return pm_fail(PM_INVALID, "model.layers[%u]: unknown operator %d", b->layer, (int)layer->op);
    const kind *k = &KINDS[layer->op];
    const pm_operator *op = pm_operator_find("", pm_op_name(layer->op), k->opset);
    snprintf(b->node_name, sizeof b->node_name, "%s%u", k->prefix, ++b->numbers[layer->op]);
    b->inputs[0] = b->value;
    b->input_count = 1;
    b->attribute_count = 0;
    pm_status status = op ? build_node(b, layer) : pm_fail(PM_INTERNAL, "the operator has no entry");
    if (status.code == PM_OK)
        status = add_node(b, op);
    return pm_wrap(status, "model.layers[%u] (%s)", b->layer, pm_op_name(layer->op));
}

static pm_status add_input(builder *b)
{
    const pm_job_model *model = &b->job->model;
    pm_tensor tensor = {.type = PM_TYPE_F32, .rank = model->input_rank + 1, .shape = {1}};
    char text[128];
    memcpy(tensor.shape + 1, model->input_shape, model->input_rank * sizeof *tensor.shape);
    if (!pm_shape_count(tensor.shape, tensor.rank, PM_MAX_ROW_COUNT, &tensor.count) || tensor.count == 0)
        return pm_fail(PM_INVALID, "model.input.shape %s is empty or too large",
                       pm_shape_text(model->input_shape, model->input_rank, text, sizeof text));
    pm_status status = pm_graph_add_value(b->graph, model->input_name, &tensor, &b->value);
    if (status.code != PM_OK)
        return status;
    b->graph->values[b->value].batched = true;
    return pm_graph_add_input(b->graph, b->value);
}

static pm_status check_trainable(const pm_graph *g)
{
    if (pm_graph_inputs(g) != 1 || pm_graph_outputs(g) != 1)
        return pm_fail(PM_UNSUPPORTED, "%zu inputs and %zu outputs; training takes one of each",
                       pm_graph_inputs(g), pm_graph_outputs(g));
    if (pm_graph_input(g, 0)->type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "input %.64s is not float32", pm_graph_input_name(g));
    return pm_ok();
}

static pm_status read_model(pm_graph **graph, const pm_job_model *model)
{
    char digest[PM_DIGEST_HEX];
    pm_graph *g = NULL;
    pm_status status = pm_graph_load_onnx(&g, model->onnx);
    if (status.code != PM_OK)
        return status; // names the file
    status = model->digest[0] ? pm_graph_digest_onnx(g, model->onnx, digest) : status;
    if (status.code == PM_OK && model->digest[0] && strcmp(digest, model->digest) != 0)
        status =
            pm_fail(PM_CORRUPT, "this copy has digest %.12s, the coordinator's %.12s", digest, model->digest);
    if (status.code == PM_OK)
        status = check_trainable(g);
    if (status.code != PM_OK)
        pm_graph_destroy(&g);
    *graph = g;
    return pm_wrap(status, "%s", model->onnx);
}

pm_status pm_graph_from_job(pm_graph **graph, const pm_job *job)
{
    const pm_job_model *model = &job->model;
    if (model->onnx)
        return read_model(graph, model);
    if (model->layer_count == 0 || model->layer_count > PM_MAX_NODES)
        return pm_fail(PM_INVALID, "model.layers must hold 1 to %d layers", PM_MAX_NODES);
    if (model->input_rank == 0 || model->input_rank >= PM_MAX_RANK)
        return pm_fail(PM_INVALID, "model.input.shape must have 1 to %d extents", PM_MAX_RANK - 1);
    builder b = {.graph = pm_graph_create(), .job = job};
    if (!b.graph)
        return pm_fail(PM_NO_MEMORY, "a graph");
    b.graph->opset = ONNX_OPSET;
    pm_status status = add_input(&b);
    for (; status.code == PM_OK && b.layer < model->layer_count; b.layer++)
        status = build_layer(&b);
    for (size_t i = 1; status.code == PM_OK && i < b.graph->value_count; i++)
        if (strcmp(b.graph->values[i].name, model->input_name) == 0)
            status = pm_fail(PM_INVALID, "model.input.name: %.64s is the name of an inner value",
                             model->input_name);
    if (status.code == PM_OK)
        status = pm_graph_add_output(b.graph, b.value);
    if (status.code == PM_OK)
        status = pm_graph_finish(b.graph);
    if (status.code == PM_OK)
        *graph = b.graph;
    else
        pm_graph_destroy(&b.graph);
    return status;
}
