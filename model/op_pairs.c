// Products of chosen pairs of a row's vectors (model/program_fuse_pairs.h): (rows, count, width) to (rows,
// pairs). A row at a time: the products of its vectors with those before them fit the nearest cache, and the
// pairs are picked there, the later vector first.
#include "model/compose.h"
#include "model/task.h"

#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};

// Pairs of which each lies after the one before it among the products.
typedef struct run {
    uint32_t place, count;
} run;

typedef struct pairs {
    size_t count, width;    // of a row's vectors
    size_t wide;            // count as whole panels
    bool in_place;          // the vectors are panels where they lie
    bool once;              // no place is there or back twice
    size_t pairs;           // of a row
    uint32_t *there, *back; // (pairs): places of i * j and of j * i among the products (count, wide)
    run *runs;              // (run_count): of the places there that follow each other
    size_t run_count;
    size_t products, vectors; // floats of scratch: products, then vectors or panels
} pairs;

static pm_status infer_pairs(pm_shapes *s)
{
    s->out[0] = (pm_tensor){.type = PM_TYPE_F32,
                            .rank = 2,
                            .shape = {s->in[0]->tensor.shape[0], (int64_t)s->in[1]->tensor.count}};
    return pm_ok();
}

static pm_status infer_pairs_back(pm_shapes *s)
{
    return pm_infer_same(s);
}

static size_t whole_panels(const pm_task *task, size_t columns)
{
    return (columns + task->kernels->panel - 1) / task->kernels->panel * task->kernels->panel;
}

static void find_runs(pairs *p)
{
    for (size_t k = 0; k < p->pairs; k++) {
        run *last = &p->runs[p->run_count - (k > 0)];
        if (k > 0 && p->there[k] == last->place + last->count)
            last->count++;
        else
            p->runs[p->run_count++] = (run){p->there[k], 1};
    }
}

static pm_status plan_pairs(pm_task *task)
{
    const pm_tensor *x = task->in[0], *places = task->in[1];
    pairs *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    *p = (pairs){.count = (size_t)x->shape[1], .width = (size_t)x->shape[2], .pairs = places->count};
    p->wide = whole_panels(task, p->count);
    p->in_place = p->width % (task->kernels->panel / 2) == 0;
    p->there = pm_region_alloc(task->region, p->pairs * sizeof *p->there);
    p->back = pm_region_alloc(task->region, p->pairs * sizeof *p->back);
    p->runs = pm_region_alloc(task->region, p->pairs * sizeof *p->runs);
    bool *taken = pm_region_alloc(task->region, p->count * p->wide * sizeof *taken);
    if (!p->there || !p->back || !p->runs || !taken)
        return pm_fail(PM_NO_MEMORY, "a task");
    p->once = true;
    for (size_t k = 0; k < p->pairs; k++) {
        const size_t place = (size_t)((const int64_t *)places->data)[k];
        const size_t one = place / p->count, other = place % p->count;
        const size_t i = one > other ? one : other, j = one > other ? other : one;
        p->there[k] = (uint32_t)(i * p->wide + j);
        p->back[k] = (uint32_t)(j * p->wide + i);
        p->once = p->once && i != j && !taken[p->there[k]];
        taken[p->there[k]] = taken[p->back[k]] = true;
    }
    find_runs(p);
    const bool back = task->node->input_count > 2;
    p->products = p->count * p->wide;
    p->vectors = back ? p->count * whole_panels(task, p->width) : p->width * p->wide;
    task->detail = p;
    task->whole = !task->shared[0];
    task->scratch_bytes = (p->products + p->vectors) * sizeof(float);
    return pm_ok();
}

// Packs the vectors turned, so that a product with them is one with each other. Columns beyond them are not
// picked.
static void pack_turned(const pm_task *task, const pairs *p, const float *x, float *panels)
{
    const size_t panel = task->kernels->panel;
    for (size_t first = 0; first < p->count; first += panel)
        task->kernels->transpose(x + first * p->width, p->count - first < panel ? p->count - first : panel,
                                 p->width, p->width, panels + first * p->width, panel);
}

// The products of each vector with those before it; of a few vectors at a time, as half a panel is wide.
static void multiply(const pm_task *task, const pairs *p, const float *x, const float *panels,
                     float *products)
{
    const size_t half = task->kernels->panel / 2;
    for (size_t first = 0; first < p->count; first += half)
        task->kernels->panel_product(&(pm_panel){.rows = p->count - first < half ? p->count - first : half,
                                                 .columns = first + half,
                                                 .depth = p->width,
                                                 .a = x + first * p->width,
                                                 .a_row = p->width,
                                                 .b = panels,
                                                 .b_step = task->kernels->panel,
                                                 .b_stride = p->width * task->kernels->panel,
                                                 .c = products + first * p->wide,
                                                 .c_stride = p->wide});
}

