#include "model/operators.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_WINDOW = 1 << 20 }; // kernel, stride and pad extents

static const pm_value *input_of(const pm_graph *graph, const pm_node *node, uint32_t i)
{
    return &graph->values[node->inputs[i]];
}

static pm_status shape_mismatch(const pm_value *v, const char *wanted)
{
    char text[128];
    return pm_fail(PM_INVALID, "%.64s has shape %s, wanted %s", v->name,
                   pm_shape_text(v->shape, v->rank, text, sizeof text), wanted);
}

// Whether input i is a parameter vector of count elements.
static pm_status check_vector(const pm_graph *graph, const pm_node *node, uint32_t i, int64_t count)
{
    const pm_value *v = input_of(graph, node, i);
    if (v->param == PM_NO_PARAM || v->rank != 1 || v->shape[0] != count)
        return pm_fail(PM_INVALID, "%.64s must be a parameter of shape (%" PRId64 ")", v->name, count);
    return pm_ok();
}

static pm_status infer_same(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    *output = *input_of(graph, node, 0);
    return pm_ok();
}

static pm_status infer_gemm(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    const pm_value *x = input_of(graph, node, 0), *w = input_of(graph, node, 1);
    if (x->rank != 2)
        return shape_mismatch(x, "(N, features); a Flatten before it helps");
    if (pm_node_float(node, "alpha", 1) != 1 || pm_node_float(node, "beta", 1) != 1 ||
        pm_node_int(node, "transA", 0) != 0 || pm_node_int(node, "transB", 0) != 1)
        return pm_fail(PM_UNSUPPORTED, "built for alpha 1, beta 1, transA 0, transB 1");
    if (w->param == PM_NO_PARAM || w->rank != 2 || w->shape[1] != x->shape[1]) {
        char text[128];
        return pm_fail(PM_INVALID, "weight %.64s has shape %s for an input of %" PRId64 " features", w->name,
                       pm_shape_text(w->shape, w->rank, text, sizeof text), x->shape[1]);
    }
    output->rank = 2;
    output->shape[0] = PM_BATCH;
    output->shape[1] = w->shape[0];
    return node->input_count > 2 ? check_vector(graph, node, 2, w->shape[0]) : pm_ok();
}

// Reads an attribute of exactly count integers, each at least low and small enough for safe sums.
static pm_status read_ints(const pm_node *node, const char *name, uint32_t count, int64_t low, int64_t *out)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    if (!a)
        return pm_ok();
    if (a->type != PM_ATTRIBUTE_INTS || a->int_count != count)
        return pm_fail(PM_INVALID, "attribute %s must hold %u integers", name, count);
    for (uint32_t i = 0; i < count; i++) {
        if (a->ints[i] < low || a->ints[i] > MAX_WINDOW)
            return pm_fail(PM_INVALID, "attribute %s: %" PRId64 " is out of range", name, a->ints[i]);
        out[i] = a->ints[i];
    }
    return pm_ok();
}

static pm_status check_window_attributes(const pm_node *node)
{
    int64_t dilations[2] = {1, 1};
    pm_status status = read_ints(node, "dilations", 2, 1, dilations);
    if (status.code != PM_OK)
        return status;
    if (dilations[0] != 1 || dilations[1] != 1 || pm_node_int(node, "group", 1) != 1 ||
        pm_node_int(node, "ceil_mode", 0) != 0 || pm_node_int(node, "storage_order", 0) != 0)
        return pm_fail(PM_UNSUPPORTED, "built for dilations 1, group 1, ceil_mode 0, storage_order 0");
    return pm_ok();
}

