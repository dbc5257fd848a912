// MaxPool and AveragePool over images, and their gradients.
#include "model/gradient.h"
#include "model/program.h"
#include "model/task.h"
#include "model/window.h"

static const pm_attribute_spec POOL[] = {{"kernel_shape", PM_ATTRIBUTE_INTS},
                                         {"strides", PM_ATTRIBUTE_INTS},
                                         {"pads", PM_ATTRIBUTE_INTS},
                                         {"dilations", PM_ATTRIBUTE_INTS},
                                         {"ceil_mode", PM_ATTRIBUTE_INT},
                                         {"storage_order", PM_ATTRIBUTE_INT},
                                         {"count_include_pad", PM_ATTRIBUTE_INT},
                                         {"auto_pad", PM_ATTRIBUTE_STRING},
                                         {0}};

static pm_status read_window(const pm_node *node, const pm_tensor *x, pm_window *w)
{
    pm_status status = pm_window_read(node, x, NULL, w);
    // A window that sees only padding has no maximum and no mean.
    if (status.code == PM_OK && (w->pad_top >= w->kernel_h || w->pad_bottom >= w->kernel_h ||
                                 w->pad_left >= w->kernel_w || w->pad_right >= w->kernel_w))
        status = pm_fail(PM_INVALID, "pads must be smaller than the kernel");
    return status;
}

static pm_status infer_pool(pm_shapes *s)
{
    pm_window window = {0};
    pm_status status = pm_infer_float(s);
    if (status.code == PM_OK && (s->in[0]->tensor.rank != 4 || s->in[0]->tensor.count == 0))
        status = pm_infer_refuse(s, 0, "(N, channels, height, width)");
    if (status.code == PM_OK)
        status = read_window(s->node, &s->in[0]->tensor, &window);
    if (status.code == PM_OK)
        s->out[0] = pm_window_output(&window, s->in[0]->tensor.shape[0]);
    return status;
}

// With where each largest element is in its plane.
static pm_status infer_max_where(pm_shapes *s)
{
    pm_status status = infer_pool(s);
    s->out[1] = s->out[0];
    s->out[1].type = PM_TYPE_I32;
    return status;
}

// (where or nothing, dy) to dx, whose shape is the attribute input_shape.
static pm_status infer_pool_grad(pm_shapes *s)
{
    s->out[0] = pm_window_shape(s->node, "input_shape");
    return pm_ok();
}

static pm_status plan_window(pm_task *task, const pm_tensor *x)
{
    pm_window *w = pm_region_alloc(task->region, sizeof *w);
    task->detail = w;
    task->whole = pm_task_is_stacked(task);
    return w ? read_window(task->node, x, w) : pm_fail(PM_NO_MEMORY, "a task");
}

static pm_status plan_pool(pm_task *task)
{
    return plan_window(task, task->in[0]);
}

static pm_status plan_pool_grad(pm_task *task)
{
    return plan_window(task, task->out[0]);
}

static void run_max_pool(const pm_task *task, const pm_call *call)
{
    const size_t images = (size_t)task->in[0]->shape[0], in = task->in[0]->count / images,
                 out = task->out[0]->count / images;
    const float *x = call->in[0];
    float *y = call->out[0];
    int32_t *where = task->node->output_count > 1 ? call->out[1] : NULL;
    for (size_t i = 0; i < call->lanes * images; i++)
        task->kernels->max_pool(task->detail, x + i * in, y + i * out, where ? where + i * out : NULL);
}

static void run_max_pool_grad(const pm_task *task, const pm_call *call)
{
    const size_t images = (size_t)task->out[0]->shape[0], in = task->out[0]->count / images,
                 out = task->in[1]->count / images;
    const int32_t *where = call->in[0];
    const float *dy = call->in[1];
    float *dx = call->out[0];
    for (size_t i = 0; i < call->lanes * images; i++)
        task->kernels->max_pool_backward(task->detail, where + i * out, dy + i * out, dx + i * in);
}