// Copies count floats in pieces, of which the last may overlap the one before: a call would cost more.
static inline void copy_run(float *to, const float *from, size_t count)
{
    enum { PIECE = 4 };
    for (size_t i = 0; i + PIECE <= count; i += PIECE)
        memcpy(to + i, from + i, PIECE * sizeof *to);
    if (count >= PIECE)
        memcpy(to + count - PIECE, from + count - PIECE, PIECE * sizeof *to);
    else
        for (size_t i = 0; i < count; i++)
            to[i] = from[i];
}

static void pick(const pairs *p, const float *products, float *y)
{
    for (size_t r = 0; r < p->run_count; y += p->runs[r++].count)
        copy_run(y, products + p->runs[r].place, p->runs[r].count);
}

static void run_pairs(const pm_task *task, const pm_call *call)
{
    const pairs *p = task->detail;
    const size_t rows = (size_t)task->in[0]->shape[0] * call->lanes;
    const float *x = call->in[0];
    float *y = call->out[0], *products = call->scratch, *panels = products + p->products;
    for (size_t r = 0; r < rows; r++, x += p->count * p->width, y += p->pairs) {
        pack_turned(task, p, x, panels);
        multiply(task, p, x, panels, products);
        pick(p, products, y);
    }
}

static pm_status gradient_pairs(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t inputs[] = {node->inputs[0], node->inputs[1], pm_gradient_of(g, node, 0)};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, ".PairProductsBack", inputs, 3, NULL, 0));
    return c.status;
}

// The vectors as panels of columns: (panel, count, panel's width).
static void pack_vectors(const pm_task *task, const pairs *p, const float *x, float *panels)
{
    const size_t panel = task->kernels->panel;
    for (size_t first = 0; first < p->width; first += panel) {
        const size_t columns = p->width - first < panel ? p->width - first : panel;
        for (size_t i = 0; i < p->count; i++, panels += panel)
            memcpy(panels, x + i * p->width + first, columns * sizeof *x);
    }
}

// What comes back to the products, both ways; zero where no pair is.
static void spread(const pairs *p, const float *dy, float *products)
{
    if (p->once) {
        const float *from = dy;
        for (size_t r = 0; r < p->run_count; from += p->runs[r++].count)
            copy_run(products + p->runs[r].place, from, p->runs[r].count);
        for (size_t k = 0; k < p->pairs; k++)
            products[p->back[k]] = dy[k];
        return;
    }
    memset(products, 0, p->products * sizeof *products);
    for (size_t k = 0; k < p->pairs; k++) {
        products[p->there[k]] += dy[k];
        products[p->back[k]] += dy[k];
    }
}

// That times the vectors.
static void run_pairs_back(const pm_task *task, const pm_call *call)
{
    const pairs *p = task->detail;
    const size_t rows = (size_t)task->in[0]->shape[0] * call->lanes, row = p->count * p->width;
    const size_t panel = task->kernels->panel;
    const float *x = call->in[0], *dy = call->in[2];
    float *dx = call->out[0], *products = call->scratch;
    float *panels = products + p->products;
    memset(products, 0, (p->products + p->vectors) * sizeof *products);
    for (size_t r = 0; r < rows; r++, x += row, dx += row, dy += p->pairs) {
        spread(p, dy, products);
        if (!p->in_place)
            pack_vectors(task, p, x, panels);
        task->kernels->panel_product(&(pm_panel){.rows = p->count,
                                                 .columns = p->width,
                                                 .depth = p->count,
                                                 .a = products,
                                                 .a_row = p->wide,
                                                 .b = p->in_place ? x : panels,
                                                 .b_step = p->in_place ? p->width : panel,
                                                 .b_stride = p->in_place ? panel : p->count * panel,
                                                 .c = dx,
                                                 .c_stride = p->width});
    }
}

#define ENTRY(op, inputs, infer_it, rule, run_it)                                                            \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = op, .min_inputs = inputs, .max_inputs = inputs, .max_outputs = 1,       \
        .fixed_inputs = 2, .attributes = NONE, .infer = infer_it, .gradient = rule, .plan = plan_pairs,      \
        .run = run_it                                                                                        \
    }

const pm_operator PM_FAMILY_PAIRS[] = {
    ENTRY("PairProducts", 2, infer_pairs, gradient_pairs, run_pairs),
    ENTRY("PairProductsBack", 3, infer_pairs_back, NULL, run_pairs_back),
    {0},
};
