// Pools of one to three spatial axes with dilations, ceil_mode and places of the largest elements; global
// pools.
#include "model/program.h"
#include "model/task.h"
#include "model/window.h"
#include "model/window3.h"

#include <math.h>
#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};

typedef struct pool3 {
    pm_window3 w;
    size_t planes;
    bool count_all;
} pool3;

static pm_status infer_pool(pm_shapes *s)
{
    s->out[0] = pm_window3_shape(s->node);
    if (s->node->output_count > 1) {
        s->out[1] = s->out[0];
        s->out[1].type = PM_TYPE_I64;
    }
    return pm_ok();
}

static pm_status plan_pool3(pm_task *task, const pm_tensor *x, const pm_tensor *y)
{
    pool3 *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    p->w = pm_window3_read(task->node, x, y);
    p->planes = (size_t)x->shape[0] * p->w.channels;
    p->count_all = pm_node_int(task->node, "count_all", 0) != 0;
    task->detail = p;
    return pm_ok();
}

static pm_status plan_pool(pm_task *task)
{
    return plan_pool3(task, task->in[0], task->out[0]);
}

static pm_status plan_pool_back(pm_task *task)
{
    return plan_pool3(task, task->out[0], task->in[0]);
}

// y, and where: the flat index of the first largest element in the whole tensor.
static void run_max(const pm_task *task, const pm_call *call)
{
    const pool3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const float *x = call->in[0];
    float *y = call->out[0];
    int64_t *where = task->node->output_count > 1 ? call->out[1] : NULL;
    for (size_t plane = 0; plane < p->planes; plane++)
        for (size_t o = 0; o < w->out_area; o++) {
            size_t best = SIZE_MAX;
            for (size_t k = 0; k < w->kernel_area; k++) {
                const size_t at = pm_window3_pixel(w, o, k);
                if (at != SIZE_MAX &&
                    (best == SIZE_MAX || x[plane * w->in_area + at] > x[plane * w->in_area + best]))
                    best = at;
            }
            y[plane * w->out_area + o] = best == SIZE_MAX ? -INFINITY : x[plane * w->in_area + best];
            if (where)
                where[plane * w->out_area + o] = best == SIZE_MAX ? -1 : (int64_t)(plane * w->in_area + best);
        }
}

static void run_max_back(const pm_task *task, const pm_call *call)
{
    const float *dy = call->in[0];
    const int64_t *where = call->in[1];
    float *dx = call->out[0];
    memset(dx, 0, task->out[0]->count * sizeof *dx);
    for (size_t i = 0; i < task->in[0]->count; i++)
        if (where[i] >= 0)
            dx[where[i]] += dy[i];
}

// 1 / the number of places under output pixel o.
static float share_of(const pool3 *p, size_t o)
{
    size_t count = 0;
    for (size_t k = 0; k < p->w.kernel_area; k++)
        count += p->count_all || pm_window3_pixel(&p->w, o, k) != SIZE_MAX;
    return count ? 1 / (float)count : 0;
}

static void run_average(const pm_task *task, const pm_call *call)
{
    const pool3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const float *x = call->in[0];
    float *y = call->out[0];
    for (size_t o = 0; o < w->out_area; o++) {
        const float share = share_of(p, o);
        for (size_t plane = 0; plane < p->planes; plane++) {
            float sum = 0;
            for (size_t k = 0; k < w->kernel_area; k++) {
                const size_t at = pm_window3_pixel(w, o, k);
                sum += at == SIZE_MAX ? 0 : x[plane * w->in_area + at];
            }
            y[plane * w->out_area + o] = sum * share;
        }
    }
}

static void run_average_back(const pm_task *task, const pm_call *call)
{
    const pool3 *p = task->detail;
    const pm_window3 *w = &p->w;
    const float *dy = call->in[0];
    float *dx = call->out[0];
    memset(dx, 0, task->out[0]->count * sizeof *dx);
    for (size_t o = 0; o < w->out_area; o++) {
        const float share = share_of(p, o);
        for (size_t k = 0; k < w->kernel_area; k++) {
            const size_t at = pm_window3_pixel(w, o, k);
            for (size_t plane = 0; at != SIZE_MAX && plane < p->planes; plane++)
                dx[plane * w->in_area + at] += dy[plane * w->out_area + o] * share;
        }
    }
}

static pm_status back(pm_gradient *g, const pm_node *node, const char *op, uint32_t where)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    pm_attribute *all =
        pm_region_copy(c.program->region, node->attributes, node->attribute_count * sizeof *all);
    if (!all)
        return pm_fail(PM_NO_MEMORY, "attributes");
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (strcmp(all[i].name, "shape") == 0)
            all[i] = pm_attribute_ints("shape", x.shape, x.rank);
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), where};
    pm_compose_give(
        &c, g, 0, pm_compose_with(&c, op, inputs, where == PM_NO_VALUE ? 1 : 2, all, node->attribute_count));
    return c.status;
}

