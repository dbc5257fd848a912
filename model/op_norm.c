// BatchNormalization: y = (x - mean) / sqrt(variance + epsilon) * scale + bias for each channel; mean and
// population variance are each lane's own when training, the running ones otherwise. Softmax.
#include "model/compose.h"
#include "model/program.h"
#include "model/task.h"

#include <math.h>

static const pm_attribute_spec NORM[] = {{"epsilon", PM_ATTRIBUTE_FLOAT},
                                         {"momentum", PM_ATTRIBUTE_FLOAT},
                                         {"spatial", PM_ATTRIBUTE_INT},
                                         {"training_mode", PM_ATTRIBUTE_INT},
                                         {"is_test", PM_ATTRIBUTE_INT},
                                         {"consumed_inputs", PM_ATTRIBUTE_INTS},
                                         {0}};
static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec AXES[] = {{"axis", PM_ATTRIBUTE_INT}, {"end", PM_ATTRIBUTE_INT}, {0}};

static pm_status check_channels(const pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    float epsilon = pm_node_float(s->node, "epsilon", 1e-5f);
    float momentum = pm_node_float(s->node, "momentum", 0.9f);
    if (x->rank < 2 || x->count == 0)
        return pm_infer_refuse(s, 0, "(N, channels, ...)");
    if (!(epsilon > 0 && epsilon < 1) || !(momentum >= 0 && momentum <= 1))
        return pm_fail(PM_INVALID, "epsilon must be in (0, 1) and momentum in [0, 1]");
    for (uint32_t i = 1; i < 5; i++)
        if (s->in[i]->tensor.rank != 1 || s->in[i]->tensor.shape[0] != x->shape[1])
            return pm_infer_refuse(s, i, "(channels)");
    return pm_infer_float(s);
}

