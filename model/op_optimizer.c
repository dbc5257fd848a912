// The optimizers of ONNX's training domain, each applied to any number of tensors: inputs R, T, then all X,
// all gradients and all states; outputs all new X and all new states. R is the learning rate, T the number of
// steps taken.
#include "model/compose.h"

#include <string.h>

static const pm_attribute_spec SETTINGS[] = {{"alpha", PM_ATTRIBUTE_FLOAT},
                                             {"beta", PM_ATTRIBUTE_FLOAT},
                                             {"decay_factor", PM_ATTRIBUTE_FLOAT},
                                             {"epsilon", PM_ATTRIBUTE_FLOAT},
                                             {"mode", PM_ATTRIBUTE_STRING},
                                             {"norm_coefficient", PM_ATTRIBUTE_FLOAT},
                                             {"norm_coefficient_post", PM_ATTRIBUTE_FLOAT},
                                             {0}};

typedef struct update {
    pm_compose c;
    uint32_t rate, steps; // scalars of float32
    uint32_t n;           // tensors
    uint32_t *outputs;
} update;

#define C1(op, x) pm_compose_1(&u->c, op, x)
#define C2(op, x, y) pm_compose_2(&u->c, op, x, y)
#define CN(op, x, number) pm_compose_by(&u->c, op, x, number)

static double setting(const update *u, const char *name, float otherwise)
{
    return (double)pm_node_float(u->c.node, name, otherwise);
}

// Input kind (0: X, 1: gradient, 2 and 3: states) of tensor i.
static uint32_t operand(const update *u, uint32_t kind, uint32_t i)
{
    return u->c.node->inputs[2 + kind * u->n + i];
}

// The gradient with that of norm_coefficient / 2 |X|^2 added.
static uint32_t regularized(update *u, uint32_t i)
{
    return C2("Add", CN("Mul", operand(u, 0, i), setting(u, "norm_coefficient", 0)), operand(u, 1, i));
}

static bool is_first_step(update *u)
{
    const pm_value *t = &u->c.program->values[u->c.node->inputs[1]];
    int64_t steps = 0;
    if (!t->constant) {
        pm_compose_fail(&u->c,
                        pm_fail(PM_UNSUPPORTED, "the number of steps is known only when the graph runs"));
        return false;
    }
    (void)pm_compose_read(&u->c, u->c.node->inputs[1], 1, &steps);
    return steps == 0;
}

static void adagrad(update *u, uint32_t i)
{
    const uint32_t g = regularized(u, i), decayed = CN("Mul", u->steps, setting(u, "decay_factor", 0));
    const uint32_t rate = C2("Div", u->rate, CN("Add", decayed, 1));
    const uint32_t h = C2("Add", operand(u, 2, i), C2("Mul", g, g));
    const uint32_t size = CN("Add", C1("Sqrt", h), setting(u, "epsilon", 1e-6f));
    u->outputs[i] = C2("Sub", operand(u, 0, i), C2("Div", C2("Mul", rate, g), size));
    u->outputs[u->n + i] = h;
}

// 1 - base^T
static uint32_t remainder_of(update *u, double base)
{
    const uint32_t power = C2("Pow", pm_compose_number(&u->c, PM_TYPE_F32, base), u->steps);
    return C2("Sub", pm_compose_number(&u->c, PM_TYPE_F32, 1), power);
}

static void adam(update *u, uint32_t i, bool first)
{
    const double alpha = setting(u, "alpha", 0.9f), beta = setting(u, "beta", 0.999f);
    const uint32_t g = regularized(u, i);
    const uint32_t v = C2("Add", CN("Mul", operand(u, 2, i), alpha), CN("Mul", g, 1 - alpha));
    const uint32_t h = C2("Add", CN("Mul", operand(u, 3, i), beta), CN("Mul", C2("Mul", g, g), 1 - beta));
    const uint32_t size = CN("Add", C1("Sqrt", h), setting(u, "epsilon", 1e-6f));
    uint32_t rate = u->rate;
    if (!first)
        rate = C2("Div", C2("Mul", rate, C1("Sqrt", remainder_of(u, beta))), remainder_of(u, alpha));
    const uint32_t x = C2("Sub", operand(u, 0, i), C2("Div", C2("Mul", rate, v), size));
    u->outputs[i] = CN("Mul", x, 1 - setting(u, "norm_coefficient_post", 0));
    u->outputs[u->n + i] = v;
    u->outputs[2 * u->n + i] = h;
}

static void momentum(update *u, uint32_t i, bool first)
{
    const double alpha = setting(u, "alpha", 0), beta = first ? 1 : setting(u, "beta", 0);
    const bool nesterov = strcmp(pm_node_string(u->c.node, "mode", ""), "nesterov") == 0;
    const uint32_t g = regularized(u, i);
    const uint32_t v = C2("Add", CN("Mul", operand(u, 2, i), alpha), CN("Mul", g, beta));
    const uint32_t way = nesterov ? C2("Add", g, CN("Mul", v, alpha)) : v;
    u->outputs[i] = C2("Sub", operand(u, 0, i), C2("Mul", u->rate, way));
    u->outputs[u->n + i] = v;
}

static pm_status lower_optimizer(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    const bool is_adam = strcmp(node->op->name, "Adam") == 0,
               is_adagrad = strcmp(node->op->name, "Adagrad") == 0;
    const uint32_t states = is_adam ? 2 : 1, kinds = 2 + states;
    const char *mode = pm_node_string(node, "mode", "standard");
    (void)training;
    update u = {
        .c = pm_compose_open(program, node), .n = (node->input_count - 2) / kinds, .outputs = outputs};
    if ((node->input_count - 2) % kinds || u.n == 0 || node->output_count != u.n * (1 + states))
        return pm_fail(PM_INVALID, "%u inputs and %u outputs", node->input_count, node->output_count);
    for (uint32_t i = 0; i < node->input_count; i++)
        if (node->inputs[i] == PM_NO_VALUE ||
            (i != 1 && pm_compose_tensor(&u.c, node->inputs[i]).type != PM_TYPE_F32))
            return pm_fail(PM_UNSUPPORTED, "input %u is left out or not float32", i);
    if (strcmp(mode, "standard") != 0 && strcmp(mode, "nesterov") != 0)
        return pm_fail(PM_INVALID, "mode %.32s", mode);
    u.rate = node->inputs[0];
    u.steps = pm_compose_cast(&u.c, node->inputs[1], PM_TYPE_F32);
    const bool first = !is_adagrad && is_first_step(&u);
    for (uint32_t i = 0; i < u.n; i++) {
        if (is_adam)
            adam(&u, i, first);
        else if (is_adagrad)
            adagrad(&u, i);
        else
            momentum(&u, i, first);
    }
    return u.c.status;
}

#define ENTRY(onnx)                                                                                          \
    {                                                                                                        \
        .domain = "ai.onnx.preview.training", .name = onnx, .since = 1, .min_inputs = 5,                     \
        .max_inputs = PM_MAX_NODE_VALUES, .max_outputs = PM_MAX_NODE_VALUES, .fixed_inputs = 3,              \
        .attributes = SETTINGS, .infer = pm_infer_lowered, .lower = lower_optimizer                          \
    }

const pm_operator PM_FAMILY_OPTIMIZER[] = {
    ENTRY("Adagrad"),
    ENTRY("Adam"),
    ENTRY("Momentum"),
    {0},
};
