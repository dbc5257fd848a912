// Element-wise operators of one input: a loop for each class, a line for each operator, a gradient rule where
// there is one.
#include "model/compose.h"
#include "model/element.h"
#include "model/program.h"

#include <tgmath.h>

#define LOOP(op, suffix, type, result, expression)                                                           \
    static void op##_##suffix(const void *const *in, void *out, size_t n, const double *numbers)             \
    {                                                                                                        \
        const type *from = in[0], p = (type)numbers[0], q = (type)numbers[1], one = 1;                       \
        result *to = out;                                                                                    \
        (void)p, (void)q, (void)one;                                                                         \
        for (size_t i = 0; i < n; i++) {                                                                     \
            const type x = from[i];                                                                          \
            to[i] = (result)(expression);                                                                    \
        }                                                                                                    \
    }

#define FLOATS(op, expression)                                                                               \
    LOOP(op, f32, float, float, expression)                                                                  \
    LOOP(op, f64, double, double, expression)

#define TRUTHS(op, expression)                                                                               \
    LOOP(op, f32, float, uint8_t, expression)                                                                \
    LOOP(op, f64, double, uint8_t, expression)

LOOP(absolute, i64, int64_t, int64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
LOOP(absolute, u64, uint64_t, uint64_t, x)
LOOP(negative, i64, int64_t, int64_t, 0 - (uint64_t)x)
LOOP(not, bools, uint8_t, uint8_t, !x)
FLOATS(absolute, fabs(x))
FLOATS(negative, -x)
FLOATS(sign, x != x ? x : (x > 0) - (x < 0))
LOOP(sign, i64, int64_t, int64_t, (x > 0) - (x < 0))
LOOP(sign, u64, uint64_t, uint64_t, x > 0)
FLOATS(arc_cosine, acos(x))
FLOATS(area_cosine, acosh(x))
FLOATS(arc_sine, asin(x))
FLOATS(area_sine, asinh(x))
FLOATS(arc_tangent, atan(x))
FLOATS(area_tangent, atanh(x))
FLOATS(ceiling, ceil(x))
FLOATS(celu, (x > 0 ? x : 0) + (x < 0 ? p * expm1(x / p) : 0))
FLOATS(cosine, cos(x))
FLOATS(hyperbolic_cosine, cosh(x))
FLOATS(elu, x < 0 ? p * expm1(x) : x)
FLOATS(error_function, erf(x))
FLOATS(exponential, exp(x))
FLOATS(down, floor(x))
FLOATS(hard_sigmoid, fmax(0 * one, fmin(one, p *x + q)))
FLOATS(hard_swish, x *fmax(0 * one, fmin(one, x / 6 + one / 2)))
FLOATS(leaky_relu, x < 0 ? p * x : x)
FLOATS(logarithm, log(x))
FLOATS(reciprocal, one / x)
FLOATS(nearest, rint(x))
FLOATS(selu, q *(x > 0 ? x : p * expm1(x)))
FLOATS(shrink, x<-p ? x + q : x> p ? x - q : 0)
FLOATS(sine, sin(x))
FLOATS(hyperbolic_sine, sinh(x))
FLOATS(softplus, (x > 0 ? x : 0) + log1p(exp(-fabs(x))))
FLOATS(softsign, x / (one + fabs(x)))
FLOATS(root, sqrt(x))
FLOATS(tangent, tan(x))
FLOATS(thresholded_relu, x > p ? x : 0)
FLOATS(gelu, x *(one + erf(x * (one * 0.707106781186547524f))) / 2)
TRUTHS(is_nan, x != x)
TRUTHS(is_infinite, (x == INFINITY && q != 0) || (x == -INFINITY && p != 0))

#define FLOAT_LOOPS(op)                                                                                      \
    {                                                                                                        \
        [PM_CLASS_F32] = op##_f32, [PM_CLASS_F64] = op##_f64                                                 \
    }

static const pm_element ELEMENTS[] = {
    {"Abs", {absolute_f32, absolute_f64, absolute_i64, absolute_u64}, {{0}}},
    {"Neg", {negative_f32, negative_f64, negative_i64, NULL}, {{0}}},
    {"Not", {[PM_ELEMENT_BOOLS] = not_bools}, {{0}}},
    {"Sign", {sign_f32, sign_f64, sign_i64, sign_u64}, {{0}}},
    {"Acos", FLOAT_LOOPS(arc_cosine), {{0}}},
    {"Acosh", FLOAT_LOOPS(area_cosine), {{0}}},
    {"Asin", FLOAT_LOOPS(arc_sine), {{0}}},
    {"Asinh", FLOAT_LOOPS(area_sine), {{0}}},
    {"Atan", FLOAT_LOOPS(arc_tangent), {{0}}},
    {"Atanh", FLOAT_LOOPS(area_tangent), {{0}}},
    {"Ceil", FLOAT_LOOPS(ceiling), {{0}}},
    {"Celu", FLOAT_LOOPS(celu), {{"alpha", 1}}},
    {"Cos", FLOAT_LOOPS(cosine), {{0}}},
    {"Cosh", FLOAT_LOOPS(hyperbolic_cosine), {{0}}},
    {"Elu", FLOAT_LOOPS(elu), {{"alpha", 1}}},
    {"Erf", FLOAT_LOOPS(error_function), {{0}}},
    {"Exp", FLOAT_LOOPS(exponential), {{0}}},
    {"Floor", FLOAT_LOOPS(down), {{0}}},
    {"Gelu", FLOAT_LOOPS(gelu), {{0}}},
    {"HardSigmoid", FLOAT_LOOPS(hard_sigmoid), {{"alpha", 0.2}, {"beta", 0.5}}},
    {"HardSwish", FLOAT_LOOPS(hard_swish), {{0}}},
    {"IsInf", FLOAT_LOOPS(is_infinite), {{"detect_negative", 1}, {"detect_positive", 1}}},
    {"IsNaN", FLOAT_LOOPS(is_nan), {{0}}},
    {"LeakyRelu", FLOAT_LOOPS(leaky_relu), {{"alpha", 0.01}}},
    {"Log", FLOAT_LOOPS(logarithm), {{0}}},
    {"Reciprocal", FLOAT_LOOPS(reciprocal), {{0}}},
    {"Round", FLOAT_LOOPS(nearest), {{0}}},
    {"Selu", FLOAT_LOOPS(selu), {{"alpha", 1.67326319217681884765625}, {"gamma", 1.05070102214813232421875}}},
    {"Shrink", FLOAT_LOOPS(shrink), {{"lambd", 0.5}, {"bias", 0}}},
    {"Sin", FLOAT_LOOPS(sine), {{0}}},
    {"Sinh", FLOAT_LOOPS(hyperbolic_sine), {{0}}},
    {"Softplus", FLOAT_LOOPS(softplus), {{0}}},
    {"Softsign", FLOAT_LOOPS(softsign), {{0}}},
    {"Sqrt", FLOAT_LOOPS(root), {{0}}},
    {"Tan", FLOAT_LOOPS(tangent), {{0}}},
    {"ThresholdedRelu", FLOAT_LOOPS(thresholded_relu), {{"alpha", 1}}},
    {0},
};

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec ALPHA[] = {{"alpha", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec ALPHA_BETA[] = {
    {"alpha", PM_ATTRIBUTE_FLOAT}, {"beta", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec ALPHA_GAMMA[] = {
    {"alpha", PM_ATTRIBUTE_FLOAT}, {"gamma", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec LAMBDA[] = {{"lambd", PM_ATTRIBUTE_FLOAT}, {"bias", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec DETECT[] = {
    {"detect_negative", PM_ATTRIBUTE_INT}, {"detect_positive", PM_ATTRIBUTE_INT}, {0}};

static pm_status check(const pm_shapes *s)
{
    const pm_type type = s->in[0]->tensor.type;
    if (!pm_element_loop_for(pm_element_find(ELEMENTS, s->node->op->name), type))
        return pm_fail(PM_UNSUPPORTED, "type %s", pm_type_name(type));
    return pm_ok();
}

static pm_status infer_unary(pm_shapes *s)
{
    pm_status status = check(s);
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

static pm_status infer_truth(pm_shapes *s)
{
    pm_status status = infer_unary(s);
    s->out[0].type = PM_TYPE_BOOL;
    return status;
}

static pm_status infer_not(pm_shapes *s)
{
    if (s->in[0]->tensor.type != PM_TYPE_BOOL)
        return pm_fail(PM_INVALID, "type %s, wanted bool", pm_type_name(s->in[0]->tensor.type));
    return pm_infer_same(s);
}

static pm_status plan_unary(pm_task *task)
{
    return pm_element_plan_task(task, pm_element_find(ELEMENTS, task->node->op->name), 1, task->in[0]->type);
}

static void run_erf(const pm_task *task, const pm_call *call)
{
    if (task->in[0]->type == PM_TYPE_F32)
        task->kernels->error_function(call->in[0], call->out[0], call->lanes * task->out[0]->count);
    else
        pm_element_run(task, call);
}

// --- gradients: dx = dy * derivative, written with operators

typedef struct rule {
    pm_compose c;
    uint32_t x, y, dy;
} rule;

static rule open_rule(pm_gradient *g, const pm_node *node)
{
    return (rule){pm_compose_open(pm_gradient_program(g), node), node->inputs[0], node->outputs[0],
                  pm_gradient_of(g, node, 0)};
}

// dx = dy * (or, with "Div", by) factor
static pm_status close_rule(rule *r, pm_gradient *g, const char *op, uint32_t factor)
{
    pm_compose_give(&r->c, g, 0, pm_compose_2(&r->c, op, r->dy, factor));
    return r->c.status;
}

// 1 where x op number, else 0
static uint32_t where(rule *r, const char *op, uint32_t x, double number)
{
    return pm_compose_cast(&r->c, pm_compose_by(&r->c, op, x, number), PM_TYPE_F32);
}

static uint32_t square(rule *r, uint32_t x)
{
    return pm_compose_2(&r->c, "Mul", x, x);
}

// 1 + sign * x * x
static uint32_t one_plus_square(rule *r, double sign)
{
    return pm_compose_by(&r->c, "Add", pm_compose_by(&r->c, "Mul", square(r, r->x), sign), 1);
}

#define RULE(name, op, factor)                                                                               \
    static pm_status gradient_##name(pm_gradient *g, const pm_node *node)                                    \
    {                                                                                                        \
        rule r = open_rule(g, node);                                                                         \
        return close_rule(&r, g, op, factor);                                                                \
    }

#define F1(op, x) pm_compose_1(&r.c, op, x)
#define F2(op, x, y) pm_compose_2(&r.c, op, x, y)
#define FN(op, x, n) pm_compose_by(&r.c, op, x, n)

RULE(absolute, "Mul", F1("Sign", r.x))
RULE(arc_cosine, "Div", F1("Neg", F1("Sqrt", one_plus_square(&r, -1))))
RULE(arc_sine, "Div", F1("Sqrt", one_plus_square(&r, -1)))
RULE(arc_tangent, "Div", one_plus_square(&r, 1))
RULE(area_cosine, "Div", F1("Sqrt", FN("Sub", square(&r, r.x), 1)))
RULE(area_sine, "Div", F1("Sqrt", one_plus_square(&r, 1)))
RULE(area_tangent, "Div", one_plus_square(&r, -1))
RULE(cosine, "Mul", F1("Neg", F1("Sin", r.x)))
RULE(hyperbolic_cosine, "Mul", F1("Sinh", r.x))
RULE(error_function, "Mul", FN("Mul", F1("Exp", F1("Neg", square(&r, r.x))), M_2_SQRTPI))
RULE(exponential, "Mul", r.y)
RULE(logarithm, "Div", r.x)
RULE(negative, "Mul", pm_compose_number(&r.c, PM_TYPE_F32, -1))
RULE(reciprocal, "Mul", F1("Neg", square(&r, r.y)))
RULE(sine, "Mul", F1("Cos", r.x))
RULE(hyperbolic_sine, "Mul", F1("Cosh", r.x))
RULE(softplus, "Mul", F1("Sigmoid", r.x))
RULE(softsign, "Div", square(&r, FN("Add", F1("Abs", r.x), 1)))
RULE(root, "Div", FN("Mul", r.y, 2))
RULE(tangent, "Mul", FN("Add", square(&r, r.y), 1))
RULE(thresholded_relu, "Mul", where(&r, "Greater", r.x, (double)pm_node_float(node, "alpha", 1)))
RULE(shrink, "Mul", where(&r, "Greater", F1("Abs", r.x), (double)pm_node_float(node, "lambd", 0.5f)))

// The derivative where x > 0, and below: what is made of the output.
static pm_status give_split(rule *r, pm_gradient *g, uint32_t above, uint32_t below)
{
    const uint32_t right = pm_compose_by(&r->c, "Greater", r->x, 0);
    return close_rule(r, g, "Mul", pm_compose_3(&r->c, "Where", right, above, below));
}

#define CONSTANT(n) pm_compose_number(&r.c, PM_TYPE_F32, n)

static pm_status gradient_leaky_relu(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    return give_split(&r, g, CONSTANT(1), CONSTANT((double)pm_node_float(node, "alpha", 0.01f)));
}

static pm_status gradient_elu(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    return give_split(&r, g, CONSTANT(1), FN("Add", r.y, (double)pm_node_float(node, "alpha", 1)));
}

// Below 0: y / alpha + 1
static pm_status gradient_celu(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    const double alpha = (double)pm_node_float(node, "alpha", 1);
    return give_split(&r, g, CONSTANT(1), FN("Add", FN("Div", r.y, alpha), 1));
}

// Below 0: y + alpha * gamma
static pm_status gradient_selu(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    const double alpha = (double)pm_node_float(node, "alpha", 1.6732632f);
    const double gamma = (double)pm_node_float(node, "gamma", 1.0507010f);
    return give_split(&r, g, CONSTANT(gamma), FN("Add", r.y, alpha * gamma));
}

// slope where 0 < y < 1
static pm_status gradient_hard_sigmoid(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    const uint32_t inside = F2("Mul", where(&r, "Greater", r.y, 0), where(&r, "Less", r.y, 1));
    return close_rule(&r, g, "Mul", FN("Mul", inside, (double)pm_node_float(node, "alpha", 0.2f)));
}

// 1 above 3, (2 x + 3) / 6 between -3 and 3, 0 below
static pm_status gradient_hard_swish(pm_gradient *g, const pm_node *node)
{
    rule r = open_rule(g, node);
    const uint32_t high = where(&r, "GreaterOrEqual", r.x, 3);
    const uint32_t inside = F2("Mul", where(&r, "Greater", r.x, -3), where(&r, "Less", r.x, 3));
    const uint32_t slope = FN("Add", FN("Mul", r.x, 1.0 / 3), 0.5);
    return close_rule(&r, g, "Mul", F2("Add", high, F2("Mul", inside, slope)));
}

// Of float32 there is a kernel.
static pm_status lower_gelu(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    (void)training;
    if (program->values[node->inputs[0]].tensor.type != PM_TYPE_F32)
        return pm_program_add(program, node, outputs);
    pm_compose c = pm_compose_open(program, node);
    outputs[0] = pm_compose_gelu(&c, node->inputs[0]);
    return c.status;
}

#define ENTRY_OF(domain_name, onnx, first, spec, infer_it, rule_or_null)                                     \
    {                                                                                                        \
        .domain = domain_name, .name = onnx, .since = first, .min_inputs = 1, .max_inputs = 1,               \
        .max_outputs = 1, .traits = PM_TRAIT_IN_PLACE, .attributes = spec, .infer = infer_it,                \
        .gradient = rule_or_null, .plan = plan_unary, .run = pm_element_run                                  \
    }
#define ENTRY(onnx, first, spec, rule_or_null) ENTRY_OF("", onnx, first, spec, infer_unary, rule_or_null)

const pm_operator PM_FAMILY_UNARY[] = {
    ENTRY("Abs", 6, NONE, gradient_absolute),
    ENTRY("Neg", 6, NONE, gradient_negative),
    ENTRY("Sign", 9, NONE, NULL),
    ENTRY("Acos", 7, NONE, gradient_arc_cosine),
    ENTRY("Acosh", 9, NONE, gradient_area_cosine),
    ENTRY("Asin", 7, NONE, gradient_arc_sine),
    ENTRY("Asinh", 9, NONE, gradient_area_sine),
    ENTRY("Atan", 7, NONE, gradient_arc_tangent),
    ENTRY("Atanh", 9, NONE, gradient_area_tangent),
    ENTRY("Ceil", 6, NONE, NULL),
    ENTRY("Celu", 12, ALPHA, gradient_celu),
    ENTRY("Cos", 7, NONE, gradient_cosine),
    ENTRY("Cosh", 9, NONE, gradient_hyperbolic_cosine),
    ENTRY("Elu", 6, ALPHA, gradient_elu),
    {.domain = "",
     .name = "Erf",
     .since = 9,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NONE,
     .infer = infer_unary,
     .gradient = gradient_error_function,
     .plan = plan_unary,
     .run = run_erf},
    ENTRY("Exp", 6, NONE, gradient_exponential),
    ENTRY("Floor", 6, NONE, NULL),
    {.domain = "com.microsoft",
     .name = "Gelu",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NONE,
     .infer = infer_unary,
     .lower = lower_gelu,
     .plan = plan_unary,
     .run = pm_element_run},
    ENTRY("HardSigmoid", 6, ALPHA_BETA, gradient_hard_sigmoid),
    ENTRY("HardSwish", 14, NONE, gradient_hard_swish),
    ENTRY("LeakyRelu", 6, ALPHA, gradient_leaky_relu),
    ENTRY("Log", 6, NONE, gradient_logarithm),
    ENTRY("Reciprocal", 6, NONE, gradient_reciprocal),
    ENTRY("Round", 11, NONE, NULL),
    ENTRY("Selu", 6, ALPHA_GAMMA, gradient_selu),
    ENTRY("Shrink", 9, LAMBDA, gradient_shrink),
    ENTRY("Sin", 7, NONE, gradient_sine),
    ENTRY("Sinh", 9, NONE, gradient_hyperbolic_sine),
    ENTRY("Softplus", 1, NONE, gradient_softplus),
    ENTRY("Softsign", 1, NONE, gradient_softsign),
    ENTRY("Sqrt", 6, NONE, gradient_root),
    ENTRY("Tan", 7, NONE, gradient_tangent),
    ENTRY("ThresholdedRelu", 10, ALPHA, gradient_thresholded_relu),
    ENTRY_OF("", "Not", 1, NONE, infer_not, NULL),
    ENTRY_OF("", "IsNaN", 9, NONE, infer_truth, NULL),
    ENTRY_OF("", "IsInf", 10, DETECT, infer_truth, NULL),
    {0},
};
