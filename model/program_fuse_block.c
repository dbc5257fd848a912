// Joins what exporters and layers write with several operators: a product and its bias, Gelu, layer
// normalization.
#include "model/program_fusing.h"

#include <math.h>
#include <string.h>

// The other input of a node of two.
static uint32_t other_input(const pm_node *node, uint32_t value)
{
    return node->inputs[node->inputs[0] == value];
}

static bool is_leaf(const pm_fusing *f, uint32_t value)
{
    return value < f->values && f->producer[value] == PM_NOBODY && f->program->values[value].shared;
}

// The product may be seen as rows of more axes before the row is added.
pm_status pm_fuse_bias(pm_fusing *f, uint32_t gemm)
{
    pm_graph *p = f->program;
    pm_node *node = &p->nodes[gemm];
    uint32_t last = gemm, next = pm_fusing_reader(f, node->outputs[0]);
    if (node->input_count != 2 || next == PM_NOBODY)
        return pm_ok();
    if (pm_fusing_is(&p->nodes[next], PM_DOMAIN, "ReshapeTo")) {
        last = next;
        next = pm_fusing_reader(f, p->nodes[last].outputs[0]);
    }
    if (next == PM_NOBODY || !pm_fusing_is(&p->nodes[next], "", "Add"))
        return pm_ok();
    const uint32_t product = p->nodes[last].outputs[0], row = other_input(&p->nodes[next], product);
    const pm_tensor *x = &p->values[product].tensor, *b = &p->values[row].tensor;
    const int64_t columns = p->values[node->outputs[0]].tensor.shape[1];
    if (!is_leaf(f, row) || b->rank != 1 || b->shape[0] != columns || x->rank == 0 ||
        x->shape[x->rank - 1] != columns || pm_node_float(node, "alpha", 1) != 1 ||
        !pm_shape_equal(x, &p->values[p->nodes[next].outputs[0]].tensor))
        return pm_ok();
    const uint32_t *inputs = pm_region_copy(
        p->region, (const uint32_t[]){node->inputs[0], node->inputs[1], row}, 3 * sizeof *inputs);
    if (!inputs)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    node->inputs = inputs;
    node->input_count = 3;
    pm_fusing_take_over(f, last, next);
    return pm_ok();
}

static bool is_number(const pm_fusing *f, uint32_t value, double number)
{
    const pm_value *v = &f->program->values[value];
    return v->constant && v->tensor.type == PM_TYPE_F32 && v->tensor.count == 1 &&
           fabs((double)*(const float *)v->tensor.data / number - 1) < 1e-6;
}

// What the value is number times (or, divided, a number-th of); PM_NO_VALUE when it is not.
static uint32_t scaled_from(const pm_fusing *f, uint32_t value, double number)
{
    static const char *const ops[] = {"Mul", "Div"};
    for (int divided = 0; divided < 2; divided++) {
        const uint32_t at = pm_fusing_producer(f, value, "", ops[divided]);
        if (at == PM_NOBODY)
            continue;
        const uint32_t *in = f->program->nodes[at].inputs;
        if (is_number(f, in[1], divided ? 1 / number : number))
            return in[0];
        if (!divided && is_number(f, in[0], number))
            return in[1];
    }
    return PM_NO_VALUE;
}

// The node that alone reads the value, when it is op.
static uint32_t next_is(const pm_fusing *f, uint32_t value, const char *op)
{
    const uint32_t next = pm_fusing_reader(f, value);
    return next != PM_NOBODY && pm_fusing_is(&f->program->nodes[next], "", op) ? next : PM_NOBODY;
}

static pm_status make_gelu(pm_fusing *f, uint32_t last, uint32_t x)
{
    pm_graph *p = f->program;
    uint32_t outputs[2] = {p->nodes[last].outputs[0], PM_NO_VALUE};
    pm_tensor slope = p->values[outputs[0]].tensor;
    slope.data = NULL;
    pm_status status = f->training ? pm_graph_add_value(p, NULL, &slope, &outputs[1]) : pm_ok();
    const uint32_t *in = pm_region_copy(p->region, &x, sizeof x);
    const uint32_t *out = pm_region_copy(p->region, outputs, sizeof outputs);
    if (status.code != PM_OK || !in || !out)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "node %.64s", p->nodes[last].name) : status;
    p->nodes[last] = (pm_node){.op = pm_operator_newest(PM_DOMAIN, "Gelu"),
                               .name = p->nodes[last].name,
                               .inputs = in,
                               .input_count = 1,
                               .outputs = out,
                               .output_count = f->training ? 2 : 1};
    return status;
}

