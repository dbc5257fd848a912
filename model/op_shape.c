// Operators that change how elements are seen, not what they are.
#include "model/gradient.h"
#include "model/task.h"

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec RESHAPE[] = {{"allowzero", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec SHAPE[] = {{"shape", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec RANGE[] = {{"start", PM_ATTRIBUTE_INT}, {"end", PM_ATTRIBUTE_INT}, {0}};

static pm_status lower_identity(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    (void)training;
    (void)program;
    outputs[0] = node->inputs[0];
    return pm_ok();
}

// The gradient of a view: the bytes of the output's gradient in the input's shape.
static pm_status gradient_view(pm_gradient *g, const pm_node *node)
{
    const pm_tensor x = pm_gradient_program(g)->values[node->inputs[0]].tensor; // a copy: values move
    const pm_attribute shape = pm_attribute_ints("shape", x.shape, x.rank);
    return pm_gradient_give_recipe(g, node, 0,
                                   (pm_recipe){.domain = PM_DOMAIN,
                                               .op = "ReshapeTo",
                                               PM_VALUES(pm_gradient_of(g, node, 0)),
                                               .attributes = &shape,
                                               .attribute_count = 1});
}

static pm_status infer_reshape_to(pm_shapes *s)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(s->node, "shape", &rank);
    size_t count = 0;
    if (rank > PM_MAX_RANK || !pm_shape_count(shape, rank, PM_MAX_PARAM_COUNT, &count) ||
        count != s->in[0]->tensor.count)
        return pm_infer_refuse(s, 0, "as many elements as are wanted in another shape");
    s->out[0].type = s->in[0]->tensor.type;
    s->out[0].rank = rank;
    for (uint32_t d = 0; d < rank; d++)
        s->out[0].shape[d] = shape[d];
    return pm_ok();
}

static pm_status infer_flatten(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", 1, x->rank, true, &axis);
    if (status.code != PM_OK)
        return status;
    s->out[0] = (pm_tensor){.type = x->type, .rank = 2};
    s->out[0].shape[0] = (int64_t)pm_extent(x, 0, axis);
    s->out[0].shape[1] = (int64_t)pm_extent(x, axis, x->rank);
    return pm_ok();
}

// Fills in the extents that 0 and -1 stand for.
static pm_status resolve(const pm_shapes *s, int64_t *shape, uint32_t rank)
{
    const pm_tensor *x = &s->in[0]->tensor;
    const bool keep_zero = pm_node_int(s->node, "allowzero", 0) != 0;
    uint32_t open = rank;
    size_t known = 1;
    for (uint32_t d = 0; d < rank; d++) {
        if (shape[d] == 0 && !keep_zero)
            shape[d] = d < x->rank ? x->shape[d] : -2;
        if (shape[d] == -1 && open == rank) {
            open = d;
            continue;
        }
        if (shape[d] < 0 || (shape[d] > 0 && (uint64_t)shape[d] > PM_MAX_PARAM_COUNT / known))
            return pm_fail(PM_INVALID, "extent %u of the new shape is wrong", d);
        known *= shape[d] > 0 ? (size_t)shape[d] : 1;
    }
    if (open < rank)
        shape[open] = (int64_t)(x->count / known);
    return pm_ok();
}

static pm_status infer_reshape(pm_shapes *s)
{
    pm_tensor *out = &s->out[0];
    const pm_tensor *x = &s->in[0]->tensor;
    pm_status status = pm_infer_constant(s, 1, PM_MAX_RANK, out->shape, &out->rank);
    if (status.code == PM_OK)
        status = resolve(s, out->shape, out->rank);
    if (status.code != PM_OK)
        return status;
    out->type = x->type;
    char from[128], to[128];
    size_t count = 0;
    if (!pm_shape_count(out->shape, out->rank, PM_MAX_PARAM_COUNT, &count) || count != x->count)
        return pm_fail(PM_INVALID, "shape %s does not become %s", pm_value_text(s->in[0], from, sizeof from),
                       pm_shape_text(out->shape, out->rank, to, sizeof to));
    return status;
}

// The slice [start, end) of the shape, which is known at once.
static pm_status infer_shape(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    const int64_t rank = x->rank;
    int64_t start = pm_node_int(s->node, "start", 0), end = pm_node_int(s->node, "end", rank);
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    start = start < 0 ? 0 : start > rank ? rank : start;
    end = end < start ? start : end > rank ? rank : end;
    s->out[0] = (pm_tensor){.type = PM_TYPE_I64, .rank = 1, .shape = {end - start}};
    s->out[0].data = pm_region_copy(s->region, x->shape + start, (size_t)(end - start) * sizeof *x->shape);
    return s->out[0].data ? pm_ok() : pm_fail(PM_NO_MEMORY, "a shape");
}

const pm_operator PM_FAMILY_SHAPE[] = {
    {.domain = "",
     .name = "Identity",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = NONE,
     .infer = pm_infer_same,
     .lower = lower_identity},
    {.domain = "",
     .name = "Flatten",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_VIEW,
     .attributes = AXIS,
     .infer = infer_flatten,
     .gradient = gradient_view},
    {.domain = "",
     .name = "Reshape",
     .since = 5,
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .fixed_inputs = 1 << 1,
     .traits = PM_TRAIT_VIEW,
     .attributes = RESHAPE,
     .infer = infer_reshape,
     .gradient = gradient_view},
    {.domain = "",
     .name = "Shape",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = RANGE,
     .infer = infer_shape},
    {.domain = PM_DOMAIN,
     .name = "ReshapeTo",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_VIEW,
     .attributes = SHAPE,
     .infer = infer_reshape_to,
     .gradient = gradient_view},
    {0},
};
