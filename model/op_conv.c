// Conv over images and its gradients.
#include "model/conv.h"
#include "model/gradient.h"
#include "model/task.h"
#include "model/window.h"

static const pm_attribute_spec CONV[] = {{"kernel_shape", PM_ATTRIBUTE_INTS},
                                         {"strides", PM_ATTRIBUTE_INTS},
                                         {"pads", PM_ATTRIBUTE_INTS},
                                         {"dilations", PM_ATTRIBUTE_INTS},
                                         {"group", PM_ATTRIBUTE_INT},
                                         {"auto_pad", PM_ATTRIBUTE_STRING},
                                         {0}};

static pm_status infer_conv(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *weight = &s->in[1]->tensor;
    pm_window w = {0};
    pm_status status = pm_infer_float(s);
    if (status.code != PM_OK)
        return status;
    if (x->rank != 4 || x->count == 0)
        return pm_infer_refuse(s, 0, "(N, channels, height, width)");
    if (weight->rank != 4 || weight->shape[1] != x->shape[1] || weight->count == 0)
        return pm_infer_refuse(s, 1, "(out, in, height, width) that fits the input's channels");
    status = pm_window_read(s->node, x, weight, &w);
    if (status.code != PM_OK)
        return status;
    size_t columns = 0;
    const int64_t unrolled[] = {w.channels, w.kernel_h, w.kernel_w, w.out_height, w.out_width};
    if (!pm_shape_count(unrolled, 5, PM_MAX_ROW_COUNT, &columns))
        return pm_fail(PM_INVALID, "the unrolled image has too many elements");
    if (pm_infer_has(s, 2) && (s->in[2]->tensor.rank != 1 || s->in[2]->tensor.shape[0] != w.out_channels))
        return pm_infer_refuse(s, 2, "(out)");
    s->out[0] = pm_window_output(&w, x->shape[0]);
    return status;
}

// The window of a pool over the convolution's output, as ConvPool's attribute pool says: whole windows side
// by side.
static pm_window pool_of(const pm_node *node, const pm_window *w)
{
    uint32_t count = 0;
    const int64_t *kernel = pm_node_ints(node, "pool", &count);
    return (pm_window){.channels = w->out_channels,
                       .out_channels = w->out_channels,
                       .height = w->out_height,
                       .width = w->out_width,
                       .kernel_h = kernel[0],
                       .kernel_w = kernel[1],
                       .stride_h = kernel[0],
                       .stride_w = kernel[1],
                       .out_height = w->out_height / kernel[0],
                       .out_width = w->out_width / kernel[1]};
}

static pm_status infer_conv_pool(pm_shapes *s)
{
    pm_window w = {0};
    pm_status status = pm_window_read(s->node, &s->in[0]->tensor, &s->in[1]->tensor, &w);
    if (status.code != PM_OK)
        return status;
    const pm_window pool = pool_of(s->node, &w);
    s->out[0] = pm_window_output(&pool, s->in[0]->tensor.shape[0]);
    if (s->node->output_count > 1) {
        s->out[1] = s->out[0];
        s->out[1].type = PM_TYPE_I32;
    }
    return status;
}

static pm_status infer_input_grad(pm_shapes *s)
{
    s->out[0] = pm_window_shape(s->node, "input_shape");
    return pm_ok();
}

static pm_status infer_weight_grad(pm_shapes *s)
{
    s->out[0] = pm_window_shape(s->node, "weight_shape");
    return pm_ok();
}

// The ways of a pass.
typedef enum way { WAY_CHANNELS, WAY_PIXELS, WAY_UNROLLED, WAY_PAIRS } way;

typedef struct plan {
    pm_window window; // over x with weight
    way way;
    bool pools;
    pm_window pool; // over the output
} plan;

// Images do not depend on each other when weight and bias are shared.
static pm_status plan_window(pm_task *task, const pm_tensor *x, const pm_tensor *weight)
{
    plan *p = pm_region_alloc(task->region, sizeof *p);
    task->detail = p;
    return p ? pm_window_read(task->node, x, weight, &p->window) : pm_fail(PM_NO_MEMORY, "a task");
}

