#include "model/attention.h"

#include "model/plan_view.h"
#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

enum { ROWS = 4, OUTPUTS = 3 };

// How attention is written: by this project's layers, by PyTorch's exporter from several ways to say it.
typedef enum form {
    JOINED, // one product split in three, a mask of what is seen, a scale that multiplies
    APART,  // three products, an added mask, a scale that divides
    HIDING, // a mask of what is hidden, heads before thirds
    FREE,   // no mask; fewer keys than queries
    FLAT,   // heads as one axis with the batch's places, rank 3; scaled queries
    FORMS
} form;

typedef struct net {
    form form;
    int64_t places, heads, size; // size: of a head
    bool unfused;                // the shares are read by others, too, so that nothing can be joined
    float low;                   // what hides
} net;

static uint32_t constant(pm_graph *g, const char *name, pm_type type, const int64_t *shape, size_t rank,
                         const void *data)
{
    pm_tensor tensor = graphs_tensor(type, shape, rank);
    tensor.data = pm_region_copy(g->region, data, pm_tensor_bytes(&tensor));
    uint32_t value = PM_NO_VALUE;
    NETS_OK(pm_graph_add_constant(g, name, &tensor, &value));
    return value;
}

static uint32_t number(pm_graph *g, const char *name, float value)
{
    return constant(g, name, PM_TYPE_F32, NULL, 0, &value);
}

// Shapes are left to the program.
static uint32_t node_with(pm_graph *g, const char *op, const uint32_t *inputs, size_t count,
                          const pm_attribute *attributes, size_t attribute_count)
{
    char name[64], output[64];
    snprintf(name, sizeof name, "%s%zu", op, g->node_count);
    snprintf(output, sizeof output, "%s.y", name);
    uint32_t value = PM_NO_VALUE;
    const pm_node node = {.op = pm_operator_find("", op, g->opset),
                          .name = name,
                          .inputs = inputs,
                          .input_count = (uint32_t)count,
                          .outputs = &value,
                          .output_count = 1,
                          .attributes = attributes,
                          .attribute_count = (uint32_t)attribute_count};
    NETS_OK(pm_graph_add_value(g, output, &(pm_tensor){0}, &value));
    NETS_OK(pm_graph_add_node(g, &node));
    return value;
}

static uint32_t node(pm_graph *g, const char *op, const uint32_t *inputs, size_t count)
{
    return node_with(g, op, inputs, count, NULL, 0);
}

static uint32_t reshape(pm_graph *g, uint32_t x, const char *name, const int64_t *shape, size_t rank)
{
    return node(g, "Reshape", GRAPHS_VALUES(x, graphs_integers(g, name, shape, rank)));
}

static uint32_t turn(pm_graph *g, uint32_t x, const int64_t *order, size_t rank)
{
    const pm_attribute perm = pm_attribute_ints("perm", order, (uint32_t)rank);
    return node_with(g, "Transpose", GRAPHS_VALUES(x), &perm, 1);
}

static uint32_t linear(pm_graph *g, uint32_t x, const char *name, int64_t in, int64_t out)
{
    return node(g, "MatMul", GRAPHS_VALUES(x, graphs_param(g, name, GRAPHS_SHAPE(in, out))));
}

// Places [first, first + count) along the axis.
static uint32_t slice(pm_graph *g, uint32_t x, const char *name, int64_t axis, int64_t first, int64_t count)
{
    char names[3][32];
    for (int i = 0; i < 3; i++)
        snprintf(names[i], sizeof names[i], "%s%d", name, i);
    const int64_t end = first + count;
    return node(g, "Slice",
                GRAPHS_VALUES(x, graphs_integers(g, names[0], &first, 1),
                              graphs_integers(g, names[1], &end, 1), graphs_integers(g, names[2], &axis, 1)));
}

