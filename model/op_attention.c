// Attention and its gradient: products on panels that read queries, keys and values where they lie, a block
// of queries at a time, without what the mask hides.
#include "model/attention.h"

#include "model/compose.h"
#include "model/task.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 16 }; // queries, or keys, that are taken together

static const pm_attribute_spec ATTENTION[] = {{"sizes", PM_ATTRIBUTE_INTS},  {"query", PM_ATTRIBUTE_INTS},
                                              {"key", PM_ATTRIBUTE_INTS},    {"value", PM_ATTRIBUTE_INTS},
                                              {"y", PM_ATTRIBUTE_INTS},      {"shape", PM_ATTRIBUTE_INTS},
                                              {"scale", PM_ATTRIBUTE_FLOAT}, {"low", PM_ATTRIBUTE_FLOAT},
                                              {"mask", PM_ATTRIBUTE_INT},    {0}};

// --- attributes

static pm_status write_view(const pm_attention_view *v, uint32_t axes, const char *name, pm_region *region,
                            pm_attribute *attribute)
{
    int64_t list[PM_ATTENTION_LIST] = {v->source, v->offset};
    memcpy(list + 2, v->stride, axes * sizeof *list);
    list[2 + axes] = v->row_stride;
    const int64_t *kept = pm_region_copy(region, list, (axes + 3) * sizeof *list);
    *attribute = pm_attribute_ints(name, kept, axes + 3);
    return kept ? pm_ok() : pm_fail(PM_NO_MEMORY, "attention");
}

pm_status pm_attention_write(const pm_attention *a, pm_region *region, pm_attribute *attributes)
{
    int64_t sizes[PM_ATTENTION_AXES + 5] = {a->axes};
    memcpy(sizes + 1, a->extent, a->axes * sizeof *sizes);
    const int64_t matrix[] = {a->queries, a->keys, a->depth, a->width};
    memcpy(sizes + 1 + a->axes, matrix, sizeof matrix);
    const int64_t *kept = pm_region_copy(region, sizes, (a->axes + 5) * sizeof *sizes);
    pm_status status = kept ? pm_ok() : pm_fail(PM_NO_MEMORY, "attention");
    attributes[0] = pm_attribute_ints("sizes", kept, a->axes + 5);
    if (status.code == PM_OK)
        status = write_view(&a->query, a->axes, "query", region, &attributes[1]);
    if (status.code == PM_OK)
        status = write_view(&a->key, a->axes, "key", region, &attributes[2]);
    if (status.code == PM_OK)
        status = write_view(&a->value, a->axes, "value", region, &attributes[3]);
    if (status.code == PM_OK)
        status = write_view(&a->y, a->axes, "y", region, &attributes[4]);
    return status;
}

static pm_attention_view read_view(const pm_node *node, const char *name, uint32_t axes)
{
    uint32_t count = 0;
    const int64_t *list = pm_node_ints(node, name, &count);
    pm_attention_view v = {.source = list[0], .offset = list[1], .row_stride = list[2 + axes]};
    memcpy(v.stride, list + 2, axes * sizeof *list);
    return v;
}

pm_attention pm_attention_read(const pm_node *node)
{
    uint32_t count = 0;
    const int64_t *sizes = pm_node_ints(node, "sizes", &count), axes = sizes[0], *matrix = sizes + 1 + axes;
    pm_attention a = {.axes = (uint32_t)axes,
                      .queries = matrix[0],
                      .keys = matrix[1],
                      .depth = matrix[2],
                      .width = matrix[3],
                      .query = read_view(node, "query", (uint32_t)axes),
                      .key = read_view(node, "key", (uint32_t)axes),
                      .value = read_view(node, "value", (uint32_t)axes),
                      .y = read_view(node, "y", (uint32_t)axes)};
    memcpy(a.extent, sizes + 1, (size_t)axes * sizeof *sizes);
    return a;
}

// --- planning

// Matrices of which each row begins at a place of its own. As the right operand of a product they are read in
// whole panels: in place where their columns are such, else from a copy.
typedef struct matrix {
    size_t rows, columns;
    const size_t *places; // (rows)
    size_t padded;        // columns of the copy; 0: none is needed
    const size_t *copied; // (rows): places in the copy
} matrix;

