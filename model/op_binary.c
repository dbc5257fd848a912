// Element-wise operators of two or three inputs, broadcast as NumPy does: arithmetic of any type,
// comparisons, logic, choices; and those of any number of inputs, which are chains of these.
#include "model/compose.h"
#include "model/element.h"
#include "model/program.h"

#include <math.h>
#include <string.h>

#define LOOP(op, suffix, type, result, expression)                                                           \
    static void op##_##suffix(const void *const *in, void *out, size_t n, const double *numbers)             \
    {                                                                                                        \
        const type *a = in[0], *b = in[1];                                                                   \
        result *to = out;                                                                                    \
        (void)numbers;                                                                                       \
        for (size_t i = 0; i < n; i++) {                                                                     \
            const type x = a[i], y = b[i];                                                                   \
            (void)y;                                                                                         \
            to[i] = (result)(expression);                                                                    \
        }                                                                                                    \
    }

#define LOOPS_TO(op, result_f32, result_f64, result_i64, result_u64, expression)                             \
    LOOP(op, f32, float, result_f32, expression)                                                             \
    LOOP(op, f64, double, result_f64, expression)                                                            \
    LOOP(op, i64, int64_t, result_i64, expression)                                                           \
    LOOP(op, u64, uint64_t, result_u64, expression)

#define LOOPS(op, expression) LOOPS_TO(op, float, double, int64_t, uint64_t, expression)
#define TRUTHS(op, expression) LOOPS_TO(op, uint8_t, uint8_t, uint8_t, uint8_t, expression)
#define LOGIC(op, expression) LOOP(op, bools, uint8_t, uint8_t, expression)

// Integers wrap; a division by 0 gives 0.
#define WRAP(operation) (int64_t)((uint64_t)x operation(uint64_t) y)
#define INTEGERS(op, whole, natural)                                                                         \
    LOOP(op, i64, int64_t, int64_t, whole)                                                                   \
    LOOP(op, u64, uint64_t, uint64_t, natural)
#define REALS(op, single, wide)                                                                              \
    LOOP(op, f32, float, float, single)                                                                      \
    LOOP(op, f64, double, double, wide)

REALS(add, x + y, x + y)
REALS(sub, x - y, x - y)
REALS(mul, x *y, x *y)
REALS(div, x / y, x / y)
INTEGERS(add, WRAP(+), x + y)
INTEGERS(sub, WRAP(-), x - y)
INTEGERS(mul, WRAP(*), x *y)
INTEGERS(div, y == 0 ? 0 : y == -1 ? WRAP(*) : x / y, y == 0 ? 0 : x / y)

// A NaN wins.
LOOPS(max, x > y || x != x ? x : y)
LOOPS(min, x < y || x != x ? x : y)

