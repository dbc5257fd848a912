// Gather and scatter by indices that are known only when the graph runs. A negative index counts from the
// end; one out of range gives 0 and is not scattered.
#include "model/compose.h"
#include "model/convert.h"
#include "model/task.h"

#include <string.h>

static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec BATCH[] = {{"batch_dims", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec SCATTER[] = {
    {"axis", PM_ATTRIBUTE_INT}, {"reduction", PM_ATTRIBUTE_STRING}, {0}};
static const pm_attribute_spec BACK[] = {{"axis", PM_ATTRIBUTE_INT}, {"shape", PM_ATTRIBUTE_INTS}, {0}};

static pm_status check_indices(const pm_shapes *s, uint32_t input)
{
    const pm_type type = s->in[input]->tensor.type;
    return type == PM_TYPE_I64 || type == PM_TYPE_I32
               ? pm_ok()
               : pm_fail(PM_INVALID, "indices are %s", pm_type_name(type));
}

// Index i in [0, extent), or -1.
static int64_t index_at(const pm_tensor *t, const void *indices, size_t i, size_t extent)
{
    int64_t at = t->type == PM_TYPE_I64 ? ((const int64_t *)indices)[i] : ((const int32_t *)indices)[i];
    at = at < 0 ? at + (int64_t)extent : at;
    return at < (int64_t)extent ? (at < 0 ? -1 : at) : -1;
}

static uint32_t axis_of(const pm_node *node, uint32_t rank)
{
    const int64_t axis = pm_node_int(node, "axis", 0);
    return (uint32_t)(axis < 0 ? axis + rank : axis);
}

static pm_tensor written_shape(const pm_node *node)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(node, "shape", &rank);
    pm_tensor t = {.type = PM_TYPE_F32, .rank = rank};
    memcpy(t.shape, shape, rank * sizeof *shape);
    return t;
}

// --- Gather: whole slices along the axis

static pm_status infer_gather(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *i = &s->in[1]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", 0, x->rank, false, &axis);
    if (status.code == PM_OK)
        status = check_indices(s, 1);
    if (status.code == PM_OK && x->rank - 1 + i->rank > PM_MAX_RANK)
        status = pm_fail(PM_UNSUPPORTED, "a rank of %u", x->rank - 1 + i->rank);
    if (status.code != PM_OK)
        return status;
    pm_tensor *y = &s->out[0];
    y->type = x->type;
    for (uint32_t d = 0; d < axis; d++)
        y->shape[y->rank++] = x->shape[d];
    for (uint32_t d = 0; d < i->rank; d++)
        y->shape[y->rank++] = i->shape[d];
    for (uint32_t d = axis + 1; d < x->rank; d++)
        y->shape[y->rank++] = x->shape[d];
    return status;
}

static void run_gather(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0], *i = task->in[1];
    const uint32_t axis = axis_of(task->node, x->rank);
    const size_t outer = pm_extent(x, 0, axis), extent = (size_t)x->shape[axis];
    const size_t bytes = pm_extent(x, axis + 1, x->rank) * pm_type_size(x->type);
    const char *from = call->in[0];
    char *to = call->out[0];
    for (size_t o = 0; o < outer; o++)
        for (size_t k = 0; k < i->count; k++, to += bytes) {
            const int64_t at = index_at(i, call->in[1], k, extent);
            if (at < 0)
                memset(to, 0, bytes);
            else
                memcpy(to, from + (o * extent + (size_t)at) * bytes, bytes);
        }
}

static pm_status infer_back(pm_shapes *s)
{
    s->out[0] = written_shape(s->node);
    return pm_ok();
}

// (dy, indices) to dx
static void run_gather_back(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->out[0], *i = task->in[1];
    const uint32_t axis = axis_of(task->node, x->rank);
    const size_t outer = pm_extent(x, 0, axis), extent = (size_t)x->shape[axis];
    const size_t inner = pm_extent(x, axis + 1, x->rank);
    const float *dy = call->in[0];
    float *dx = call->out[0];
    memset(dx, 0, x->count * sizeof *dx);
    for (size_t o = 0; o < outer; o++)
        for (size_t k = 0; k < i->count; k++, dy += inner) {
            const int64_t at = index_at(i, call->in[1], k, extent);
            if (at >= 0)
                task->kernels->add(dx + (o * extent + (size_t)at) * inner, dy, inner);
        }
}

static pm_status give_back(pm_gradient *g, const pm_node *node, const char *op)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const pm_attribute attributes[] = {pm_attribute_int("axis", axis_of(node, x.rank)),
                                       pm_attribute_ints("shape", x.shape, x.rank)};
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), node->inputs[1]};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, op, inputs, 2, attributes, 2));
    return c.status;
}