static pm_status plan_conv(pm_task *task)
{
    pm_status status = plan_window(task, task->in[0], task->in[1]);
    plan *p = (plan *)(uintptr_t)task->detail; // ours until this returns
    const pm_kernels *kernels = task->kernels;
    if (status.code != PM_OK)
        return status;
    task->pairs = task->training && task->precision == PM_PRECISION_BF16;
    p->way = task->pairs || pm_conv_by_channels(kernels, &p->window) ? WAY_CHANNELS
             : pm_conv_is_direct(&p->window)                         ? WAY_PIXELS
                                                                     : WAY_UNROLLED;
    task->whole = !task->shared[0] && task->shared[1] && (task->node->input_count < 3 || task->shared[2]);
    p->pools = pm_node_attribute(task->node, "pool") != NULL;
    if (p->pools)
        p->pool = pool_of(task->node, &p->window);
    task->scratch_bytes =
        p->way == WAY_CHANNELS
            ? pm_conv_channels_bytes(kernels, &p->window, p->pools ? &p->pool : NULL, task->pairs)
        : p->way == WAY_PIXELS ? pm_conv_direct_bytes(kernels, &p->window)
                               : pm_conv_unrolled_bytes(kernels, &p->window);
    if (p->way == WAY_CHANNELS && task->whole && !task->training)
        task->packed_bytes = pm_conv_channels_packed(kernels, &p->window) * sizeof(float);
    return status;
}

static void pack_conv(const pm_task *task, const pm_call *call, float *packed)
{
    const plan *p = task->detail;
    pm_conv_channels_pack(task->kernels, &p->window, call->in[1], packed);
}

static pm_status plan_input_grad(pm_task *task)
{
    pm_status status = plan_window(task, task->out[0], task->in[1]);
    plan *p = (plan *)(uintptr_t)task->detail; // ours until this returns
    const pm_kernels *kernels = task->kernels;
    if (status.code != PM_OK)
        return status;
    task->pairs = task->precision == PM_PRECISION_BF16;
    p->way = task->pairs ? WAY_PAIRS : WAY_UNROLLED;
    if (!task->pairs && pm_conv_is_direct(&p->window)) {
        const pm_window back = pm_conv_backward_window(&p->window);
        p->way = pm_conv_by_channels(kernels, &back) ? WAY_CHANNELS : WAY_PIXELS;
    }
    task->whole = !task->shared[0] && task->shared[1];
    task->scratch_bytes = p->way == WAY_CHANNELS ? pm_conv_channels_input_bytes(kernels, &p->window)
                          : p->way == WAY_PIXELS ? pm_conv_direct_input_bytes(kernels, &p->window)
                          : p->way == WAY_PAIRS  ? pm_conv_pairs_input_bytes(kernels, &p->window)
                                                 : pm_conv_unrolled_bytes(kernels, &p->window);
    return status;
}

static pm_status plan_weight_grad(pm_task *task)
{
    const pm_tensor weight = pm_window_shape(task->node, "weight_shape");
    pm_status status = plan_window(task, task->in[0], &weight);
    const plan *p = task->detail;
    task->pairs = task->precision == PM_PRECISION_BF16;
    if (status.code == PM_OK)
        task->scratch_bytes = (task->pairs ? pm_conv_pairs_weight_bytes
                                           : pm_conv_channels_weight_bytes)(task->kernels, &p->window);
    return status;
}

typedef void (*pass)(const pm_kernels *kernels, const pm_conv *c);

static void run_conv(const pm_task *task, const pm_call *call)
{
    static const pass passes[] = {pm_conv_channels, pm_conv_direct, pm_conv_unrolled};
    const plan *p = task->detail;
    passes[p->way](task->kernels,
                   &(pm_conv){.window = &p->window,
                              .images = call->lanes * (size_t)task->in[0]->shape[0],
                              .x = call->in[0],
                              .weight = call->in[1],
                              .packed = call->packed,
                              .bias = task->node->input_count > 2 ? call->in[2] : NULL,
                              .relu = pm_node_int(task->node, "relu", 0),
                              .pairs = task->pairs,
                              .pool = p->pools ? &p->pool : NULL,
                              .y = call->out[0],
                              .where = p->pools && task->node->output_count > 1 ? call->out[1] : NULL,
                              .scratch = call->scratch});
}

static void run_input_grad(const pm_task *task, const pm_call *call)
{
    static const pass passes[] = {pm_conv_channels_input, pm_conv_direct_input, pm_conv_unrolled_input,
                                  pm_conv_pairs_input};
    const plan *p = task->detail;
    passes[p->way](task->kernels, &(pm_conv){.window = &p->window,
                                             .images = call->lanes * (size_t)task->in[0]->shape[0],
                                             .x = call->in[0],
                                             .weight = call->in[1],
                                             .y = call->out[0],
                                             .scratch = call->scratch});
}

