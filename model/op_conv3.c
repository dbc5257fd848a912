// Convolutions of one to three spatial axes, with groups and dilations, by unrolling each image; transposed
// ones, which are the gradient of a convolution's input run forward; and the gradients of all.
#include "core/arena.h"
#include "model/product.h"
#include "model/program.h"
#include "model/task.h"
#include "model/window.h"
#include "model/window3.h"

#include <inttypes.h>
#include <string.h>

static const pm_attribute_spec TRANSPOSED[] = {{"kernel_shape", PM_ATTRIBUTE_INTS},
                                               {"strides", PM_ATTRIBUTE_INTS},
                                               {"pads", PM_ATTRIBUTE_INTS},
                                               {"dilations", PM_ATTRIBUTE_INTS},
                                               {"group", PM_ATTRIBUTE_INT},
                                               {"auto_pad", PM_ATTRIBUTE_STRING},
                                               {"output_padding", PM_ATTRIBUTE_INTS},
                                               {"output_shape", PM_ATTRIBUTE_INTS},
                                               {0}};

typedef struct conv3 {
    pm_window3 w;
    size_t images, in, out, depth; // elements of an image on either side; rows of columns
} conv3;

static pm_status infer_shape(pm_shapes *s)
{
    s->out[0] = pm_window3_shape(s->node);
    return pm_ok();
}

static size_t columns_bytes(const conv3 *p)
{
    return pm_align(p->depth * p->w.out_area * sizeof(float));
}