typedef struct attention {
    pm_attention a;
    size_t lead, queries, keys, depth, width; // lead: matrices of a lane
    uint32_t sources;                         // inputs before the mask
    float scale, low;
    pm_attention_mask kind;
    matrix query, key, value, y;
    const size_t *turned; // (the larger of D and E): rows of a panel of keys or values turned
    const size_t *shares; // (T): rows of shares
    const size_t *along;  // (S): 0, 1, 2 ...
    size_t score_count, turned_count, copy_count; // floats of scratch
    bool covered[3];                              // views leave nothing of the source out; gradient
    // Of one call, in scratch:
    float *scores, *turned_room, *copies;
    float *mask;        // (T, S), added; NULL: nothing is
    uint32_t *visible;  // (T): keys from here on are hidden; NULL: none
    uint32_t *learning; // (T): the same where queries that see nothing have no gradient
    size_t *first;      // (blocks of keys): the first query that sees any
} attention;

static const size_t *places_by(pm_region *region, size_t count, size_t step)
{
    size_t *places = pm_region_alloc(region, count * sizeof *places);
    for (size_t i = 0; places && i < count; i++)
        places[i] = i * step;
    return places;
}

static matrix matrix_of(const pm_task *task, size_t rows, size_t columns, const pm_attention_view *v)
{
    const size_t panel = task->kernels->panel;
    matrix m = {rows, columns, places_by(task->region, rows, (size_t)v->row_stride), 0, NULL};
    m.padded = columns % panel == 0 ? 0 : (columns + panel - 1) / panel * panel;
    m.copied = places_by(task->region, rows, m.padded);
    return m;
}

static bool is_planned(const attention *p)
{
    return p->query.places && p->key.places && p->value.places && p->y.places && p->turned && p->shares &&
           p->along;
}

static pm_status plan_views(pm_task *task, attention *p)
{
    const size_t panel = task->kernels->panel, wide = p->depth > p->width ? p->depth : p->width;
    p->query = matrix_of(task, p->queries, p->depth, &p->a.query);
    p->key = matrix_of(task, p->keys, p->depth, &p->a.key);
    p->value = matrix_of(task, p->keys, p->width, &p->a.value);
    p->y = matrix_of(task, p->queries, p->width, &p->a.y);
    p->turned = places_by(task->region, wide, panel);
    p->shares = places_by(task->region, p->queries, p->keys);
    p->along = places_by(task->region, p->keys, 1);
    p->turned_count = (p->keys + panel - 1) / panel * panel * wide;
    return is_planned(p) ? pm_ok() : pm_fail(PM_NO_MEMORY, "a task");
}

static pm_status plan(pm_task *task, attention **made)
{
    attention *p = *made = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    *p = (attention){.a = pm_attention_read(task->node),
                     .lead = 1,
                     .scale = pm_node_float(task->node, "scale", 1),
                     .low = pm_node_float(task->node, "low", 0),
                     .kind = (pm_attention_mask)pm_node_int(task->node, "mask", PM_ATTENTION_FREE)};
    p->queries = (size_t)p->a.queries;
    p->keys = (size_t)p->a.keys;
    p->depth = (size_t)p->a.depth;
    p->width = (size_t)p->a.width;
    const pm_attention_view *views[] = {&p->a.query, &p->a.key, &p->a.value};
    for (size_t i = 0; i < 3; i++)
        p->sources = views[i]->source >= p->sources ? (uint32_t)views[i]->source + 1 : p->sources;
    for (uint32_t d = 0; d < p->a.axes; d++)
        p->lead *= (size_t)p->a.extent[d];
    task->whole = true;
    for (uint32_t i = 0; i < task->node->input_count; i++)
        task->whole = task->whole && ((p->kind && i == p->sources) || !task->shared[i]);
    task->detail = p;
    return plan_views(task, p);
}

static size_t blocks_of(const attention *p)
{
    return (p->keys + BLOCK - 1) / BLOCK;
}

static size_t scratch_of(const attention *p)
{
    const size_t mask = p->kind ? p->queries * p->keys : 0;
    return blocks_of(p) * sizeof(size_t) + 2 * p->queries * sizeof(uint32_t) +
           (p->score_count + p->turned_count + p->copy_count + mask) * sizeof(float);
}