static void run_weight_grad(const pm_task *task, const pm_call *call)
{
    const plan *p = task->detail;
    const pm_conv conv = {.window = &p->window,
                          .images = (size_t)task->in[0]->shape[0],
                          .x = call->in[0],
                          .y = call->out[0],
                          .scratch = call->scratch};
    (task->pairs ? pm_conv_pairs_weight : pm_conv_channels_weight)(task->kernels, &conv, call->in[1]);
}

// Gives input the gradient recipe makes, with the shape of input's value as the attribute name.
static pm_status give_with_shape(pm_gradient *g, const pm_node *node, uint32_t input, const char *name,
                                 pm_recipe recipe)
{
    pm_graph *program = pm_gradient_program(g);
    recipe.domain = PM_DOMAIN;
    recipe.attributes = pm_window_attributes(node, name, &program->values[node->inputs[input]].tensor,
                                             program->region, &recipe.attribute_count);
    return recipe.attributes ? pm_gradient_give_recipe(g, node, input, recipe)
                             : pm_fail(PM_NO_MEMORY, "attributes");
}

// The gradient of the convolution itself: behind the rectifier, before the pool.
static pm_status gradient_behind(pm_gradient *g, const pm_node *node, uint32_t *dy)
{
    pm_graph *program = pm_gradient_program(g);
    pm_window w;
    pm_status status = pm_gradient_through_relu(g, node, dy);
    if (status.code != PM_OK || !pm_node_attribute(node, "pool"))
        return status;
    const pm_tensor x = program->values[node->inputs[0]].tensor,
                    weight = program->values[node->inputs[1]].tensor;
    status = pm_window_read(node, &x, &weight, &w);
    if (status.code != PM_OK)
        return status;
    const pm_tensor y = pm_window_output(&w, x.shape[0]);
    const pm_window pool = pool_of(node, &w);
    return pm_recipe_add(program, node,
                         (pm_recipe){.domain = PM_DOMAIN,
                                     .op = "MaxPoolGrad",
                                     PM_VALUES(node->outputs[1], *dy),
                                     PM_ATTRIBUTES(pm_attribute_ints("kernel_shape", &pool.kernel_h, 2),
                                                   pm_attribute_ints("strides", &pool.stride_h, 2),
                                                   pm_attribute_ints("input_shape", y.shape, 4))},
                         dy);
}

// Weights first: their gradients can leave while the input's is made.
static pm_status gradient_conv(pm_gradient *g, const pm_node *node)
{
    const uint32_t x = node->inputs[0], weight = node->inputs[1];
    uint32_t dy = pm_gradient_of(g, node, 0);
    pm_status status = gradient_behind(g, node, &dy);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 1))
        status = give_with_shape(g, node, 1, "weight_shape",
                                 (pm_recipe){.op = "ConvWeightGrad", PM_VALUES(x, dy)});
    if (status.code == PM_OK && pm_gradient_wants(g, node, 2))
        status = pm_gradient_give_recipe(g, node, 2,
                                         (pm_recipe){.domain = PM_DOMAIN, .op = "ChannelSum", PM_VALUES(dy)});
    if (status.code == PM_OK && pm_gradient_wants(g, node, 0))
        status = give_with_shape(g, node, 0, "input_shape",
                                 (pm_recipe){.op = "ConvInputGrad", PM_VALUES(dy, weight)});
    return status;
}

const pm_operator PM_FAMILY_CONV[] = {
    {.domain = "",
     .name = "Conv",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 3,
     .max_outputs = 1,
     .attributes = CONV,
     .infer = infer_conv,
     .lower = pm_lower_conv,
     .gradient = gradient_conv,
     .plan = plan_conv,
     .run = run_conv,
     .pack = pack_conv},
    {.domain = PM_DOMAIN,
     .name = "ConvPool",
     .min_inputs = 2,
     .max_inputs = 3,
     .max_outputs = 2,
     .attributes = CONV,
     .infer = infer_conv_pool,
     .gradient = gradient_conv,
     .plan = plan_conv,
     .run = run_conv,
     .pack = pack_conv},
    {.domain = PM_DOMAIN,
     .name = "ConvInputGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = CONV,
     .infer = infer_input_grad,
     .plan = plan_input_grad,
     .run = run_input_grad},
    {.domain = PM_DOMAIN,
     .name = "ConvWeightGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = CONV,
     .infer = infer_weight_grad,
     .plan = plan_weight_grad,
     .run = run_weight_grad},
    {0},
};