// Of the three products, forward and backward.
static size_t product_bytes(const pm_kernels *kernels, const conv3 *p)
{
    const size_t rows = p->w.out_channels / p->w.group, area = p->w.out_area;
    const pm_product products[] = {{.m = rows, .n = area, .k = p->depth},
                                   {.transpose_a = true, .m = p->depth, .n = area, .k = rows},
                                   {.m = rows, .n = p->depth, .k = area}};
    size_t most = 0;
    for (size_t i = 0; i < 3; i++) {
        const size_t bytes = pm_product_fixed_bytes(kernels, &products[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static pm_status plan_conv3(pm_task *task, const pm_tensor *x, const pm_tensor *y)
{
    conv3 *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    p->w = pm_window3_read(task->node, x, y);
    p->images = (size_t)x->shape[0];
    p->in = p->w.channels * p->w.in_area;
    p->out = p->w.out_channels * p->w.out_area;
    p->depth = p->w.channels / p->w.group * p->w.kernel_area;
    task->detail = p;
    size_t count = 0;
    const int64_t columns[] = {(int64_t)p->depth, (int64_t)p->w.out_area};
    if (!pm_shape_count(columns, 2, PM_MAX_ROW_COUNT, &count))
        return pm_fail(PM_INVALID, "the unrolled image has too many elements");
    task->scratch_bytes = columns_bytes(p) + product_bytes(task->kernels, p);
    return pm_ok();
}

static pm_status plan_forward(pm_task *task)
{
    return plan_conv3(task, task->in[0], task->out[0]);
}

static pm_status plan_input(pm_task *task)
{
    return plan_conv3(task, task->out[0], task->in[0]);
}

static pm_status plan_weight(pm_task *task)
{
    return plan_conv3(task, task->in[0], task->in[1]);
}

static void run_forward(const pm_task *task, const pm_call *call)
{
    const conv3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const size_t rows = w->out_channels / w->group, channels = w->channels / w->group;
    const float *x = call->in[0], *weight = call->in[1];
    float *y = call->out[0], *columns = call->scratch;
    void *product = (unsigned char *)call->scratch + columns_bytes(p);
    for (size_t i = 0; i < p->images; i++)
        for (size_t g = 0; g < w->group; g++) {
            pm_window3_unroll(w, x + i * p->in + g * channels * w->in_area, channels, columns);
            pm_product_run_fixed(task->kernels,
                                 &(pm_product){.m = rows,
                                               .n = w->out_area,
                                               .k = p->depth,
                                               .a = weight + g * rows * p->depth,
                                               .a_stride = p->depth,
                                               .b = columns,
                                               .b_stride = w->out_area,
                                               .c = y + i * p->out + g * rows * w->out_area,
                                               .c_stride = w->out_area},
                                 product);
        }
    if (task->node->input_count > 2)
        for (size_t i = 0; i < p->images; i++)
            task->kernels->add_channel(y + i * p->out, call->in[2], w->out_channels, w->out_area);
}

// (dy, weight) to dx
static void run_input(const pm_task *task, const pm_call *call)
{
    const conv3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const size_t rows = w->out_channels / w->group, channels = w->channels / w->group;
    const float *dy = call->in[0], *weight = call->in[1];
    float *dx = call->out[0], *columns = call->scratch;
    void *product = (unsigned char *)call->scratch + columns_bytes(p);
    memset(dx, 0, p->images * p->in * sizeof *dx);
    for (size_t i = 0; i < p->images; i++)
        for (size_t g = 0; g < w->group; g++) {
            pm_product_run_fixed(task->kernels,
                                 &(pm_product){.transpose_a = true,
                                               .m = p->depth,
                                               .n = w->out_area,
                                               .k = rows,
                                               .a = weight + g * rows * p->depth,
                                               .a_stride = p->depth,
                                               .b = dy + i * p->out + g * rows * w->out_area,
                                               .b_stride = w->out_area,
                                               .c = columns,
                                               .c_stride = w->out_area},
                                 product);
            pm_window3_fold(w, columns, channels, dx + i * p->in + g * channels * w->in_area);
        }
}

// (x, dy) to dweight
static void run_weight(const pm_task *task, const pm_call *call)
{
    const conv3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const size_t rows = w->out_channels / w->group, channels = w->channels / w->group;
    const float *x = call->in[0], *dy = call->in[1];
    float *dw = call->out[0], *columns = call->scratch;
    void *product = (unsigned char *)call->scratch + columns_bytes(p);
    memset(dw, 0, w->out_channels * p->depth * sizeof *dw);
    for (size_t i = 0; i < p->images; i++)
        for (size_t g = 0; g < w->group; g++) {
            pm_window3_unroll(w, x + i * p->in + g * channels * w->in_area, channels, columns);
            pm_product_run_fixed(task->kernels,
                                 &(pm_product){.transpose_b = true,
                                               .m = rows,
                                               .n = p->depth,
                                               .k = w->out_area,
                                               .a = dy + i * p->out + g * rows * w->out_area,
                                               .a_stride = w->out_area,
                                               .b = columns,
                                               .b_stride = w->out_area,
                                               .c = dw + g * rows * p->depth,
                                               .c_stride = p->depth,
                                               .accumulate = true},
                                 product);
        }
}

// --- gradients: each of the three is linear in both of its inputs

static uint32_t with_shape(pm_compose *c, const char *op, uint32_t a, uint32_t b, uint32_t like)
{
    const pm_tensor t = pm_compose_tensor(c, like);
    pm_attribute *all =
        pm_region_copy(c->program->region, c->node->attributes, c->node->attribute_count * sizeof *all);
    if (!all) {
        pm_compose_fail(c, pm_fail(PM_NO_MEMORY, "attributes"));
        return PM_NO_VALUE;
    }
    for (uint32_t i = 0; i < c->node->attribute_count; i++)
        if (strcmp(all[i].name, "shape") == 0)
            all[i] = pm_attribute_ints("shape", t.shape, t.rank);
    return pm_compose_with(c, op, (const uint32_t[]){a, b}, 2, all, c->node->attribute_count);
}

static pm_status gradient_forward(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t x = node->inputs[0], weight = node->inputs[1], dy = pm_gradient_of(g, node, 0);
    if (pm_gradient_wants(g, node, 1))
        pm_compose_give(&c, g, 1, with_shape(&c, ".Conv3Weight", x, dy, weight));
    if (pm_gradient_wants(g, node, 2))
        pm_compose_give(&c, g, 2, pm_compose_1(&c, ".ChannelSum", dy));
    if (pm_gradient_wants(g, node, 0))
        pm_compose_give(&c, g, 0, with_shape(&c, ".Conv3Input", dy, weight, x));
    return c.status;
}

static pm_status gradient_input(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t x = node->inputs[0], weight = node->inputs[1], dy = pm_gradient_of(g, node, 0);
    if (pm_gradient_wants(g, node, 1))
        pm_compose_give(&c, g, 1, with_shape(&c, ".Conv3Weight", dy, x, weight));
    if (pm_gradient_wants(g, node, 0))
        pm_compose_give(&c, g, 0, with_shape(&c, ".Conv3", dy, weight, x));
    return c.status;
}

// --- from ONNX

pm_status pm_lower_conv(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]),
                    weight = pm_compose_tensor(&c, node->inputs[1]);
    pm_window plain;
    (void)training;
    if (x.type != PM_TYPE_F32 || weight.type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "type %s, built for float32", pm_type_name(x.type));
    if (x.rank == 4 && weight.rank == 4 && weight.shape[1] == x.shape[1] &&
        pm_window_read(node, &x, &weight, &plain).code == PM_OK)
        return pm_program_add(program, node, outputs);
    const int64_t group = pm_node_int(node, "group", 1);
    if (x.rank != weight.rank || x.rank < 3 || group < 1 || weight.shape[1] < 1 || weight.count == 0 ||
        x.shape[1] / group != weight.shape[1] || x.shape[1] % group || weight.shape[0] % group)
        return pm_fail(PM_INVALID, "the weight does not fit the input's channels in %" PRId64 " groups",
                       group);
    const pm_tensor bias = pm_compose_tensor(&c, pm_compose_input(&c, 2));
    if (pm_compose_input(&c, 2) != PM_NO_VALUE && (bias.rank != 1 || bias.shape[0] != weight.shape[0]))
        return pm_fail(PM_INVALID, "the bias does not fit the weight");
    pm_window_spec spec;
    pm_tensor y = {.rank = x.rank, .shape = {x.shape[0], weight.shape[0]}};
    pm_compose_fail(&c, pm_window_spec_read(node, &x, &weight, &spec, y.shape + 2));
    pm_attribute attributes[PM_WINDOW3_ATTRIBUTES];
    if (c.status.code != PM_OK)
        return c.status;
    pm_window3_attributes(&spec, group, &y, attributes);
    outputs[0] =
        pm_compose_with(&c, ".Conv3", node->inputs, node->input_count, attributes, PM_WINDOW3_ATTRIBUTES);
    return c.status;
}

// Where the transposed convolution's output ends: pads from output_shape or auto_pad, or as given.
static pm_status place_transposed(const pm_node *node, const pm_tensor *x, const pm_tensor *weight,
                                  pm_window_spec *spec, pm_tensor *y)
{
    uint32_t pad_count = 0, extra_count = 0, shape_count = 0, n = 0;
    const int64_t *pads = pm_node_ints(node, "pads", &pad_count), *given = NULL;
    const int64_t *extra = pm_node_ints(node, "output_padding", &extra_count);
    const int64_t *shape = pm_node_ints(node, "output_shape", &shape_count);
    const int64_t *strides = pm_node_ints(node, "strides", &n), *dilations = NULL;
    const char *mode = pm_node_string(node, "auto_pad", "NOTSET");
    const bool same = strncmp(mode, "SAME_", 5) == 0, upper = strcmp(mode, "SAME_UPPER") == 0;
    const uint32_t axes = x->rank - 2;
    *spec = (pm_window_spec){.axes = axes, .strides = {1, 1, 1}, .dilations = {1, 1, 1}};
    if ((strides && n != axes) || (pads && pad_count != 2 * axes) || (extra && extra_count != axes) ||
        (shape && shape_count != axes && shape_count != axes + 2))
        return pm_fail(PM_INVALID, "an attribute has another number of axes");
    dilations = pm_node_ints(node, "dilations", &n);
    given = pm_node_ints(node, "kernel_shape", &pad_count);
    if ((dilations && n != axes) || (given && pad_count != axes))
        return pm_fail(PM_INVALID, "an attribute has another number of axes");
    for (uint32_t d = 0; d < axes; d++) {
        const int64_t most = 1 << 20, s = strides ? strides[d] : 1, l = dilations ? dilations[d] : 1;
        const int64_t k = weight->shape[2 + d], e = extra ? extra[d] : 0, in = x->shape[2 + d];
        if (s < 1 || s > most || l < 1 || l > most || k < 1 || k > most || e < 0 || e > most || in > most ||
            (given && given[d] != k))
            return pm_fail(PM_INVALID, "axis %u of the window is out of range", d);
        spec->kernel[d] = k;
        spec->strides[d] = s;
        spec->dilations[d] = l;
        spec->begin[d] = pads && !same ? pads[d] : 0;
        spec->end[d] = pads && !same ? pads[axes + d] : 0;
        int64_t full = (in - 1) * s + l * (k - 1) + 1 + e;
        if (shape || same) {
            const int64_t wanted = shape ? shape[shape_count - axes + d] : in * s, total = full - wanted;
            spec->begin[d] = total < 0 ? 0 : upper ? total / 2 : total - total / 2;
            spec->end[d] = total - spec->begin[d];
        }
        full -= spec->begin[d] + spec->end[d];
        if (spec->begin[d] < 0 || spec->begin[d] > most || full < 1 || full > most)
            return pm_fail(PM_INVALID, "axis %u of the output is out of range", d);
        y->shape[2 + d] = full;
    }
    return pm_ok();
}

static pm_status lower_transposed(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]),
                    weight = pm_compose_tensor(&c, node->inputs[1]);
    const int64_t group = pm_node_int(node, "group", 1);
    (void)training;
    if (x.type != PM_TYPE_F32 || weight.type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "type %s, built for float32", pm_type_name(x.type));
    if (x.rank != weight.rank || x.rank < 3 || x.rank > 5 || group < 1 || weight.shape[0] != x.shape[1] ||
        x.shape[1] % group || x.count == 0 || weight.count == 0)
        return pm_fail(PM_INVALID, "the weight does not fit the input's channels");
    pm_window_spec spec;
    pm_tensor y = {.rank = x.rank, .shape = {x.shape[0], weight.shape[1] * group}};
    pm_attribute attributes[PM_WINDOW3_ATTRIBUTES];
    pm_compose_fail(&c, place_transposed(node, &x, &weight, &spec, &y));
    if (c.status.code != PM_OK)
        return c.status;
    pm_window3_attributes(&spec, group, &y, attributes);
    uint32_t value = pm_compose_with(&c, ".Conv3Input", node->inputs, 2, attributes, PM_WINDOW3_ATTRIBUTES);
    const uint32_t bias = pm_compose_input(&c, 2);
    if (bias != PM_NO_VALUE) {
        const int64_t column[] = {y.shape[1], 1, 1, 1};
        if (pm_compose_tensor(&c, bias).count != (size_t)y.shape[1])
            return pm_fail(PM_INVALID, "the bias does not fit the weight");
        value = pm_compose_2(&c, "Add", value, pm_compose_reshape(&c, bias, column, x.rank - 1));
    }
    outputs[0] = value;
    return c.status;
}

#define ENTRY(onnx, least, most, rule, plan_it, run_it)                                                      \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = onnx, .min_inputs = least, .max_inputs = most, .max_outputs = 1,        \
        .attributes = PM_WINDOW3_SPECS, .infer = infer_shape, .gradient = rule, .plan = plan_it,             \
        .run = run_it                                                                                        \
    }

const pm_operator PM_FAMILY_CONV3[] = {
    ENTRY("Conv3", 2, 3, gradient_forward, plan_forward, run_forward),
    ENTRY("Conv3Input", 2, 2, gradient_input, plan_input, run_input),
    ENTRY("Conv3Weight", 2, 2, NULL, plan_weight, run_weight),
    {.domain = "",
     .name = "ConvTranspose",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 3,
     .max_outputs = 1,
     .attributes = TRANSPOSED,
     .infer = pm_infer_lowered,
     .lower = lower_transposed},
    {0},
};
