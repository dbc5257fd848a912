// Layers that become several ONNX operators. Shapes: N rows, T places, C channels, H heads.
#include "model/layer_builder.h"

#include <math.h>
#include <stdlib.h>

static const pm_initial ZERO = {PM_INITIAL_CONSTANT, 0}, ONE = {PM_INITIAL_CONSTANT, 1};
static const double DEVIATION = 0.02; // of GPT-2's initial weights

#define MASKED (-1e9f) // a score whose share of the softmax is 0

// (N, T, C) with its T and C, or a failure.
static bool read_places(pm_layer_builder *b, int64_t *places, int64_t *channels)
{
    char text[128];
    const pm_tensor x = pm_layer_tensor(b, b->value);
    if (b->status.code == PM_OK && (x.rank != 3 || x.type != PM_TYPE_F32))
        pm_layer_fail(b, pm_fail(PM_INVALID, "the input is %s; (N, T, C) is wanted: a place, then channels",
                                 pm_value_text(&b->graph->values[b->value], text, sizeof text)));
    *places = x.shape[1];
    *channels = x.shape[2];
    return b->status.code == PM_OK;
}

void pm_layer_gelu(pm_layer_builder *b)
{
    const uint32_t x = b->value;
    const uint32_t scaled = pm_layer_2(b, "scaled", "Div", x, pm_layer_number(b, "root", (float)M_SQRT2));
    const uint32_t erf = pm_layer_1(b, "erf", "Erf", scaled);
    const uint32_t area = pm_layer_2(b, "area", "Add", erf, pm_layer_number(b, "one", 1));
    const uint32_t twice = pm_layer_2(b, "twice", "Mul", x, area);
    b->value = pm_layer_2(b, NULL, "Mul", twice, pm_layer_number(b, "half", 0.5f));
}

void pm_layer_global_pool(pm_layer_builder *b)
{
    const pm_attribute axis = pm_attribute_int("axis", 1);
    const uint32_t pooled = pm_layer_1(b, "pool", "GlobalAveragePool", b->value);
    b->value = pm_layer_node(b, NULL, "Flatten", &pooled, 1, &axis, 1);
}

// LayerNormalization over the last axis.
void pm_layer_norm(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const int64_t channels = x.rank > 1 ? x.shape[x.rank - 1] : 1;
    const uint32_t scale = pm_layer_param(b, "scale", &channels, 1, ONE);
    const uint32_t bias = pm_layer_param(b, "bias", &channels, 1, ZERO);
    const uint32_t inputs[] = {b->value, scale, bias};
    const pm_attribute attributes[] = {pm_attribute_int("axis", -1),
                                       pm_attribute_float("epsilon", (float)layer->epsilon)};
    b->value = pm_layer_node(b, NULL, "LayerNormalization", inputs, 3, attributes, 2);
}

// The running activation (N, ..., in) times weight (in, out), plus bias (out).
static void linear(pm_layer_builder *b, int64_t out, bool biased, pm_initial initial)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const int64_t shape[] = {x.rank > 1 ? x.shape[x.rank - 1] : 1, out};
    const uint32_t weight = pm_layer_param(b, "weight", shape, 2, initial);
    b->value = pm_layer_2(b, biased ? "product" : NULL, "MatMul", b->value, weight);
    if (biased)
        b->value = pm_layer_2(b, NULL, "Add", b->value, pm_layer_param(b, "bias", &out, 1, ZERO));
}

static void linear_part(pm_layer_builder *b, const char *part, int64_t out, bool biased, double deviation)
{
    const size_t back = pm_layer_enter(b, part);
    linear(b, out, biased, (pm_initial){PM_INITIAL_NORMAL, deviation});
    pm_layer_leave(b, back);
}

void pm_layer_matmul(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const double in = x.rank > 1 ? (double)x.shape[x.rank - 1] : 1;
    const pm_initial gpt = {PM_INITIAL_NORMAL, DEVIATION};
    linear(b, layer->units, !layer->no_bias, b->attentive ? gpt : pm_layer_initial(b, in, layer->units));
}

