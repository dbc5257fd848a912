// Finds attention in what layers and exporters write: a product of queries with keys turned over, a scale, a
// mask, a softmax, a product with values, with reshapes, slices and transposes around them.
#include "model/attention.h"
#include "model/strides.h"

#include <string.h>

typedef struct finding {
    uint32_t products, mixing, last; // nodes: the two products, and the one whose output becomes attention's
    uint32_t mask;                   // value, or PM_NO_VALUE
    pm_attention_mask kind;
    float scale, low;
} finding;

// The number that a constant of one float32 is.
static bool read_number(const pm_fusing *f, uint32_t value, float *number)
{
    const pm_value *v = &f->program->values[value];
    if (!v->constant || v->tensor.type != PM_TYPE_F32 || v->tensor.count != 1)
        return false;
    *number = *(const float *)v->tensor.data;
    return true;
}

// Whether value, which node alone reads, has the shape of what node makes of it.
static bool passes(const pm_fusing *f, uint32_t value, const pm_node *node)
{
    return pm_fusing_reader(f, value) != PM_NOBODY &&
           pm_shape_equal(&f->program->values[value].tensor, &f->program->values[node->outputs[0]].tensor);
}

// One for all lanes, and but one matrix. Of floats only constants: others might want a gradient.
static bool is_mask(const pm_fusing *f, uint32_t value, pm_type type)
{
    const pm_value *v = &f->program->values[value];
    bool fits = v->tensor.type == type && v->shared && (type == PM_TYPE_BOOL || v->constant);
    for (uint32_t d = 0; d + 2 < v->tensor.rank; d++)
        fits = fits && v->tensor.shape[d] == 1;
    return fits;
}

// The scores before the mask that the node puts over them; PM_NO_VALUE where it is none.
static uint32_t before_mask(const pm_fusing *f, const pm_node *node, finding *found)
{
    const uint32_t *in = node->inputs;
    if (pm_fusing_is(node, "", "Add") && !pm_node_attribute(node, "relu"))
        for (uint32_t i = 0; i < 2; i++)
            if (is_mask(f, in[1 - i], PM_TYPE_F32) && passes(f, in[i], node)) {
                found->kind = PM_ATTENTION_ADDED;
                found->mask = in[1 - i];
                return in[i];
            }
    if (!pm_fusing_is(node, "", "Where") || !is_mask(f, in[0], PM_TYPE_BOOL))
        return PM_NO_VALUE;
    for (uint32_t i = 1; i < 3; i++)
        if (read_number(f, in[3 - i], &found->low) && found->low <= PM_ATTENTION_HIDES &&
            passes(f, in[i], node)) {
            found->kind = i == 1 ? PM_ATTENTION_SHOWING : PM_ATTENTION_HIDING;
            found->mask = in[0];
            return in[i];
        }
    return PM_NO_VALUE;
}

static uint32_t before_scale(const pm_fusing *f, const pm_node *node, finding *found)
{
    const bool divides = pm_fusing_is(node, "", "Div");
    float number = 1;
    if (!divides && !pm_fusing_is(node, "", "Mul"))
        return PM_NO_VALUE;
    for (uint32_t i = 0; i < (divides ? 1u : 2u); i++)
        if (read_number(f, node->inputs[1 - i], &number) && passes(f, node->inputs[i], node)) {
            found->scale = divides ? found->scale / number : found->scale * number;
            return node->inputs[i];
        }
    return PM_NO_VALUE;
}

static const pm_node *producer_of(const pm_fusing *f, uint32_t value)
{
    const bool made = value < f->values && f->producer[value] != PM_NOBODY;
    return made ? &f->program->nodes[f->producer[value]] : NULL;
}

// From the softmax back to the product with keys, and on to that with values.
static bool find(const pm_fusing *f, uint32_t softmax, finding *found)
{
    const pm_node *node = &f->program->nodes[softmax], *above = node;
    const int64_t rank = f->program->values[node->outputs[0]].tensor.rank;
    const int64_t axis = pm_node_int(node, "axis", node->op->until == 12 ? 1 : -1);
    uint32_t scores = node->inputs[0];
    *found = (finding){.mask = PM_NO_VALUE, .scale = 1};
    found->mixing = pm_fusing_reader(f, node->outputs[0]);
    if ((axis != -1 && axis != rank - 1) || rank < 2 || found->mixing == PM_NOBODY ||
        !passes(f, scores, node) || !pm_fusing_is(&f->program->nodes[found->mixing], PM_DOMAIN, "MatMul") ||
        f->program->nodes[found->mixing].inputs[0] != node->outputs[0])
        return false;
    for (bool masked = false; (above = producer_of(f, scores)) != NULL;) {
        uint32_t below = masked ? PM_NO_VALUE : before_mask(f, above, found);
        masked = masked || below != PM_NO_VALUE || found->scale != 1;
        if (below == PM_NO_VALUE)
            below = before_scale(f, above, found);
        if (below == PM_NO_VALUE)
            break;
        scores = below;
    }
    found->products = pm_fusing_producer(f, scores, PM_DOMAIN, "MatMul");
    return found->products != PM_NOBODY && pm_fusing_reader(f, scores) != PM_NOBODY;
}

