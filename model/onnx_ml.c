// Operators of ai.onnx.ml (version 3), as nodes of the default domain: linear models and what is done to
// numbers before and after them. Coefficients are attributes there and become parameters, so that they train;
// numbers that scale data become constants. Source:
// https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md
#include "model/onnx_reader.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

// A node being read, and the nodes made of it. A failure sticks: what follows does nothing.
typedef struct making {
    pm_onnx_reader *r;
    pm_onnx_scope *scope;
    const pm_onnx_node *raw;
    pm_node node; // its attributes
    uint32_t made;
    pm_status status;
} making;

typedef struct list {
    const float *values;
    int64_t count;
} list;

static list floats_of(const making *m, const char *name)
{
    const pm_attribute *a = pm_node_attribute(&m->node, name);
    return a ? (list){a->floats, a->count} : (list){0};
}

static void refuse(making *m, const char *why)
{
    if (m->status.code == PM_OK)
        m->status = pm_fail(PM_UNSUPPORTED, "%s", why);
}

static uint32_t input(making *m, uint32_t index)
{
    uint32_t value = PM_NO_VALUE;
    if (index >= m->raw->input_count)
        m->status = pm_fail(PM_INVALID, "input %u is missing", index);
    if (m->status.code == PM_OK)
        m->status = pm_onnx_find_input(m->r, m->scope, m->raw->inputs[index], index > 0, &value);
    return value;
}

static bool is_wanted(const making *m, uint32_t output)
{
    return output < m->raw->output_count && m->raw->outputs[output].size > 0;
}

// "NODE.SUFFIX", or "OUTPUT.logits" for the value behind the output.
static uint32_t value_named(making *m, const pm_tensor *constant, const char *before, const char *suffix)
{
    static const pm_tensor unknown = {0};
    char name[PM_MAX_NAME];
    uint32_t value = PM_NO_VALUE;
    const int size = snprintf(name, sizeof name, "%s%s", before, suffix);
    if (m->status.code == PM_OK && (size < 0 || (size_t)size >= sizeof name))
        m->status = pm_fail(PM_INVALID, "too long a name");
    if (m->status.code == PM_OK)
        m->status = constant ? pm_graph_add_constant(m->r->graph, name, constant, &value)
                             : pm_graph_add_value(m->r->graph, name, &unknown, &value);
    const char *kept = m->status.code == PM_OK ? m->r->graph->values[value].name : NULL;
    if (kept)
        m->status =
            pm_onnx_declare(m->scope, (pm_onnx_text){(const unsigned char *)kept, strlen(kept)}, value);
    if (m->status.code == PM_OK)
        m->status = pm_onnx_take_name(m->r, value);
    return value;
}

// A parameter (rows, columns), of one axis when rows is 0, or a constant.
static uint32_t numbers(making *m, const char *suffix, list l, int64_t rows, bool trains)
{
    pm_tensor t = {.type = PM_TYPE_F32, .rank = rows ? 2 : 1, .count = (size_t)l.count};
    t.shape[0] = rows ? rows : l.count;
    t.shape[1] = rows ? l.count / rows : 0;
    t.data = pm_region_copy(m->r->graph->region, l.values, (size_t)l.count * sizeof(float));
    if (m->status.code == PM_OK && !t.data)
        m->status = pm_fail(PM_NO_MEMORY, "%lld numbers", (long long)l.count);
    const uint32_t value = value_named(m, &t, m->raw->name, suffix);
    if (m->status.code == PM_OK && trains)
        m->status = pm_graph_make_param(m->r->graph, value);
    return value;
}

static uint32_t integers(making *m, const char *suffix, const int64_t *values, uint32_t count)
{
    pm_tensor t = {.type = PM_TYPE_I64, .rank = 1, .shape = {count}, .count = count};
    t.data = pm_region_copy(m->r->graph->region, values, count * sizeof *values);
    if (m->status.code == PM_OK && !t.data)
        m->status = pm_fail(PM_NO_MEMORY, "%u numbers", count);
    return value_named(m, &t, m->raw->name, suffix);
}

// A node that makes the value. The first has the name of the one that was read.
static void add_node(making *m, const char *op, const uint32_t *inputs, uint32_t count, uint32_t output,
                     const pm_attribute *attributes, uint32_t attribute_count)
{
    char name[PM_MAX_NAME];
    snprintf(name, sizeof name, m->made ? "%.*s.%u" : "%.*s", PM_MAX_NAME - 16, m->raw->name, m->made);
    const pm_node node = {.op = pm_operator_find("", op, m->r->graph->opset),
                          .name = name,
                          .inputs = inputs,
                          .input_count = count,
                          .outputs = &output,
                          .output_count = 1,
                          .attributes = attributes,
                          .attribute_count = attribute_count};
    if (m->status.code == PM_OK && !node.op)
        m->status = pm_fail(PM_UNSUPPORTED, "operator %s is not of the model's opset", op);
    if (m->status.code == PM_OK)
        m->status = pm_graph_add_node(m->r->graph, &node);
    m->made++;
}