// The factors x, 1 + erf and one half in any order.
pm_status pm_fuse_gelu(pm_fusing *f, uint32_t erf)
{
    const pm_graph *p = f->program;
    const uint32_t x = scaled_from(f, p->nodes[erf].inputs[0], M_SQRT1_2);
    const uint32_t add = x == PM_NO_VALUE ? PM_NOBODY : next_is(f, p->nodes[erf].outputs[0], "Add");
    if (add == PM_NOBODY || p->values[x].shared ||
        !is_number(f, other_input(&p->nodes[add], p->nodes[erf].outputs[0]), 1))
        return pm_ok();
    bool by_x = false, halved = false;
    uint32_t last = add, nodes[2], count = 0;
    while (count < 2 && !(by_x && halved)) {
        const uint32_t from = p->nodes[last].outputs[0], next = next_is(f, from, "Mul");
        if (next == PM_NOBODY)
            return pm_ok();
        const uint32_t factor = other_input(&p->nodes[next], from);
        const bool half_x = !by_x && !halved && scaled_from(f, factor, 0.5) == x;
        const bool is_x = !by_x && factor == x, is_half = !halved && is_number(f, factor, 0.5);
        if (!half_x && !is_x && !is_half)
            return pm_ok();
        by_x = by_x || half_x || is_x;
        halved = halved || half_x || is_half;
        nodes[count++] = last = next;
        if (half_x)
            f->inside[f->producer[factor]] = true;
    }
    if (!by_x || !halved ||
        !pm_shape_equal(&p->values[x].tensor, &p->values[p->nodes[last].outputs[0]].tensor))
        return pm_ok();
    f->inside[f->producer[p->nodes[erf].inputs[0]]] = true;
    f->inside[erf] = f->inside[add] = f->inside[nodes[0]] = true;
    f->inside[last] = false;
    return make_gelu(f, last, x);
}

// --- layer normalization as exporters write it up to opset 16

// The value whose mean over the axes from *axis on (the same where it is given already) value is; PM_NO_VALUE
// when it is none.
static uint32_t mean_of(const pm_fusing *f, uint32_t value, uint32_t *axis)
{
    const pm_graph *p = f->program;
    const uint32_t divided = pm_fusing_producer(f, value, "", "Div");
    const uint32_t sum = divided == PM_NOBODY
                             ? divided
                             : pm_fusing_producer(f, p->nodes[divided].inputs[0], PM_DOMAIN, "SumTo");
    if (sum == PM_NOBODY)
        return PM_NO_VALUE;
    const pm_tensor *x = &p->values[p->nodes[sum].inputs[0]].tensor, *y = &p->values[value].tensor;
    uint32_t first = x->rank;
    while (y->rank == x->rank && first > 0 && y->shape[first - 1] == 1)
        first--;
    while (first < x->rank && x->shape[first] == 1) // kept as well as summed
        first++;
    for (uint32_t d = 0; d < first && first < x->rank; d++)
        if (y->shape[d] != x->shape[d])
            return PM_NO_VALUE;
    if (first == x->rank || (*axis != PM_NOBODY && *axis != first) ||
        !is_number(f, p->nodes[divided].inputs[1], (double)pm_extent(x, first, x->rank)))
        return PM_NO_VALUE;
    *axis = first;
    return p->nodes[sum].inputs[0];
}

// What value is the square of; PM_NO_VALUE when it is none.
static uint32_t root_of(const pm_fusing *f, uint32_t value)
{
    const uint32_t power = pm_fusing_producer(f, value, PM_DOMAIN, "Pow"),
                   product = pm_fusing_producer(f, value, "", "Mul");
    if (power != PM_NOBODY && is_number(f, f->program->nodes[power].inputs[1], 2))
        return f->program->nodes[power].inputs[0];
    const uint32_t *in = product == PM_NOBODY ? NULL : f->program->nodes[product].inputs;
    return in && in[0] == in[1] ? in[0] : PM_NO_VALUE;
}

// The node after value that, with op, joins a parameter or constant of count elements to it along the last
// axes.
static uint32_t joined(const pm_fusing *f, uint32_t value, const char *op, uint32_t axis, uint32_t *with)
{
    const uint32_t next = next_is(f, value, op);
    if (next == PM_NOBODY)
        return next;
    *with = other_input(&f->program->nodes[next], value);
    const pm_graph *p = f->program;
    return is_leaf(f, *with) && pm_shape_ends(&p->values[value].tensor, axis, &p->values[*with].tensor) &&
                   pm_shape_equal(&p->values[value].tensor, &p->values[p->nodes[next].outputs[0]].tensor)
               ? next
               : PM_NOBODY;
}