static pm_status infer_norm(pm_shapes *s)
{
    if (pm_node_int(s->node, "spatial", 1) != 1)
        return pm_fail(PM_UNSUPPORTED, "spatial 0");
    pm_status status = check_channels(s);
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

// y, and the lane's mean, variance and 1 / sqrt(variance + epsilon) of each channel.
static pm_status infer_norm_train(pm_shapes *s)
{
    pm_status status = check_channels(s);
    if (status.code != PM_OK)
        return status;
    for (uint32_t i = 1; i < 4; i++)
        s->out[i] = (pm_tensor){.type = PM_TYPE_F32, .rank = 1, .shape = {s->in[0]->tensor.shape[1]}};
    return pm_infer_same(s);
}

// old * momentum + new * (1 - momentum)
static uint32_t running(pm_compose *c, uint32_t old, uint32_t new)
{
    const double momentum = (double)pm_node_float(c->node, "momentum", 0.9f);
    return pm_compose_2(c, "Add", pm_compose_by(c, "Mul", old, momentum),
                        pm_compose_by(c, "Mul", new, 1 - momentum));
}

// Statistics that stay as they are: y = x * factor + (bias - mean * factor), factor = scale / sqrt(var +
// epsilon), of which everything else has its gradient.
static pm_status lower_frozen(pm_graph *program, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t shape[PM_MAX_RANK] = {1, x.shape[1]};
    uint32_t flat[5]; // scale, bias, mean, var with the rank of x
    for (uint32_t d = 2; d < x.rank; d++)
        shape[d] = 1;
    for (uint32_t i = 1; i < 5; i++)
        flat[i] = pm_compose_reshape(&c, node->inputs[i], shape, x.rank);
    const double epsilon = (double)pm_node_float(node, "epsilon", 1e-5f);
    const uint32_t root = pm_compose_1(&c, "Sqrt", pm_compose_by(&c, "Add", flat[4], epsilon));
    const uint32_t factor = pm_compose_2(&c, "Div", flat[1], root);
    const uint32_t offset = pm_compose_2(&c, "Sub", flat[2], pm_compose_2(&c, "Mul", flat[3], factor));
    outputs[0] = pm_compose_2(&c, "Add", pm_compose_2(&c, "Mul", node->inputs[0], factor), offset);
    return c.status;
}

static bool is_frozen(const pm_graph *program, uint32_t value)
{
    const int64_t param = program->values[value].param;
    return param != PM_NO_PARAM && program->params[param].frozen;
}

// A training program normalizes with the batch's statistics and hands them to the running ones; so does a
// node in its training form, with the running ones as outputs.
static pm_status lower_norm(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    uint32_t made[4] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    pm_tensor checked[5];
    const bool form = pm_node_int(node, "training_mode", 0) != 0;
    if (node->output_count > (form && !training ? 3 : 1))
        return pm_fail(PM_UNSUPPORTED, "the statistics as outputs");
    if (!training && !form)
        return pm_program_add(program, node, outputs);
    pm_status status = pm_program_infer(program, node, checked);
    if (status.code == PM_OK && !form && is_frozen(program, node->inputs[3]) &&
        is_frozen(program, node->inputs[4]))
        return lower_frozen(program, node, outputs);
    if (status.code == PM_OK)
        status = pm_recipe_add(program, node,
                               (pm_recipe){.domain = PM_DOMAIN,
                                           .op = "BatchNormTrain",
                                           .inputs = node->inputs,
                                           .input_count = node->input_count,
                                           .attributes = node->attributes,
                                           .attribute_count = node->attribute_count,
                                           .output_count = 4},
                               made);
    outputs[0] = made[0];
    pm_compose c = pm_compose_open(program, node);
    for (uint32_t i = 1; status.code == PM_OK && i < node->output_count; i++) {
        outputs[i] = running(&c, node->inputs[2 + i], made[i]);
        status = c.status;
    }
    return status;
}

// Channels that go together when training: their planes stay in cache from pass to pass. Planes of one
// element are rows.
enum { BLOCK = 2 };

// Of at most so many channels from first on.
static pm_norm norm_of(const pm_task *task, size_t images, size_t first, size_t channels)
{
    const pm_tensor *x = task->in[0];
    const size_t area = pm_extent(x, 2, x->rank), all = (size_t)x->shape[1];
    const size_t most = area == 1 ? all : channels;
    return (pm_norm){.planes = {images, all - first < most ? all - first : most, area, all * area},
                     .relu = pm_node_int(task->node, "relu", 0) != 0};
}

// Scratch: factor and offset of each channel; in training mean, variance and inverse too, where nobody reads
// them.
static pm_status plan_norm(pm_task *task)
{
    task->scratch_bytes = 2 * (size_t)task->in[0]->shape[1] * sizeof(float);
    task->whole = !task->shared[0];
    for (uint32_t i = 1; i < 5; i++)
        task->whole = task->whole && task->shared[i];
    return pm_ok();
}

static pm_status plan_norm_train(pm_task *task)
{
    task->scratch_bytes = 5 * (size_t)task->in[0]->shape[1] * sizeof(float);
    return pm_ok();
}

// The forward pass of the channel: inverse of its variance, factor and offset of its scale and bias.
static void set_channel(float scale, float bias, float mean, float inverse, float *factor, float *offset)
{
    *factor = scale * inverse;
    *offset = bias - mean * *factor;
}

static float inverse_of(const pm_task *task, float variance)
{
    return 1 / sqrtf(variance + pm_node_float(task->node, "epsilon", 1e-5f));
}

static void run_norm(const pm_task *task, const pm_call *call)
{
    const size_t channels = (size_t)task->in[0]->shape[1];
    const float *scale = call->in[1], *bias = call->in[2], *mean = call->in[3], *variance = call->in[4];
    float *factor = call->scratch, *offset = factor + channels;
    pm_norm n = norm_of(task, call->lanes * (size_t)task->in[0]->shape[0], 0, channels);
    for (size_t c = 0; c < channels; c++)
        set_channel(scale[c], bias[c], mean[c], inverse_of(task, variance[c]), &factor[c], &offset[c]);
    n.factor = factor;
    n.offset = offset;
    task->kernels->norm(&n, call->in[0], call->out[0]);
}

static void run_norm_train(const pm_task *task, const pm_call *call)
{
    const size_t channels = (size_t)task->in[0]->shape[1];
    const float *x = call->in[0], *scale = call->in[1], *bias = call->in[2];
    float *scratch = call->scratch, *factor = scratch, *offset = scratch + channels;
    float *mean = call->out[1] ? call->out[1] : scratch + 2 * channels;
    float *variance = call->out[2] ? call->out[2] : scratch + 3 * channels;
    float *inverse = call->out[3] ? call->out[3] : scratch + 4 * channels;
    pm_norm n;
    for (size_t first = 0; first < channels; first += n.planes.channels) {
        n = norm_of(task, (size_t)task->in[0]->shape[0], first, BLOCK);
        const size_t at = first * n.planes.area;
        task->kernels->moments(&n.planes, x + at, mean + first, variance + first);
        for (size_t c = first; c < first + n.planes.channels; c++) {
            inverse[c] = inverse_of(task, variance[c]);
            set_channel(scale[c], bias[c], mean[c], inverse[c], &factor[c], &offset[c]);
        }
        n.factor = factor + first;
        n.offset = offset + first;
        task->kernels->norm(&n, x + at, (float *)call->out[0] + at);
    }
}

// (x, dy, scale, mean, inverse, and bias where the rectifier is over y) to (dx, dscale, dbias) of one lane;
// dx may be left out.
static pm_status infer_norm_grad(pm_shapes *s)
{
    s->out[0] = s->in[0]->tensor;
    s->out[1] = s->out[2] = s->in[2]->tensor;
    s->out[1].data = s->out[2].data = NULL;
    return pm_ok();
}

// Scratch: the sums where nobody reads them, factor, offset and means, of each channel.
static pm_status plan_norm_grad(pm_task *task)
{
    task->scratch_bytes = 6 * (size_t)task->in[0]->shape[1] * sizeof(float);
    return pm_ok();
}

static void run_norm_grad(const pm_task *task, const pm_call *call)
{
    const size_t images = (size_t)task->in[0]->shape[0], channels = (size_t)task->in[0]->shape[1];
    const float *x = call->in[0], *dy = call->in[1], *scale = call->in[2], *mean = call->in[3],
                *inverse = call->in[4], *bias = task->node->input_count > 5 ? call->in[5] : NULL;
    float *dx = call->out[0], *sums = call->scratch;
    float *factor = sums + 2 * channels, *offset = sums + 3 * channels;
    float *mean_dy = sums + 4 * channels, *mean_dy_x = sums + 5 * channels;
    float *sum_dy_x = call->out[1] ? call->out[1] : sums,
          *sum_dy = call->out[2] ? call->out[2] : sums + channels;
    pm_norm n;
    for (size_t first = 0; first < channels; first += n.planes.channels) {
        n = norm_of(task, images, first, BLOCK);
        const size_t at = first * n.planes.area;
        const float count = (float)images * (float)n.planes.area;
        for (size_t c = first; c < first + n.planes.channels; c++)
            set_channel(scale[c], bias ? bias[c] : 0, mean[c], inverse[c], &factor[c], &offset[c]);
        n.factor = factor + first;
        n.offset = offset + first;
        n.mean = mean + first;
        n.inverse = inverse + first;
        task->kernels->norm_sums(&n, x + at, dy + at, sum_dy + first, sum_dy_x + first);
        for (size_t c = 0; c < n.planes.channels; c++) {
            mean_dy[c] = sum_dy[first + c] / count;
            mean_dy_x[c] = sum_dy_x[first + c] / count;
        }
        if (dx)
            task->kernels->norm_backward(&n, x + at, dy + at, mean_dy, mean_dy_x, dx + at);
    }
}

static pm_status gradient_norm_train(pm_gradient *g, const pm_node *node)
{
    uint32_t made[3] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    const uint32_t inputs[] = {node->inputs[0],  pm_gradient_of(g, node, 0), node->inputs[1],
                               node->outputs[1], node->outputs[3],           node->inputs[2]};
    pm_status status = pm_recipe_add(pm_gradient_program(g), node,
                                     (pm_recipe){.domain = PM_DOMAIN,
                                                 .op = "BatchNormGrad",
                                                 .inputs = inputs,
                                                 .input_count = pm_node_int(node, "relu", 0) ? 6 : 5,
                                                 .attributes = node->attributes,
                                                 .attribute_count = node->attribute_count,
                                                 .output_count = 3},
                                     made);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 1))
        status = pm_gradient_give(g, node, 1, made[1]);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 2))
        status = pm_gradient_give(g, node, 2, made[2]);
    for (uint32_t i = 0; i < 2 && status.code == PM_OK; i++)
        status = pm_gradient_give_statistic(g, node, 3 + i, node->outputs[1 + i]);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 0))
        status = pm_gradient_give(g, node, 0, made[0]);
    return status;
}