static uint32_t output(making *m, uint32_t index)
{
    uint32_t value = PM_NO_VALUE;
    if (m->status.code == PM_OK)
        m->status = pm_onnx_add_output(m->r, m->scope, m->raw->outputs[index], NULL, &value);
    return value;
}

// X W' + b, with a row of W for each sum.
static void add_linear(making *m, uint32_t x, int64_t rows, uint32_t y)
{
    const list w = floats_of(m, "coefficients"), b = floats_of(m, "intercepts");
    if (m->status.code == PM_OK &&
        (rows < 1 || w.count == 0 || w.count % rows || (b.count && b.count != rows)))
        m->status = pm_fail(PM_INVALID, "%lld coefficients and %lld intercepts for %lld outputs",
                            (long long)w.count, (long long)b.count, (long long)rows);
    if (m->status.code != PM_OK)
        return;
    const pm_attribute turned = pm_attribute_int("transB", 1);
    uint32_t inputs[3] = {x, numbers(m, ".weight", w, rows, true), PM_NO_VALUE};
    if (b.count)
        inputs[2] = numbers(m, ".bias", b, 0, true);
    add_node(m, "Gemm", inputs, b.count ? 3 : 2, y, &turned, 1);
}

// The operator over the last axis that post_transform asks for; NULL: none.
static const char *transform_of(making *m)
{
    const char *name = pm_node_string(&m->node, "post_transform", "NONE");
    if (strcmp(name, "SOFTMAX") == 0)
        return "Softmax";
    if (strcmp(name, "LOGISTIC") == 0)
        return "Sigmoid";
    if (strcmp(name, "NONE") != 0)
        refuse(m, "post_transform is built for NONE, SOFTMAX and LOGISTIC");
    return NULL;
}

static void make_linear(making *m, int64_t rows, uint32_t index)
{
    const char *transform = transform_of(m);
    const uint32_t x = input(m, 0), y = output(m, index);
    const pm_attribute axis = pm_attribute_int("axis", 1);
    if (!transform) {
        add_linear(m, x, rows, y);
        return;
    }
    const char *shown = m->status.code == PM_OK ? m->r->graph->values[y].name : "";
    const uint32_t scores = value_named(m, NULL, shown, PM_ONNX_LOGITS);
    add_linear(m, x, rows, scores);
    add_node(m, transform, &scores, 1, y, &axis, strcmp(transform, "Softmax") == 0);
}

static void make_regressor(making *m)
{
    make_linear(m, pm_node_int(&m->node, "targets", 1), 0);
}

static void make_labels(making *m, const int64_t *labels, uint32_t count)
{
    uint32_t scores = PM_NO_VALUE;
    if (m->status.code == PM_OK)
        m->status = pm_onnx_find_input(m->r, m->scope, m->raw->outputs[1], true, &scores);
    const pm_attribute across[] = {pm_attribute_int("axis", 1), pm_attribute_int("keepdims", 0)};
    const pm_attribute rows = pm_attribute_int("axis", 0);
    const uint32_t best = value_named(m, NULL, m->raw->name, ".best");
    add_node(m, "ArgMax", &scores, 1, best, across, 2);
    const uint32_t pair[] = {integers(m, ".labels", labels, count), best};
    add_node(m, "Gather", pair, 2, output(m, 0), &rows, 1);
}

static void make_classifier(making *m)
{
    const pm_attribute *texts = pm_node_attribute(&m->node, "classlabels_strings");
    uint32_t count = 0;
    const int64_t *labels = pm_node_ints(&m->node, "classlabels_ints", &count);
    const int64_t classes = labels ? count : texts ? texts->count : 0;
    if (!labels && is_wanted(m, 0) && !m->r->output)
        refuse(m, "its labels are texts; choose the output that is wanted, such as the scores");
    if (!is_wanted(m, 1))
        refuse(m, "a classifier whose scores nothing reads");
    if (floats_of(m, "intercepts").count == 1 && classes == 2)
        refuse(m, "one row of coefficients for two classes; export it with a row for each");
    make_linear(m, classes, 1);
    if (labels && is_wanted(m, 0))
        make_labels(m, labels, count);
}

static void make_scaler(making *m)
{
    const list offset = floats_of(m, "offset"), scale = floats_of(m, "scale");
    const uint32_t x = input(m, 0);
    if (offset.count == 0 || scale.count == 0)
        refuse(m, "offset or scale is missing");
    if (m->status.code != PM_OK)
        return;
    const uint32_t centred = value_named(m, NULL, m->raw->name, ".centred");
    const uint32_t less[] = {x, numbers(m, ".offset", offset, 0, false)};
    add_node(m, "Sub", less, 2, centred, NULL, 0);
    const uint32_t times[] = {centred, numbers(m, ".scale", scale, 0, false)};
    add_node(m, "Mul", times, 2, output(m, 0), NULL, 0);
}

