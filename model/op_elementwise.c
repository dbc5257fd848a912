// Element-wise operators: activations, arithmetic with broadcasting, and the gradients of both.
#include "model/broadcast.h"
#include "model/gradient.h"

#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};

// --- activations

static pm_status infer_float_same(pm_shapes *s)
{
    pm_status status = pm_infer_float(s);
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

// y and dy to dx.
static pm_status infer_output_gradient(pm_shapes *s)
{
    if (!pm_shape_equal(&s->in[0]->tensor, &s->in[1]->tensor))
        return pm_infer_refuse(s, 1, "the output's");
    return infer_float_same(s);
}

#define ACTIVATION(name, gradient_op)                                                                        \
    static void run_##name(const pm_task *task, const pm_call *call)                                         \
    {                                                                                                        \
        task->kernels->name(call->in[0], call->out[0], call->lanes * task->out[0]->count);                   \
    }                                                                                                        \
    static void run_##name##_gradient(const pm_task *task, const pm_call *call)                              \
    {                                                                                                        \
        task->kernels->name##_backward(call->in[0], call->in[1], call->out[0],                               \
                                       call->lanes * task->out[0]->count);                                   \
    }                                                                                                        \
    static pm_status gradient_##name(pm_gradient *g, const pm_node *node)                                    \
    {                                                                                                        \
        return pm_gradient_give_recipe(                                                                      \
            g, node, 0,                                                                                      \
            (pm_recipe){.domain = PM_DOMAIN,                                                                 \
                        .op = gradient_op,                                                                   \
                        PM_VALUES(node->outputs[0], pm_gradient_of(g, node, 0))});                           \
    }

ACTIVATION(relu, "ReluGrad")
ACTIVATION(sigmoid, "SigmoidGrad")
ACTIVATION(tanh, "TanhGrad")

// --- arithmetic

typedef struct arithmetic {
    const void *a, *b;
    void *y;
} arithmetic;

static pm_status infer_arithmetic(pm_shapes *s)
{
    const pm_type type = s->in[0]->tensor.type;
    if (s->in[1]->tensor.type != type)
        return pm_fail(PM_INVALID, "inputs are %s and %s, wanted one type", pm_type_name(type),
                       pm_type_name(s->in[1]->tensor.type));
    if (type != PM_TYPE_F32 && type != PM_TYPE_I64 && type != PM_TYPE_I32)
        return pm_fail(PM_UNSUPPORTED, "type %s, built for float32, int64 and int32", pm_type_name(type));
    s->out[0].type = type;
    return pm_infer_broadcast(s);
}

static pm_status plan_broadcast(pm_task *task)
{
    pm_broadcast *b = pm_region_alloc(task->region, sizeof *b);
    if (!b)
        return pm_fail(PM_NO_MEMORY, "a task");
    pm_broadcast_make(b, task, task->node->input_count);
    task->detail = b;
    task->whole = true;
    return pm_ok();
}