// --- Softmax over the axes [axis, end)

static pm_status check_softmax(const pm_shapes *s, int64_t axis)
{
    uint32_t at = 0;
    if (s->in[0]->tensor.rank == 0 || s->in[0]->tensor.count == 0)
        return pm_infer_refuse(s, 0, "at least one axis");
    pm_status status = pm_infer_axis(s, "axis", axis, s->in[0]->tensor.rank, false, &at);
    return status.code == PM_OK ? pm_infer_float(s) : status;
}

// Up to opset 12 everything from the axis on is one, from 13 on the axis alone.
static pm_status infer_softmax_from(pm_shapes *s)
{
    pm_status status = check_softmax(s, 1);
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

static pm_status infer_softmax(pm_shapes *s)
{
    pm_status status = check_softmax(s, -1);
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

// (outer, classes, inner)
typedef struct softmax {
    size_t outer, classes, inner;
} softmax;

// The axes of a Softmax node over x, whose two forms differ, or of its gradient, which has them written down.
static void softmax_axes(const pm_node *node, const pm_tensor *x, uint32_t *axis, uint32_t *end)
{
    const bool from = node->op->until == 12;
    const int64_t given = pm_node_int(node, "axis", from ? 1 : -1);
    *axis = (uint32_t)(given < 0 ? given + (int64_t)x->rank : given);
    *end = (uint32_t)pm_node_int(node, "end", from ? (int64_t)x->rank : (int64_t)*axis + 1);
}

static pm_status plan_softmax(pm_task *task)
{
    const pm_tensor *x = task->out[0];
    softmax *p = pm_region_alloc(task->region, sizeof *p);
    uint32_t axis = 0, end = 0;
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    softmax_axes(task->node, x, &axis, &end);
    *p = (softmax){pm_extent(x, 0, axis), pm_extent(x, axis, end), pm_extent(x, end, x->rank)};
    task->detail = p;
    task->whole = pm_task_is_stacked(task);
    task->scratch_bytes = p->inner > 1 ? 3 * p->classes * sizeof(float) : 0;
    return pm_ok();
}

static void gather(const float *x, size_t count, size_t stride, float *row)
{
    for (size_t i = 0; i < count; i++)
        row[i] = x[i * stride];
}

static void scatter(const float *row, size_t count, size_t stride, float *y)
{
    for (size_t i = 0; i < count; i++)
        y[i * stride] = row[i];
}

static void run_softmax(const pm_task *task, const pm_call *call)
{
    const softmax *p = task->detail;
    const size_t rows = call->lanes * p->outer;
    const float *x = call->in[0];
    float *y = call->out[0], *row = call->scratch;
    if (p->inner == 1) {
        task->kernels->softmax(x, y, rows, p->classes);
        return;
    }
    for (size_t r = 0; r < rows * p->inner; r++) {
        const size_t at = r / p->inner * p->classes * p->inner + r % p->inner;
        gather(x + at, p->classes, p->inner, row);
        task->kernels->softmax(row, row + p->classes, 1, p->classes);
        scatter(row + p->classes, p->classes, p->inner, y + at);
    }
}

static void run_softmax_grad(const pm_task *task, const pm_call *call)
{
    const softmax *p = task->detail;
    const size_t rows = call->lanes * p->outer, n = p->classes;
    const float *y = call->in[0], *dy = call->in[1];
    float *dx = call->out[0], *row = call->scratch;
    if (p->inner == 1) {
        task->kernels->softmax_backward(y, dy, dx, rows, n);
        return;
    }
    for (size_t r = 0; r < rows * p->inner; r++) {
        const size_t at = r / p->inner * n * p->inner + r % p->inner;
        gather(y + at, n, p->inner, row);
        gather(dy + at, n, p->inner, row + n);
        task->kernels->softmax_backward(row, row + n, row + 2 * n, 1, n);
        scatter(row + 2 * n, n, p->inner, dx + at);
    }
}

static pm_status gradient_softmax(pm_gradient *g, const pm_node *node)
{
    uint32_t axis = 0, end = 0;
    softmax_axes(node, &pm_gradient_program(g)->values[node->outputs[0]].tensor, &axis, &end);
    const pm_attribute attributes[] = {pm_attribute_int("axis", axis), pm_attribute_int("end", end)};
    return pm_gradient_give_recipe(g, node, 0,
                                   (pm_recipe){.domain = PM_DOMAIN,
                                               .op = "SoftmaxGrad",
                                               PM_VALUES(node->outputs[0], pm_gradient_of(g, node, 0)),
                                               .attributes = attributes,
                                               .attribute_count = 2});
}

#define SOFTMAX_ENTRY(first, last, infer_it)                                                                 \
    {                                                                                                        \
        .domain = "", .name = "Softmax", .since = first, .until = last, .min_inputs = 1, .max_inputs = 1,    \
        .max_outputs = 1, .attributes = AXIS, .infer = infer_it, .gradient = gradient_softmax,               \
        .plan = plan_softmax, .run = run_softmax                                                             \
    }

const pm_operator PM_FAMILY_NORM[] = {
    {.domain = "",
     .name = "BatchNormalization",
     .since = 1,
     .min_inputs = 5,
     .max_inputs = 5,
     .max_outputs = 5,
     .statistic_inputs = 1 << 3 | 1 << 4,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NORM,
     .infer = infer_norm,
     .lower = lower_norm,
     .plan = plan_norm,
     .run = run_norm},
    {.domain = PM_DOMAIN,
     .name = "BatchNormTrain",
     .min_inputs = 5,
     .max_inputs = 5,
     .max_outputs = 4,
     .statistic_inputs = 1 << 3 | 1 << 4,
     .attributes = NORM,
     .infer = infer_norm_train,
     .gradient = gradient_norm_train,
     .plan = plan_norm_train,
     .run = run_norm_train},
    {.domain = PM_DOMAIN,
     .name = "BatchNormGrad",
     .min_inputs = 5,
     .max_inputs = 6,
     .max_outputs = 3,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = NORM,
     .infer = infer_norm_grad,
     .plan = plan_norm_grad,
     .run = run_norm_grad},
    SOFTMAX_ENTRY(1, 12, infer_softmax_from),
    SOFTMAX_ENTRY(13, 0, infer_softmax),
    {.domain = PM_DOMAIN,
     .name = "SoftmaxGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = AXES,
     .infer = pm_infer_same,
     .plan = plan_softmax,
     .run = run_softmax_grad},
    {0},
};
