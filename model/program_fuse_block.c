// Joins what exporters and layers write with several operators: a product and its bias, Gelu.
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