// Without an output for them, shares live as long as a block of queries.
static pm_status plan_attention(pm_task *task)
{
    attention *p;
    pm_status status = plan(task, &p);
    if (status.code != PM_OK)
        return status;
    p->score_count = BLOCK * p->keys;
    p->copy_count = p->value.rows * p->value.padded;
    task->scratch_bytes = scratch_of(p);
    return status;
}

static pm_status plan_attention_grad(pm_task *task)
{
    attention *p;
    pm_status status = plan(task, &p);
    if (status.code != PM_OK)
        return status;
    const matrix *seen[] = {&p->query, &p->key, &p->value};
    const pm_attention_view *views[] = {&p->a.query, &p->a.key, &p->a.value};
    for (uint32_t s = 0; s < p->sources; s++) {
        size_t count = 0;
        for (size_t i = 0; i < 3; i++)
            count += views[i]->source == s ? p->lead * seen[i]->rows * seen[i]->columns : 0;
        p->covered[s] = count == task->in[s]->count;
    }
    p->copy_count = p->query.rows * p->query.padded + p->key.rows * p->key.padded + p->y.rows * p->y.padded;
    p->score_count = p->queries * p->keys;
    task->scratch_bytes = scratch_of(p);
    return status;
}

// --- running

// The mask as floats; what it hides is PM_ATTENTION_HIDES or lower.
static void load_mask(const pm_task *task, const attention *p, const void *given)
{
    const pm_tensor *m = task->in[p->sources];
    const size_t columns = m->rank > 0 && m->shape[m->rank - 1] > 1 ? 1 : 0;
    const size_t rows = m->rank > 1 && m->shape[m->rank - 2] > 1 ? (size_t)m->shape[m->rank - 1] : 0;
    for (size_t t = 0; t < p->queries; t++)
        for (size_t s = 0; s < p->keys; s++) {
            const size_t at = t * rows + s * columns;
            float *to = &p->mask[t * p->keys + s];
            if (p->kind == PM_ATTENTION_ADDED)
                *to = ((const float *)given)[at];
            else
                *to = (((const uint8_t *)given)[at] != 0) == (p->kind == PM_ATTENTION_SHOWING) ? 0 : p->low;
        }
}

// Of a mask that hides, in each row, just the keys behind a point, nothing needs to be added. Who sees
// nothing sees all alike.
static void read_mask(attention *p)
{
    bool adds = false;
    for (size_t t = 0; t < p->queries; t++) {
        const float *row = p->mask + t * p->keys;
        p->visible[t] = 0;
        for (size_t s = 0; s < p->keys; s++)
            p->visible[t] = row[s] > PM_ATTENTION_HIDES ? (uint32_t)s + 1 : p->visible[t];
        p->learning[t] = p->visible[t];
        if (p->visible[t] == 0) {
            p->visible[t] = (uint32_t)p->keys;
            p->learning[t] = p->kind == PM_ATTENTION_ADDED ? p->visible[t] : 0;
        }
        for (size_t s = 0; s < p->visible[t]; s++)
            adds = adds || row[s] != 0;
    }
    p->mask = adds ? p->mask : NULL;
}

static size_t first_to_see(const attention *p, size_t key)
{
    size_t t = 0;
    while (p->visible && t < p->queries && p->visible[t] <= key)
        t++;
    return t;
}

// The task's plan with the scratch and the mask of a call.
static attention enter(const pm_task *task, const pm_call *call)
{
    attention p = *(const attention *)task->detail;
    p.first = call->scratch;
    p.scores = (float *)(void *)(p.first + blocks_of(&p));
    p.turned_room = p.scores + p.score_count;
    p.copies = p.turned_room + p.turned_count;
    if (p.kind) {
        p.mask = p.copies + p.copy_count;
        p.visible = (uint32_t *)(void *)(p.mask + p.queries * p.keys);
        p.learning = p.visible + p.queries;
        load_mask(task, &p, call->in[p.sources]);
        read_mask(&p);
    }
    for (size_t b = 0; b < blocks_of(&p); b++)
        p.first[b] = first_to_see(&p, b * BLOCK);
    return p;
}

// What a product reads on its right.
typedef struct operand {
    const float *b;
    const size_t *offsets;
    size_t stride;
} operand;