static pm_status gradient_gather(pm_gradient *g, const pm_node *node)
{
    return give_back(g, node, ".GatherBack");
}

// --- GatherElements and ScatterElements: one element an index

// The element of x that element k of the indices (shape i) names along the axis; -1 when out of range.
static int64_t element_of(const pm_tensor *x, const pm_tensor *i, const void *indices, uint32_t axis,
                          size_t k)
{
    const int64_t at = index_at(i, indices, k, (size_t)x->shape[axis]);
    size_t step = 1, element = 0;
    if (at < 0)
        return -1;
    for (uint32_t d = x->rank; d-- > 0;) {
        const size_t own = k % (size_t)i->shape[d];
        k /= (size_t)i->shape[d];
        element += (d == axis ? (size_t)at : own) * step;
        step *= (size_t)x->shape[d];
    }
    return (int64_t)element;
}

static pm_status check_elements(const pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *i = &s->in[1]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", 0, x->rank, false, &axis);
    if (status.code == PM_OK)
        status = check_indices(s, 1);
    if (status.code == PM_OK && i->rank != x->rank)
        status = pm_infer_refuse(s, 1, "the rank of the data");
    for (uint32_t d = 0; status.code == PM_OK && d < x->rank; d++)
        if (d != axis && i->shape[d] > x->shape[d])
            status = pm_infer_refuse(s, 1, "no more than the data outside of the axis");
    return status;
}

static pm_status infer_gather_elements(pm_shapes *s)
{
    pm_status status = check_elements(s);
    s->out[0] = s->in[1]->tensor;
    s->out[0].type = s->in[0]->tensor.type;
    s->out[0].data = NULL;
    return status;
}

static void run_gather_elements(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0], *i = task->in[1];
    const size_t size = pm_type_size(x->type);
    const uint32_t axis = axis_of(task->node, x->rank);
    char *to = call->out[0];
    for (size_t k = 0; k < i->count; k++) {
        const int64_t at = element_of(x, i, call->in[1], axis, k);
        if (at < 0)
            memset(to + k * size, 0, size);
        else
            memcpy(to + k * size, (const char *)call->in[0] + (size_t)at * size, size);
    }
}

static void run_gather_elements_back(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->out[0], *i = task->in[1];
    const uint32_t axis = axis_of(task->node, x->rank);
    const float *dy = call->in[0];
    float *dx = call->out[0];
    memset(dx, 0, x->count * sizeof *dx);
    for (size_t k = 0; k < i->count; k++) {
        const int64_t at = element_of(x, i, call->in[1], axis, k);
        if (at >= 0)
            dx[at] += dy[k];
    }
}

static pm_status gradient_gather_elements(pm_gradient *g, const pm_node *node)
{
    return give_back(g, node, ".GatherElementsBack");
}

typedef enum reduction { REDUCE_NONE, REDUCE_ADD, REDUCE_MUL } reduction;

static reduction reduction_of(const pm_node *node)
{
    const char *name = pm_node_string(node, "reduction", "none");
    return strcmp(name, "add") == 0 ? REDUCE_ADD : strcmp(name, "mul") == 0 ? REDUCE_MUL : REDUCE_NONE;
}

static pm_status check_reduction(const pm_shapes *s)
{
    const char *name = pm_node_string(s->node, "reduction", "none");
    if (reduction_of(s->node) == REDUCE_NONE && strcmp(name, "none") != 0)
        return pm_fail(PM_UNSUPPORTED, "reduction %.32s", name);
    if (reduction_of(s->node) != REDUCE_NONE && s->in[0]->tensor.type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "a reduction of %s", pm_type_name(s->in[0]->tensor.type));
    return s->in[0]->tensor.type == s->in[2]->tensor.type
               ? pm_ok()
               : pm_fail(PM_INVALID, "data and updates have different types");
}

// count elements at to become, or are joined with, those at from.
static void scatter(reduction how, const void *from, void *to, size_t count, size_t size)
{
    if (how == REDUCE_NONE) {
        memcpy(to, from, count * size);
        return;
    }
    const float *u = from;
    float *y = to;
    for (size_t i = 0; i < count; i++)
        y[i] = how == REDUCE_ADD ? y[i] + u[i] : y[i] * u[i];
}

static pm_status infer_scatter_elements(pm_shapes *s)
{
    pm_status status = check_elements(s);
    if (status.code == PM_OK)
        status = check_reduction(s);
    if (status.code == PM_OK && !pm_shape_equal(&s->in[1]->tensor, &s->in[2]->tensor))
        status = pm_infer_refuse(s, 2, "the indices'");
    return status.code == PM_OK ? pm_infer_same(s) : status;
}