static pm_status gradient_max(pm_gradient *g, const pm_node *node)
{
    return back(g, node, ".MaxPool3Back", node->outputs[1]);
}

static pm_status gradient_average(pm_gradient *g, const pm_node *node)
{
    return back(g, node, ".AveragePool3Back", PM_NO_VALUE);
}

// Any MaxPool or AveragePool; integers are pooled as float32.
pm_status pm_lower_pool3(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const bool max = strcmp(node->op->name, "MaxPool") == 0;
    const pm_type type = pm_compose_tensor(&c, node->inputs[0]).type;
    (void)training;
    if (type != PM_TYPE_F32 && type != PM_TYPE_U8 && type != PM_TYPE_I8 && type != PM_TYPE_F16)
        return pm_fail(PM_UNSUPPORTED, "type %s", pm_type_name(type));
    if (pm_node_int(node, "storage_order", 0) != 0 && node->output_count > 1)
        return pm_fail(PM_UNSUPPORTED, "storage_order 1");
    const uint32_t x = pm_compose_cast(&c, node->inputs[0], PM_TYPE_F32);
    const pm_tensor t = pm_compose_tensor(&c, x);
    pm_tensor y = {.rank = t.rank, .shape = {t.shape[0], t.shape[1]}};
    pm_window_spec spec;
    pm_attribute attributes[PM_WINDOW3_ATTRIBUTES];
    pm_compose_fail(&c, pm_window_spec_read(node, &t, NULL, &spec, y.shape + 2));
    if (c.status.code != PM_OK)
        return c.status;
    pm_window3_attributes(&spec, 1, &y, attributes);
    attributes[PM_WINDOW3_ATTRIBUTES - 1].i = pm_node_int(node, "count_include_pad", 0);
    uint32_t made[2] = {PM_NO_VALUE, PM_NO_VALUE};
    c.status = pm_recipe_add(program, node,
                             (pm_recipe){.domain = PM_DOMAIN,
                                         .op = max ? "MaxPool3" : "AveragePool3",
                                         PM_VALUES(x),
                                         .attributes = attributes,
                                         .attribute_count = PM_WINDOW3_ATTRIBUTES,
                                         .output_count = max ? 2 : 1},
                             made);
    outputs[0] = c.status.code == PM_OK ? pm_compose_cast(&c, made[0], type) : PM_NO_VALUE;
    if (node->output_count > 1)
        outputs[1] = made[1];
    return c.status;
}

pm_status pm_lower_average_pool(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    const pm_tensor x = program->values[node->inputs[0]].tensor;
    pm_window plain;
    if (x.type == PM_TYPE_F32 && x.rank == 4 && pm_window_read(node, &x, NULL, &plain).code == PM_OK)
        return pm_program_add(program, node, outputs);
    return pm_lower_pool3(program, training, node, outputs);
}

static pm_status lower_global(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    (void)training;
    if (x.rank < 3 || x.type != PM_TYPE_F32 || x.count == 0)
        return pm_fail(PM_INVALID, "wanted (N, channels, ...) of float32");
    const uint32_t axes = (1u << x.rank) - 4;
    const pm_attribute mask = pm_attribute_int("axes", axes);
    if (strcmp(node->op->name, "GlobalMaxPool") == 0)
        outputs[0] = pm_compose_with(&c, ".ReduceMax", node->inputs, 1, &mask, 1);
    else
        outputs[0] = pm_compose_by(&c, "Mul", pm_compose_sum(&c, node->inputs[0], axes),
                                   1 / (double)pm_extent(&x, 2, x.rank));
    return c.status;
}

#define ENTRY(onnx, inputs, outputs, rule, plan_it, run_it)                                                  \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = onnx, .min_inputs = inputs, .max_inputs = inputs,                       \
        .max_outputs = outputs, .attributes = PM_WINDOW3_SPECS, .infer = infer_pool, .gradient = rule,       \
        .plan = plan_it, .run = run_it                                                                       \
    }
#define GLOBAL(onnx)                                                                                         \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = 1, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1,          \
        .attributes = NONE, .infer = pm_infer_lowered, .lower = lower_global                                 \
    }

const pm_operator PM_FAMILY_POOL3[] = {
    ENTRY("MaxPool3", 1, 2, gradient_max, plan_pool, run_max),
    ENTRY("AveragePool3", 1, 1, gradient_average, plan_pool, run_average),
    ENTRY("MaxPool3Back", 2, 1, NULL, plan_pool_back, run_max_back),
    ENTRY("AveragePool3Back", 1, 1, NULL, plan_pool_back, run_average_back),
    GLOBAL("GlobalAveragePool"),
    GLOBAL("GlobalMaxPool"),
    {0},
};