static void run_average_pool(const pm_task *task, const pm_call *call)
{
    const size_t images = (size_t)task->in[0]->shape[0], in = task->in[0]->count / images,
                 out = task->out[0]->count / images;
    const float *x = call->in[0];
    float *y = call->out[0];
    for (size_t i = 0; i < call->lanes * images; i++)
        task->kernels->average_pool(task->detail, x + i * in, y + i * out);
}

static void run_average_pool_grad(const pm_task *task, const pm_call *call)
{
    const size_t images = (size_t)task->out[0]->shape[0], in = task->out[0]->count / images,
                 out = task->in[0]->count / images;
    const float *dy = call->in[0];
    float *dx = call->out[0];
    for (size_t i = 0; i < call->lanes * images; i++)
        task->kernels->average_pool_backward(task->detail, dy + i * out, dx + i * in);
}

// Training keeps where the largest elements were.
static pm_status lower_max_pool(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    uint32_t made[2] = {PM_NO_VALUE, PM_NO_VALUE};
    const pm_tensor x = program->values[node->inputs[0]].tensor;
    pm_window plain;
    if (node->output_count > 1 || x.type != PM_TYPE_F32 || x.rank != 4 || x.count == 0 ||
        read_window(node, &x, &plain).code != PM_OK)
        return pm_lower_pool3(program, training, node, outputs);
    if (!training)
        return pm_program_add(program, node, outputs);
    pm_status status = pm_recipe_add(program, node,
                                     (pm_recipe){.domain = PM_DOMAIN,
                                                 .op = "MaxPoolWhere",
                                                 PM_VALUES(node->inputs[0]),
                                                 .attributes = node->attributes,
                                                 .attribute_count = node->attribute_count,
                                                 .output_count = 2},
                                     made);
    outputs[0] = made[0];
    return status;
}

static pm_status give_pool(pm_gradient *g, const pm_node *node, pm_recipe recipe)
{
    pm_graph *program = pm_gradient_program(g);
    recipe.domain = PM_DOMAIN;
    recipe.attributes = pm_window_attributes(node, "input_shape", &program->values[node->inputs[0]].tensor,
                                             program->region, &recipe.attribute_count);
    return recipe.attributes ? pm_gradient_give_recipe(g, node, 0, recipe)
                             : pm_fail(PM_NO_MEMORY, "attributes");
}

static pm_status gradient_max_where(pm_gradient *g, const pm_node *node)
{
    return give_pool(
        g, node, (pm_recipe){.op = "MaxPoolGrad", PM_VALUES(node->outputs[1], pm_gradient_of(g, node, 0))});
}

static pm_status gradient_average_pool(pm_gradient *g, const pm_node *node)
{
    return give_pool(g, node, (pm_recipe){.op = "AveragePoolGrad", PM_VALUES(pm_gradient_of(g, node, 0))});
}

const pm_operator PM_FAMILY_POOL[] = {
    {.domain = "",
     .name = "MaxPool",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 2,
     .attributes = POOL,
     .infer = infer_pool,
     .lower = lower_max_pool,
     .plan = plan_pool,
     .run = run_max_pool},
    {.domain = "",
     .name = "AveragePool",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = POOL,
     .infer = infer_pool,
     .lower = pm_lower_average_pool,
     .gradient = gradient_average_pool,
     .plan = plan_pool,
     .run = run_average_pool},
    {.domain = PM_DOMAIN,
     .name = "MaxPoolWhere",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 2,
     .attributes = POOL,
     .infer = infer_max_where,
     .gradient = gradient_max_where,
     .plan = plan_pool,
     .run = run_max_pool},
    {.domain = PM_DOMAIN,
     .name = "MaxPoolGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = POOL,
     .infer = infer_pool_grad,
     .plan = plan_pool_grad,
     .run = run_max_pool_grad},
    {.domain = PM_DOMAIN,
     .name = "AveragePoolGrad",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = POOL,
     .infer = infer_pool_grad,
     .plan = plan_pool_grad,
     .run = run_average_pool_grad},
    {0},
};