static void run_scatter_elements(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0], *i = task->in[1];
    const size_t size = pm_type_size(x->type);
    const uint32_t axis = axis_of(task->node, x->rank);
    const reduction how = reduction_of(task->node);
    memcpy(call->out[0], call->in[0], pm_tensor_bytes(x));
    for (size_t k = 0; k < i->count; k++) {
        const int64_t at = element_of(x, i, call->in[1], axis, k);
        if (at >= 0)
            scatter(how, (const char *)call->in[2] + k * size, (char *)call->out[0] + (size_t)at * size, 1,
                    size);
    }
}

// Of a scatter without reduction, or one that adds; where two updates meet, the last has the gradient's all.
static pm_status gradient_scatter(pm_gradient *g, const pm_node *node, const char *gather)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t dy = pm_gradient_of(g, node, 0), indices = node->inputs[1];
    const reduction how = reduction_of(node);
    if (how == REDUCE_MUL)
        return pm_fail(PM_UNSUPPORTED, "the gradient of reduction mul");
    const pm_attribute axis = pm_attribute_int("axis", pm_node_int(node, "axis", 0));
    const uint32_t count = strcmp(gather, "GatherND") == 0 ? 0 : 1;
    const uint32_t updates = pm_compose_with(&c, gather, (const uint32_t[]){dy, indices}, 2, &axis, count);
    pm_compose_give(&c, g, 2, updates);
    const uint32_t none = pm_compose_by(&c, "Mul", updates, 0), inputs[] = {dy, indices, none};
    const uint32_t rest = how == REDUCE_ADD ? dy
                                            : pm_compose_with(&c, count ? "ScatterElements" : "ScatterND",
                                                              inputs, 3, &axis, count);
    pm_compose_give(&c, g, 0, rest);
    return c.status;
}

static pm_status gradient_scatter_elements(pm_gradient *g, const pm_node *node)
{
    return gradient_scatter(g, node, "GatherElements");
}

static pm_status gradient_scatter_nd(pm_gradient *g, const pm_node *node)
{
    return gradient_scatter(g, node, "GatherND");
}

// --- GatherND and ScatterND: the last axis of the indices is a place in the data

static pm_status infer_gather_nd(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *i = &s->in[1]->tensor;
    const int64_t batch = pm_node_int(s->node, "batch_dims", 0);
    pm_status status = check_indices(s, 1);
    if (status.code != PM_OK)
        return status;
    if (i->rank == 0 || batch < 0 || batch >= i->rank || batch >= x->rank || i->shape[i->rank - 1] < 1 ||
        i->shape[i->rank - 1] > x->rank - batch)
        return pm_infer_refuse(s, 1, "places in the data");
    for (uint32_t d = 0; d < batch; d++)
        if (i->shape[d] != x->shape[d])
            return pm_infer_refuse(s, 1, "the data's batch axes");
    const uint32_t depth = (uint32_t)batch + (uint32_t)i->shape[i->rank - 1];
    if (i->rank - 1 + x->rank - depth > PM_MAX_RANK)
        return pm_fail(PM_UNSUPPORTED, "a rank of %u", i->rank - 1 + x->rank - depth);
    pm_tensor *y = &s->out[0];
    y->type = x->type;
    for (uint32_t d = 0; d + 1 < i->rank; d++)
        y->shape[y->rank++] = i->shape[d];
    for (uint32_t d = depth; d < x->rank; d++)
        y->shape[y->rank++] = x->shape[d];
    return status;
}

// The slice of x that row k of the indices names, in slices; -1 when out of range.
static int64_t slice_of(const pm_tensor *x, const pm_tensor *i, const void *indices, uint32_t batch, size_t k)
{
    const size_t depth = (size_t)i->shape[i->rank - 1];
    size_t slice = k / pm_extent(i, batch, i->rank - 1);
    for (uint32_t d = 0; d < depth; d++) {
        const int64_t at = index_at(i, indices, k * depth + d, (size_t)x->shape[batch + d]);
        if (at < 0)
            return -1;
        slice = slice * (size_t)x->shape[batch + d] + (size_t)at;
    }
    return (int64_t)slice;
}

static void run_gather_nd(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0], *i = task->in[1];
    const uint32_t batch = (uint32_t)pm_node_int(task->node, "batch_dims", 0);
    const uint32_t depth = (uint32_t)i->shape[i->rank - 1];
    const size_t rows = i->count / depth,
                 bytes = pm_extent(x, batch + depth, x->rank) * pm_type_size(x->type);
    char *to = call->out[0];
    for (size_t k = 0; k < rows; k++, to += bytes) {
        const int64_t at = slice_of(x, i, call->in[1], batch, k);
        if (at < 0)
            memset(to, 0, bytes);
        else
            memcpy(to, (const char *)call->in[0] + (size_t)at * bytes, bytes);
    }
}