void pm_layer_embedding(pm_layer_builder *b, const pm_layer *layer)
{
    const int64_t shape[] = {layer->vocabulary, layer->units};
    const pm_initial initial = {PM_INITIAL_NORMAL, b->attentive ? DEVIATION : 1};
    const uint32_t weight = pm_layer_param(b, "weight", shape, 2, initial);
    if (b->status.code == PM_OK)
        b->graph->params[b->graph->values[weight].param].sparse = layer->sparse;
    b->value = pm_layer_2(b, NULL, "Gather", weight, b->value);
    if (b->status.code == PM_OK)
        b->graph->values[b->value].batched = true;
}

void pm_layer_positions(pm_layer_builder *b)
{
    int64_t shape[2];
    if (!read_places(b, &shape[0], &shape[1]))
        return;
    const uint32_t weight = pm_layer_param(b, "weight", shape, 2, (pm_initial){PM_INITIAL_NORMAL, DEVIATION});
    b->value = pm_layer_2(b, NULL, "Add", b->value, weight);
}

// (N, T, C) as (N, H, T, C / H), or turned as (N, H, C / H, T).
static uint32_t split_heads(pm_layer_builder *b, const char *part, uint32_t x, uint32_t shape, bool turned)
{
    static const int64_t orders[2][4] = {{0, 2, 1, 3}, {0, 2, 3, 1}};
    const size_t back = pm_layer_enter(b, part);
    const pm_attribute order = pm_attribute_ints("perm", orders[turned], 4);
    const uint32_t apart = pm_layer_2(b, "split", "Reshape", x, shape);
    const uint32_t heads = pm_layer_node(b, NULL, "Transpose", &apart, 1, &order, 1);
    pm_layer_leave(b, back);
    return heads;
}

// Whole float tensors would be parameters to whoever reads the exported model; one of truth values is not.
static uint32_t mask_scores(pm_layer_builder *b, uint32_t scores, int64_t places)
{
    unsigned char *seen = malloc((size_t)places * (size_t)places);
    if (!seen) {
        pm_layer_fail(b, pm_fail(PM_NO_MEMORY, "a mask of %lld places", (long long)places));
        return PM_NO_VALUE;
    }
    for (int64_t to = 0; to < places; to++)
        for (int64_t from = 0; from < places; from++)
            seen[to * places + from] = from <= to;
    const uint32_t mask =
        pm_layer_constant(b, "mask", PM_TYPE_BOOL, (const int64_t[]){places, places}, 2, seen);
    free(seen);
    const uint32_t inputs[] = {mask, scores, pm_layer_number(b, "low", MASKED)};
    return pm_layer_node(b, "masked", "Where", inputs, 3, NULL, 0);
}

// Vaswani and others 2017; the last product's deviation is given.
static void attend(pm_layer_builder *b, const pm_layer *layer, double deviation)
{
    int64_t places, channels;
    if (!read_places(b, &places, &channels))
        return;
    if (channels % layer->heads != 0) {
        pm_layer_fail(b, pm_fail(PM_INVALID, "%lld channels cannot be shared by %u heads",
                                 (long long)channels, layer->heads));
        return;
    }
    const int64_t size = channels / layer->heads;
    linear(b, 3 * channels, !layer->no_bias, (pm_initial){PM_INITIAL_NORMAL, DEVIATION});
    uint32_t qkv[3];
    const pm_attribute last = pm_attribute_int("axis", -1);
    const uint32_t thirds = pm_layer_ints(b, "thirds", (const int64_t[]){channels, channels, channels}, 3);
    pm_layer_nodes(b, "thirds", "Split", (const uint32_t[]){b->value, thirds}, 2, &last, 1, qkv, 3);
    const uint32_t apart = pm_layer_ints(b, "apart", (const int64_t[]){0, 0, layer->heads, size}, 4);
    const uint32_t q = split_heads(b, "query", qkv[0], apart, false);
    const uint32_t k = split_heads(b, "key", qkv[1], apart, true);
    const uint32_t v = split_heads(b, "value", qkv[2], apart, false);
    uint32_t scores = pm_layer_2(b, "products", "MatMul", q, k);
    scores =
        pm_layer_2(b, "scores", "Mul", scores, pm_layer_number(b, "scale", (float)(1 / sqrt((double)size))));
    if (!layer->full)
        scores = mask_scores(b, scores, places);
    const uint32_t shares = pm_layer_node(b, "shares", "Softmax", &scores, 1, &last, 1);
    const uint32_t mixed = pm_layer_2(b, "mixed", "MatMul", shares, v);
    const pm_attribute order = pm_attribute_ints("perm", (const int64_t[]){0, 2, 1, 3}, 4);
    const uint32_t turned = pm_layer_node(b, "turned", "Transpose", &mixed, 1, &order, 1);
    b->value = pm_layer_2(b, "joined", "Reshape", turned,
                          pm_layer_ints(b, "together", (const int64_t[]){0, 0, channels}, 3));
    linear_part(b, "out", channels, !layer->no_bias, deviation);
}

