// Moves (see move.h), Transpose, which is one, and Concat.
#include "model/move.h"

#include "model/task.h"

#include <string.h>

enum { MAX_TABLE = 1 << 24, AXIS_HEAD = 4 };

static const pm_attribute_spec MOVE[] = {
    {"axes", PM_ATTRIBUTE_INTS}, {"input_shape", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec PERM[] = {{"perm", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec AXIS[] = {{"axis", PM_ATTRIBUTE_INT}, {0}};

pm_move pm_move_all(const pm_tensor *x)
{
    pm_move m = {.rank = x->rank};
    for (uint32_t d = 0; d < x->rank; d++)
        m.axes[d] = (pm_move_axis){.extent = x->shape[d], .step = (int64_t)pm_extent(x, d + 1, x->rank)};
    return m;
}

int64_t *pm_move_table(pm_compose *c, int64_t extent)
{
    if (c->status.code != PM_OK)
        return NULL;
    if (extent < 0 || extent > MAX_TABLE) {
        pm_compose_fail(c, pm_fail(PM_UNSUPPORTED, "an extent of %lld", (long long)extent));
        return NULL;
    }
    return pm_compose_room(c, (size_t)extent * sizeof(int64_t));
}

// Attribute "axes": for each axis extent, start, step, and 1 when extent offsets follow, else 0.
static pm_attribute write_axes(pm_compose *c, const pm_move *move)
{
    size_t count = 0;
    for (uint32_t d = 0; d < move->rank; d++)
        count += AXIS_HEAD + (move->axes[d].offsets ? (size_t)move->axes[d].extent : 0);
    int64_t *list = pm_region_alloc(c->program->region, count * sizeof *list), *at = list;
    if (!list) {
        pm_compose_fail(c, pm_fail(PM_NO_MEMORY, "a move"));
        return pm_attribute_ints("axes", NULL, 0);
    }
    for (uint32_t d = 0; d < move->rank; d++) {
        const pm_move_axis *a = &move->axes[d];
        const int64_t head[AXIS_HEAD] = {a->extent, a->start, a->step, a->offsets != NULL};
        memcpy(at, head, sizeof head);
        at += AXIS_HEAD;
        for (int64_t i = 0; a->offsets && i < a->extent; i++)
            *at++ = a->offsets[i];
    }
    return pm_attribute_ints("axes", list, (uint32_t)count);
}

pm_move pm_move_of(const pm_node *node)
{
    uint32_t count = 0;
    const int64_t *list = pm_node_ints(node, "axes", &count);
    pm_move m = {0};
    for (uint32_t at = 0; at + AXIS_HEAD <= count && m.rank < PM_MAX_RANK;) {
        pm_move_axis *a = &m.axes[m.rank++];
        *a = (pm_move_axis){list[at], list[at + 1], list[at + 2], NULL};
        at += AXIS_HEAD;
        if (list[at - 1]) {
            a->offsets = list + at;
            at += (uint32_t)a->extent;
        }
    }
    return m;
}

uint32_t pm_move_add(pm_compose *c, const pm_move *move, uint32_t x, uint32_t fill)
{
    const pm_tensor t = pm_compose_tensor(c, x);
    if (c->status.code != PM_OK)
        return PM_NO_VALUE;
    const pm_attribute attributes[] = {write_axes(c, move),
                                       pm_attribute_ints("input_shape", t.shape, t.rank)};
    return pm_compose_with(c, ".Move", (const uint32_t[]){x, fill}, fill == PM_NO_VALUE ? 1 : 2, attributes,
                           2);
}

uint32_t pm_compose_expand(pm_compose *c, uint32_t x, const int64_t *shape, uint32_t rank)
{
    const pm_tensor t = pm_compose_tensor(c, x);
    pm_move m = {.rank = rank};
    if (t.rank == rank && memcmp(t.shape, shape, rank * sizeof *shape) == 0)
        return x;
    for (uint32_t d = 0; d < rank; d++) {
        const uint32_t missing = rank - t.rank;
        const bool kept = d >= missing && t.shape[d - missing] == shape[d];
        m.axes[d].extent = shape[d];
        m.axes[d].step = kept ? (int64_t)pm_extent(&t, d - missing + 1, t.rank) : 0;
    }
    return pm_move_add(c, &m, x, PM_NO_VALUE);
}

// --- running

static pm_status infer_move(pm_shapes *s)
{
    const pm_move m = pm_move_of(s->node);
    s->out[0].type = s->in[0]->tensor.type;
    s->out[0].rank = m.rank;
    for (uint32_t d = 0; d < m.rank; d++)
        s->out[0].shape[d] = m.axes[d].extent;
    return pm_ok();
}

// The same move without axes of one element: they cost a round for each row.
static pm_move shorten(const pm_move *m)
{
    pm_move y = {0};
    int64_t start = 0;
    for (uint32_t d = 0; d < m->rank; d++)
        if (m->axes[d].extent == 1 && !m->axes[d].offsets)
            start += m->axes[d].start;
        else
            y.axes[y.rank++] = m->axes[d];
    for (uint32_t d = 0; d < y.rank; d++)
        if (!y.axes[d].offsets) {
            y.axes[d].start += start;
            return y;
        }
    return start == 0 ? y : *m;
}

static pm_status plan_move(pm_task *task)
{
    const pm_move whole = pm_move_of(task->node), m = shorten(&whole);
    task->detail = pm_region_copy(task->region, &m, sizeof m);
    return task->detail ? pm_ok() : pm_fail(PM_NO_MEMORY, "a task");
}

static int64_t offset_of(const pm_move_axis *a, int64_t i)
{
    return a->offsets ? a->offsets[i] : a->start + i * a->step;
}

#define COPY(type)                                                                                           \
    do {                                                                                                     \
        const type *x = from;                                                                                \
        type *y = to;                                                                                        \
        const type filler = fill ? *(const type *)fill : (type)0;                                            \
        for (int64_t i = 0; i < a->extent; i++) {                                                            \
            const int64_t at = offset_of(a, i);                                                              \
            y[i] = at == PM_MOVE_FILL ? filler : x[base + at];                                               \
        }                                                                                                    \
    } while (0)

// The last axis: base is the sum of the offsets before it.
static void copy_row(const pm_move_axis *a, int64_t base, const void *from, const void *fill, size_t size,
                     void *to)
{
    if (!a->offsets && a->step == 1) {
        memcpy(to, (const char *)from + (size_t)(base + a->start) * size, (size_t)a->extent * size);
        return;
    }
    if (size == 1)
        COPY(uint8_t);
    else if (size == 2)
        COPY(uint16_t);
    else if (size == 4)
        COPY(uint32_t);
    else
        COPY(uint64_t);
}

static void fill_row(int64_t extent, const void *fill, size_t size, char *to)
{
    for (int64_t i = 0; i < extent; i++, to += size) {
        if (fill)
            memcpy(to, fill, size);
        else
            memset(to, 0, size);
    }
}

// Counts through all axes but the last; false at the end. *base: the sum of their offsets, or PM_MOVE_FILL.
typedef struct rows {
    const pm_move *move;
    int64_t index[PM_MAX_RANK];
} rows;

static int64_t base_of(const rows *r)
{
    int64_t base = 0;
    for (uint32_t d = 0; d + 1 < r->move->rank; d++) {
        const int64_t offset = offset_of(&r->move->axes[d], r->index[d]);
        if (offset == PM_MOVE_FILL)
            return PM_MOVE_FILL;
        base += offset;
    }
    return base;
}

static bool next_row(rows *r)
{
    for (uint32_t d = r->move->rank - 1; d-- > 0;) {
        if (++r->index[d] < r->move->axes[d].extent)
            return true;
        r->index[d] = 0;
    }
    return false;
}

static void run_move(const pm_task *task, const pm_call *call)
{
    const pm_move *m = task->detail;
    const size_t size = pm_type_size(task->out[0]->type);
    const void *fill = task->node->input_count > 1 ? call->in[1] : NULL;
    char *to = call->out[0];
    if (task->out[0]->count == 0)
        return;
    if (m->rank == 0) {
        memcpy(to, call->in[0], size);
        return;
    }
    const pm_move_axis *last = &m->axes[m->rank - 1];
    rows r = {.move = m};
    do {
        const int64_t base = base_of(&r);
        if (base == PM_MOVE_FILL)
            fill_row(last->extent, fill, size, to);
        else
            copy_row(last, base, call->in[0], fill, size, to);
        to += (size_t)last->extent * size;
    } while (next_row(&r));
}

// dx from dy: each element of dy is added where it came from, in the order of dy.
static pm_status infer_move_back(pm_shapes *s)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(s->node, "input_shape", &rank);
    s->out[0] = (pm_tensor){.type = PM_TYPE_F32, .rank = rank};
    memcpy(s->out[0].shape, shape, rank * sizeof *shape);
    return pm_infer_float(s);
}

static void run_move_back(const pm_task *task, const pm_call *call)
{
    const pm_move *m = task->detail;
    const float *dy = call->in[0];
    float *dx = call->out[0];
    memset(dx, 0, task->out[0]->count * sizeof *dx);
    if (task->in[0]->count == 0)
        return;
    if (m->rank == 0) {
        dx[0] = dy[0];
        return;
    }
    const pm_move_axis *last = &m->axes[m->rank - 1];
    rows r = {.move = m};
    do {
        const int64_t base = base_of(&r);
        for (int64_t i = 0; base != PM_MOVE_FILL && i < last->extent; i++) {
            const int64_t at = offset_of(last, i);
            if (at != PM_MOVE_FILL)
                dx[base + at] += dy[i];
        }
        dy += last->extent;
    } while (next_row(&r));
}

static pm_status gradient_move(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t dy = pm_gradient_of(g, node, 0);
    pm_compose_give(&c, g, 0,
                    pm_compose_with(&c, ".MoveBack", &dy, 1, node->attributes, node->attribute_count));
    return c.status;
}

// --- Transpose

// The axes' order; the reverse one where none is given.
static pm_status read_order(const pm_node *node, uint32_t rank, uint32_t *order)
{
    uint32_t count = 0, seen = 0;
    const int64_t *perm = pm_node_ints(node, "perm", &count);
    if (perm && count != rank)
        return pm_fail(PM_INVALID, "perm has %u axes for rank %u", count, rank);
    for (uint32_t d = 0; d < rank; d++) {
        const int64_t axis = perm ? (perm[d] < 0 ? perm[d] + rank : perm[d]) : (int64_t)(rank - 1 - d);
        if (axis < 0 || axis >= (int64_t)rank || seen >> axis & 1)
            return pm_fail(PM_INVALID, "perm is no permutation of %u axes", rank);
        seen |= 1u << axis;
        order[d] = (uint32_t)axis;
    }
    return pm_ok();
}

static pm_status infer_transpose(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    uint32_t order[PM_MAX_RANK];
    pm_status status = read_order(s->node, x->rank, order);
    s->out[0].type = x->type;
    s->out[0].rank = x->rank;
    for (uint32_t d = 0; status.code == PM_OK && d < x->rank; d++)
        s->out[0].shape[d] = x->shape[order[d]];
    return status;
}

static pm_status plan_transpose(pm_task *task)
{
    const pm_move all = pm_move_all(task->in[0]);
    pm_move *m = pm_region_copy(task->region, &all, sizeof all);
    uint32_t order[PM_MAX_RANK];
    if (!m)
        return pm_fail(PM_NO_MEMORY, "a task");
    pm_status status = read_order(task->node, all.rank, order);
    for (uint32_t d = 0; status.code == PM_OK && d < all.rank; d++)
        m->axes[d] = all.axes[order[d]];
    task->detail = m;
    return status;
}

static pm_status gradient_transpose(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t rank = pm_compose_tensor(&c, node->inputs[0]).rank;
    uint32_t order[PM_MAX_RANK];
    int64_t inverse[PM_MAX_RANK];
    pm_compose_fail(&c, read_order(node, rank, order));
    for (uint32_t d = 0; d < rank; d++)
        inverse[order[d]] = d;
    pm_compose_give(&c, g, 0, pm_compose_transpose(&c, pm_gradient_of(g, node, 0), inverse));
    return c.status;
}

// --- Concat

static pm_status infer_concat(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    uint32_t axis = 0;
    pm_status status = pm_infer_axis(s, "axis", s->node->op->until ? 1 : INT64_MAX, x->rank, false, &axis);
    if (status.code != PM_OK)
        return status;
    s->out[0] = *x;
    s->out[0].data = NULL;
    for (uint32_t i = 1; i < s->node->input_count; i++) {
        const pm_tensor *t = s->in[i] ? &s->in[i]->tensor : NULL;
        if (!t)
            return pm_fail(PM_INVALID, "input %u is left out", i);
        bool fits = t->rank == x->rank && t->type == x->type;
        for (uint32_t d = 0; fits && d < x->rank; d++)
            fits = d == axis || t->shape[d] == x->shape[d];
        if (!fits)
            return pm_infer_refuse(s, i, "the first input's outside of the axis, and its type");
        s->out[0].shape[axis] += t->shape[axis];
    }
    return status;
}

static uint32_t concat_axis(const pm_node *node, uint32_t rank)
{
    const int64_t axis = pm_node_int(node, "axis", 1);
    return (uint32_t)(axis < 0 ? axis + rank : axis);
}

// Bytes of each input side by side in y.
typedef struct concat {
    size_t outer, *bytes; // (inputs)
} concat;

static pm_status plan_concat(pm_task *task)
{
    const pm_tensor *y = task->out[0];
    const uint32_t axis = concat_axis(task->node, y->rank);
    concat *p = pm_region_alloc(task->region, sizeof *p);
    if (p)
        *p = (concat){.outer = pm_extent(y, 0, axis),
                      .bytes = pm_region_alloc(task->region, task->node->input_count * sizeof *p->bytes)};
    if (!p || !p->bytes)
        return pm_fail(PM_NO_MEMORY, "a task");
    for (uint32_t i = 0; i < task->node->input_count; i++)
        p->bytes[i] = pm_extent(task->in[i], axis, y->rank) * pm_type_size(y->type);
    task->detail = p;
    return pm_ok();
}

static void run_concat(const pm_task *task, const pm_call *call)
{
    const concat *p = task->detail;
    char *to = call->out[0];
    for (size_t o = 0; o < p->outer; o++)
        for (uint32_t i = 0; i < task->node->input_count; to += p->bytes[i++])
            pm_copy_row(to, (const char *)call->in[i] + o * p->bytes[i], p->bytes[i]);
}

static pm_status gradient_concat(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t dy = pm_gradient_of(g, node, 0);
    const pm_tensor y = pm_compose_tensor(&c, dy);
    const uint32_t axis = concat_axis(node, y.rank);
    int64_t start = 0;
    for (uint32_t i = 0; i < node->input_count; i++) {
        const pm_tensor x = pm_compose_tensor(&c, node->inputs[i]);
        pm_move m = pm_move_all(&y);
        m.axes[axis].extent = x.shape[axis];
        m.axes[axis].start = start * m.axes[axis].step;
        start += x.shape[axis];
        if (pm_gradient_wants(g, node, i))
            pm_compose_give(&c, g, i, pm_move_add(&c, &m, dy, PM_NO_VALUE));
    }
    return c.status;
}

#define CONCAT(first, last)                                                                                  \
    {                                                                                                        \
        .domain = "", .name = "Concat", .since = first, .until = last, .min_inputs = 1,                      \
        .max_inputs = PM_MAX_NODE_VALUES, .max_outputs = 1, .attributes = AXIS, .infer = infer_concat,       \
        .gradient = gradient_concat, .plan = plan_concat, .run = run_concat                                  \
    }

const pm_operator PM_FAMILY_MOVE[] = {
    {.domain = PM_DOMAIN,
     .name = "Move",
     .min_inputs = 1,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = MOVE,
     .infer = infer_move,
     .gradient = gradient_move,
     .plan = plan_move,
     .run = run_move},
    {.domain = PM_DOMAIN,
     .name = "MoveBack",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = MOVE,
     .infer = infer_move_back,
     .plan = plan_move,
     .run = run_move_back},
    {.domain = "",
     .name = "Transpose",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = PERM,
     .infer = infer_transpose,
     .gradient = gradient_transpose,
     .plan = plan_transpose,
     .run = run_move},
    CONCAT(1, 3),
    CONCAT(4, 0),
    {0},
};