// Integers wrap (ONNX leaves overflow open); a division by 0 gives 0.
#define ARITHMETIC(op, type, symbol, expression)                                                             \
    static void op##_##symbol(const void *ctx, const pm_run *r)                                              \
    {                                                                                                        \
        const arithmetic *p = ctx;                                                                           \
        const type *a = (const type *)p->a + r->from[0], *b = (const type *)p->b + r->from[1];               \
        type *y = (type *)p->y + r->at;                                                                      \
        if (r->step[0] == 1 && r->step[1] == 1) {                                                            \
            for (size_t i = 0; i < r->n; i++) {                                                              \
                const type x = a[i], z = b[i];                                                               \
                y[i] = expression;                                                                           \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        if (r->step[0] == 1) {                                                                               \
            const type z = *b;                                                                               \
            for (size_t i = 0; i < r->n; i++) {                                                              \
                const type x = a[i];                                                                         \
                y[i] = expression;                                                                           \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        for (size_t i = 0; i < r->n; i++) {                                                                  \
            const type x = a[i * r->step[0]], z = b[i * r->step[1]];                                         \
            y[i] = expression;                                                                               \
        }                                                                                                    \
    }

#define WRAPPING(type, unsigned_type, operation) ((type)((unsigned_type)x operation(unsigned_type) z))
#define DIVIDED(type, unsigned_type) (z == 0 ? 0 : z == -1 ? (type)(0 - (unsigned_type)x) : x / z)

ARITHMETIC(add, float, f32, x + z)
ARITHMETIC(add_rectified, float, f32, x + z < 0 ? 0 : x + z)
ARITHMETIC(add, int32_t, i32, WRAPPING(int32_t, uint32_t, +))
ARITHMETIC(add, int64_t, i64, WRAPPING(int64_t, uint64_t, +))
ARITHMETIC(sub, float, f32, x - z)
ARITHMETIC(sub, int32_t, i32, WRAPPING(int32_t, uint32_t, -))
ARITHMETIC(sub, int64_t, i64, WRAPPING(int64_t, uint64_t, -))
ARITHMETIC(mul, float, f32, x *z)
ARITHMETIC(mul, int32_t, i32, WRAPPING(int32_t, uint32_t, *))
ARITHMETIC(mul, int64_t, i64, WRAPPING(int64_t, uint64_t, *))
ARITHMETIC(div, float, f32, x / z)
ARITHMETIC(div, int32_t, i32, DIVIDED(int32_t, uint32_t))
ARITHMETIC(div, int64_t, i64, DIVIDED(int64_t, uint64_t))

#define RUN_ARITHMETIC(op, op_f32)                                                                           \
    static void run_##op(const pm_task *task, const pm_call *call)                                           \
    {                                                                                                        \
        const arithmetic ctx = {call->in[0], call->in[1], call->out[0]};                                     \
        const pm_type type = task->out[0]->type;                                                             \
        pm_broadcast_walk(task->detail, call->lanes,                                                         \
                          type == PM_TYPE_F32   ? op_f32                                                     \
                          : type == PM_TYPE_I64 ? op##_i64                                                   \
                                                : op##_i32,                                                  \
                          &ctx);                                                                             \
    }

RUN_ARITHMETIC(add, pm_node_int(task->node, "relu", 0) ? add_rectified_f32 : add_f32)
RUN_ARITHMETIC(sub, sub_f32)
RUN_ARITHMETIC(mul, mul_f32)
RUN_ARITHMETIC(div, div_f32)

// The value of "" operator op at a and b.
static pm_status binary(pm_gradient *g, const pm_node *node, const char *op, uint32_t a, uint32_t b,
                        uint32_t *y)
{
    return pm_recipe_add(pm_gradient_program(g), node, (pm_recipe){.domain = "", .op = op, PM_VALUES(a, b)},
                         y);
}

static pm_status negated(pm_gradient *g, const pm_node *node, uint32_t x, uint32_t *y)
{
    return pm_recipe_add(pm_gradient_program(g), node, (pm_recipe){.domain = "", .op = "Neg", PM_VALUES(x)},
                         y);
}

static pm_status gradient_add(pm_gradient *g, const pm_node *node)
{
    uint32_t dy = pm_gradient_of(g, node, 0);
    pm_status status = pm_gradient_through_relu(g, node, &dy);
    for (uint32_t i = 0; i < 2 && status.code == PM_OK; i++)
        if (pm_gradient_wants(g, node, i))
            status = pm_gradient_give_summed(g, node, i, dy);
    return status;
}

static pm_status gradient_sub(pm_gradient *g, const pm_node *node)
{
    uint32_t dy = pm_gradient_of(g, node, 0);
    pm_status status = pm_ok();
    if (pm_gradient_wants(g, node, 0))
        status = pm_gradient_give_summed(g, node, 0, dy);
    if (status.code != PM_OK || !pm_gradient_wants(g, node, 1))
        return status;
    status = negated(g, node, dy, &dy);
    return status.code == PM_OK ? pm_gradient_give_summed(g, node, 1, dy) : status;
}

static pm_status gradient_mul(pm_gradient *g, const pm_node *node)
{
    const uint32_t dy = pm_gradient_of(g, node, 0);
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < 2 && status.code == PM_OK; i++) {
        uint32_t product = PM_NO_VALUE;
        if (!pm_gradient_wants(g, node, i))
            continue;
        status = binary(g, node, "Mul", dy, node->inputs[1 - i], &product);
        if (status.code == PM_OK)
            status = pm_gradient_give_summed(g, node, i, product);
    }
    return status;
}

// d(a / b) = da / b - (a / b) db / b
static pm_status gradient_div(pm_gradient *g, const pm_node *node)
{
    uint32_t quotient = PM_NO_VALUE, product = PM_NO_VALUE, down = PM_NO_VALUE;
    pm_status status = binary(g, node, "Div", pm_gradient_of(g, node, 0), node->inputs[1], &quotient);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 0))
        status = pm_gradient_give_summed(g, node, 0, quotient);
    if (status.code != PM_OK || !pm_gradient_wants(g, node, 1))
        return status;
    status = binary(g, node, "Mul", quotient, node->outputs[0], &product);
    if (status.code == PM_OK)
        status = negated(g, node, product, &down);
    return status.code == PM_OK ? pm_gradient_give_summed(g, node, 1, down) : status;
}

#define ACTIVATION_ENTRY(onnx, symbol, first)                                                                \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1,      \
        .traits = PM_TRAIT_IN_PLACE, .attributes = NONE, .infer = infer_float_same,                          \
        .gradient = gradient_##symbol, .plan = pm_task_plan_whole, .run = run_##symbol                       \
    }

#define ACTIVATION_GRADIENT_ENTRY(onnx, symbol)                                                              \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = onnx, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1,               \
        .traits = PM_TRAIT_IN_PLACE, .attributes = NONE, .infer = infer_output_gradient,                     \
        .plan = pm_task_plan_whole, .run = run_##symbol##_gradient                                           \
    }

#define ARITHMETIC_ENTRY(onnx, symbol)                                                                       \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = 7, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1,          \
        .traits = PM_TRAIT_IN_PLACE, .attributes = NONE, .infer = infer_arithmetic,                          \
        .lower = pm_lower_arithmetic, .gradient = gradient_##symbol, .plan = plan_broadcast,                 \
        .run = run_##symbol                                                                                  \
    }

const pm_operator PM_FAMILY_ELEMENTWISE[] = {
    ACTIVATION_ENTRY("Relu", relu, 6),
    ACTIVATION_ENTRY("Sigmoid", sigmoid, 6),
    ACTIVATION_ENTRY("Tanh", tanh, 6),
    ACTIVATION_GRADIENT_ENTRY("ReluGrad", relu),
    ACTIVATION_GRADIENT_ENTRY("SigmoidGrad", sigmoid),
    ACTIVATION_GRADIENT_ENTRY("TanhGrad", tanh),
    ARITHMETIC_ENTRY("Add", add),
    ARITHMETIC_ENTRY("Sub", sub),
    ARITHMETIC_ENTRY("Mul", mul),
    ARITHMETIC_ENTRY("Div", div),
    {0},
};