// Columns of m, the rows of a matrix; copies go to *room, which moves on.
static operand right_of(const pm_task *task, const matrix *m, const float *x, float **room)
{
    const size_t panel = task->kernels->panel;
    float *copy = *room;
    if (!m->padded)
        return (operand){x, m->places, panel};
    for (size_t r = 0; r < m->rows; r++) {
        memcpy(copy + m->copied[r], x + m->places[r], m->columns * sizeof *copy);
        memset(copy + m->copied[r] + m->columns, 0, (m->padded - m->columns) * sizeof *copy);
    }
    *room += m->rows * m->padded;
    return (operand){copy, m->copied, panel};
}

// The matrix turned over, (columns, rows), in panels of rows.
static operand turned(const pm_task *task, const attention *p, const matrix *m, const float *x, float *room)
{
    const size_t panel = task->kernels->panel, count = m->columns * panel;
    const size_t stride = m->rows > 1 ? m->places[1] : m->columns;
    for (size_t r = 0, at = 0; r < m->rows; r += panel, at += count)
        task->kernels->pack_panel(x + m->places[r], m->rows - r < panel ? m->rows - r : panel, m->columns,
                                  stride, room + at);
    return (operand){room, p->turned, count};
}

// Keys that any of count queries from t on sees; to compute with those of the last panel is no more work.
static size_t seen_by(const attention *p, size_t t, size_t count)
{
    size_t most = p->visible ? 0 : p->keys;
    for (size_t i = t; p->visible && i < t + count; i++)
        most = p->visible[i] > most ? p->visible[i] : most;
    return most;
}

static size_t whole_panels(const pm_task *task, const attention *p, size_t columns)
{
    const size_t panel = task->kernels->panel, whole = (columns + panel - 1) / panel * panel;
    return whole < p->keys ? whole : p->keys;
}

static pm_attend rows_from(const attention *p, size_t t, size_t count)
{
    return (pm_attend){.rows = count,
                       .columns = p->keys,
                       .stride = p->keys,
                       .scale = p->scale,
                       .mask = p->mask ? p->mask + t * p->keys : NULL,
                       .mask_stride = p->keys,
                       .visible = p->visible ? p->visible + t : NULL};
}

// The matrices of one leading index; gradients that nobody wants are NULL.
typedef struct head {
    const float *query, *key, *value, *dy;
    float *y, *shares, *dquery, *dkey, *dvalue;
} head;

static void run_head(const pm_task *task, const attention *p, const head *h)
{
    float *room = p->copies;
    const operand keys = turned(task, p, &p->key, h->key, p->turned_room);
    const operand values = right_of(task, &p->value, h->value, &room);
    for (size_t t = 0; t < p->queries; t += BLOCK) {
        const size_t count = p->queries - t < BLOCK ? p->queries - t : BLOCK, seen = seen_by(p, t, count);
        float *shares = h->shares ? h->shares + t * p->keys : p->scores;
        const pm_attend rows = rows_from(p, t, count);
        pm_panel product = {.rows = count,
                            .columns = whole_panels(task, p, seen),
                            .depth = p->depth,
                            .a = h->query + p->query.places[t],
                            .a_offsets = p->query.places,
                            .b = keys.b,
                            .b_offsets = keys.offsets,
                            .b_stride = keys.stride,
                            .c = shares,
                            .c_stride = p->keys};
        task->kernels->panel_product(&product);
        task->kernels->attend(&rows, shares);
        product = (pm_panel){.rows = count,
                             .columns = p->width,
                             .depth = seen,
                             .a = shares,
                             .a_offsets = p->shares,
                             .b = values.b,
                             .b_offsets = values.offsets,
                             .b_stride = values.stride,
                             .c = h->y + p->y.places[t],
                             .c_stride = (size_t)p->a.y.row_stride};
        task->kernels->panel_product(&product);
    }
}