// The remainder has the sign of y (mod) or of x (fmod).
static int64_t modulo(int64_t x, int64_t y)
{
    if (y == 0 || y == -1)
        return 0;
    const int64_t r = x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

REALS(mod, fmodf(x, y), fmod(x, y))
INTEGERS(mod, modulo(x, y), y == 0 ? 0 : x % y)
INTEGERS(fmod, y == 0 || y == -1 ? 0 : x % y, y == 0 ? 0 : x % y)

// Exponentiation by squaring, wrapping; negative powers are cut to whole numbers.
static uint64_t power(uint64_t x, uint64_t y)
{
    uint64_t result = 1;
    for (; y > 0; y >>= 1, x *= x)
        result *= y & 1 ? x : 1;
    return result;
}

static int64_t whole_power(int64_t x, int64_t y)
{
    if (y < 0)
        return x == 1 ? 1 : x == -1 ? (y & 1 ? -1 : 1) : 0;
    return (int64_t)power((uint64_t)x, (uint64_t)y);
}

REALS(power, powf(x, y), pow(x, y))
INTEGERS(power, whole_power(x, y), power(x, y))

REALS(prelu, x < 0 ? x * y : x, x < 0 ? x * y : x)
INTEGERS(prelu, x < 0 ? WRAP(*) : x, x)
INTEGERS(left, (int64_t)(y > 63 ? 0 : (uint64_t)x << y), y > 63 ? 0 : x << y)
INTEGERS(right, y > 63 ? 0 : x >> y, y > 63 ? 0 : x >> y)

TRUTHS(equal, x == y)
TRUTHS(greater, x > y)
TRUTHS(less, x < y)
TRUTHS(greater_equal, x >= y)
TRUTHS(less_equal, x <= y)
LOGIC(both, x &&y)
LOGIC(either, x || y)
LOGIC(one_of, !x != !y)
LOGIC(equal, !x == !y)

#define WHERE(suffix, type)                                                                                  \
    static void where_##suffix(const void *const *in, void *out, size_t n, const double *numbers)            \
    {                                                                                                        \
        const uint8_t *c = in[0];                                                                            \
        const type *a = in[1], *b = in[2];                                                                   \
        type *to = out;                                                                                      \
        (void)numbers;                                                                                       \
        for (size_t i = 0; i < n; i++)                                                                       \
            to[i] = c[i] ? a[i] : b[i];                                                                      \
    }

WHERE(f32, float)
WHERE(f64, double)
WHERE(i64, int64_t)
WHERE(u64, uint64_t)
WHERE(bools, uint8_t)

// (condition, dy) and (x, slope, dy): the shares of a choice's inputs.
static void prelu_slope_f32(const void *const *in, void *out, size_t n, const double *numbers)
{
    const float *x = in[0], *dy = in[1];
    float *to = out;
    (void)numbers;
    for (size_t i = 0; i < n; i++)
        to[i] = x[i] < 0 ? x[i] * dy[i] : 0;
}

static void prelu_input_f32(const void *const *in, void *out, size_t n, const double *numbers)
{
    const float *x = in[0], *slope = in[1], *dy = in[2];
    float *to = out;
    (void)numbers;
    for (size_t i = 0; i < n; i++)
        to[i] = x[i] < 0 ? slope[i] * dy[i] : dy[i];
}

#define ALL_LOOPS(op)                                                                                        \
    {                                                                                                        \
        op##_f32, op##_f64, op##_i64, op##_u64                                                               \
    }
#define LOOPS_AND_BOOLS(op)                                                                                  \
    {                                                                                                        \
        op##_f32, op##_f64, op##_i64, op##_u64, op##_bools                                                   \
    }
#define LOGIC_LOOPS(op)                                                                                      \
    {                                                                                                        \
        [PM_ELEMENT_BOOLS] = op##_bools                                                                      \
    }

static const pm_element ELEMENTS[] = {
    {"AddAny", ALL_LOOPS(add), {{0}}},
    {"SubAny", ALL_LOOPS(sub), {{0}}},
    {"MulAny", ALL_LOOPS(mul), {{0}}},
    {"DivAny", ALL_LOOPS(div), {{0}}},
    {"Max", ALL_LOOPS(max), {{0}}},
    {"Min", ALL_LOOPS(min), {{0}}},
    {"Mod", ALL_LOOPS(mod), {{0}}},
    {"ModTruncated", {mod_f32, mod_f64, fmod_i64, fmod_u64}, {{0}}},
    {"Pow", ALL_LOOPS(power), {{0}}},
    {"PRelu", ALL_LOOPS(prelu), {{0}}},
    {"BitShiftLeft", {[PM_CLASS_I64] = left_i64, [PM_CLASS_U64] = left_u64}, {{0}}},
    {"BitShiftRight", {[PM_CLASS_I64] = right_i64, [PM_CLASS_U64] = right_u64}, {{0}}},
    {"Equal", LOOPS_AND_BOOLS(equal), {{0}}},
    {"Greater", ALL_LOOPS(greater), {{0}}},
    {"Less", ALL_LOOPS(less), {{0}}},
    {"GreaterOrEqual", ALL_LOOPS(greater_equal), {{0}}},
    {"LessOrEqual", ALL_LOOPS(less_equal), {{0}}},
    {"And", LOGIC_LOOPS(both), {{0}}},
    {"Or", LOGIC_LOOPS(either), {{0}}},
    {"Xor", LOGIC_LOOPS(one_of), {{0}}},
    {"Where", LOOPS_AND_BOOLS(where), {{0}}},
    {"PReluSlopeGrad", {[PM_CLASS_F32] = prelu_slope_f32}, {{0}}},
    {"PReluGrad", {[PM_CLASS_F32] = prelu_input_f32}, {{0}}},
    {0},
};

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec AXIS_BROADCAST[] = {
    {"axis", PM_ATTRIBUTE_INT}, {"broadcast", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec MOD[] = {{"fmod", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec SHIFT[] = {{"direction", PM_ATTRIBUTE_STRING}, {0}};

// --- shapes

// The inputs from first on have one type.
static pm_status check_types(const pm_shapes *s, uint32_t first)
{
    const pm_type type = s->in[first]->tensor.type;
    for (uint32_t i = first + 1; i < s->node->input_count; i++)
        if (s->in[i]->tensor.type != type)
            return pm_fail(PM_INVALID, "inputs are %s and %s, wanted one type", pm_type_name(type),
                           pm_type_name(s->in[i]->tensor.type));
    return pm_ok();
}

static pm_status infer_element(pm_shapes *s, uint32_t first)
{
    const pm_type type = s->in[first]->tensor.type;
    pm_status status = check_types(s, first);
    if (status.code == PM_OK && !pm_element_loop_for(pm_element_find(ELEMENTS, s->node->op->name), type))
        status = pm_fail(PM_UNSUPPORTED, "type %s", pm_type_name(type));
    s->out[0].type = type;
    return status.code == PM_OK ? pm_infer_broadcast(s) : status;
}

static pm_status infer_binary(pm_shapes *s)
{
    if (s->in[0]->tensor.type == PM_TYPE_BOOL)
        return pm_fail(PM_INVALID, "type bool");
    return infer_element(s, 0);
}

static pm_status infer_comparison(pm_shapes *s)
{
    pm_status status = infer_element(s, 0);
    s->out[0].type = PM_TYPE_BOOL;
    return status;
}

static pm_status infer_logic(pm_shapes *s)
{
    if (s->in[0]->tensor.type != PM_TYPE_BOOL)
        return pm_fail(PM_INVALID, "type %s, wanted bool", pm_type_name(s->in[0]->tensor.type));
    return infer_element(s, 0);
}

static pm_status infer_where(pm_shapes *s)
{
    if (s->in[0]->tensor.type != PM_TYPE_BOOL)
        return pm_fail(PM_INVALID, "the condition is %s, wanted bool", pm_type_name(s->in[0]->tensor.type));
    return infer_element(s, 1);
}

static pm_status plan_element(pm_task *task)
{
    const uint32_t inputs = task->node->input_count, first = inputs == 3 && task->in[0]->type == PM_TYPE_BOOL;
    const pm_type type = task->in[first]->type;
    return pm_element_plan_task(task, pm_element_find(ELEMENTS, task->node->op->name), inputs, type);
}

// --- forms that are made of others

// Up to opset 6 the second input's shape stands from axis on, which a reshape says.
static uint32_t stand_at_axis(pm_compose *c, const pm_node *node, uint32_t a, uint32_t b)
{
    const pm_tensor x = pm_compose_tensor(c, a), y = pm_compose_tensor(c, b);
    const pm_attribute *axis = pm_node_attribute(node, "axis");
    if (!axis)
        return b;
    const int64_t at = axis->i < 0 ? axis->i + x.rank : axis->i;
    if (at < 0 || at + y.rank > x.rank) {
        pm_compose_fail(c, pm_fail(PM_INVALID, "axis %lld is out of range", (long long)axis->i));
        return b;
    }
    int64_t shape[PM_MAX_RANK];
    for (uint32_t d = 0; d < x.rank; d++)
        shape[d] = d < at || d >= at + y.rank ? 1 : y.shape[d - at];
    return pm_compose_reshape(c, b, shape + at, x.rank - (uint32_t)at);
}

static pm_status lower_old_binary(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    (void)training;
    pm_compose c = pm_compose_open(program, node);
    const uint32_t b = stand_at_axis(&c, node, node->inputs[0], node->inputs[1]);
    outputs[0] = pm_compose_2(&c, node->op->name, node->inputs[0], b);
    return c.status;
}

// Up to opset 6 a list of slopes is one for each channel.
static pm_status lower_old_prelu(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]),
                    slope = pm_compose_tensor(&c, node->inputs[1]);
    const int64_t column[PM_MAX_RANK] = {(int64_t)slope.count, 1, 1, 1, 1, 1, 1, 1};
    (void)training;
    uint32_t s = node->inputs[1];
    if (slope.rank == 1 && slope.count > 1 && x.rank > 1)
        s = pm_compose_reshape(&c, s, column, x.rank - 1);
    outputs[0] = pm_compose_2(&c, "PRelu", node->inputs[0], s);
    return c.status;
}

// Arithmetic has loops of its own for the types that matter; others go here.
pm_status pm_lower_arithmetic(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    static const char *const names[][2] = {
        {"Add", ".AddAny"}, {"Sub", ".SubAny"}, {"Mul", ".MulAny"}, {"Div", ".DivAny"}};
    const pm_type type = program->values[node->inputs[0]].tensor.type;
    (void)training;
    if (type == PM_TYPE_F32 || type == PM_TYPE_I64 || type == PM_TYPE_I32)
        return pm_program_add(program, node, outputs);
    pm_compose c = pm_compose_open(program, node);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(node->op->name, names[i][0]) == 0)
            outputs[0] = pm_compose_2(&c, names[i][1], node->inputs[0], node->inputs[1]);
    return c.status;
}

static pm_status lower_mod(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    const pm_class class = pm_class_of(program->values[node->inputs[0]].tensor.type);
    const bool truncated = pm_node_int(node, "fmod", 0) != 0;
    (void)training;
    if (!truncated && class <= PM_CLASS_F64)
        return pm_fail(PM_INVALID, "fmod must be 1 for floats");
    pm_compose c = pm_compose_open(program, node);
    outputs[0] = pm_compose_2(&c, truncated ? ".ModTruncated" : ".Mod", node->inputs[0], node->inputs[1]);
    return c.status;
}

static pm_status lower_shift(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    const char *direction = pm_node_string(node, "direction", "");
    const bool left = strcmp(direction, "LEFT") == 0;
    (void)training;
    if (!left && strcmp(direction, "RIGHT") != 0)
        return pm_fail(PM_INVALID, "direction must be LEFT or RIGHT");
    pm_compose c = pm_compose_open(program, node);
    outputs[0] =
        pm_compose_2(&c, left ? ".BitShiftLeft" : ".BitShiftRight", node->inputs[0], node->inputs[1]);
    return c.status;
}

// The exponent may have another type: computed in float64 where one of both is a float, else in the base's.
static pm_status lower_pow(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_type x = pm_compose_tensor(&c, node->inputs[0]).type,
                  y = pm_compose_tensor(&c, node->inputs[1]).type;
    const bool wide = x != y && pm_class_of(x) != PM_CLASS_F32 && pm_class_of(y) <= PM_CLASS_F64;
    const pm_type type = wide ? PM_TYPE_F64 : x;
    (void)training;
    const uint32_t a = pm_compose_cast(&c, node->inputs[0], type),
                   b = pm_compose_cast(&c, node->inputs[1], type);
    outputs[0] = pm_compose_cast(&c, pm_compose_2(&c, ".Pow", a, b), x);
    return c.status;
}

// Max, Min, Sum, Mean of any number of inputs.
static pm_status lower_chain(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    static const char *const names[][2] = {{"Max", ".Max"}, {"Min", ".Min"}, {"Sum", "Add"}, {"Mean", "Add"}};
    pm_compose c = pm_compose_open(program, node);
    const char *op = "";
    (void)training;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(node->op->name, names[i][0]) == 0)
            op = names[i][1];
    uint32_t value = node->inputs[0];
    for (uint32_t i = 1; i < node->input_count; i++)
        value = pm_compose_2(&c, op, value, node->inputs[i]);
    if (strcmp(node->op->name, "Mean") == 0 && node->input_count > 1)
        value = pm_compose_by(&c, "Div", value, (double)node->input_count);
    outputs[0] = value;
    return c.status;
}

// --- gradients

// What of dy goes to which input; equal ones count as the second.
static pm_status gradient_choice(pm_gradient *g, const pm_node *node, const char *op)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t dy = pm_gradient_of(g, node, 0), zero = pm_compose_number(&c, PM_TYPE_F32, 0);
    const uint32_t first = pm_compose_2(&c, op, node->inputs[0], node->inputs[1]);
    pm_compose_give(&c, g, 0, pm_compose_3(&c, "Where", first, dy, zero));
    pm_compose_give(&c, g, 1, pm_compose_3(&c, "Where", first, zero, dy));
    return c.status;
}