// Scores with the form's mask.
static uint32_t masked(pm_graph *g, const net *n, uint32_t scores)
{
    unsigned char truths[64 * 64];
    float added[64 * 64];
    for (int64_t t = 0; t < n->places; t++)
        for (int64_t s = 0; s < n->places; s++) {
            truths[t * n->places + s] = (s <= t) == (n->form == JOINED);
            added[t * n->places + s] = s <= t ? 0.1f * (float)(s % 3) : n->low;
        }
    const int64_t shape[] = {1, 1, n->places, n->places};
    if (n->form == JOINED)
        return node(g, "Where",
                    GRAPHS_VALUES(constant(g, "mask", PM_TYPE_BOOL, shape + 2, 2, truths), scores,
                                  number(g, "low", n->low)));
    if (n->form == HIDING)
        return node(g, "Where",
                    GRAPHS_VALUES(constant(g, "mask", PM_TYPE_BOOL, shape, 4, truths),
                                  number(g, "low", n->low), scores));
    return n->form == APART
               ? node(g, "Add", GRAPHS_VALUES(scores, constant(g, "mask", PM_TYPE_F32, shape, 4, added)))
               : scores;
}

// (N, T, C) to queries, keys turned over and values, with heads or flat.
static void project(pm_graph *g, const net *n, uint32_t x, uint32_t *q, uint32_t *k, uint32_t *v)
{
    static const int64_t heads[] = {0, 2, 1, 3}, turned[] = {0, 2, 3, 1}, flat_turned[] = {0, 2, 1};
    const int64_t width = n->heads * n->size, shape[] = {-1, n->places, n->heads, n->size};
    const int64_t fewer[] = {-1, n->places / 2, n->heads, n->size};
    uint32_t parts[3];
    if (n->form == JOINED || n->form == HIDING) {
        const uint32_t all = linear(g, x, "weights", width, 3 * width);
        const uint32_t apart =
            n->form == HIDING ? reshape(g, all, "apart", GRAPHS_SHAPE(-1, n->places, n->heads, 3 * n->size))
                              : all;
        for (int64_t i = 0; i < 3; i++)
            parts[i] = slice(g, apart, (const char *const[]){"a", "b", "c"}[i], n->form == HIDING ? 3 : 2,
                             i * (n->form == HIDING ? n->size : width), n->form == HIDING ? n->size : width);
    } else {
        for (int64_t i = 0; i < 3; i++)
            parts[i] = linear(g, x, (const char *const[]){"qw", "kw", "vw"}[i], width, width);
    }
    if (n->form == FREE)
        for (int64_t i = 1; i < 3; i++)
            parts[i] = slice(g, parts[i], (const char *const[]){"", "e", "f"}[i], 1, 0, n->places / 2);
    if (n->form == FLAT) {
        *q = node(g, "Mul", GRAPHS_VALUES(parts[0], number(g, "before", 0.3f)));
        *k = turn(g, parts[1], flat_turned, 3);
        *v = parts[2];
        return;
    }
    for (int64_t i = 0; i < 3; i++)
        if (n->form != HIDING)
            parts[i] = reshape(g, parts[i], (const char *const[]){"qs", "ks", "vs"}[i],
                               n->form == FREE && i > 0 ? fewer : shape, 4);
    *q = turn(g, parts[0], heads, 4);
    *k = turn(g, parts[1], turned, 4);
    *v = turn(g, parts[2], heads, 4);
}

static void set_shape(pm_graph *g, uint32_t output, const int64_t *shape, size_t rank)
{
    g->values[output].tensor = graphs_tensor(PM_TYPE_F32, shape, rank);
    g->values[output].batched = true;
}