void pm_layer_attention(pm_layer_builder *b, const pm_layer *layer)
{
    attend(b, layer, DEVIATION);
}

static void drop(pm_layer_builder *b, const char *part, double ratio)
{
    const pm_attribute dropped = pm_attribute_float("ratio", (float)ratio);
    if (ratio > 0)
        b->value = pm_layer_node(b, part, "Dropout", &b->value, 1, &dropped, 1);
}

static void norm_part(pm_layer_builder *b, const char *part, const pm_layer *layer)
{
    const size_t back = pm_layer_enter(b, part);
    pm_layer_norm(b, layer);
    pm_layer_leave(b, back);
}

// Radford and others 2019: the products whose outputs are added along the depth begin smaller the deeper the
// model is.
void pm_layer_transformer(pm_layer_builder *b, const pm_layer *layer)
{
    int64_t places, channels;
    if (!read_places(b, &places, &channels))
        return;
    const double small = DEVIATION / sqrt(2.0 * b->blocks);
    uint32_t from = b->value;
    norm_part(b, "norm1", layer);
    size_t back = pm_layer_enter(b, "attention");
    attend(b, layer, small);
    pm_layer_leave(b, back);
    drop(b, "dropout1", layer->ratio);
    from = b->value = pm_layer_2(b, "attended", "Add", from, b->value);
    norm_part(b, "norm2", layer);
    linear_part(b, "expand", layer->units ? layer->units : 4 * channels, !layer->no_bias, DEVIATION);
    back = pm_layer_enter(b, "gelu");
    pm_layer_gelu(b);
    pm_layer_leave(b, back);
    linear_part(b, "contract", channels, !layer->no_bias, small);
    drop(b, "dropout2", layer->ratio);
    b->value = pm_layer_2(b, NULL, "Add", from, b->value);
}

// Time comes first inside: (T, N, C). All weights begin uniform in +-1 / sqrt(units), as PyTorch's.
void pm_layer_recurrent(pm_layer_builder *b, const pm_layer *layer)
{
    const bool lstm = layer->op == PM_OP_LSTM;
    const int64_t gates = lstm ? 4 : 3, units = layer->units;
    int64_t places, channels;
    if (!read_places(b, &places, &channels))
        return;
    const pm_initial initial = {PM_INITIAL_UNIFORM, 1 / sqrt((double)units)};
    const pm_attribute order = pm_attribute_ints("perm", (const int64_t[]){1, 0, 2}, 3);
    uint32_t inputs[4] = {pm_layer_node(b, "time", "Transpose", &b->value, 1, &order, 1)}, made[2];
    inputs[1] = pm_layer_param(b, "weight", (const int64_t[]){1, gates * units, channels}, 3, initial);
    inputs[2] = pm_layer_param(b, "recurrence", (const int64_t[]){1, gates * units, units}, 3, initial);
    inputs[3] = pm_layer_param(b, "bias", (const int64_t[]){1, 2 * gates * units}, 2, initial);
    // Of a GRU the form that PyTorch trains and exports.
    const pm_attribute attributes[] = {pm_attribute_int("hidden_size", units),
                                       pm_attribute_int("linear_before_reset", 1)};
    pm_layer_nodes(b, "cells", lstm ? "LSTM" : "GRU", inputs, 4, attributes, lstm ? 1 : 2, made, 2);
    const int64_t axis = layer->last ? 0 : 1; // of the directions
    const uint32_t axes = pm_layer_ints(b, "axes", &axis, 1);
    if (layer->last) {
        b->value = pm_layer_2(b, NULL, "Squeeze", made[1], axes);
        return;
    }
    const uint32_t steps = pm_layer_2(b, "steps", "Squeeze", made[0], axes);
    b->value = pm_layer_node(b, NULL, "Transpose", &steps, 1, &order, 1);
}