// A matrix of rows along one axis, columns along the other, for each index of the leading axes, which are
// those of the scores; false where it is broadcast.
static bool view_of(const pm_strides *s, uint32_t rows, uint32_t columns, const pm_tensor *scores,
                    pm_attention_view *view)
{
    bool fits = s->rank == scores->rank && (s->stride[columns] == 1 || s->extent[columns] == 1);
    *view = (pm_attention_view){.offset = s->offset, .row_stride = s->stride[rows]};
    for (uint32_t d = 0; fits && d + 2 < s->rank; d++) {
        fits = s->extent[d] == scores->shape[d];
        view->stride[d] = s->stride[d];
    }
    return fits;
}

// Attention writes y as a transpose after it would, where that leaves the columns together.
static void place_output(const pm_fusing *f, finding *found, pm_attention *a)
{
    const pm_graph *p = f->program;
    const pm_node *mixing = &p->nodes[found->mixing];
    const uint32_t rank = p->values[mixing->outputs[0]].tensor.rank,
                   next = pm_fusing_reader(f, mixing->outputs[0]);
    int64_t order[PM_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++)
        order[d] = d;
    found->last = found->mixing;
    if (next != PM_NOBODY && pm_fusing_is(&p->nodes[next], "", "Transpose")) {
        uint32_t count = 0;
        const int64_t *perm = pm_node_ints(&p->nodes[next], "perm", &count);
        if (perm && perm[rank - 1] == rank - 1) {
            memcpy(order, perm, rank * sizeof *order);
            found->last = next;
        }
    }
    const pm_tensor *y = &p->values[p->nodes[found->last].outputs[0]].tensor;
    for (uint32_t d = 0; d + 1 < rank; d++) {
        const int64_t stride = (int64_t)pm_extent(y, d + 1, rank);
        if (order[d] == rank - 2)
            a->y.row_stride = stride;
        else
            a->y.stride[order[d]] = stride;
    }
}

// Numbers the distinct sources.
static uint32_t number_sources(pm_attention_view *const views[3], const pm_strides *const seen[3],
                               uint32_t *inputs)
{
    uint32_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        uint32_t at = 0;
        while (at < count && inputs[at] != seen[i]->source)
            at++;
        inputs[at] = seen[i]->source;
        views[i]->source = at;
        count = at == count ? count + 1 : count;
    }
    return count;
}

// Whether views of one source have nothing in common. Both together are one view with an axis more, of two
// places as far apart as they are; nothing is in it twice when each axis steps over all that the finer ones
// span. A gradient would have to add up what is seen twice.
static bool are_apart(const pm_attention *a, const pm_attention_view *v, const pm_attention_view *w)
{
    int64_t step[PM_MAX_RANK + 1], count[PM_MAX_RANK + 1], span = a->depth > a->width ? a->depth : a->width;
    uint32_t axes = 0;
    if (v->source != w->source)
        return true;
    if (v->row_stride != w->row_stride || memcmp(v->stride, w->stride, sizeof v->stride) != 0)
        return false;
    for (uint32_t d = 0; d < a->axes; d++) {
        step[axes] = v->stride[d];
        count[axes++] = a->extent[d];
    }
    step[axes] = v->row_stride;
    count[axes++] = a->queries > a->keys ? a->queries : a->keys;
    step[axes] = v->offset < w->offset ? w->offset - v->offset : v->offset - w->offset;
    count[axes++] = 2;
    for (uint32_t left = axes; left > 0; left--) {
        uint32_t finest = 0;
        for (uint32_t d = 1; d < left; d++)
            finest = count[d] > 1 && (step[d] < step[finest] || count[finest] == 1) ? d : finest;
        if (count[finest] > 1 && step[finest] < span)
            return false;
        span += count[finest] > 1 ? step[finest] * (count[finest] - 1) : 0;
        step[finest] = step[left - 1];
        count[finest] = count[left - 1];
    }
    return true;
}