// What the scores get, and the queries of it.
static void run_head_queries(const pm_task *task, const attention *p, const head *h, const operand *keys)
{
    const operand values = turned(task, p, &p->value, h->value, p->turned_room);
    for (size_t t = 0; t < p->queries; t += BLOCK) {
        const size_t count = p->queries - t < BLOCK ? p->queries - t : BLOCK, seen = seen_by(p, t, count);
        float *scores = p->scores + t * p->keys;
        pm_attend rows = rows_from(p, t, count);
        rows.visible = p->learning ? p->learning + t : NULL;
        pm_panel product = {.rows = count,
                            .columns = whole_panels(task, p, seen),
                            .depth = p->width,
                            .a = h->dy + p->y.places[t],
                            .a_offsets = p->y.places,
                            .b = values.b,
                            .b_offsets = values.offsets,
                            .b_stride = values.stride,
                            .c = scores,
                            .c_stride = p->keys};
        task->kernels->panel_product(&product);
        task->kernels->attend_backward(&rows, h->shares + t * p->keys, scores);
        if (!h->dquery)
            continue;
        product = (pm_panel){.rows = count,
                             .columns = p->depth,
                             .depth = seen,
                             .a = scores,
                             .a_offsets = p->shares,
                             .b = keys->b,
                             .b_offsets = keys->offsets,
                             .b_stride = keys->stride,
                             .c = h->dquery + p->query.places[t],
                             .c_stride = (size_t)p->a.query.row_stride};
        task->kernels->panel_product(&product);
    }
}

// y (S, columns) = x (T, S) turned over, times b (T, columns); from the first query on that sees any of a
// block.
static void turned_product(const pm_task *task, const attention *p, const float *x, const operand *b,
                           const matrix *m, float *y, size_t stride)
{
    for (size_t s = 0; s < p->keys && y; s += BLOCK) {
        const size_t first = p->first[s / BLOCK];
        const pm_panel product = {.rows = p->keys - s < BLOCK ? p->keys - s : BLOCK,
                                  .columns = m->columns,
                                  .depth = p->queries - first,
                                  .a = x + s,
                                  .a_offsets = p->along,
                                  .a_steps = p->shares + first,
                                  .b = b->b,
                                  .b_offsets = b->offsets + first,
                                  .b_stride = b->stride,
                                  .c = y + m->places[s],
                                  .c_stride = stride};
        task->kernels->panel_product(&product);
    }
}

static void run_head_grad(const pm_task *task, const attention *p, const head *h)
{
    float *room = p->copies;
    const operand queries = right_of(task, &p->query, h->query, &room);
    const operand keys = right_of(task, &p->key, h->key, &room);
    const operand dy = right_of(task, &p->y, h->dy, &room);
    run_head_queries(task, p, h, &keys);
    turned_product(task, p, p->scores, &queries, &p->key, h->dkey, (size_t)p->a.key.row_stride);
    turned_product(task, p, h->shares, &dy, &p->value, h->dvalue, (size_t)p->a.value.row_stride);
}

// Where the matrix of a leading index begins.
static size_t place_of(const attention *p, const pm_attention_view *v, size_t index)
{
    size_t place = (size_t)v->offset;
    for (uint32_t d = p->a.axes; d-- > 0; index /= (size_t)p->a.extent[d])
        place += index % (size_t)p->a.extent[d] * (size_t)v->stride[d];
    return place;
}

static const float *read_at(const pm_task *task, const pm_call *call, uint32_t input, size_t lane,
                            size_t place)
{
    return (const float *)call->in[input] + lane * task->in[input]->count + place;
}

static float *write_at(const pm_task *task, const pm_call *call, uint32_t output, size_t lane, size_t place)
{
    float *to = call->out[output];
    return to ? to + lane * task->out[output]->count + place : NULL;
}

static void run_attention(const pm_task *task, const pm_call *call)
{
    const attention p = enter(task, call);
    float *shares = task->node->output_count > 1 ? call->out[1] : NULL;
    const pm_attention_view *q = &p.a.query, *k = &p.a.key, *v = &p.a.value;
    for (size_t i = 0; i < call->lanes * p.lead; i++) {
        const size_t lane = i / p.lead, at = i % p.lead;
        const head h = {.query = read_at(task, call, (uint32_t)q->source, lane, place_of(&p, q, at)),
                        .key = read_at(task, call, (uint32_t)k->source, lane, place_of(&p, k, at)),
                        .value = read_at(task, call, (uint32_t)v->source, lane, place_of(&p, v, at)),
                        .y = write_at(task, call, 0, lane, place_of(&p, &p.a.y, at)),
                        .shares = shares ? shares + i * p.queries * p.keys : NULL};
        run_head(task, &p, &h);
    }
}

