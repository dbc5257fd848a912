// TopK and CumSum.
#include "model/compose.h"
#include "model/convert.h"
#include "model/task.h"

#include <string.h>

static const pm_attribute_spec TOP[] = {{"axis", PM_ATTRIBUTE_INT},
                                        {"k", PM_ATTRIBUTE_INT},
                                        {"largest", PM_ATTRIBUTE_INT},
                                        {"sorted", PM_ATTRIBUTE_INT},
                                        {0}};
static const pm_attribute_spec SUM[] = {{"exclusive", PM_ATTRIBUTE_INT}, {"reverse", PM_ATTRIBUTE_INT}, {0}};

static uint32_t top_axis(const pm_node *node, uint32_t rank)
{
    const int64_t axis = pm_node_int(node, "axis", -1);
    return (uint32_t)(axis < 0 ? axis + rank : axis);
}

static pm_status infer_top(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    int64_t k = pm_node_int(s->node, "k", -1);
    uint32_t axis = 0, count = 1;
    pm_status status = pm_infer_axis(s, "axis", -1, x->rank, false, &axis);
    if (status.code == PM_OK && s->node->input_count > 1)
        status = pm_infer_constant(s, 1, 1, &k, &count);
    if (status.code == PM_OK && (count != 1 || k < 0 || k > x->shape[axis]))
        status = pm_fail(PM_INVALID, "k %lld", (long long)k);
    if (status.code != PM_OK)
        return status;
    s->out[0] = *x;
    s->out[0].data = NULL;
    s->out[0].shape[axis] = k;
    if (s->node->output_count > 1) {
        s->out[1] = s->out[0];
        s->out[1].type = PM_TYPE_I64;
    }
    return status;
}

// A row's numbers as doubles, and which are taken.
static pm_status plan_top(pm_task *task)
{
    const pm_tensor *x = task->in[0];
    const uint32_t axis = top_axis(task->node, x->rank);
    task->scratch_bytes = x->count * sizeof(double) + (size_t)x->shape[axis] * sizeof(int64_t);
    return pm_ok();
}

// Sifts the heap of order, whose top is what comes last: the smaller number, or the later of equal ones.
static bool after(const double *row, size_t step, double sign, int64_t a, int64_t b)
{
    const double x = sign * row[(size_t)a * step], y = sign * row[(size_t)b * step];
    return x < y || (x == y && a > b);
}

static void sift(const double *row, size_t step, double sign, int64_t *order, size_t at, size_t count)
{
    for (size_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
        if (child + 1 < count && after(row, step, sign, order[child + 1], order[child]))
            child++;
        if (!after(row, step, sign, order[child], order[at]))
            return;
        const int64_t other = order[at];
        order[at] = order[child];
        order[child] = other;
    }
}

// Heap sort: the first of order are the largest.
static void sort_row(const double *row, size_t step, double sign, int64_t *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = (int64_t)i;
    for (size_t i = n / 2; i-- > 0;)
        sift(row, step, sign, order, i, n);
    for (size_t count = n; count > 1; count--) {
        const int64_t last = order[0];
        order[0] = order[count - 1];
        order[count - 1] = last;
        sift(row, step, sign, order, 0, count - 1);
    }
}

static void run_top(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const uint32_t axis = top_axis(task->node, x->rank);
    const size_t n = (size_t)x->shape[axis], k = (size_t)task->out[0]->shape[axis];
    const size_t inner = pm_extent(x, axis + 1, x->rank), size = pm_type_size(x->type);
    const double sign = pm_node_int(task->node, "largest", 1) ? 1 : -1;
    double *values = call->scratch;
    int64_t *order = (int64_t *)(void *)(values + x->count);
    int64_t *where = task->node->output_count > 1 ? call->out[1] : NULL;
    pm_convert_cast(x->type, call->in[0], PM_TYPE_F64, values, x->count);
    for (size_t r = 0; n > 0 && r < x->count / n; r++) {
        const size_t from = r / inner * n * inner + r % inner, to = r / inner * k * inner + r % inner;
        sort_row(values + from, inner, sign, order, n);
        for (size_t i = 0; i < k; i++) {
            const size_t source = from + (size_t)order[i] * inner, target = to + i * inner;
            memcpy((char *)call->out[0] + target * size, (const char *)call->in[0] + source * size, size);
            if (where)
                where[target] = order[i];
        }
    }
}

