// From the short layer list of a job to a graph.
#include "model/layer_builder.h"
#include "model/onnx.h"
#include "model/program_sparse.h"
#include "model/replace_last.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What layers of a kind are called in the graph, with a number: "conv" gives conv1, conv1.weight.
static const char *const NAMES[] = {
    [PM_OP_GEMM] = "gemm",
    [PM_OP_RELU] = "relu",
    [PM_OP_SIGMOID] = "sigmoid",
    [PM_OP_TANH] = "tanh",
    [PM_OP_DROPOUT] = "dropout",
    [PM_OP_CONV] = "conv",
    [PM_OP_MAX_POOL] = "maxpool",
    [PM_OP_AVERAGE_POOL] = "averagepool",
    [PM_OP_BATCH_NORMALIZATION] = "batchnorm",
    [PM_OP_FLATTEN] = "flatten",
    [PM_OP_SOFTMAX] = "softmax",
    [PM_OP_GELU] = "gelu",
    [PM_OP_GLOBAL_AVERAGE_POOL] = "globalpool",
    [PM_OP_RESIDUAL] = "residual",
    [PM_OP_MATMUL] = "matmul",
    [PM_OP_LAYER_NORMALIZATION] = "layernorm",
    [PM_OP_EMBEDDING] = "embedding",
    [PM_OP_POSITION_EMBEDDING] = "positions",
    [PM_OP_ATTENTION] = "attention",
    [PM_OP_TRANSFORMER] = "transformer",
    [PM_OP_LSTM] = "lstm",
    [PM_OP_GRU] = "gru",
    [PM_OP_DOT_INTERACTION] = "interaction",
};

enum { LAYER_NORM_OPSET = 17 };

// Weight (out, in, ...) and bias (out) of Gemm and Conv; area is the window's size.
static uint32_t add_weights(pm_layer_builder *b, const int64_t *shape, uint32_t rank, double area,
                            bool no_bias, uint32_t inputs[3])
{
    const pm_initial zero = {PM_INITIAL_CONSTANT, 0};
    const pm_initial initial = pm_layer_initial(b, (double)shape[1] * area, (double)shape[0] * area);
    inputs[0] = b->value;
    inputs[1] = pm_layer_param(b, "weight", shape, rank, initial);
    if (no_bias)
        return 2;
    inputs[2] = pm_layer_param(b, "bias", shape, 1, zero);
    return 3;
}

static void build_gemm(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const pm_attribute turned = pm_attribute_int("transB", 1);
    const int64_t shape[] = {layer->units, x.rank == 2 ? x.shape[1] : 1}; // shape inference refuses a rank
    uint32_t inputs[3];
    if (layer->units == 0)
        pm_layer_fail(b, pm_fail(PM_INVALID, "units must be given"));
    const uint32_t count = add_weights(b, shape, 2, 1, layer->no_bias, inputs);
    b->value = pm_layer_node(b, NULL, "Gemm", inputs, count, &turned, 1);
}

// A Conv or a pool; inputs[0] is the running activation.
static void build_window(pm_layer_builder *b, const pm_layer *layer, uint32_t default_stride,
                         const uint32_t *inputs, uint32_t count)
{
    const int64_t stride = layer->stride ? layer->stride : default_stride, kernel = layer->kernel;
    const int64_t kernels[] = {kernel, kernel}, strides[] = {stride, stride};
    const int64_t pads[] = {layer->pad, layer->pad, layer->pad, layer->pad};
    const pm_attribute attributes[] = {pm_attribute_ints("kernel_shape", kernels, 2),
                                       pm_attribute_ints("strides", strides, 2),
                                       pm_attribute_ints("pads", pads, 4)};
    if (kernel == 0)
        pm_layer_fail(b, pm_fail(PM_INVALID, "kernel must be given"));
    b->value = pm_layer_node(b, NULL, pm_op_name(layer->op), inputs, count, attributes, 3);
}

static void build_conv(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const int64_t shape[] = {layer->channels, x.rank == 4 ? x.shape[1] : 1, layer->kernel, layer->kernel};
    uint32_t inputs[3];
    if (layer->channels == 0 || layer->kernel == 0)
        pm_layer_fail(b, pm_fail(PM_INVALID, "channels and kernel must be given"));
    const uint32_t count =
        add_weights(b, shape, 4, (double)layer->kernel * layer->kernel, layer->no_bias, inputs);
    build_window(b, layer, 1, inputs, count);
}