static pm_graph *make(const net *n)
{
    const int64_t width = n->heads * n->size, back[] = {0, 2, 1, 3};
    const pm_attribute last = pm_attribute_int("axis", -1);
    pm_graph *g = graphs_create();
    uint32_t q, k, v;
    const uint32_t input = graphs_input(g, "x", GRAPHS_SHAPE(n->places, width));
    project(g, n, node(g, "Tanh", GRAPHS_VALUES(input)), &q, &k, &v);
    uint32_t scores = node(g, "MatMul", GRAPHS_VALUES(q, k));
    if (n->form != FLAT)
        scores = n->form == APART ? node(g, "Div", GRAPHS_VALUES(scores, number(g, "root", 1.4f)))
                                  : node(g, "Mul", GRAPHS_VALUES(scores, number(g, "scale", 0.7f)));
    const uint32_t shares = node_with(g, "Softmax", GRAPHS_VALUES(masked(g, n, scores)), &last, 1);
    uint32_t y = node(g, "MatMul", GRAPHS_VALUES(shares, v));
    if (n->form != FLAT)
        y = turn(g, y, back, 4);
    y = reshape(g, y, "flat", GRAPHS_SHAPE(-1, n->places * width));
    y = node(g, "Gemm", GRAPHS_VALUES(y, graphs_param(g, "head", GRAPHS_SHAPE(n->places * width, OUTPUTS))));
    set_shape(g, y, GRAPHS_SHAPE(1, OUTPUTS));
    NETS_OK(pm_graph_add_output(g, y));
    if (n->unfused) {
        const int64_t seen = n->form == FREE ? n->places / 2 : n->places;
        set_shape(g, shares, GRAPHS_SHAPE(1, n->heads, n->places, seen));
        if (n->form == FLAT)
            set_shape(g, shares, GRAPHS_SHAPE(1, n->places, n->places));
        NETS_OK(pm_graph_add_output(g, shares));
    }
    NETS_OK(pm_graph_finish(g));
    return g;
}

// Panels whole and in part, blocks of queries whole and in part, one place.
static const net NETS[] = {{JOINED, 20, 2, 32, false, -1e30f}, {JOINED, 33, 3, 5, false, -INFINITY},
                           {APART, 16, 2, 7, false, -1e9f},    {APART, 40, 1, 32, false, -INFINITY},
                           {HIDING, 17, 4, 8, false, -1e30f},  {HIDING, 1, 2, 8, false, -1e30f},
                           {FREE, 18, 2, 16, false, 0},        {FLAT, 19, 1, 12, false, 0}};

#define EACH_NET(n) for (const net *n = NETS; n < NETS + sizeof NETS / sizeof NETS[0]; n++)

static bool has(const pm_plan *plan, const char *op)
{
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        if (strcmp(pm_plan_task(plan, t).op, op) == 0)
            return true;
    return false;
}

static void expect_near(const net *n, const char *what, const float *is, const float *should, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cr_assert(fabsf(is[i] - should[i]) <= 2e-5f * (1 + fabsf(should[i])),
                  "form %d, %ld places, %s %zu: %.9g, wanted %.9g", n->form, (long)n->places, what, i,
                  (double)is[i], (double)should[i]);
}

static float input[ROWS * 40 * 64], shares[ROWS * 4 * 64 * 64];

Test(attention, every_form_answers_as_its_parts_do)
{
    for (size_t i = 0; i < sizeof input / sizeof input[0]; i++)
        input[i] = 2 * nets_number(1, i);
    EACH_NET(n)
    {
        net apart = *n;
        apart.unfused = true;
        pm_graph *graphs[] = {make(n), make(&apart)};
        pm_plan *plans[2] = {NULL, NULL};
        float y[2][ROWS * OUTPUTS], alone[OUTPUTS];
        for (size_t i = 0; i < 2; i++)
            NETS_OK(pm_plan_create_inference(&plans[i], graphs[i], ROWS));
        cr_assert(has(plans[0], "Attention") && !has(plans[0], "Softmax"), "form %d", n->form);
        cr_assert(!has(plans[1], "Attention") && has(plans[1], "Softmax"));
        cr_assert(!has(plans[0], "Move") || n->form == FREE);
        NETS_OK(pm_plan_infer(plans[0], input, ROWS, y[0]));
        NETS_OK(pm_plan_run(plans[1], (const void *const[]){input}, ROWS, (void *const[]){y[1], shares}));
        expect_near(n, "output", y[0], y[1], ROWS * OUTPUTS);
        for (size_t r = 0; r < ROWS; r++) {
            const size_t row = (size_t)(n->places * n->heads * n->size);
            NETS_OK(pm_plan_infer(plans[0], input + r * row, 1, alone));
            cr_assert(memcmp(alone, y[0] + r * OUTPUTS, sizeof alone) == 0, "row %zu among others", r);
        }
        for (size_t i = 0; i < 2; i++) {
            pm_plan_destroy(&plans[i]);
            pm_graph_destroy(&graphs[i]);
        }
    }
}