static pm_status gradient_max(pm_gradient *g, const pm_node *node)
{
    return gradient_choice(g, node, "Greater");
}

static pm_status gradient_min(pm_gradient *g, const pm_node *node)
{
    return gradient_choice(g, node, "Less");
}

static pm_status gradient_where(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t dy = pm_gradient_of(g, node, 0), zero = pm_compose_number(&c, PM_TYPE_F32, 0);
    if (pm_gradient_wants(g, node, 1))
        pm_compose_give(&c, g, 1, pm_compose_3(&c, "Where", node->inputs[0], dy, zero));
    if (pm_gradient_wants(g, node, 2))
        pm_compose_give(&c, g, 2, pm_compose_3(&c, "Where", node->inputs[0], zero, dy));
    return c.status;
}

// d x^y = y x^(y - 1) dx + x^y log x dy
static pm_status gradient_pow(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t x = node->inputs[0], y = node->inputs[1], dy = pm_gradient_of(g, node, 0);
    if (pm_gradient_wants(g, node, 0)) {
        const uint32_t lower = pm_compose_2(&c, ".Pow", x, pm_compose_by(&c, "Sub", y, 1));
        pm_compose_give(&c, g, 0, pm_compose_2(&c, "Mul", dy, pm_compose_2(&c, "Mul", y, lower)));
    }
    if (pm_gradient_wants(g, node, 1)) {
        const uint32_t slope = pm_compose_2(&c, "Mul", node->outputs[0], pm_compose_1(&c, "Log", x));
        pm_compose_give(&c, g, 1, pm_compose_2(&c, "Mul", dy, slope));
    }
    return c.status;
}

