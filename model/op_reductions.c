// ONNX's reductions: sums and what is made of sums, extremes and products, and where the extremes are.
#include "model/compose.h"
#include "model/convert.h"
#include "model/task.h"

#include <math.h>
#include <string.h>

static const pm_attribute_spec REDUCTION[] = {{"axes", PM_ATTRIBUTE_INTS},
                                              {"keepdims", PM_ATTRIBUTE_INT},
                                              {"noop_with_empty_axes", PM_ATTRIBUTE_INT},
                                              {0}};
static const pm_attribute_spec MASK[] = {{"axes", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec WHERE[] = {
    {"axis", PM_ATTRIBUTE_INT}, {"keepdims", PM_ATTRIBUTE_INT}, {"select_last_index", PM_ATTRIBUTE_INT}, {0}};

// --- extremes, products and sums of any type: paramill.Reduce*, which keep the reduced axes with extent 1

typedef enum kind { KIND_MAX, KIND_MIN, KIND_PROD, KIND_SUM } kind;

typedef struct reduction {
    kind kind;
    uint32_t rank;
    size_t extent[PM_MAX_RANK], stride[PM_MAX_RANK]; // of the output along the input's axes
} reduction;

static pm_status infer_reduce(pm_shapes *s)
{
    const int64_t axes = pm_node_int(s->node, "axes", 0);
    pm_status status = pm_infer_same(s);
    for (uint32_t d = 0; d < s->out[0].rank; d++)
        s->out[0].shape[d] = axes >> d & 1 ? 1 : s->out[0].shape[d];
    return status;
}

static kind kind_of(const pm_node *node)
{
    const char *name = node->op->name + strlen("Reduce");
    return strcmp(name, "Max") == 0    ? KIND_MAX
           : strcmp(name, "Min") == 0  ? KIND_MIN
           : strcmp(name, "Prod") == 0 ? KIND_PROD
                                       : KIND_SUM;
}

static pm_status plan_reduce(pm_task *task)
{
    const pm_tensor *x = task->in[0], *y = task->out[0];
    reduction *r = pm_region_alloc(task->region, sizeof *r);
    if (!r)
        return pm_fail(PM_NO_MEMORY, "a task");
    r->kind = kind_of(task->node);
    r->rank = x->rank;
    for (uint32_t d = 0; d < x->rank; d++) {
        r->extent[d] = (size_t)x->shape[d];
        r->stride[d] = y->shape[d] == x->shape[d] ? pm_extent(y, d + 1, y->rank) : 0;
    }
    task->detail = r;
    task->scratch_bytes = y->count * sizeof(double) + x->count * sizeof(double);
    return pm_ok();
}

#define WALK(type, start, step)                                                                              \
    do {                                                                                                     \
        const type *x = from;                                                                                \
        type *y = sums;                                                                                      \
        size_t index[PM_MAX_RANK] = {0}, at = 0;                                                             \
        for (size_t i = 0; i < sum_count; i++)                                                               \
            y[i] = (start);                                                                                  \
        for (size_t i = 0; i < count; i++) {                                                                 \
            const type v = x[i];                                                                             \
            y[at] = (step);                                                                                  \
            for (uint32_t d = r->rank; d-- > 0;) {                                                           \
                at += r->stride[d];                                                                          \
                if (++index[d] < r->extent[d])                                                               \
                    break;                                                                                   \
                at -= r->stride[d] * r->extent[d];                                                           \
                index[d] = 0;                                                                                \
            }                                                                                                \
        }                                                                                                    \
    } while (0)

#define WALK_KIND(type, low, high)                                                                           \
    switch (r->kind) {                                                                                       \
    case KIND_MAX:                                                                                           \
        WALK(type, low, v > y[at] || v != v ? v : y[at]);                                                    \
        break;                                                                                               \
    case KIND_MIN:                                                                                           \
        WALK(type, high, v < y[at] || v != v ? v : y[at]);                                                   \
        break;                                                                                               \
    case KIND_PROD:                                                                                          \
        WALK(type, 1, y[at] * v);                                                                            \
        break;                                                                                               \
    case KIND_SUM:                                                                                           \
        WALK(type, 0, y[at] + v);                                                                            \
        break;                                                                                               \
    }

static void reduce_f32(const reduction *r, const void *from, size_t count, void *sums, size_t sum_count)
{
    WALK_KIND(float, -INFINITY, INFINITY)
}

static void reduce_f64(const reduction *r, const void *from, size_t count, void *sums, size_t sum_count)
{
    WALK_KIND(double, -INFINITY, INFINITY)
}

// Integers wrap: sums and products are of unsigned ones.
static void reduce_u64(const reduction *r, const void *from, size_t count, void *sums, size_t sum_count)
{
    WALK_KIND(uint64_t, 0, UINT64_MAX)
}

static void reduce_i64(const reduction *r, const void *from, size_t count, void *sums, size_t sum_count)
{
    if (r->kind == KIND_PROD || r->kind == KIND_SUM) {
        reduce_u64(r, from, count, sums, sum_count);
        return;
    }
    WALK_KIND(int64_t, INT64_MIN, INT64_MAX)
}

static void run_reduce(const pm_task *task, const pm_call *call)
{
    static void (*const loops[])(const reduction *, const void *, size_t, void *,
                                 size_t) = {[PM_CLASS_F32] = reduce_f32,
                                            [PM_CLASS_F64] = reduce_f64,
                                            [PM_CLASS_I64] = reduce_i64,
                                            [PM_CLASS_U64] = reduce_u64};
    const pm_type type = task->in[0]->type;
    const size_t count = task->in[0]->count, sum_count = task->out[0]->count;
    const bool stored = pm_class_is_stored(type);
    double *sums = call->scratch, *wide = sums + sum_count;
    const void *from = stored ? call->in[0] : wide;
    if (!stored)
        pm_convert_load(type, call->in[0], 1, wide, count);
    loops[pm_class_of(type)](task->detail, from, count, stored ? call->out[0] : sums, sum_count);
    if (!stored)
        pm_convert_store(type, sums, call->out[0], sum_count);
}

static uint32_t expanded(pm_compose *c, uint32_t x, const pm_tensor *like)
{
    return pm_compose_expand(c, x, like->shape, like->rank);
}

// The extreme elements share dy evenly.
static pm_status gradient_extreme(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t x = node->inputs[0], axes = (uint32_t)pm_node_int(node, "axes", 0);
    const pm_tensor t = pm_compose_tensor(&c, x);
    const uint32_t hit = pm_compose_2(&c, "Equal", x, node->outputs[0]);
    const uint32_t ones = pm_compose_cast(&c, hit, PM_TYPE_F32);
    const uint32_t share =
        pm_compose_2(&c, "Div", pm_gradient_of(g, node, 0), pm_compose_sum(&c, ones, axes));
    pm_compose_give(&c, g, 0, pm_compose_2(&c, "Mul", ones, expanded(&c, share, &t)));
    return c.status;
}

// dy * y / x: an element of 0 has no share here.
static pm_status gradient_product(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t up = pm_compose_2(&c, "Mul", pm_gradient_of(g, node, 0), node->outputs[0]);
    pm_compose_give(&c, g, 0, pm_compose_2(&c, "Div", up, node->inputs[0]));
    return c.status;
}

// --- ONNX's own, made of these

// Bits of the axes to reduce; 0 when there are none.
static uint32_t read_reduced(pm_compose *c, uint32_t rank)
{
    int64_t axes[2 * PM_MAX_RANK];
    bool given = false;
    const uint32_t count = pm_compose_list(c, "axes", 1, axes, &given);
    if (count == 0)
        return pm_node_int(c->node, "noop_with_empty_axes", 0) ? 0 : (1u << rank) - 1;
    return pm_compose_axes(c, axes, count, rank);
}

static uint32_t reduced(pm_compose *c, const char *op, uint32_t x, uint32_t axes)
{
    const pm_attribute mask = pm_attribute_int("axes", axes);
    if (strcmp(op, ".ReduceSum") == 0 && pm_compose_tensor(c, x).type == PM_TYPE_F32)
        return pm_compose_sum(c, x, axes);
    return pm_compose_with(c, op, &x, 1, &mask, 1);
}

static uint32_t summed(pm_compose *c, uint32_t x, uint32_t axes)
{
    return reduced(c, ".ReduceSum", x, axes);
}

// log(sum(exp(x - m))) + m, m the largest element
static uint32_t log_sum_exp(pm_compose *c, uint32_t x, uint32_t axes)
{
    const uint32_t m = reduced(c, ".ReduceMax", x, axes);
    const uint32_t sum = summed(c, pm_compose_1(c, "Exp", pm_compose_2(c, "Sub", x, m)), axes);
    return pm_compose_2(c, "Add", pm_compose_1(c, "Log", sum), m);
}

// Add, Sub and Mul of any type.
static uint32_t times(pm_compose *c, uint32_t x, uint32_t y)
{
    const pm_type type = pm_compose_tensor(c, x).type;
    const bool plain = type == PM_TYPE_F32 || type == PM_TYPE_I64 || type == PM_TYPE_I32;
    return pm_compose_2(c, plain ? "Mul" : ".MulAny", x, y);
}

static uint32_t mean(pm_compose *c, uint32_t x, uint32_t axes)
{
    const pm_tensor t = pm_compose_tensor(c, x);
    double n = 1;
    for (uint32_t d = 0; d < t.rank; d++)
        n *= axes >> d & 1 ? (double)t.shape[d] : 1;
    const bool plain = t.type == PM_TYPE_F32 || t.type == PM_TYPE_I64 || t.type == PM_TYPE_I32;
    return pm_compose_by(c, plain ? "Div" : ".DivAny", summed(c, x, axes), n);
}

static uint32_t compose_reduction(pm_compose *c, const char *name, uint32_t x, uint32_t axes)
{
    if (strcmp(name, "L1") == 0)
        return summed(c, pm_compose_1(c, "Abs", x), axes);
    if (strcmp(name, "L2") == 0)
        return pm_compose_1(c, "Sqrt", summed(c, times(c, x, x), axes));
    if (strcmp(name, "LogSum") == 0)
        return pm_compose_1(c, "Log", summed(c, x, axes));
    if (strcmp(name, "LogSumExp") == 0)
        return log_sum_exp(c, x, axes);
    if (strcmp(name, "Mean") == 0)
        return mean(c, x, axes);
    if (strcmp(name, "SumSquare") == 0)
        return summed(c, times(c, x, x), axes);
    if (strcmp(name, "Sum") == 0)
        return summed(c, x, axes);
    return reduced(c,
                   strcmp(name, "Max") == 0   ? ".ReduceMax"
                   : strcmp(name, "Min") == 0 ? ".ReduceMin"
                                              : ".ReduceProd",
                   x, axes);
}

static uint32_t without_axes(pm_compose *c, uint32_t x, uint32_t axes)
{
    const pm_tensor t = pm_compose_tensor(c, x);
    int64_t shape[PM_MAX_RANK];
    uint32_t rank = 0;
    for (uint32_t d = 0; d < t.rank; d++)
        if (!(axes >> d & 1))
            shape[rank++] = t.shape[d];
    return pm_compose_reshape(c, x, shape, rank);
}

static pm_status lower_reduction(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const uint32_t x = node->inputs[0];
    const pm_type type = pm_compose_tensor(&c, x).type;
    (void)training;
    if (type == PM_TYPE_BOOL)
        return pm_fail(PM_UNSUPPORTED, "type bool");
    const uint32_t axes = read_reduced(&c, pm_compose_tensor(&c, x).rank);
    const bool keep = pm_node_int(node, "keepdims", 1) != 0;
    const bool nothing = axes == 0 && pm_node_int(node, "noop_with_empty_axes", 0);
    const uint32_t y = nothing ? x : compose_reduction(&c, node->op->name + strlen("Reduce"), x, axes);
    outputs[0] = keep || axes == 0 ? y : without_axes(&c, y, axes);
    return c.status;
}

// --- ArgMax and ArgMin

static pm_status infer_where(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", 0, x->rank, false, &axis);
    if (status.code != PM_OK)
        return status;
    if (x->shape[axis] == 0)
        return pm_infer_refuse(s, 0, "elements along the axis");
    s->out[0] = *x;
    s->out[0].data = NULL;
    s->out[0].type = PM_TYPE_I64;
    s->out[0].shape[axis] = 1;
    if (pm_node_int(s->node, "keepdims", 1))
        return status;
    for (uint32_t d = axis; d + 1 < x->rank; d++)
        s->out[0].shape[d] = x->shape[d + 1];
    s->out[0].rank--;
    return status;
}

static pm_status plan_where(pm_task *task)
{
    task->scratch_bytes = task->in[0]->count * sizeof(double);
    return pm_ok();
}

static void run_where(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    int64_t given = pm_node_int(task->node, "axis", 0), *y = call->out[0];
    const uint32_t axis = (uint32_t)(given < 0 ? given + x->rank : given);
    const size_t n = (size_t)x->shape[axis], inner = pm_extent(x, axis + 1, x->rank);
    const bool last = pm_node_int(task->node, "select_last_index", 0) != 0;
    const double sign = strcmp(task->node->op->name, "ArgMin") == 0 ? -1 : 1;
    double *values = call->scratch;
    pm_convert_cast(x->type, call->in[0], PM_TYPE_F64, values, x->count);
    for (size_t o = 0; o < task->out[0]->count; o++) {
        const double *row = values + o / inner * n * inner + o % inner;
        size_t best = 0;
        for (size_t i = 1; i < n; i++) {
            const double a = sign * row[i * inner], b = sign * row[best * inner];
            best = a > b || (last && a >= b) ? i : best;
        }
        y[o] = (int64_t)best;
    }
}

#define REDUCE(onnx, rule)                                                                                   \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = onnx, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1,               \
        .attributes = MASK, .infer = infer_reduce, .gradient = rule, .plan = plan_reduce, .run = run_reduce  \
    }
#define LOWERED(onnx, first, last, most)                                                                     \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .until = last, .min_inputs = 1, .max_inputs = most,      \
        .max_outputs = 1, .fixed_inputs = 2, .attributes = REDUCTION, .infer = pm_infer_lowered,             \
        .lower = lower_reduction                                                                             \
    }
#define ARG(onnx)                                                                                            \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = 1, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1,          \
        .attributes = WHERE, .infer = infer_where, .plan = plan_where, .run = run_where                      \
    }

const pm_operator PM_FAMILY_REDUCTIONS[] = {
    REDUCE("ReduceMax", gradient_extreme),
    REDUCE("ReduceMin", gradient_extreme),
    REDUCE("ReduceProd", gradient_product),
    REDUCE("ReduceSum", NULL),
    LOWERED("ReduceL1", 1, 0, 1),
    LOWERED("ReduceL2", 1, 0, 1),
    LOWERED("ReduceLogSum", 1, 0, 1),
    LOWERED("ReduceLogSumExp", 1, 0, 1),
    LOWERED("ReduceMax", 1, 0, 1),
    LOWERED("ReduceMean", 1, 0, 1),
    LOWERED("ReduceMin", 1, 0, 1),
    LOWERED("ReduceProd", 1, 0, 1),
    LOWERED("ReduceSumSquare", 1, 0, 1),
    LOWERED("ReduceSum", 1, 12, 1),
    LOWERED("ReduceSum", 13, 0, 2),
    ARG("ArgMax"),
    ARG("ArgMin"),
    {0},
};