pm_status pm_node_window(const pm_graph *graph, const pm_node *node, pm_window *window)
{
    const pm_value *x = input_of(graph, node, 0);
    if (x->rank != 4)
        return shape_mismatch(x, "(N, channels, height, width)");
    int64_t kernel[2] = {0, 0}, strides[2] = {1, 1}, pads[4] = {0};
    if (node->op->id == PM_OPERATOR_CONV) {
        const pm_value *w = input_of(graph, node, 1);
        if (w->param == PM_NO_PARAM || w->rank != 4 || w->shape[1] != x->shape[1])
            return shape_mismatch(w, "a parameter (out, in, height, width) that fits the input's channels");
        kernel[0] = w->shape[2];
        kernel[1] = w->shape[3];
    }
    int64_t given[2] = {kernel[0], kernel[1]};
    pm_status status = check_window_attributes(node);
    if (status.code == PM_OK)
        status = read_ints(node, "kernel_shape", 2, 1, given);
    if (status.code == PM_OK)
        status = read_ints(node, "strides", 2, 1, strides);
    if (status.code == PM_OK)
        status = read_ints(node, "pads", 4, 0, pads);
    if (status.code != PM_OK)
        return status;
    if (node->op->id == PM_OPERATOR_CONV && (given[0] != kernel[0] || given[1] != kernel[1]))
        return pm_fail(PM_INVALID, "kernel_shape differs from the weight's");
    if (given[0] < 1 || given[1] < 1 || given[0] > MAX_WINDOW || given[1] > MAX_WINDOW)
        return pm_fail(PM_INVALID, "kernel_shape is missing or out of range");
    *window = (pm_window){.channels = x->shape[1],
                          .height = x->shape[2],
                          .width = x->shape[3],
                          .kernel_h = given[0],
                          .kernel_w = given[1],
                          .stride_h = strides[0],
                          .stride_w = strides[1],
                          .pad_top = pads[0],
                          .pad_left = pads[1],
                          .pad_bottom = pads[2],
                          .pad_right = pads[3],
                          .count_include_pad = pm_node_int(node, "count_include_pad", 0) != 0};
    int64_t room_h = window->height + pads[0] + pads[2] - given[0];
    int64_t room_w = window->width + pads[1] + pads[3] - given[1];
    if (room_h < 0 || room_w < 0)
        return pm_fail(PM_INVALID,
                       "a %" PRId64 "x%" PRId64 " kernel does not fit into %" PRId64 "x%" PRId64
                       " with its pads",
                       given[0], given[1], window->height, window->width);
    window->out_height = room_h / strides[0] + 1;
    window->out_width = room_w / strides[1] + 1;
    window->out_channels =
        node->op->id == PM_OPERATOR_CONV ? input_of(graph, node, 1)->shape[0] : window->channels;
    return pm_ok();
}

static void window_output(const pm_window *window, pm_value *output)
{
    output->rank = 4;
    output->shape[0] = PM_BATCH;
    output->shape[1] = window->out_channels;
    output->shape[2] = window->out_height;
    output->shape[3] = window->out_width;
}

static pm_status infer_conv(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    pm_window window = {0};
    pm_status status = pm_node_window(graph, node, &window);
    if (status.code != PM_OK)
        return status;
    size_t columns = 0;
    int64_t unrolled[] = {window.channels, window.kernel_h, window.kernel_w, window.out_height,
                          window.out_width};
    if (!pm_shape_count(unrolled, 5, PM_MAX_ROW_COUNT, &columns))
        return pm_fail(PM_INVALID, "the unrolled image has too many elements");
    window_output(&window, output);
    return node->input_count > 2 ? check_vector(graph, node, 2, window.out_channels) : pm_ok();
}

static pm_status infer_pool(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    pm_window window = {0};
    pm_status status = pm_node_window(graph, node, &window);
    if (status.code != PM_OK)
        return status;
    // A window that sees only padding has no maximum and no mean.
    if (window.pad_top >= window.kernel_h || window.pad_bottom >= window.kernel_h ||
        window.pad_left >= window.kernel_w || window.pad_right >= window.kernel_w)
        return pm_fail(PM_INVALID, "pads must be smaller than the kernel");
    window_output(&window, output);
    return pm_ok();
}

static pm_status infer_batch_normalization(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    const pm_value *x = input_of(graph, node, 0);
    if (x->rank < 2)
        return shape_mismatch(x, "(N, channels, ...)");
    float epsilon = pm_node_float(node, "epsilon", 1e-5f), momentum = pm_node_float(node, "momentum", 0.9f);
    if (!(epsilon > 0 && epsilon < 1) || !(momentum >= 0 && momentum <= 1))
        return pm_fail(PM_INVALID, "epsilon must be in (0, 1) and momentum in [0, 1]");
    if (pm_node_int(node, "training_mode", 0) != 0)
        return pm_fail(PM_UNSUPPORTED, "training_mode 1");
    for (uint32_t i = 1; i < node->input_count; i++) {
        pm_status status = check_vector(graph, node, i, x->shape[1]);
        if (status.code != PM_OK)
            return status;
    }
    *output = *x;
    return pm_ok();
}

static pm_status infer_flatten(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    if (pm_node_int(node, "axis", 1) != 1)
        return pm_fail(PM_UNSUPPORTED, "built for axis 1");
    output->rank = 2;
    output->shape[0] = PM_BATCH;
    output->shape[1] = (int64_t)input_of(graph, node, 0)->count;
    return pm_ok();
}

