#include "model/compose.h"

#include "model/convert.h"
#include "model/program.h"

#include <inttypes.h>

enum { MAX_CONSTANTS = 256 << 20 };

pm_compose pm_compose_open(pm_graph *program, const pm_node *node)
{
    return (pm_compose){.program = program, .node = node, .status = pm_ok()};
}

void *pm_compose_room(pm_compose *c, size_t bytes)
{
    void *room = NULL;
    if (c->status.code != PM_OK)
        return NULL;
    if (bytes > MAX_CONSTANTS || pm_region_used(c->program->region) > MAX_CONSTANTS)
        c->status = pm_fail(PM_UNSUPPORTED, "constants of more than %d MiB", MAX_CONSTANTS >> 20);
    else if (!(room = pm_region_alloc(c->program->region, bytes)))
        c->status = pm_fail(PM_NO_MEMORY, "a constant of %zu bytes", bytes);
    return room;
}

void pm_compose_fail(pm_compose *c, pm_status status)
{
    if (c->status.code == PM_OK)
        c->status = status;
}

pm_tensor pm_compose_tensor(const pm_compose *c, uint32_t value)
{
    return value == PM_NO_VALUE ? (pm_tensor){0} : c->program->values[value].tensor;
}

uint32_t pm_compose_with(pm_compose *c, const char *op, const uint32_t *inputs, uint32_t input_count,
                         const pm_attribute *attributes, uint32_t attribute_count)
{
    const bool ours = op[0] == '.';
    uint32_t value = PM_NO_VALUE;
    if (c->status.code != PM_OK)
        return value;
    c->status = pm_recipe_add(c->program, c->node,
                              (pm_recipe){.domain = ours ? PM_DOMAIN : "",
                                          .op = op + ours,
                                          .inputs = inputs,
                                          .input_count = input_count,
                                          .attributes = attributes,
                                          .attribute_count = attribute_count},
                              &value);
    return c->status.code == PM_OK ? value : PM_NO_VALUE;
}

uint32_t pm_compose_1(pm_compose *c, const char *op, uint32_t x)
{
    return pm_compose_with(c, op, &x, 1, NULL, 0);
}

uint32_t pm_compose_2(pm_compose *c, const char *op, uint32_t x, uint32_t y)
{
    return pm_compose_with(c, op, (const uint32_t[]){x, y}, 2, NULL, 0);
}

uint32_t pm_compose_3(pm_compose *c, const char *op, uint32_t x, uint32_t y, uint32_t z)
{
    return pm_compose_with(c, op, (const uint32_t[]){x, y, z}, 3, NULL, 0);
}

static uint32_t add_constant(pm_compose *c, pm_tensor tensor)
{
    uint32_t value = PM_NO_VALUE;
    if (c->status.code == PM_OK)
        c->status = tensor.data ? pm_graph_add_constant(c->program, NULL, &tensor, &value)
                                : pm_fail(PM_NO_MEMORY, "a constant");
    return value;
}

uint32_t pm_compose_number(pm_compose *c, pm_type type, double value)
{
    void *data = pm_region_alloc(c->program->region, sizeof(double));
    if (data)
        pm_convert_cast(PM_TYPE_F64, &value, type, data, 1);
    return add_constant(c, (pm_tensor){.type = type, .count = 1, .data = data});
}

uint32_t pm_compose_ints(pm_compose *c, const int64_t *values, uint32_t count)
{
    const int64_t *data = pm_region_copy(c->program->region, values, count * sizeof *values);
    return add_constant(
        c, (pm_tensor){.type = PM_TYPE_I64, .rank = 1, .shape = {count}, .count = count, .data = data});
}

uint32_t pm_compose_by(pm_compose *c, const char *op, uint32_t x, double number)
{
    return pm_compose_2(c, op, x, pm_compose_number(c, pm_compose_tensor(c, x).type, number));
}

uint32_t pm_compose_cast(pm_compose *c, uint32_t x, pm_type type)
{
    const pm_attribute to = pm_attribute_int("to", type);
    if (pm_compose_tensor(c, x).type == type)
        return x;
    return pm_compose_with(c, "Cast", &x, 1, &to, 1);
}

uint32_t pm_compose_reshape(pm_compose *c, uint32_t x, const int64_t *shape, uint32_t rank)
{
    const pm_attribute to = pm_attribute_ints("shape", shape, rank);
    return pm_compose_with(c, ".ReshapeTo", &x, 1, &to, 1);
}