static void build_batch_normalization(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const pm_attribute attributes[] = {
        pm_attribute_float("epsilon", layer->epsilon > 0 ? (float)layer->epsilon : 1e-5f),
        pm_attribute_float("momentum", layer->momentum > 0 ? (float)layer->momentum : 0.9f)};
    const int64_t channels = x.rank > 1 ? x.shape[1] : 1;
    static const char *const roles[] = {"scale", "bias", "mean", "var"};
    static const double values[] = {1, 0, 0, 1};
    uint32_t inputs[5] = {b->value};
    for (size_t i = 0; i < 4; i++)
        inputs[i + 1] =
            pm_layer_param(b, roles[i], &channels, 1, (pm_initial){PM_INITIAL_CONSTANT, values[i]});
    b->value = pm_layer_node(b, NULL, "BatchNormalization", inputs, 5, attributes, 2);
}

static void build_plain(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_layer_list *list = b->list;
    const bool last = !list->outer && list->at + 1 == list->count;
    const pm_attribute ratio = pm_attribute_float("ratio", layer->ratio > 0 ? (float)layer->ratio : 0.5f);
    const pm_attribute axis = pm_attribute_int("axis", layer->op == PM_OP_FLATTEN ? 1 : -1);
    const bool has_axis = layer->op == PM_OP_FLATTEN || layer->op == PM_OP_SOFTMAX;
    const bool drops = layer->op == PM_OP_DROPOUT;
    if (layer->op == PM_OP_SOFTMAX && b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY && last)
        pm_layer_fail(b, pm_fail(PM_INVALID,
                                 "the loss softmax_cross_entropy applies Softmax itself: remove this layer"));
    b->value = pm_layer_node(b, NULL, pm_op_name(layer->op), &b->value, 1, drops ? &ratio : &axis,
                             drops || has_axis);
}

// The layers number on; the name of the residual comes back for its sum.
static void build_residual(pm_layer_builder *b, const pm_layer *layer)
{
    char name[PM_LAYER_NAME], left[128], right[128];
    const uint32_t from = b->value;
    memcpy(name, b->name, sizeof name);
    pm_layer_build(b, "layers", layer->layers, layer->layer_count);
    const uint32_t branch = b->value;
    b->value = from;
    pm_layer_build(b, "shortcut", layer->shortcut, layer->shortcut_count);
    memcpy(b->name, name, sizeof name);
    if (b->status.code != PM_OK)
        return;
    const pm_value *x = &b->graph->values[branch], *y = &b->graph->values[b->value];
    if (!pm_shape_equal(&x->tensor, &y->tensor))
        pm_layer_fail(b, pm_fail(PM_INVALID, "its layers give %s, its shortcut %s; they are added",
                                 pm_value_text(x, left, sizeof left), pm_value_text(y, right, sizeof right)));
    b->value = pm_layer_2(b, NULL, "Add", branch, b->value);
}

static void build_layer(pm_layer_builder *b, const pm_layer *layer)
{
    switch (layer->op) {
    case PM_OP_GEMM:
        build_gemm(b, layer);
        break;
    case PM_OP_CONV:
        build_conv(b, layer);
        break;
    case PM_OP_BATCH_NORMALIZATION:
        build_batch_normalization(b, layer);
        break;
    case PM_OP_MAX_POOL:
    case PM_OP_AVERAGE_POOL:
        build_window(b, layer, layer->kernel, &b->value, 1);
        break;
    case PM_OP_RESIDUAL:
        build_residual(b, layer);
        break;
    case PM_OP_GELU:
        pm_layer_gelu(b);
        break;
    case PM_OP_GLOBAL_AVERAGE_POOL:
        pm_layer_global_pool(b);
        break;
    case PM_OP_LAYER_NORMALIZATION:
        pm_layer_norm(b, layer);
        break;
    case PM_OP_MATMUL:
        pm_layer_matmul(b, layer);
        break;
    case PM_OP_EMBEDDING:
        pm_layer_embedding(b, layer);
        break;
    case PM_OP_POSITION_EMBEDDING:
        pm_layer_positions(b);
        break;
    case PM_OP_ATTENTION:
        pm_layer_attention(b, layer);
        break;
    case PM_OP_TRANSFORMER:
        pm_layer_transformer(b, layer);
        break;
    case PM_OP_DOT_INTERACTION:
        pm_layer_interaction(b, layer);
        break;
    case PM_OP_LSTM:
    case PM_OP_GRU:
        pm_layer_recurrent(b, layer);
        break;
    default:
        build_plain(b, layer);
    }
}