static pm_status infer_softmax(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    const pm_value *x = input_of(graph, node, 0);
    int64_t axis = pm_node_int(node, "axis", -1);
    if (x->rank < 2 || (axis != -1 && axis != (int64_t)x->rank - 1))
        return pm_fail(PM_UNSUPPORTED, "built for the last axis of (N, ..., classes)");
    *output = *x;
    return pm_ok();
}

static pm_status infer_dropout(const pm_graph *graph, const pm_node *node, pm_value *output)
{
    float ratio = pm_node_float(node, "ratio", 0.5f);
    if (!(ratio >= 0 && ratio < 1))
        return pm_fail(PM_INVALID, "ratio must be in [0, 1)");
    return infer_same(graph, node, output);
}

#define INT(attribute)                                                                                       \
    {                                                                                                        \
        attribute, PM_ATTRIBUTE_INT                                                                          \
    }
#define INTS(attribute)                                                                                      \
    {                                                                                                        \
        attribute, PM_ATTRIBUTE_INTS                                                                         \
    }
#define FLOAT(attribute)                                                                                     \
    {                                                                                                        \
        attribute, PM_ATTRIBUTE_FLOAT                                                                        \
    }

// In the order of pm_operator_id. Attribute names and defaults are those of the ONNX operator specification.
static const pm_operator OPERATORS[PM_OPERATOR_COUNT] = {
    {PM_OPERATOR_GEMM,
     "Gemm",
     "gemm",
     2,
     3,
     0,
     true,
     false,
     false,
     {FLOAT("alpha"), FLOAT("beta"), INT("transA"), INT("transB"), {0}},
     infer_gemm},
    {PM_OPERATOR_CONV,
     "Conv",
     "conv",
     2,
     3,
     0,
     true,
     false,
     false,
     {INTS("kernel_shape"),
      INTS("strides"),
      INTS("pads"),
      INTS("dilations"),
      INT("group"),
      {"auto_pad", PM_ATTRIBUTE_STRING},
      {0}},
     infer_conv},
    {PM_OPERATOR_MAX_POOL,
     "MaxPool",
     "maxpool",
     1,
     1,
     0,
     false,
     false,
     false,
     {INTS("kernel_shape"),
      INTS("strides"),
      INTS("pads"),
      INTS("dilations"),
      INT("ceil_mode"),
      INT("storage_order"),
      {"auto_pad", PM_ATTRIBUTE_STRING},
      {0}},
     infer_pool},
    {PM_OPERATOR_AVERAGE_POOL,
     "AveragePool",
     "averagepool",
     1,
     1,
     0,
     false,
     false,
     false,
     {INTS("kernel_shape"),
      INTS("strides"),
      INTS("pads"),
      INT("ceil_mode"),
      INT("count_include_pad"),
      {"auto_pad", PM_ATTRIBUTE_STRING},
      {0}},
     infer_pool},
    {PM_OPERATOR_BATCH_NORMALIZATION,
     "BatchNormalization",
     "batchnorm",
     5,
     5,
     1 << 3 | 1 << 4,
     true,
     false,
     false,
     {FLOAT("epsilon"), FLOAT("momentum"), INT("training_mode"), {0}},
     infer_batch_normalization},
    {PM_OPERATOR_FLATTEN,
     "Flatten",
     "flatten",
     1,
     1,
     0,
     false,
     false,
     false,
     {INT("axis"), {0}},
     infer_flatten},
    {PM_OPERATOR_RELU, "Relu", "relu", 1, 1, 0, false, true, true, {{0}}, infer_same},
    {PM_OPERATOR_SIGMOID, "Sigmoid", "sigmoid", 1, 1, 0, false, true, true, {{0}}, infer_same},
    {PM_OPERATOR_TANH, "Tanh", "tanh", 1, 1, 0, false, true, true, {{0}}, infer_same},
    {PM_OPERATOR_SOFTMAX,
     "Softmax",
     "softmax",
     1,
     1,
     0,
     false,
     true,
     false,
     {INT("axis"), {0}},
     infer_softmax},
    {PM_OPERATOR_DROPOUT,
     "Dropout",
     "dropout",
     1,
     1,
     0,
     false,
     false,
     true,
     {FLOAT("ratio"), INT("seed"), {0}},
     infer_dropout},
};

const pm_operator *pm_operator_get(pm_operator_id id)
{
    return &OPERATORS[id];
}

const pm_operator *pm_operator_find(const char *name)
{
    for (size_t i = 0; i < PM_OPERATOR_COUNT; i++)
        if (strcmp(OPERATORS[i].name, name) == 0)
            return &OPERATORS[i];
    return NULL;
}