static void run_gather_nd_back(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->out[0], *i = task->in[1];
    const uint32_t batch = axis_of(task->node, x->rank), depth = (uint32_t)i->shape[i->rank - 1];
    const size_t rows = i->count / depth, inner = pm_extent(x, batch + depth, x->rank);
    const float *dy = call->in[0];
    float *dx = call->out[0];
    memset(dx, 0, x->count * sizeof *dx);
    for (size_t k = 0; k < rows; k++, dy += inner) {
        const int64_t at = slice_of(x, i, call->in[1], batch, k);
        if (at >= 0)
            task->kernels->add(dx + (size_t)at * inner, dy, inner);
    }
}

static pm_status gradient_gather_nd(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const pm_attribute attributes[] = {pm_attribute_int("axis", pm_node_int(node, "batch_dims", 0)),
                                       pm_attribute_ints("shape", x.shape, x.rank)};
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), node->inputs[1]};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, ".GatherNDBack", inputs, 2, attributes, 2));
    return c.status;
}

static pm_status infer_scatter_nd(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *i = &s->in[1]->tensor, *u = &s->in[2]->tensor;
    pm_status status = check_indices(s, 1);
    if (status.code == PM_OK)
        status = check_reduction(s);
    if (status.code != PM_OK)
        return status;
    if (i->rank == 0 || i->shape[i->rank - 1] < 1 || i->shape[i->rank - 1] > x->rank)
        return pm_infer_refuse(s, 1, "places in the data");
    const uint32_t depth = (uint32_t)i->shape[i->rank - 1];
    bool fits = u->rank == i->rank - 1 + x->rank - depth;
    for (uint32_t d = 0; fits && d < u->rank; d++)
        fits = u->shape[d] == (d + 1 < i->rank ? i->shape[d] : x->shape[d + 1 - i->rank + depth]);
    return fits ? pm_infer_same(s) : pm_infer_refuse(s, 2, "a slice for each index");
}

static void run_scatter_nd(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0], *i = task->in[1];
    const uint32_t depth = (uint32_t)i->shape[i->rank - 1];
    const size_t rows = i->count / depth, size = pm_type_size(x->type), n = pm_extent(x, depth, x->rank);
    memcpy(call->out[0], call->in[0], pm_tensor_bytes(x));
    for (size_t k = 0; k < rows; k++) {
        const int64_t at = slice_of(x, i, call->in[1], 0, k);
        if (at >= 0)
            scatter(reduction_of(task->node), (const char *)call->in[2] + k * n * size,
                    (char *)call->out[0] + (size_t)at * n * size, n, size);
    }
}

#define ENTRY(domain_name, onnx, first, last, inputs, spec, infer_it, rule, run_it)                          \
    {                                                                                                        \
        .domain = domain_name, .name = onnx, .since = first, .until = last, .min_inputs = inputs,            \
        .max_inputs = inputs, .max_outputs = 1, .attributes = spec, .infer = infer_it, .gradient = rule,     \
        .run = run_it                                                                                        \
    }

const pm_operator PM_FAMILY_GATHER[] = {
    ENTRY("", "Gather", 1, 0, 2, AXIS, infer_gather, gradient_gather, run_gather),
    ENTRY("", "GatherElements", 11, 0, 2, AXIS, infer_gather_elements, gradient_gather_elements,
          run_gather_elements),
    ENTRY("", "GatherND", 11, 0, 2, BATCH, infer_gather_nd, gradient_gather_nd, run_gather_nd),
    ENTRY("", "Scatter", 9, 10, 3, AXIS, infer_scatter_elements, gradient_scatter_elements,
          run_scatter_elements),
    ENTRY("", "ScatterElements", 11, 0, 3, SCATTER, infer_scatter_elements, gradient_scatter_elements,
          run_scatter_elements),
    ENTRY("", "ScatterND", 11, 0, 3, SCATTER, infer_scatter_nd, gradient_scatter_nd, run_scatter_nd),
    ENTRY(PM_DOMAIN, "GatherBack", 0, 0, 2, BACK, infer_back, NULL, run_gather_back),
    ENTRY(PM_DOMAIN, "GatherElementsBack", 0, 0, 2, BACK, infer_back, NULL, run_gather_elements_back),
    ENTRY(PM_DOMAIN, "GatherNDBack", 0, 0, 2, BACK, infer_back, NULL, run_gather_nd_back),
    {0},
};