static pm_status make(pm_fusing *f, const finding *found, const pm_attention *a, const uint32_t *sources,
                      uint32_t count)
{
    pm_graph *p = f->program;
    const pm_node *last = &p->nodes[found->last];
    const pm_tensor y = p->values[last->outputs[0]].tensor;
    uint32_t inputs[4], outputs[2] = {last->outputs[0], PM_NO_VALUE};
    pm_attribute attributes[9];
    memcpy(inputs, sources, count * sizeof *inputs);
    inputs[count] = found->mask;
    pm_tensor shares = p->values[p->nodes[found->mixing].inputs[0]].tensor;
    shares.data = NULL;
    pm_status status = f->training ? pm_graph_add_value(p, NULL, &shares, &outputs[1]) : pm_ok();
    if (status.code == PM_OK)
        status = pm_attention_write(a, p->region, attributes);
    const int64_t *shape = pm_region_copy(p->region, y.shape, y.rank * sizeof *shape);
    attributes[5] = pm_attribute_ints("shape", shape, y.rank);
    attributes[6] = pm_attribute_float("scale", found->scale);
    attributes[7] = pm_attribute_float("low", found->low);
    attributes[8] = pm_attribute_int("mask", found->kind);
    const uint32_t *in = pm_region_copy(p->region, inputs, sizeof inputs);
    const uint32_t *out = pm_region_copy(p->region, outputs, sizeof outputs);
    const pm_attribute *kept = pm_region_copy(p->region, attributes, sizeof attributes);
    if (status.code != PM_OK || !shape || !in || !out || !kept)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "attention") : status;
    p->nodes[found->last] = (pm_node){.op = pm_operator_newest(PM_DOMAIN, "Attention"),
                                      .name = p->nodes[found->mixing].name,
                                      .inputs = in,
                                      .input_count = count + (found->kind != PM_ATTENTION_FREE),
                                      .outputs = out,
                                      .output_count = f->training ? 2 : 1,
                                      .attributes = kept,
                                      .attribute_count = sizeof attributes / sizeof attributes[0]};
    return status;
}

// What was between the sources and attention may be needed no more.
static void mark(pm_fusing *f, const finding *found, uint32_t softmax, const pm_strides *const seen[3])
{
    const pm_graph *p = f->program;
    const pm_node *products = &p->nodes[found->products], *mixing = &p->nodes[found->mixing];
    const uint32_t scores = products->outputs[0];
    const uint32_t values[] = {products->inputs[0], products->inputs[1], mixing->inputs[1]};
    for (size_t i = 0; i < 3; i++)
        pm_strides_mark(f, values[i], seen[i]->source);
    f->inside[found->products] = f->inside[softmax] = true;
    f->inside[found->mixing] = found->last != found->mixing;
    for (uint32_t node = f->reader[scores]; node != softmax; node = f->reader[p->nodes[node].outputs[0]])
        f->inside[node] = true;
}

pm_status pm_fuse_attention(pm_fusing *f, uint32_t softmax)
{
    finding found;
    if (!find(f, softmax, &found))
        return pm_ok();
    const pm_graph *p = f->program;
    const pm_node *products = &p->nodes[found.products], *mixing = &p->nodes[found.mixing];
    const pm_tensor *scores = &p->values[products->outputs[0]].tensor;
    const uint32_t rank = scores->rank, rows = rank - 2, columns = rank - 1;
    const pm_strides q = pm_strides_find(f, products->inputs[0], columns),
                     k = pm_strides_find(f, products->inputs[1], rows),
                     v = pm_strides_find(f, mixing->inputs[1], columns);
    pm_attention a = {.axes = rows, .queries = scores->shape[rows], .keys = scores->shape[columns]};
    uint32_t sources[3];
    if (scores->type != PM_TYPE_F32 || scores->count == 0 || !view_of(&q, rows, columns, scores, &a.query) ||
        !view_of(&k, columns, rows, scores, &a.key) || !view_of(&v, rows, columns, scores, &a.value))
        return pm_ok();
    memcpy(a.extent, scores->shape, rows * sizeof *a.extent);
    a.depth = q.extent[columns];
    a.width = v.extent[columns];
    const uint32_t count = number_sources((pm_attention_view *const[]){&a.query, &a.key, &a.value},
                                          (const pm_strides *const[]){&q, &k, &v}, sources);
    const bool apart = are_apart(&a, &a.query, &a.key) && are_apart(&a, &a.key, &a.value) &&
                       are_apart(&a, &a.query, &a.value);
    if (a.depth == 0 || a.width == 0 || (f->training && !apart))
        return pm_ok();
    place_output(f, &found, &a);
    mark(f, &found, softmax, (const pm_strides *const[]){&q, &k, &v});
    return make(f, &found, &a, sources, count);
}