Test(attention, every_form_has_the_gradient_of_its_parts)
{
    EACH_NET(n)
    {
        net apart = *n;
        apart.unfused = true;
        pm_graph *graphs[] = {make(n), make(&apart)};
        pm_plan *plans[2] = {NULL, NULL};
        for (size_t i = 0; i < 2; i++) {
            NETS_OK(pm_plan_create_training(&plans[i], graphs[i], PM_LOSS_SOFTMAX_CROSS_ENTROPY, 2, 2, ROWS));
            nets_fill(plans[i], graphs[i], PM_LOSS_SOFTMAX_CROSS_ENTROPY, 2, 0, 2);
            pm_step step = {.seed = 1, .lane_count = 2};
            NETS_OK(pm_plan_step(plans[i], &step));
        }
        cr_assert(has(plans[0], "AttentionGrad") && !has(plans[0], "SoftmaxGrad"), "form %d", n->form);
        cr_assert(!has(plans[1], "AttentionGrad"));
        for (size_t p = 0; p < pm_graph_param_count(graphs[0]); p++)
            expect_near(n, pm_graph_param(graphs[0], p)->name, pm_plan_gradient(plans[0], p),
                        pm_plan_gradient(plans[1], p), pm_graph_param(graphs[0], p)->count);
        for (size_t i = 0; i < 2; i++) {
            pm_plan_destroy(&plans[i]);
            pm_graph_destroy(&graphs[i]);
        }
    }
}

Test(attention, every_form_has_the_gradient_of_what_it_computes)
{
    EACH_NET(n)
    gradients_check(make(n), PM_LOSS_SOFTMAX_CROSS_ENTROPY);
}

Test(attention, lanes_have_the_same_bits_alone_and_together)
{
    const net n = NETS[1];
    pm_graph *graph = make(&n);
    pm_plan *plan = NULL;
    float sums[2][OUTPUTS * 33 * 15];
    size_t head = 0;
    for (size_t p = 0; p < pm_graph_param_count(graph); p++)
        head = strcmp(pm_graph_param(graph, p)->name, "weights") == 0 ? p : head;
    const size_t count = pm_graph_param(graph, head)->count;
    cr_assert(count <= sizeof sums[0] / sizeof(float));
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 1, 4, 4));
    memset(sums, 0, sizeof sums);
    float *halves[2] = {sums[0], sums[1]};
    for (uint32_t half = 0; half < 2; half++) {
        nets_fill(plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 1, 2 * half, 2);
        pm_step step = {.seed = 1, .first_lane = 2 * half, .lane_count = 2};
        NETS_OK(pm_plan_step(plan, &step));
        memcpy(halves[half], pm_plan_gradient(plan, head), count * sizeof(float));
    }
    for (size_t i = 0; i < count; i++)
        halves[0][i] += halves[1][i];
    nets_fill(plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 1, 0, 4);
    pm_step step = {.seed = 1, .lane_count = 4};
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert(memcmp(halves[0], pm_plan_gradient(plan, head), count * sizeof(float)) == 0);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(attention, a_low_number_that_may_still_be_seen_hides_nothing)
{
    const net n = {JOINED, 8, 2, 4, false, -5};
    pm_graph *graph = make(&n);
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    cr_assert(!has(plan, "Attention") && has(plan, "Softmax"));
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