// (sources, mask where there is one, shares, dy) to the sources' gradients.
static void run_attention_grad(const pm_task *task, const pm_call *call)
{
    const attention p = enter(task, call);
    const uint32_t dy = task->node->input_count - 1;
    const pm_attention_view *q = &p.a.query, *k = &p.a.key, *v = &p.a.value;
    for (uint32_t s = 0; s < p.sources; s++)
        if (!p.covered[s] && call->out[s])
            memset(call->out[s], 0, call->lanes * task->in[s]->count * sizeof(float));
    for (size_t i = 0; i < call->lanes * p.lead; i++) {
        const size_t lane = i / p.lead, at = i % p.lead;
        const size_t query = place_of(&p, q, at), key = place_of(&p, k, at), value = place_of(&p, v, at);
        const float *shares = read_at(task, call, dy - 1, 0, i * p.queries * p.keys);
        const head h = {.query = read_at(task, call, (uint32_t)q->source, lane, query),
                        .key = read_at(task, call, (uint32_t)k->source, lane, key),
                        .value = read_at(task, call, (uint32_t)v->source, lane, value),
                        .dy = read_at(task, call, dy, lane, place_of(&p, &p.a.y, at)),
                        .shares = (float *)(uintptr_t)shares, // only read here
                        .dquery = write_at(task, call, (uint32_t)q->source, lane, query),
                        .dkey = write_at(task, call, (uint32_t)k->source, lane, key),
                        .dvalue = write_at(task, call, (uint32_t)v->source, lane, value)};
        run_head_grad(task, &p, &h);
    }
}

// --- shapes and the rule

static pm_status check_types(const pm_shapes *s, const pm_attention *a)
{
    const int64_t sources[] = {a->query.source, a->key.source, a->value.source};
    for (size_t i = 0; i < 3; i++)
        if (s->in[sources[i]]->tensor.type != PM_TYPE_F32)
            return pm_fail(PM_UNSUPPORTED, "type %s, built for float32",
                           pm_type_name(s->in[sources[i]]->tensor.type));
    return pm_ok();
}

static pm_status infer_attention(pm_shapes *s)
{
    const pm_attention a = pm_attention_read(s->node);
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(s->node, "shape", &rank);
    s->out[0] = (pm_tensor){.type = PM_TYPE_F32, .rank = rank};
    memcpy(s->out[0].shape, shape, rank * sizeof *shape);
    if (s->node->output_count > 1) {
        s->out[1] = (pm_tensor){.type = PM_TYPE_F32, .rank = a.axes + 2};
        memcpy(s->out[1].shape, a.extent, a.axes * sizeof *a.extent);
        s->out[1].shape[a.axes] = a.queries;
        s->out[1].shape[a.axes + 1] = a.keys;
    }
    return check_types(s, &a);
}

static pm_status infer_attention_grad(pm_shapes *s)
{
    for (uint32_t i = 0; i < s->node->output_count; i++) {
        s->out[i] = s->in[i]->tensor;
        s->out[i].data = NULL;
    }
    return pm_ok();
}

static pm_status gradient_attention(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    uint32_t inputs[6], made[3] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    const uint32_t count = node->input_count, sources = count - (pm_node_int(node, "mask", 0) != 0);
    memcpy(inputs, node->inputs, count * sizeof *inputs);
    inputs[count] = node->outputs[1];
    inputs[count + 1] = pm_gradient_of(g, node, 0);
    c.status = pm_recipe_add(c.program, node,
                             (pm_recipe){.domain = PM_DOMAIN,
                                         .op = "AttentionGrad",
                                         .inputs = inputs,
                                         .input_count = count + 2,
                                         .attributes = node->attributes,
                                         .attribute_count = node->attribute_count,
                                         .output_count = sources},
                             made);
    for (uint32_t i = 0; i < sources; i++)
        pm_compose_give(&c, g, i, made[i]);
    return c.status;
}

const pm_operator PM_FAMILY_ATTENTION[] = {
    {.domain = PM_DOMAIN,
     .name = "Attention",
     .min_inputs = 1,
     .max_inputs = 4,
     .max_outputs = 2,
     .attributes = ATTENTION,
     .infer = infer_attention,
     .gradient = gradient_attention,
     .plan = plan_attention,
     .run = run_attention},
    {.domain = PM_DOMAIN,
     .name = "AttentionGrad",
     .min_inputs = 3,
     .max_inputs = 6,
     .max_outputs = 3,
     .attributes = ATTENTION,
     .infer = infer_attention_grad,
     .plan = plan_attention_grad,
     .run = run_attention_grad},
    {0},
};
