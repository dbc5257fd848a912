#include "model/strides.h"

#include "model/move.h"

#include <string.h>

enum { STEPS_MAX = 16 };

static pm_strides whole(const pm_fusing *f, uint32_t value)
{
    const pm_tensor *t = &f->program->values[value].tensor;
    pm_strides s = {.source = value, .rank = t->rank};
    for (uint32_t d = 0; d < t->rank; d++) {
        s.extent[d] = t->shape[d];
        s.stride[d] = (int64_t)pm_extent(t, d + 1, t->rank);
    }
    return s;
}

// Sees s in another shape of as many elements; false where that takes more than strides. Axes of both shapes
// are taken together until they hold as many elements; those of s must follow each other then.
static bool reshape(pm_strides *s, const pm_tensor *to)
{
    pm_strides r = {.source = s->source, .rank = to->rank, .offset = s->offset};
    uint32_t from = 0, at = 0;
    for (uint32_t d = 0; d < to->rank; d++) {
        r.extent[d] = to->shape[d];
        r.stride[d] = 1;
    }
    while (at < to->rank) {
        uint32_t first_from = from, first_at = at;
        int64_t left = 1, right = r.extent[at++];
        while (left != right && (from < s->rank || at < to->rank)) {
            if (left < right && from < s->rank)
                left *= s->extent[from++];
            else if (left > right && at < to->rank)
                right *= r.extent[at++];
            else
                return false;
        }
        int64_t stride = 0; // of the innermost of the axes of s
        for (uint32_t d = from; d-- > first_from;) {
            if (s->extent[d] == 1)
                continue;
            if (stride != 0 && s->stride[d] != stride)
                return false;
            r.stride[at - 1] = stride == 0 ? s->stride[d] : r.stride[at - 1];
            stride = s->stride[d] * s->extent[d];
        }
        for (uint32_t d = at - 1; d-- > first_at;)
            r.stride[d] = r.stride[d + 1] * r.extent[d + 1];
    }
    *s = r;
    return true;
}

static bool transpose(pm_strides *s, const pm_node *node)
{
    uint32_t count = 0;
    const int64_t *perm = pm_node_ints(node, "perm", &count);
    const pm_strides from = *s;
    for (uint32_t d = 0; d < s->rank; d++) {
        const uint32_t axis = perm ? (uint32_t)perm[d] : s->rank - 1 - d;
        s->extent[d] = from.extent[axis];
        s->stride[d] = from.stride[axis];
    }
    return true;
}

// The axis of s along which a step of the move, in elements of a dense tensor of its shape, is a whole number
// (*times) of places without leaving it; rank where there is none.
static uint32_t axis_of_step(const pm_strides *s, const pm_move_axis *a, const int64_t *start, int64_t *times)
{
    int64_t dense = 1;
    for (uint32_t d = s->rank; d-- > 0; dense *= s->extent[d]) {
        *times = a->step / dense;
        if (a->step > 0 && a->step % dense == 0 && start[d] + *times * (a->extent - 1) < s->extent[d])
            return d;
    }
    return s->rank;
}

static bool move(pm_strides *s, const pm_node *node)
{
    const pm_move m = pm_move_of(node);
    pm_strides r = {.source = s->source, .rank = m.rank, .offset = s->offset};
    int64_t start[PM_MAX_RANK], first = 0;
    uint32_t used = 0;
    if (node->input_count != 1)
        return false;
    for (uint32_t d = 0; d < m.rank; d++) {
        if (m.axes[d].offsets)
            return false;
        first += m.axes[d].start;
    }
    for (uint32_t d = s->rank; d-- > 0; first /= s->extent[d]) {
        start[d] = first % s->extent[d];
        r.offset += start[d] * s->stride[d];
    }
    for (uint32_t d = 0; d < m.rank; d++) {
        int64_t times = 0;
        r.extent[d] = m.axes[d].extent;
        if (r.extent[d] == 1)
            continue;
        const uint32_t axis = axis_of_step(s, &m.axes[d], start, &times);
        if (axis == s->rank || (used >> axis & 1))
            return false;
        used |= 1u << axis;
        r.stride[d] = s->stride[axis] * times;
    }
    *s = r;
    return true;
}

static bool is_move(const pm_node *node)
{
    return pm_fusing_is(node, PM_DOMAIN, "Move");
}

static bool is_transpose(const pm_node *node)
{
    return pm_fusing_is(node, "", "Transpose");
}

static bool follow(const pm_fusing *f, pm_strides *s, const pm_node *node)
{
    const pm_tensor *to = &f->program->values[node->outputs[0]].tensor;
    return is_move(node) ? move(s, node) : is_transpose(node) ? transpose(s, node) : reshape(s, to);
}

// The nodes from the value back to what is no view, at most STEPS_MAX; returns how many.
static uint32_t steps_back(const pm_fusing *f, uint32_t value, uint32_t *steps)
{
    uint32_t count = 0;
    while (count < STEPS_MAX && value < f->values && f->producer[value] != PM_NOBODY) {
        const pm_node *node = &f->program->nodes[f->producer[value]];
        if (!(node->op->traits & PM_TRAIT_VIEW) && !is_move(node) && !is_transpose(node))
            break;
        steps[count++] = f->producer[value];
        value = node->inputs[0];
    }
    return count;
}

pm_strides pm_strides_find(const pm_fusing *f, uint32_t value, uint32_t unit)
{
    uint32_t steps[STEPS_MAX];
    for (uint32_t far = steps_back(f, value, steps); far > 0; far--) {
        pm_strides s = whole(f, f->program->nodes[steps[far - 1]].inputs[0]);
        bool seen = s.rank > 0 && f->program->values[s.source].tensor.count > 0;
        for (uint32_t i = far; i-- > 0 && seen;)
            seen = follow(f, &s, &f->program->nodes[steps[i]]);
        if (seen && (s.stride[unit] == 1 || s.extent[unit] == 1))
            return s;
    }
    return whole(f, value);
}

void pm_strides_mark(pm_fusing *f, uint32_t value, uint32_t source)
{
    while (value != source) {
        f->inside[f->producer[value]] = true;
        value = f->program->nodes[f->producer[value]].inputs[0];
    }
}