static pm_status make_layer_norm(pm_fusing *f, uint32_t last, const uint32_t inputs[3], uint32_t axis,
                                 float epsilon)
{
    pm_graph *p = f->program;
    uint32_t outputs[3] = {p->nodes[last].outputs[0], PM_NO_VALUE, PM_NO_VALUE};
    pm_tensor moment = p->values[inputs[0]].tensor;
    moment.data = NULL;
    for (uint32_t d = axis; d < moment.rank; d++)
        moment.shape[d] = 1;
    moment.count = pm_extent(&moment, 0, axis);
    pm_status status = pm_graph_add_value(p, NULL, &moment, &outputs[1]);
    if (status.code == PM_OK)
        status = pm_graph_add_value(p, NULL, &moment, &outputs[2]);
    const pm_attribute attributes[] = {pm_attribute_int("axis", axis),
                                       pm_attribute_float("epsilon", epsilon)};
    const uint32_t *in = pm_region_copy(p->region, inputs, 3 * sizeof *in);
    const uint32_t *out = pm_region_copy(p->region, outputs, sizeof outputs);
    const pm_attribute *kept = pm_region_copy(p->region, attributes, sizeof attributes);
    if (status.code != PM_OK || !in || !out || !kept)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "node %.64s", p->nodes[last].name) : status;
    p->nodes[last] = (pm_node){.op = pm_operator_newest(PM_DOMAIN, "LayerNorm"),
                               .name = p->nodes[last].name,
                               .inputs = in,
                               .input_count = 3,
                               .outputs = out,
                               .output_count = 3,
                               .attributes = kept,
                               .attribute_count = 2};
    return status;
}

// (x - mean) / sqrt(mean of its square + epsilon) * scale + bias
pm_status pm_fuse_layer_norm(pm_fusing *f, uint32_t root)
{
    const pm_graph *p = f->program;
    const uint32_t add = pm_fusing_producer(f, p->nodes[root].inputs[0], "", "Add");
    const uint32_t variance = add == PM_NOBODY ? PM_NO_VALUE : p->nodes[add].inputs[0];
    uint32_t axis = PM_NOBODY, inputs[3];
    const uint32_t square = variance == PM_NO_VALUE ? PM_NO_VALUE : mean_of(f, variance, &axis);
    const uint32_t low = square == PM_NO_VALUE ? PM_NO_VALUE : root_of(f, square);
    const uint32_t sub = low == PM_NO_VALUE ? PM_NOBODY : pm_fusing_producer(f, low, "", "Sub");
    const uint32_t divided = next_is(f, p->nodes[root].outputs[0], "Div");
    if (sub == PM_NOBODY || divided == PM_NOBODY || p->nodes[divided].inputs[0] != low)
        return pm_ok();
    inputs[0] = p->nodes[sub].inputs[0];
    const pm_tensor *x = &p->values[inputs[0]].tensor, *e = &p->values[p->nodes[add].inputs[1]].tensor;
    if (mean_of(f, p->nodes[sub].inputs[1], &axis) != inputs[0] ||
        !p->values[p->nodes[add].inputs[1]].constant || e->count != 1 || x->type != PM_TYPE_F32 ||
        x->count == 0)
        return pm_ok();
    const uint32_t scaled = joined(f, p->nodes[divided].outputs[0], "Mul", axis, &inputs[1]);
    const uint32_t last =
        scaled == PM_NOBODY ? scaled : joined(f, p->nodes[scaled].outputs[0], "Add", axis, &inputs[2]);
    if (last == PM_NOBODY)
        return pm_ok();
    const uint32_t mean = p->nodes[sub].inputs[1];
    const uint32_t between[] = {f->producer[mean],
                                f->producer[p->nodes[f->producer[mean]].inputs[0]],
                                sub,
                                f->producer[square],
                                f->producer[p->nodes[f->producer[variance]].inputs[0]],
                                f->producer[variance],
                                add,
                                root,
                                divided,
                                scaled};
    for (size_t i = 0; i < sizeof between / sizeof between[0]; i++)
        f->inside[between[i]] = true;
    return make_layer_norm(f, last, inputs, axis, *(const float *)e->data);
}
