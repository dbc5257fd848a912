// What Transformer blocks are made of besides products and attention: layer normalization and Gelu, each one
// pass over its rows.
#include "model/compose.h"
#include "model/program.h"
#include "model/task.h"

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec LAYER[] = {
    {"axis", PM_ATTRIBUTE_INT}, {"epsilon", PM_ATTRIBUTE_FLOAT}, {"stash_type", PM_ATTRIBUTE_INT}, {0}};

// --- LayerNorm: (x, scale, bias) to y, and each row's mean and 1 / sqrt(variance + epsilon)

static uint32_t axis_of(const pm_node *node, const pm_tensor *x)
{
    const int64_t axis = pm_node_int(node, "axis", -1);
    return (uint32_t)(axis < 0 ? axis + x->rank : axis);
}

static pm_status infer_layer_norm(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", -1, x->rank, false, &axis);
    if (status.code == PM_OK)
        status = pm_infer_float(s);
    if (status.code != PM_OK)
        return status;
    for (uint32_t i = 1; i < s->node->input_count; i++)
        if (pm_infer_has(s, i) && s->in[i]->tensor.count != pm_extent(x, axis, x->rank))
            return pm_infer_refuse(s, i, "one element for each that is normalized together");
    s->out[1] = (pm_tensor){.type = PM_TYPE_F32, .rank = x->rank};
    for (uint32_t d = 0; d < x->rank; d++)
        s->out[1].shape[d] = d < axis ? x->shape[d] : 1;
    s->out[2] = s->out[1];
    return pm_infer_same(s);
}

static pm_status plan_layer_norm(pm_task *task)
{
    task->whole = !task->shared[0];
    for (uint32_t i = 1; i < task->node->input_count; i++)
        task->whole = task->whole && task->shared[i];
    return pm_ok();
}

static pm_layer_norm rows_of(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const uint32_t axis = axis_of(task->node, x);
    return (pm_layer_norm){.rows = call->lanes * pm_extent(x, 0, axis),
                           .columns = pm_extent(x, axis, x->rank),
                           .epsilon = pm_node_float(task->node, "epsilon", 1e-5f)};
}

static void run_layer_norm(const pm_task *task, const pm_call *call)
{
    pm_layer_norm n = rows_of(task, call);
    n.scale = call->in[1];
    n.bias = task->node->input_count > 2 ? call->in[2] : NULL;
    task->kernels->layer_norm(&n, call->in[0], call->out[0], call->out[1], call->out[2]);
}

// (x, dy, scale, mean, inverse) to (dx, dscale, dbias) of a lane.
static pm_status infer_layer_norm_grad(pm_shapes *s)
{
    pm_status status = pm_infer_same(s);
    s->out[1] = s->out[2] = s->in[2]->tensor;
    s->out[1].data = s->out[2].data = NULL;
    return status;
}

static void run_layer_norm_grad(const pm_task *task, const pm_call *call)
{
    pm_layer_norm n = rows_of(task, call);
    n.scale = call->in[2];
    task->kernels->layer_norm_backward(&n, call->in[0], call->in[1], call->in[3], call->in[4], call->out[0],
                                       call->out[1], call->out[2]);
}

static pm_status gradient_layer_norm(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    uint32_t made[3] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    c.status = pm_recipe_add(c.program, node,
                             (pm_recipe){.domain = PM_DOMAIN,
                                         .op = "LayerNormGrad",
                                         PM_VALUES(node->inputs[0], pm_gradient_of(g, node, 0),
                                                   node->inputs[1], node->outputs[1], node->outputs[2]),
                                         .attributes = node->attributes,
                                         .attribute_count = node->attribute_count,
                                         .output_count = 3},
                             made);
    for (uint32_t i = node->input_count; i-- > 0 && c.status.code == PM_OK;)
        if (pm_gradient_wants(g, node, i)) {
            const pm_tensor t = pm_compose_tensor(&c, node->inputs[i]);
            const bool same = i == 0 || pm_shape_equal(&t, &c.program->values[made[i]].tensor);
            pm_compose_give(&c, g, i, same ? made[i] : pm_compose_reshape(&c, made[i], t.shape, t.rank));
        }
    return c.status;
}

// --- Gelu: y, and its slope

static pm_status infer_gelu(pm_shapes *s)
{
    pm_status status = pm_infer_float(s);
    if (status.code == PM_OK)
        status = pm_infer_same(s);
    if (s->node->output_count > 1)
        s->out[1] = s->out[0];
    return status;
}

static void run_gelu(const pm_task *task, const pm_call *call)
{
    task->kernels->gelu(call->in[0], call->out[0], task->node->output_count > 1 ? call->out[1] : NULL,
                        call->lanes * task->out[0]->count);
}

static void run_product(const pm_task *task, const pm_call *call)
{
    task->kernels->multiply(call->in[0], call->in[1], call->out[0], call->lanes * task->out[0]->count);
}

static pm_status gradient_gelu(pm_gradient *g, const pm_node *node)
{
    return pm_gradient_give_recipe(g, node, 0,
                                   (pm_recipe){.domain = PM_DOMAIN,
                                               .op = "GeluGrad",
                                               PM_VALUES(node->outputs[1], pm_gradient_of(g, node, 0))});
}

uint32_t pm_compose_gelu(pm_compose *c, uint32_t x)
{
    uint32_t made[2] = {PM_NO_VALUE, PM_NO_VALUE};
    if (c->status.code == PM_OK)
        c->status = pm_recipe_add(
            c->program, c->node,
            (pm_recipe){.domain = PM_DOMAIN, .op = "Gelu", PM_VALUES(x), .output_count = 2}, made);
    return made[0];
}

const pm_operator PM_FAMILY_BLOCK[] = {
    {.domain = PM_DOMAIN,
     .name = "LayerNorm",
     .min_inputs = 2,
     .max_inputs = 3,
     .max_outputs = 3,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = LAYER,
     .infer = infer_layer_norm,
     .gradient = gradient_layer_norm,
     .plan = plan_layer_norm,
     .run = run_layer_norm},
    {.domain = PM_DOMAIN,
     .name = "LayerNormGrad",
     .min_inputs = 5,
     .max_inputs = 5,
     .max_outputs = 3,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = LAYER,
     .infer = infer_layer_norm_grad,
     .run = run_layer_norm_grad},
    {.domain = PM_DOMAIN,
     .name = "Gelu",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 2,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NONE,
     .infer = infer_gelu,
     .gradient = gradient_gelu,
     .plan = pm_task_plan_whole,
     .run = run_gelu},
    {.domain = PM_DOMAIN,
     .name = "GeluGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NONE,
     .infer = infer_gelu,
     .plan = pm_task_plan_whole,
     .run = run_product},
    {0},
};