static pm_status gradient_prelu(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t x = node->inputs[0], slope = node->inputs[1], dy = pm_gradient_of(g, node, 0);
    if (pm_gradient_wants(g, node, 1))
        pm_compose_give(&c, g, 1, pm_compose_2(&c, ".PReluSlopeGrad", x, dy));
    if (pm_gradient_wants(g, node, 0))
        pm_compose_give(&c, g, 0, pm_compose_3(&c, ".PReluGrad", x, slope, dy));
    return c.status;
}

#define ENTRY(domain_name, onnx, first, last, count, spec, infer_it, rule_or_null)                           \
    {                                                                                                        \
        .domain = domain_name, .name = onnx, .since = first, .until = last, .min_inputs = count,             \
        .max_inputs = count, .max_outputs = 1, .traits = PM_TRAIT_IN_PLACE, .attributes = spec,              \
        .infer = infer_it, .gradient = rule_or_null, .plan = plan_element, .run = pm_element_run             \
    }
#define LOWERED(onnx, first, last, least, most, spec, lower_it)                                              \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .until = last, .min_inputs = least, .max_inputs = most,  \
        .max_outputs = 1, .attributes = spec, .infer = infer_binary, .lower = lower_it                       \
    }
#define OLD(onnx) LOWERED(onnx, 1, 6, 2, 2, AXIS_BROADCAST, lower_old_binary)