// --- CumSum

static pm_status infer_sum(pm_shapes *s)
{
    int64_t axis = 0;
    uint32_t count = 0;
    const pm_tensor *x = &s->in[0]->tensor;
    pm_status status = pm_infer_constant(s, 1, 1, &axis, &count);
    if (status.code != PM_OK)
        return status;
    if (count != 1 || axis < -(int64_t)x->rank || axis >= (int64_t)x->rank)
        return pm_fail(PM_INVALID, "axis %lld is out of range", (long long)axis);
    return x->type == PM_TYPE_BOOL ? pm_fail(PM_INVALID, "type bool") : pm_infer_same(s);
}

static pm_status plan_sum(pm_task *task)
{
    task->scratch_bytes = 2 * task->in[0]->count * sizeof(double);
    return pm_ok();
}

#define WALK(name, type)                                                                                     \
    static void name(const void *from, void *to, size_t first, size_t n, size_t step, bool exclusive,        \
                     bool reverse)                                                                           \
    {                                                                                                        \
        const type *x = (const type *)from + first;                                                          \
        type *y = (type *)to + first, sum = 0;                                                               \
        for (size_t i = 0; i < n; i++) {                                                                     \
            const size_t at = (reverse ? n - 1 - i : i) * step;                                              \
            const type next = sum + x[at];                                                                   \
            y[at] = exclusive ? sum : next;                                                                  \
            sum = next;                                                                                      \
        }                                                                                                    \
    }

WALK(sum_f32, float)
WALK(sum_f64, double)
WALK(sum_u64, uint64_t)

static void run_sum(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const double given = pm_convert_number(task->in[1], 0);
    const uint32_t axis = (uint32_t)(given < 0 ? given + x->rank : given);
    const size_t n = (size_t)x->shape[axis], inner = pm_extent(x, axis + 1, x->rank);
    double *wide = call->scratch, *sums = wide + x->count;
    const pm_class class = pm_class_of(x->type);
    pm_convert_load(x->type, call->in[0], 1, wide, x->count);
    for (size_t r = 0; n > 0 && r < x->count / n; r++)
        (class == PM_CLASS_F32   ? sum_f32
         : class == PM_CLASS_F64 ? sum_f64
                                 : sum_u64)(wide, sums, r / inner * n * inner + r % inner, n, inner,
                                            pm_node_int(task->node, "exclusive", 0) != 0,
                                            pm_node_int(task->node, "reverse", 0) != 0);
    pm_convert_store(x->type, sums, call->out[0], x->count);
}

// The sum from the other side.
static pm_status gradient_sum(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_attribute attributes[] = {pm_attribute_int("exclusive", pm_node_int(node, "exclusive", 0)),
                                       pm_attribute_int("reverse", !pm_node_int(node, "reverse", 0))};
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), node->inputs[1]};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, "CumSum", inputs, 2, attributes, 2));
    return c.status;
}

// The values go back to where they came from.
static pm_status gradient_top(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    if (node->output_count < 2 || pm_gradient_of(g, node, 0) == PM_NO_VALUE)
        return pm_fail(PM_UNSUPPORTED, "the gradient of TopK without its indices");
    const pm_attribute attributes[] = {pm_attribute_int("axis", top_axis(node, x.rank)),
                                       pm_attribute_ints("shape", x.shape, x.rank)};
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), node->outputs[1]};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, ".GatherElementsBack", inputs, 2, attributes, 2));
    return c.status;
}

#define TOP_K(first, last, inputs)                                                                           \
    {                                                                                                        \
        .domain = "", .name = "TopK", .since = first, .until = last, .min_inputs = inputs,                   \
        .max_inputs = inputs, .max_outputs = 2, .fixed_inputs = 2, .attributes = TOP, .infer = infer_top,    \
        .gradient = gradient_top, .plan = plan_top, .run = run_top                                           \
    }

const pm_operator PM_FAMILY_SORT[] = {
    TOP_K(1, 9, 1),
    TOP_K(10, 0, 2),
    {.domain = "",
     .name = "CumSum",
     .since = 11,
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .fixed_inputs = 2,
     .attributes = SUM,
     .infer = infer_sum,
     .gradient = gradient_sum,
     .plan = plan_sum,
     .run = run_sum},
    {0},
};