// A row of zeros stays one.
static void make_normalizer(making *m)
{
    static const struct {
        const char *norm, *op;
    } NORMS[] = {{"MAX", "ReduceMax"}, {"L1", "ReduceL1"}, {"L2", "ReduceL2"}};
    static const float LEAST = FLT_MIN;
    static const int64_t AXES[] = {1};
    const char *norm = pm_node_string(&m->node, "norm", "MAX"), *op = NULL;
    for (size_t i = 0; i < sizeof NORMS / sizeof NORMS[0]; i++)
        op = strcmp(NORMS[i].norm, norm) == 0 ? NORMS[i].op : op;
    if (!op) {
        refuse(m, "norm is MAX, L1 or L2");
        return;
    }
    const pm_attribute axes[] = {pm_attribute_ints("axes", AXES, 1), pm_attribute_int("keepdims", 1)};
    const uint32_t x = input(m, 0), size = value_named(m, NULL, m->raw->name, ".norm");
    const uint32_t bounded = value_named(m, NULL, m->raw->name, ".divisor");
    add_node(m, op, &x, 1, size, axes, 2);
    const uint32_t pair[] = {size, numbers(m, ".least", (list){&LEAST, 1}, 0, false)};
    add_node(m, "Max", pair, 2, bounded, NULL, 0);
    const uint32_t parts[] = {x, bounded};
    add_node(m, "Div", parts, 2, output(m, 0), NULL, 0);
}

// Columns of X by a list of their numbers.
static void make_extractor(making *m)
{
    static const int64_t ALL[] = {-1};
    const pm_attribute last = pm_attribute_int("axis", -1);
    const uint32_t x = input(m, 0), columns = input(m, 1);
    const uint32_t flat = value_named(m, NULL, m->raw->name, ".columns");
    const uint32_t pair[] = {columns, integers(m, ".all", ALL, 1)};
    add_node(m, "Reshape", pair, 2, flat, NULL, 0);
    const uint32_t parts[] = {x, flat};
    add_node(m, "Gather", parts, 2, output(m, 0), &last, 1);
}

static void make_binarizer(making *m)
{
    const float threshold = pm_node_float(&m->node, "threshold", 0);
    const pm_attribute to = pm_attribute_int("to", PM_TYPE_F32);
    const uint32_t above = value_named(m, NULL, m->raw->name, ".above");
    const uint32_t pair[] = {input(m, 0), numbers(m, ".threshold", (list){&threshold, 1}, 0, false)};
    add_node(m, "Greater", pair, 2, above, NULL, 0);
    add_node(m, "Cast", &above, 1, output(m, 0), &to, 1);
}

static const pm_attribute_spec REGRESSOR[] = {{"coefficients", PM_ATTRIBUTE_FLOATS},
                                              {"intercepts", PM_ATTRIBUTE_FLOATS},
                                              {"post_transform", PM_ATTRIBUTE_STRING},
                                              {"targets", PM_ATTRIBUTE_INT},
                                              {0}};
static const pm_attribute_spec CLASSIFIER[] = {
    {"classlabels_ints", PM_ATTRIBUTE_INTS}, {"classlabels_strings", PM_ATTRIBUTE_STRINGS},
    {"coefficients", PM_ATTRIBUTE_FLOATS},   {"intercepts", PM_ATTRIBUTE_FLOATS},
    {"multi_class", PM_ATTRIBUTE_INT}, // the scores are the same
    {"post_transform", PM_ATTRIBUTE_STRING}, {0}};
static const pm_attribute_spec SCALER[] = {
    {"offset", PM_ATTRIBUTE_FLOATS}, {"scale", PM_ATTRIBUTE_FLOATS}, {0}};
static const pm_attribute_spec NORMALIZER[] = {{"norm", PM_ATTRIBUTE_STRING}, {0}};
static const pm_attribute_spec BINARIZER[] = {{"threshold", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec NONE[] = {{0}};

static const struct {
    const char *op;
    const pm_attribute_spec *attributes;
    void (*make)(making *m);
} KNOWN[] = {
    {"LinearRegressor", REGRESSOR, make_regressor},
    {"LinearClassifier", CLASSIFIER, make_classifier},
    {"Scaler", SCALER, make_scaler},
    {"Normalizer", NORMALIZER, make_normalizer},
    {"ArrayFeatureExtractor", NONE, make_extractor},
    {"Binarizer", BINARIZER, make_binarizer},
};

pm_status pm_onnx_add_ml(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw, bool *taken)
{
    size_t known = 0;
    while (known < sizeof KNOWN / sizeof KNOWN[0] && strcmp(KNOWN[known].op, raw->op) != 0)
        known++;
    *taken = known < sizeof KNOWN / sizeof KNOWN[0];
    if (!*taken)
        return pm_ok();
    making m = {.r = r, .scope = scope, .raw = raw};
    pm_attribute *attributes = NULL;
    m.status = pm_onnx_attributes_read(raw->message, scope->call, KNOWN[known].attributes, r->graph->region,
                                       &attributes, &m.node.attribute_count);
    m.node.attributes = attributes;
    if (m.status.code == PM_OK &&
        (raw->output_count == 0 || (strcmp(raw->op, "LinearClassifier") != 0 && !is_wanted(&m, 0))))
        m.status = pm_fail(PM_INVALID, "its output is missing");
    if (m.status.code == PM_OK)
        KNOWN[known].make(&m);
    return m.status;
}
