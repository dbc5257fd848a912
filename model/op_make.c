// Operators that make tensors from shapes and numbers, or whose output's shape follows from elements that
// must be known when the graph is planned.
#include "model/compose.h"
#include "model/convert.h"

#include <math.h>
#include <string.h>

enum { MAX_CONSTANTS = 256 << 20 };

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec VALUE[] = {{"value", PM_ATTRIBUTE_TENSOR}, {0}};
static const pm_attribute_spec EYE[] = {{"dtype", PM_ATTRIBUTE_INT}, {"k", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};

// Room for output 0's elements, which infer fills in at once.
static pm_status make_room(pm_shapes *s, void **data)
{
    pm_tensor *y = &s->out[0];
    if (!pm_shape_count(y->shape, y->rank, PM_MAX_ROW_COUNT / 8, &y->count))
        return pm_fail(PM_INVALID, "the output is too large");
    if (pm_tensor_bytes(y) > MAX_CONSTANTS || pm_region_used(s->region) > MAX_CONSTANTS)
        return pm_fail(PM_UNSUPPORTED, "constants of more than %d MiB", MAX_CONSTANTS >> 20);
    *data = pm_region_alloc(s->region, pm_tensor_bytes(y));
    y->data = *data;
    return *data ? pm_ok() : pm_fail(PM_NO_MEMORY, "a constant of %zu elements", y->count);
}

static pm_status check_known(const pm_shapes *s, uint32_t input)
{
    return s->in[input]->constant
               ? pm_ok()
               : pm_fail(PM_UNSUPPORTED, "input %u steers shapes but is known only when the graph runs",
                         input);
}

static pm_status infer_size(pm_shapes *s)
{
    void *data = NULL;
    s->out[0].type = PM_TYPE_I64;
    pm_status status = make_room(s, &data);
    if (status.code == PM_OK)
        *(int64_t *)data = (int64_t)s->in[0]->tensor.count;
    return status;
}

static pm_status infer_constant_of_shape(pm_shapes *s)
{
    const pm_attribute *value = pm_node_attribute(s->node, "value");
    pm_tensor *y = &s->out[0];
    void *data = NULL;
    y->type = value ? value->tensor->type : PM_TYPE_F32;
    if (value && value->tensor->count != 1)
        return pm_fail(PM_INVALID, "value must have one element");
    pm_status status = pm_infer_constant(s, 0, PM_MAX_RANK, y->shape, &y->rank);
    if (status.code == PM_OK)
        status = make_room(s, &data);
    const size_t size = pm_type_size(y->type);
    for (size_t i = 0; status.code == PM_OK && value && i < y->count; i++)
        memcpy((char *)data + i * size, value->tensor->data, size);
    return status;
}

static pm_status infer_eye(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    const int64_t type = pm_node_int(s->node, "dtype", x->type), k = pm_node_int(s->node, "k", 0);
    void *data = NULL;
    if (x->rank != 2 || type < 1 || type > PM_TYPE_BF16 || pm_type_size((pm_type)type) == 0)
        return pm_infer_refuse(s, 0, "a matrix");
    s->out[0] = *x;
    s->out[0].type = (pm_type)type;
    pm_status status = make_room(s, &data);
    const double one = 1;
    for (int64_t r = 0; status.code == PM_OK && r < x->shape[0]; r++)
        if (k > -x->shape[0] && k < x->shape[1] && r + k >= 0 && r + k < x->shape[1])
            pm_convert_cast(PM_TYPE_F64, &one, (pm_type)type,
                            (char *)data + (size_t)(r * x->shape[1] + r + k) * pm_type_size((pm_type)type),
                            1);
    return status;
}

// start, start + delta, … below limit.
static pm_status infer_range(pm_shapes *s)
{
    double bounds[3];
    void *data = NULL;
    const pm_type type = s->in[0]->tensor.type;
    for (uint32_t i = 0; i < 3; i++) {
        pm_status status = check_known(s, i);
        if (status.code != PM_OK)
            return status;
        if (s->in[i]->tensor.type != type || s->in[i]->tensor.count != 1)
            return pm_infer_refuse(s, i, "a scalar of one type");
        bounds[i] = pm_convert_number(&s->in[i]->tensor, 0);
    }
    const double count = ceil((bounds[1] - bounds[0]) / bounds[2]);
    if (!(fabs(count) < 1e8) || bounds[2] == 0)
        return pm_fail(PM_INVALID, "a range of %g elements", count);
    s->out[0] = (pm_tensor){.type = type, .rank = 1, .shape = {count > 0 ? (int64_t)count : 0}};
    pm_status status = make_room(s, &data);
    for (size_t i = 0; status.code == PM_OK && i < s->out[0].count; i++) {
        const double number = bounds[0] + (double)i * bounds[2];
        pm_convert_cast(PM_TYPE_F64, &number, type, (char *)data + i * pm_type_size(type), 1);
    }
    return status;
}

static bool is_zero(const pm_tensor *t, size_t i)
{
    return pm_convert_number(t, i) == 0;
}

// (rank, elements that are not 0)
static pm_status infer_nonzero(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    pm_status status = check_known(s, 0);
    void *data = NULL;
    size_t found = 0, at = 0;
    if (status.code != PM_OK)
        return status;
    for (size_t i = 0; i < x->count; i++)
        found += !is_zero(x, i);
    s->out[0] = (pm_tensor){.type = PM_TYPE_I64, .rank = 2, .shape = {x->rank, (int64_t)found}};
    status = make_room(s, &data);
    for (size_t i = 0; status.code == PM_OK && i < x->count; i++) {
        if (is_zero(x, i))
            continue;
        size_t rest = i;
        for (uint32_t d = x->rank; d-- > 0; rest /= (size_t)x->shape[d])
            ((int64_t *)data)[d * found + at] = (int64_t)(rest % (size_t)x->shape[d]);
        at++;
    }
    return status;
}

// The slices along the axis (all elements without one) whose condition is true: a Gather.
static pm_status lower_compress(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_value condition = program->values[node->inputs[1]];
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const bool flat = !pm_node_attribute(node, "axis");
    const uint32_t axis = flat ? 0 : pm_compose_axis(&c, pm_node_int(node, "axis", 0), x.rank);
    (void)training;
    if (!condition.constant)
        return pm_fail(PM_UNSUPPORTED, "the condition steers shapes but is known only when the graph runs");
    int64_t *kept = pm_region_alloc(program->region, condition.tensor.count * sizeof *kept);
    uint32_t count = 0;
    if (!kept)
        return pm_fail(PM_NO_MEMORY, "a condition");
    for (size_t i = 0; i < condition.tensor.count; i++)
        if (!is_zero(&condition.tensor, i))
            kept[count++] = (int64_t)i;
    const int64_t all[] = {(int64_t)x.count};
    const uint32_t from = flat ? pm_compose_reshape(&c, node->inputs[0], all, 1) : node->inputs[0];
    const pm_attribute along = pm_attribute_int("axis", axis);
    const uint32_t inputs[] = {from, pm_compose_ints(&c, kept, count)};
    outputs[0] = pm_compose_with(&c, "Gather", inputs, 2, &along, 1);
    return c.status;
}

// off, but on where the class along the new axis is the index.
static pm_status lower_one_hot(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor indices = pm_compose_tensor(&c, node->inputs[0]),
                    values = pm_compose_tensor(&c, node->inputs[2]);
    const pm_value depth_value = program->values[node->inputs[1]];
    (void)training;
    if (!depth_value.constant)
        return pm_fail(PM_UNSUPPORTED, "the depth steers shapes but is known only when the graph runs");
    const double given = depth_value.tensor.count == 1 ? pm_convert_number(&depth_value.tensor, 0) : 0;
    if (!(given >= 1 && given < 1e8) || values.count != 2 || indices.rank >= PM_MAX_RANK)
        return pm_fail(PM_INVALID, "a depth of %g", given);
    const int64_t depth = (int64_t)given;
    const uint32_t axis = pm_compose_axis(&c, pm_node_int(node, "axis", -1), indices.rank + 1);
    int64_t shape[PM_MAX_RANK];
    for (uint32_t d = 0; d <= indices.rank; d++)
        shape[d] = d == axis ? 1 : indices.shape[d < axis ? d : d - 1];
    uint32_t at =
        pm_compose_cast(&c, pm_compose_reshape(&c, node->inputs[0], shape, indices.rank + 1), PM_TYPE_I64);
    const uint32_t below = pm_compose_by(&c, "Less", at, 0);
    at = pm_compose_3(&c, "Where", below, pm_compose_by(&c, "Add", at, (double)depth), at);
    const uint32_t hit = pm_compose_2(&c, "Equal", pm_compose_count(&c, depth, axis, indices.rank + 1), at);
    const uint32_t off = pm_compose_2(&c, "Gather", node->inputs[2], pm_compose_number(&c, PM_TYPE_I64, 0));
    const uint32_t on = pm_compose_2(&c, "Gather", node->inputs[2], pm_compose_number(&c, PM_TYPE_I64, 1));
    outputs[0] = pm_compose_3(&c, "Where", hit, on, off);
    return c.status;
}

#define MADE(onnx, first, inputs, fixed, spec, infer_it)                                                     \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .min_inputs = inputs, .max_inputs = inputs,              \
        .max_outputs = 1, .fixed_inputs = fixed, .attributes = spec, .infer = infer_it                       \
    }
#define LOWERED(onnx, first, inputs, fixed, spec, lower_it)                                                  \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .min_inputs = inputs, .max_inputs = inputs,              \
        .max_outputs = 1, .fixed_inputs = fixed, .attributes = spec, .infer = pm_infer_lowered,              \
        .lower = lower_it                                                                                    \
    }

const pm_operator PM_FAMILY_MAKE[] = {
    MADE("Size", 1, 1, 0, NONE, infer_size),
    MADE("ConstantOfShape", 9, 1, 1, VALUE, infer_constant_of_shape),
    MADE("EyeLike", 9, 1, 0, EYE, infer_eye),
    MADE("Range", 11, 3, 7, NONE, infer_range),
    MADE("NonZero", 9, 1, 1, NONE, infer_nonzero),
    LOWERED("Compress", 9, 2, 2, AXIS, lower_compress),
    LOWERED("OneHot", 9, 3, 6, AXIS, lower_one_hot),
    {0},
};
