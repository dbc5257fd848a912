// Operators that are written with others: logarithms of softmax, losses, normalizations, clipping, triangles.
#include "model/compose.h"
#include "model/program.h"

#include <math.h>
#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec LOSS[] = {
    {"ignore_index", PM_ATTRIBUTE_INT}, {"reduction", PM_ATTRIBUTE_STRING}, {0}};
static const pm_attribute_spec LAYER[] = {
    {"axis", PM_ATTRIBUTE_INT}, {"epsilon", PM_ATTRIBUTE_FLOAT}, {"stash_type", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec EPSILON[] = {{"epsilon", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec AXES[] = {{"axes", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec CLIP[] = {{"min", PM_ATTRIBUTE_FLOAT}, {"max", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec TRIANGLE[] = {{"upper", PM_ATTRIBUTE_INT}, {0}};

#define LOWER(name)                                                                                          \
    static pm_status name(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
#define C1(op, x) pm_compose_1(&c, op, x)
#define C2(op, x, y) pm_compose_2(&c, op, x, y)
#define CN(op, x, n) pm_compose_by(&c, op, x, n)

// x - m - log(sum(exp(x - m))) over the axes, m the largest element.
static uint32_t log_softmax(pm_compose *p, uint32_t x, uint32_t axes)
{
    const uint32_t low = pm_compose_2(p, "Sub", x, pm_compose_reduce(p, "ReduceMax", x, axes));
    const uint32_t sum = pm_compose_reduce(p, "ReduceSum", pm_compose_1(p, "Exp", low), axes);
    return pm_compose_2(p, "Sub", low, pm_compose_1(p, "Log", sum));
}

// Up to opset 12 everything from the axis on is one, from 13 on the axis alone.
LOWER(lower_log_softmax)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const bool from = node->op->until != 0;
    (void)training;
    const uint32_t axis = pm_compose_axis(&c, pm_node_int(node, "axis", from ? 1 : -1), x.rank);
    const uint32_t axes = from ? (1u << x.rank) - (1u << axis) : 1u << axis;
    outputs[0] = log_softmax(&c, node->inputs[0], axes);
    return c.status;
}

// 1 at the first largest element along the axis (or of all from it on), 0 elsewhere.
LOWER(lower_hardmax)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const bool from = node->op->until != 0;
    (void)training;
    const uint32_t axis = pm_compose_axis(&c, pm_node_int(node, "axis", from ? 1 : -1), x.rank);
    if (c.status.code != PM_OK)
        return c.status;
    const int64_t flat[] = {(int64_t)pm_extent(&x, 0, axis), (int64_t)pm_extent(&x, axis, x.rank)};
    const uint32_t rows = from ? pm_compose_reshape(&c, node->inputs[0], flat, 2) : node->inputs[0];
    const uint32_t at = from ? 1 : axis, rank = from ? 2 : x.rank;
    const pm_attribute along = pm_attribute_int("axis", at);
    const uint32_t best = pm_compose_with(&c, "ArgMax", &rows, 1, &along, 1);
    const uint32_t hit = C2("Equal", pm_compose_count(&c, from ? flat[1] : x.shape[axis], at, rank), best);
    outputs[0] = pm_compose_reshape(&c, pm_compose_cast(&c, hit, x.type), x.shape, x.rank);
    return c.status;
}

// --- losses

// The loss of log-probabilities (N, C, ...) at target (N, ...), weighted by class, as the node reduces it.
static uint32_t likelihood_loss(pm_compose *p, uint32_t logs, uint32_t target, uint32_t weight)
{
    const pm_tensor x = pm_compose_tensor(p, logs), t = pm_compose_tensor(p, target);
    const char *reduction = pm_node_string(p->node, "reduction", "mean");
    int64_t wide[PM_MAX_RANK], column[PM_MAX_RANK];
    if (x.rank < 2 || x.type != PM_TYPE_F32 || t.rank + 1 != x.rank || t.shape[0] != x.shape[0] ||
        (t.type != PM_TYPE_I64 && t.type != PM_TYPE_I32)) {
        pm_compose_fail(p, pm_fail(PM_INVALID, "wanted scores (N, C, ...) of float32 and classes (N, ...)"));
        return PM_NO_VALUE;
    }
    for (uint32_t d = 0; d < x.rank; d++) {
        wide[d] = d == 1 ? 1 : x.shape[d];
        column[d] = d == 1 ? x.shape[1] : 1;
    }
    const uint32_t classes = pm_compose_reshape(p, pm_compose_cast(p, target, PM_TYPE_I64), wide, x.rank);
    const uint32_t hit = pm_compose_2(p, "Equal", pm_compose_count(p, x.shape[1], 1, x.rank), classes);
    uint32_t share = pm_compose_cast(p, hit, PM_TYPE_F32);
    if (weight != PM_NO_VALUE)
        share = pm_compose_2(p, "Mul", share, pm_compose_reshape(p, weight, column, x.rank));
    const pm_attribute *ignored = pm_node_attribute(p->node, "ignore_index");
    if (ignored) {
        const uint32_t out = pm_compose_by(p, "Equal", classes, (double)ignored->i);
        share = pm_compose_2(p, "Mul", share, pm_compose_cast(p, pm_compose_1(p, "Not", out), PM_TYPE_F32));
    }
    // Where no class is hit the score, which may be infinite, does not count.
    const uint32_t zero = pm_compose_number(p, PM_TYPE_F32, 0);
    const uint32_t taken = pm_compose_2(p, "Mul", pm_compose_3(p, "Where", hit, logs, zero), share);
    const uint32_t loss = pm_compose_1(p, "Neg", pm_compose_sum(p, taken, 2));
    const uint32_t each = pm_compose_reshape(p, loss, t.shape, t.rank), all = (1u << x.rank) - 1;
    if (strcmp(reduction, "none") == 0)
        return each;
    const uint32_t sum = pm_compose_reshape(p, pm_compose_sum(p, loss, all), NULL, 0);
    if (strcmp(reduction, "sum") == 0)
        return sum;
    if (strcmp(reduction, "mean") != 0)
        pm_compose_fail(p, pm_fail(PM_INVALID, "reduction %.32s", reduction));
    return pm_compose_2(p, "Div", sum, pm_compose_reshape(p, pm_compose_sum(p, share, all), NULL, 0));
}

LOWER(lower_nll)
{
    pm_compose c = pm_compose_open(program, node);
    (void)training;
    outputs[0] = likelihood_loss(&c, node->inputs[0], node->inputs[1], pm_compose_input(&c, 2));
    return c.status;
}

LOWER(lower_cross_entropy)
{
    pm_compose c = pm_compose_open(program, node);
    (void)training;
    const uint32_t logs = log_softmax(&c, node->inputs[0], 2);
    outputs[0] = likelihood_loss(&c, logs, node->inputs[1], pm_compose_input(&c, 2));
    if (node->output_count > 1)
        outputs[1] = logs;
    return c.status;
}

// --- normalizations

// (x - mean) / sqrt(variance + epsilon) over the axes; moments: mean and 1 / sqrt, where wanted.
static uint32_t normalized(pm_compose *p, uint32_t x, uint32_t axes, double epsilon, uint32_t *moments)
{
    const uint32_t mean = pm_compose_reduce(p, "ReduceMean", x, axes), low = pm_compose_2(p, "Sub", x, mean);
    const uint32_t variance = pm_compose_reduce(p, "ReduceMean", pm_compose_2(p, "Mul", low, low), axes);
    const uint32_t root = pm_compose_1(p, "Sqrt", pm_compose_by(p, "Add", variance, epsilon));
    const uint32_t inverse = pm_compose_1(p, "Reciprocal", root);
    if (moments) {
        moments[0] = mean;
        moments[1] = inverse;
    }
    return pm_compose_2(p, "Mul", low, inverse);
}

// In one pass where nobody asks for the moments and nothing is broadcast.
LOWER(lower_layer_norm)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    uint32_t moments[2] = {PM_NO_VALUE, PM_NO_VALUE};
    (void)training;
    if (x.type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "type %s, built for float32", pm_type_name(x.type));
    const uint32_t axis = pm_compose_axis(&c, pm_node_int(node, "axis", -1), x.rank);
    const uint32_t axes = (1u << x.rank) - (1u << axis);
    bool whole = c.status.code == PM_OK && x.count > 0 && node->output_count == 1;
    for (uint32_t i = 1; i < node->input_count; i++)
        whole = whole && pm_compose_tensor(&c, node->inputs[i]).count == pm_extent(&x, axis, x.rank);
    if (whole) {
        uint32_t made[3] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
        pm_status status = pm_recipe_add(program, node,
                                         (pm_recipe){.domain = PM_DOMAIN,
                                                     .op = "LayerNorm",
                                                     .inputs = node->inputs,
                                                     .input_count = node->input_count,
                                                     .attributes = node->attributes,
                                                     .attribute_count = node->attribute_count,
                                                     .output_count = 3},
                                         made);
        outputs[0] = made[0];
        return status;
    }
    const double epsilon = (double)pm_node_float(node, "epsilon", 1e-5f);
    uint32_t y = C2("Mul", normalized(&c, node->inputs[0], axes, epsilon, moments), node->inputs[1]);
    if (pm_compose_input(&c, 2) != PM_NO_VALUE)
        y = C2("Add", y, node->inputs[2]);
    outputs[0] = y;
    for (uint32_t i = 1; i < node->output_count; i++)
        outputs[i] = moments[i - 1];
    return c.status;
}

LOWER(lower_instance_norm)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t column[PM_MAX_RANK];
    (void)training;
    if (x.rank < 3 || x.type != PM_TYPE_F32)
        return pm_fail(PM_INVALID, "wanted (N, channels, ...) of float32");
    for (uint32_t d = 0; d < x.rank; d++)
        column[d] = d == 1 ? x.shape[1] : 1;
    const double epsilon = (double)pm_node_float(node, "epsilon", 1e-5f);
    const uint32_t y = normalized(&c, node->inputs[0], (1u << x.rank) - 4, epsilon, NULL);
    const uint32_t scaled = C2("Mul", y, pm_compose_reshape(&c, node->inputs[1], column, x.rank));
    outputs[0] = C2("Add", scaled, pm_compose_reshape(&c, node->inputs[2], column, x.rank));
    return c.status;
}

// (x - mean) / (deviation + 1e-9)
LOWER(lower_mean_variance)
{
    pm_compose c = pm_compose_open(program, node);
    const uint32_t x = node->inputs[0], rank = pm_compose_tensor(&c, x).rank;
    static const int64_t otherwise[] = {0, 2, 3};
    uint32_t count = 0;
    (void)training;
    const int64_t *given = pm_node_ints(node, "axes", &count);
    const uint32_t axes = pm_compose_axes(&c, given ? given : otherwise, given ? count : 3, rank);
    const uint32_t low = C2("Sub", x, pm_compose_reduce(&c, "ReduceMean", x, axes));
    const uint32_t root = C1("Sqrt", pm_compose_reduce(&c, "ReduceMean", C2("Mul", low, low), axes));
    outputs[0] = C2("Div", low, CN("Add", root, 1e-9));
    return c.status;
}

// --- clipping and triangles

LOWER(lower_clip)
{
    pm_compose c = pm_compose_open(program, node);
    uint32_t y = node->inputs[0], low = pm_compose_input(&c, 1), high = pm_compose_input(&c, 2);
    const pm_type type = pm_compose_tensor(&c, y).type;
    (void)training;
    if (low == PM_NO_VALUE && pm_node_attribute(node, "min"))
        low = pm_compose_number(&c, type, (double)pm_node_float(node, "min", 0));
    if (high == PM_NO_VALUE && pm_node_attribute(node, "max"))
        high = pm_compose_number(&c, type, (double)pm_node_float(node, "max", 0));
    if (low != PM_NO_VALUE)
        y = C2("Max", y, low);
    if (high != PM_NO_VALUE)
        y = C2("Min", y, high);
    outputs[0] = y;
    return c.status;
}

LOWER(lower_triangle)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t k = 0;
    (void)training;
    if (x.rank < 2)
        return pm_fail(PM_INVALID, "a rank of %u", x.rank);
    if (pm_compose_input(&c, 1) != PM_NO_VALUE && pm_compose_read(&c, node->inputs[1], 1, &k) != 1)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "k must be one integer"));
    if (c.status.code != PM_OK)
        return c.status;
    const uint32_t row = pm_compose_count(&c, x.shape[x.rank - 2], 0, 2);
    const uint32_t column = pm_compose_count(&c, x.shape[x.rank - 1], 1, 2);
    const uint32_t shifted = CN("Sub", column,
                                (double)(k > INT32_MAX    ? INT32_MAX
                                         : k < -INT32_MAX ? -INT32_MAX
                                                          : k));
    const bool upper = pm_node_int(node, "upper", 1) != 0;
    const uint32_t kept = C2(upper ? "LessOrEqual" : "GreaterOrEqual", row, shifted);
    outputs[0] = pm_compose_3(&c, "Where", kept, node->inputs[0], pm_compose_number(&c, x.type, 0));
    return c.status;
}

const pm_operator PM_FAMILY_COMPOSED[] = {
    PM_LOWERED("LogSoftmax", 1, 12, 1, 1, 1, 0, AXIS, lower_log_softmax),
    PM_LOWERED("LogSoftmax", 13, 0, 1, 1, 1, 0, AXIS, lower_log_softmax),
    PM_LOWERED("Hardmax", 1, 12, 1, 1, 1, 0, AXIS, lower_hardmax),
    PM_LOWERED("Hardmax", 13, 0, 1, 1, 1, 0, AXIS, lower_hardmax),
    PM_LOWERED("NegativeLogLikelihoodLoss", 12, 0, 2, 3, 1, 4, LOSS, lower_nll),
    PM_LOWERED("SoftmaxCrossEntropyLoss", 12, 0, 2, 3, 2, 4, LOSS, lower_cross_entropy),
    PM_LOWERED("LayerNormalization", 17, 0, 2, 3, 3, 0, LAYER, lower_layer_norm),
    PM_LOWERED("InstanceNormalization", 6, 0, 3, 3, 1, 0, EPSILON, lower_instance_norm),
    PM_LOWERED("MeanVarianceNormalization", 9, 0, 1, 1, 1, 0, AXES, lower_mean_variance),
    PM_LOWERED("Clip", 6, 10, 1, 1, 1, 0, CLIP, lower_clip),
    PM_LOWERED("Clip", 11, 0, 1, 3, 1, 6, NONE, lower_clip),
    PM_LOWERED("Trilu", 14, 0, 1, 2, 1, 2, TRIANGLE, lower_triangle),
    {0},
};