void pm_layer_build(pm_layer_builder *b, const char *name, const pm_layer *layers, uint32_t count)
{
    pm_layer_list list = {layers, count, 0, b->list};
    b->list = &list;
    for (; list.at < count && b->status.code == PM_OK; list.at++) {
        const pm_layer *layer = &layers[list.at];
        if ((unsigned)layer->op >= PM_LAYER_KINDS) {
            b->status = pm_fail(PM_INVALID, "%s[%u]: unknown operator %d", name, list.at, (int)layer->op);
            break;
        }
        snprintf(b->name, sizeof b->name, "%s%u", NAMES[layer->op], ++b->numbers[layer->op]);
        build_layer(b, layer);
        b->status = pm_wrap(b->status, "%s[%u] (%s)", name, list.at, pm_op_name(layer->op));
    }
    b->list = (pm_layer_list *)(uintptr_t)list.outer;
}

static void add_input(pm_layer_builder *b)
{
    const pm_job_model *model = &b->job->model;
    const bool whole = model->layers[0].op == PM_OP_EMBEDDING;
    pm_tensor tensor = {
        .type = whole ? PM_TYPE_I64 : PM_TYPE_F32, .rank = model->input_rank + 1, .shape = {1}};
    char text[128];
    memcpy(tensor.shape + 1, model->input_shape, model->input_rank * sizeof *tensor.shape);
    if (!pm_shape_count(tensor.shape, tensor.rank, PM_MAX_ROW_COUNT, &tensor.count) || tensor.count == 0) {
        b->status = pm_fail(PM_INVALID, "model.input.shape %s is empty or too large",
                            pm_shape_text(model->input_shape, model->input_rank, text, sizeof text));
        return;
    }
    b->status = pm_graph_add_value(b->graph, model->input_name, &tensor, &b->value);
    if (b->status.code != PM_OK)
        return;
    b->graph->values[b->value].batched = true;
    b->status = pm_graph_add_input(b->graph, b->value);
}

// Looks through the layers for what concerns the whole model.
static void survey(pm_layer_builder *b, const pm_layer *layers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const pm_op op = layers[i].op;
        b->blocks += op == PM_OP_TRANSFORMER;
        b->attentive = b->attentive || op == PM_OP_TRANSFORMER || op == PM_OP_ATTENTION;
        if (op == PM_OP_TRANSFORMER || op == PM_OP_LAYER_NORMALIZATION)
            b->graph->opset = LAYER_NORM_OPSET;
        survey(b, layers[i].layers, layers[i].layer_count);
        survey(b, layers[i].shortcut, layers[i].shortcut_count);
    }
}

// The last value is the output and has a name of its own.
static void add_output(pm_layer_builder *b)
{
    const pm_job_model *model = &b->job->model;
    pm_graph *g = b->graph;
    for (size_t i = 1; i < g->value_count; i++)
        if (strcmp(g->values[i].name, model->input_name) == 0)
            pm_layer_fail(b, pm_fail(PM_INVALID, "model.input.name: %.64s is the name of an inner value",
                                     model->input_name));
    if (b->status.code != PM_OK)
        return;
    g->values[b->value].name =
        pm_region_text(g->region, b->job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY ? "logits" : "output");
    g->values[b->value].batched = true;
    if (!g->values[b->value].name)
        b->status = pm_fail(PM_NO_MEMORY, "a name");
    else if (strcmp(g->values[b->value].name, model->input_name) == 0)
        b->status = pm_fail(PM_INVALID, "model.input.name: %.64s is the output's", model->input_name);
    else
        b->status = pm_graph_add_output(g, b->value);
}