const pm_operator PM_FAMILY_BINARY[] = {
    OLD("Add"),
    OLD("Sub"),
    OLD("Mul"),
    OLD("Div"),
    OLD("And"),
    OLD("Or"),
    OLD("Xor"),
    OLD("Equal"),
    OLD("Greater"),
    OLD("Less"),
    OLD("Pow"),
    LOWERED("PRelu", 1, 6, 2, 2, NONE, lower_old_prelu),
    ENTRY(PM_DOMAIN, "AddAny", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "SubAny", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "MulAny", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "DivAny", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "Max", 0, 0, 2, NONE, infer_binary, gradient_max),
    ENTRY(PM_DOMAIN, "Min", 0, 0, 2, NONE, infer_binary, gradient_min),
    ENTRY(PM_DOMAIN, "Mod", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "ModTruncated", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "Pow", 0, 0, 2, NONE, infer_binary, gradient_pow),
    ENTRY(PM_DOMAIN, "BitShiftLeft", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "BitShiftRight", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "PReluSlopeGrad", 0, 0, 2, NONE, infer_binary, NULL),
    ENTRY(PM_DOMAIN, "PReluGrad", 0, 0, 3, NONE, infer_binary, NULL),
    ENTRY("", "PRelu", 7, 0, 2, NONE, infer_binary, gradient_prelu),
    ENTRY("", "Equal", 7, 0, 2, NONE, infer_comparison, NULL),
    ENTRY("", "Greater", 7, 0, 2, NONE, infer_comparison, NULL),
    ENTRY("", "Less", 7, 0, 2, NONE, infer_comparison, NULL),
    ENTRY("", "GreaterOrEqual", 12, 0, 2, NONE, infer_comparison, NULL),
    ENTRY("", "LessOrEqual", 12, 0, 2, NONE, infer_comparison, NULL),
    ENTRY("", "And", 7, 0, 2, NONE, infer_logic, NULL),
    ENTRY("", "Or", 7, 0, 2, NONE, infer_logic, NULL),
    ENTRY("", "Xor", 7, 0, 2, NONE, infer_logic, NULL),
    ENTRY("", "Where", 9, 0, 3, NONE, infer_where, gradient_where),
    LOWERED("Mod", 10, 0, 2, 2, MOD, lower_mod),
    LOWERED("BitShift", 11, 0, 2, 2, SHIFT, lower_shift),
    LOWERED("Pow", 7, 0, 2, 2, NONE, lower_pow),
    LOWERED("Max", 6, 0, 1, PM_MAX_NODE_VALUES, NONE, lower_chain),
    LOWERED("Min", 6, 0, 1, PM_MAX_NODE_VALUES, NONE, lower_chain),
    LOWERED("Sum", 6, 0, 1, PM_MAX_NODE_VALUES, NONE, lower_chain),
    LOWERED("Mean", 6, 0, 1, PM_MAX_NODE_VALUES, NONE, lower_chain),
    {0},
};