uint32_t pm_compose_sum(pm_compose *c, uint32_t x, uint32_t axes)
{
    const pm_tensor t = pm_compose_tensor(c, x);
    int64_t shape[PM_MAX_RANK];
    for (uint32_t d = 0; d < t.rank; d++)
        shape[d] = axes >> d & 1 ? 1 : t.shape[d];
    const pm_attribute to = pm_attribute_ints("shape", shape, t.rank);
    return pm_compose_with(c, ".SumTo", &x, 1, &to, 1);
}

uint32_t pm_compose_transpose(pm_compose *c, uint32_t x, const int64_t *order)
{
    const pm_attribute perm = pm_attribute_ints("perm", order, pm_compose_tensor(c, x).rank);
    return pm_compose_with(c, "Transpose", &x, 1, &perm, 1);
}

void pm_compose_give(pm_compose *c, pm_gradient *g, uint32_t input, uint32_t value)
{
    if (c->status.code == PM_OK && pm_gradient_wants(g, c->node, input))
        c->status = pm_gradient_give_summed(g, c->node, input, value);
}

uint32_t pm_compose_input(const pm_compose *c, uint32_t input)
{
    return input < c->node->input_count ? c->node->inputs[input] : PM_NO_VALUE;
}

uint32_t pm_compose_read(pm_compose *c, uint32_t value, uint32_t most, int64_t *integers)
{
    if (c->status.code != PM_OK)
        return 0;
    const pm_value *v = &c->program->values[value];
    const pm_tensor *t = &v->tensor;
    if (!v->constant)
        pm_compose_fail(c, pm_fail(PM_UNSUPPORTED,
                                   "input %.64s steers shapes but is known only when the graph runs",
                                   v->name ? v->name : ""));
    else if ((t->type != PM_TYPE_I64 && t->type != PM_TYPE_I32) || t->count > most)
        pm_compose_fail(c, pm_fail(PM_INVALID, "input %.64s must hold at most %u integers",
                                   v->name ? v->name : "", most));
    if (c->status.code != PM_OK)
        return 0;
    pm_convert_cast(t->type, t->data, PM_TYPE_I64, integers, t->count);
    return (uint32_t)t->count;
}

uint32_t pm_compose_list(pm_compose *c, const char *attribute, uint32_t input, int64_t *integers, bool *given)
{
    uint32_t count = 0;
    const int64_t *ints = pm_node_ints(c->node, attribute, &count);
    const uint32_t value = pm_compose_input(c, input);
    *given = ints || value != PM_NO_VALUE;
    if (!ints && value != PM_NO_VALUE)
        return pm_compose_read(c, value, 2 * PM_MAX_RANK, integers);
    if (count > 2 * PM_MAX_RANK)
        pm_compose_fail(c, pm_fail(PM_INVALID, "attribute %s has %u integers", attribute, count));
    for (uint32_t i = 0; i < count && c->status.code == PM_OK; i++)
        integers[i] = ints[i];
    return c->status.code == PM_OK ? count : 0;
}

uint32_t pm_compose_axis(pm_compose *c, int64_t axis, uint32_t rank)
{
    if (axis >= -(int64_t)rank && axis < (int64_t)rank)
        return (uint32_t)(axis < 0 ? axis + rank : axis);
    pm_compose_fail(c, pm_fail(PM_INVALID, "axis %" PRId64 " is out of range for rank %u", axis, rank));
    return 0;
}

uint32_t pm_compose_axes(pm_compose *c, const int64_t *axes, uint32_t count, uint32_t rank)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t bit = 1u << pm_compose_axis(c, axes[i], rank);
        if (bits & bit)
            pm_compose_fail(c, pm_fail(PM_INVALID, "axis %" PRId64 " is given twice", axes[i]));
        bits |= bit;
    }
    return bits;
}

uint32_t pm_compose_reduce(pm_compose *c, const char *op, uint32_t x, uint32_t axes)
{
    int64_t list[PM_MAX_RANK];
    uint32_t count = 0;
    for (uint32_t d = 0; d < PM_MAX_RANK; d++)
        if (axes >> d & 1)
            list[count++] = d;
    if (count == 0)
        return x;
    const pm_attribute attribute = pm_attribute_ints("axes", list, count);
    return pm_compose_with(c, op, &x, 1, &attribute, 1);
}

uint32_t pm_compose_count(pm_compose *c, int64_t count, uint32_t axis, uint32_t rank)
{
    int64_t shape[PM_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++)
        shape[d] = d == axis ? count : 1;
    int64_t *data = pm_compose_room(c, (size_t)count * sizeof *data);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = i;
    return pm_compose_reshape(c,
                              add_constant(c, (pm_tensor){.type = PM_TYPE_I64,
                                                          .rank = 1,
                                                          .shape = {count},
                                                          .count = (size_t)count,
                                                          .data = data}),
                              shape, rank);
}