static pm_status check_trainable(const pm_graph *g)
{
    if (pm_graph_inputs(g) != 1 || pm_graph_outputs(g) != 1)
        return pm_fail(PM_UNSUPPORTED, "%zu inputs and %zu outputs; training takes one of each",
                       pm_graph_inputs(g), pm_graph_outputs(g));
    const pm_type type = pm_graph_input(g, 0)->type;
    if (type != PM_TYPE_F32 && type != PM_TYPE_I64)
        return pm_fail(PM_UNSUPPORTED, "input %.64s is %s; training takes float32 or int64",
                       pm_graph_input_name(g), pm_type_name(type));
    return pm_ok();
}

static pm_status read_model(pm_graph **graph, const pm_job *job)
{
    const pm_job_model *model = &job->model;
    char digest[PM_DIGEST_HEX];
    pm_graph *g = NULL;
    pm_status status = pm_graph_load_onnx(&g, model->onnx, model->output);
    if (status.code != PM_OK)
        return status; // names the file
    status = model->digest[0] ? pm_graph_digest_onnx(g, model->onnx, digest) : status;
    if (status.code == PM_OK && model->digest[0] && strcmp(digest, model->digest) != 0)
        status =
            pm_fail(PM_CORRUPT, "this copy has digest %.12s, the coordinator's %.12s", digest, model->digest);
    if (status.code == PM_OK)
        status = check_trainable(g);
    if (status.code == PM_OK && model->replace_units > 0)
        status = pm_graph_replace_last(g, job->seed, model->replace_units);
    if (status.code != PM_OK)
        pm_graph_destroy(&g);
    *graph = g;
    return pm_wrap(status, "%s", model->onnx);
}

static pm_status build_model(pm_graph **graph, const pm_job *job)
{
    const pm_job_model *model = &job->model;
    if (model->layer_count == 0 || model->layer_count > PM_MAX_NODES)
        return pm_fail(PM_INVALID, "model.layers must hold 1 to %d layers", PM_MAX_NODES);
    if (model->input_rank == 0 || model->input_rank >= PM_MAX_RANK)
        return pm_fail(PM_INVALID, "model.input.shape must have 1 to %d extents", PM_MAX_RANK - 1);
    pm_layer_builder b = {.graph = pm_graph_create(), .job = job, .status = pm_ok()};
    if (!b.graph)
        return pm_fail(PM_NO_MEMORY, "a graph");
    b.graph->opset = ONNX_OPSET;
    survey(&b, model->layers, model->layer_count);
    add_input(&b);
    pm_layer_build(&b, "model.layers", model->layers, model->layer_count);
    if (b.status.code == PM_OK)
        add_output(&b);
    if (b.status.code == PM_OK)
        b.status = pm_graph_finish(b.graph);
    if (b.status.code == PM_OK)
        *graph = b.graph;
    else
        pm_graph_destroy(&b.graph);
    return b.status;
}

// A frozen table is pulled whole, once.
static pm_status mark_sparse(pm_graph *g, const pm_job_model *model)
{
    pm_status status = pm_ok();
    for (uint32_t k = 0; k < model->sparse_count; k++) {
        bool any = false;
        for (size_t i = 0; i < g->param_count; i++)
            if (fnmatch(model->sparse[k], g->params[i].name, 0) == 0)
                any = g->params[i].sparse = true;
        if (!any)
            return pm_fail(PM_INVALID, "model.sparse: no parameter is named %.64s", model->sparse[k]);
    }
    for (size_t i = 0; i < g->param_count && status.code == PM_OK; i++) {
        pm_param *p = &g->params[i];
        if (p->sparse)
            status = pm_graph_check_sparse(g, i);
        p->sparse = p->sparse && !p->frozen;
    }
    return status;
}

pm_status pm_graph_from_job(pm_graph **graph, const pm_job *job)
{
    pm_graph *g = NULL;
    pm_status status = job->model.onnx ? read_model(&g, job) : build_model(&g, job);
    if (status.code != PM_OK)
        return status;
    for (size_t i = 0; i < g->param_count; i++)
        g->params[i].frozen = pm_job_rate_factor(&job->optimizer, g->params[i].name) == 0;
    status = mark_sparse(g, &job->model);
    if (status.code == PM_OK)
        *graph = g;
    else
        pm_graph_destroy(&g);
    return status;
}
