// Einsum: sums of products along named axes, written with reshapes, products and reductions. Operands are
// taken in from left to right; axes that nobody needs any more are summed at once.
#include "model/compose.h"

#include <string.h>

enum {
    LABELS = 256,
    ELLIPSIS = 128 // label of the last axis of an ellipsis; those before it count up
};

static const pm_attribute_spec EQUATION[] = {{"equation", PM_ATTRIBUTE_STRING}, {0}};

// A value whose axes have labels, each once.
typedef struct term {
    uint32_t value, rank;
    uint8_t labels[PM_MAX_RANK];
} term;

typedef struct einsum {
    pm_compose c;
    const char *at;         // in the equation
    int64_t extent[LABELS]; // 0: not seen
    uint8_t seen[LABELS];   // how often
    uint32_t dots;          // axes of the longest ellipsis
    bool bad;
} einsum;

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void skip_spaces(einsum *e)
{
    while (*e->at == ' ')
        e->at++;
}

static void put_label(einsum *e, term *t, uint32_t label)
{
    e->bad = e->bad || t->rank == PM_MAX_RANK;
    if (!e->bad)
        t->labels[t->rank++] = (uint8_t)label;
}

// Reads one term up to ',', '-' or the end; dots: how many axes its ellipsis stands for.
static void read_term(einsum *e, term *t, uint32_t dots)
{
    for (skip_spaces(e); *e->at && *e->at != ',' && *e->at != '-' && !e->bad; skip_spaces(e)) {
        if (is_letter(*e->at)) {
            put_label(e, t, (uint8_t)*e->at++);
        } else if (strncmp(e->at, "...", 3) == 0) {
            e->at += 3;
            for (uint32_t i = dots; i-- > 0;)
                put_label(e, t, ELLIPSIS + i);
        } else {
            e->bad = true;
        }
    }
}

// The axes of an operand of the rank that its ellipsis stands for.
static uint32_t count_dots(const einsum *e, uint32_t rank)
{
    uint32_t letters = 0;
    bool has = false;
    for (const char *p = e->at; *p && *p != ',' && *p != '-'; p++) {
        letters += is_letter(*p);
        has = has || *p == '.';
    }
    return has && rank > letters ? rank - letters : 0;
}

// Keeps the diagonal of axes i < j, in axis i.
static void take_diagonal(einsum *e, term *t, uint32_t i, uint32_t j)
{
    pm_compose *c = &e->c;
    const pm_tensor x = pm_compose_tensor(c, t->value);
    int64_t shape[PM_MAX_RANK];
    uint32_t rank = 0;
    if (x.shape[i] != x.shape[j]) {
        e->bad = true;
        return;
    }
    const uint32_t same = pm_compose_2(c, "Equal", pm_compose_count(c, x.shape[i], i, x.rank),
                                       pm_compose_count(c, x.shape[j], j, x.rank));
    const uint32_t kept = pm_compose_3(c, "Where", same, t->value, pm_compose_number(c, x.type, 0));
    for (uint32_t d = 0; d < x.rank; d++) {
        if (d == j)
            continue;
        shape[rank] = x.shape[d];
        t->labels[rank++] = t->labels[d];
    }
    t->value = pm_compose_reshape(c, pm_compose_reduce(c, "ReduceSum", kept, 1u << j), shape, rank);
    t->rank = rank;
}

static void note_axes(einsum *e, const term *t)
{
    const pm_tensor x = pm_compose_tensor(&e->c, t->value);
    for (uint32_t d = 0; d < t->rank; d++) {
        int64_t *extent = &e->extent[t->labels[d]];
        e->bad =
            e->bad || (e->seen[t->labels[d]] && *extent != x.shape[d] && *extent != 1 && x.shape[d] != 1);
        if (!e->seen[t->labels[d]] || *extent == 1)
            *extent = x.shape[d];
        e->seen[t->labels[d]] += e->seen[t->labels[d]] < UINT8_MAX;
    }
}

static term read_operand(einsum *e, uint32_t value)
{
    term t = {.value = value};
    const uint32_t rank = pm_compose_tensor(&e->c, value).rank, dots = count_dots(e, rank);
    read_term(e, &t, dots);
    e->dots = e->dots > dots ? e->dots : dots;
    e->bad = e->bad || t.rank != rank;
    if (e->bad)
        return t;
    note_axes(e, &t);
    for (uint32_t i = 0; i < t.rank; i++)
        for (uint32_t j = t.rank; j-- > i + 1;)
            if (t.labels[i] == t.labels[j] && !e->bad)
                take_diagonal(e, &t, i, j);
    return t;
}

// What is wanted: as written, or the ellipsis and then the letters that stand once, in their order.
static term read_output(einsum *e)
{
    term t = {.value = PM_NO_VALUE};
    skip_spaces(e);
    if (*e->at == '-') {
        e->bad = e->bad || e->at[1] != '>';
        e->at += e->bad ? 0 : 2;
        read_term(e, &t, e->dots);
    } else {
        for (uint32_t i = e->dots; i-- > 0;)
            put_label(e, &t, ELLIPSIS + i);
        for (uint32_t label = 'A'; label <= 'z'; label++)
            if (e->seen[label] == 1)
                put_label(e, &t, label);
    }
    e->bad = e->bad || *e->at;
    for (uint32_t i = 0; i < t.rank; i++) {
        e->bad = e->bad || !e->seen[t.labels[i]];
        for (uint32_t j = 0; j < i; j++)
            e->bad = e->bad || t.labels[i] == t.labels[j];
    }
    return t;
}

static uint32_t place_of(const term *t, uint8_t label)
{
    uint32_t d = 0;
    while (d < t->rank && t->labels[d] != label)
        d++;
    return d;
}

// t's axes in the order of labels, with an extent of 1 for those it does not have.
static uint32_t align(einsum *e, const term *t, const term *order)
{
    const pm_tensor x = pm_compose_tensor(&e->c, t->value);
    int64_t from[PM_MAX_RANK], shape[PM_MAX_RANK];
    uint32_t n = 0;
    for (uint32_t d = 0; d < order->rank; d++) {
        const uint32_t at = place_of(t, order->labels[d]);
        shape[d] = at < t->rank ? x.shape[at] : 1;
        if (at < t->rank)
            from[n++] = at;
    }
    uint32_t y = t->value;
    if (n > 1)
        y = pm_compose_transpose(&e->c, y, from);
    return pm_compose_reshape(&e->c, y, shape, order->rank);
}

// Sums the axes of t that are in none of the needed labels.
static void sum_unneeded(einsum *e, term *t, const bool *needed)
{
    const pm_tensor x = pm_compose_tensor(&e->c, t->value);
    int64_t shape[PM_MAX_RANK];
    uint32_t axes = 0, rank = 0;
    for (uint32_t d = 0; d < t->rank; d++) {
        if (!needed[t->labels[d]]) {
            axes |= 1u << d;
            continue;
        }
        shape[rank] = x.shape[d];
        t->labels[rank++] = t->labels[d];
    }
    t->rank = rank;
    if (axes)
        t->value =
            pm_compose_reshape(&e->c, pm_compose_reduce(&e->c, "ReduceSum", t->value, axes), shape, rank);
}

// The labels of groups of axes: in both and needed, in a alone, in both and summed, in b alone.
enum { BOTH, LEFT, SUMMED, RIGHT, GROUPS };

static void split(const term *a, const term *b, const bool *needed, term groups[GROUPS])
{
    for (uint32_t d = 0; d < a->rank; d++) {
        const bool shared = place_of(b, a->labels[d]) < b->rank;
        term *g = &groups[!shared ? LEFT : needed[a->labels[d]] ? BOTH : SUMMED];
        g->labels[g->rank++] = a->labels[d];
    }
    for (uint32_t d = 0; d < b->rank; d++)
        if (place_of(a, b->labels[d]) == a->rank)
            groups[RIGHT].labels[groups[RIGHT].rank++] = b->labels[d];
}

// Appends g's labels to t; the product of their extents.
static int64_t append(const einsum *e, term *t, const term *g)
{
    int64_t product = 1;
    for (uint32_t d = 0; d < g->rank && t->rank < PM_MAX_RANK; d++) {
        t->labels[t->rank++] = g->labels[d];
        product *= e->extent[g->labels[d]];
    }
    return product;
}

// Whether every axis of t has its label's whole extent.
static bool is_whole(const einsum *e, const term *t)
{
    const pm_tensor x = pm_compose_tensor(&e->c, t->value);
    for (uint32_t d = 0; d < t->rank; d++)
        if (x.shape[d] != e->extent[t->labels[d]])
            return false;
    return true;
}

// As a product of matrices (both, left, summed) and (both, summed, right).
static void multiply(einsum *e, term *a, const term *b, const term groups[GROUPS])
{
    term first = {0}, second = {0}, made = {0};
    const int64_t both = append(e, &first, &groups[BOTH]), left = append(e, &first, &groups[LEFT]),
                  summed = append(e, &first, &groups[SUMMED]);
    append(e, &second, &groups[BOTH]);
    append(e, &second, &groups[SUMMED]);
    const int64_t right = append(e, &second, &groups[RIGHT]);
    append(e, &made, &groups[BOTH]);
    append(e, &made, &groups[LEFT]);
    append(e, &made, &groups[RIGHT]);
    const int64_t x[] = {both, left, summed}, y[] = {both, summed, right};
    int64_t shape[PM_MAX_RANK];
    for (uint32_t d = 0; d < made.rank; d++)
        shape[d] = e->extent[made.labels[d]];
    const uint32_t product =
        pm_compose_2(&e->c, "MatMul", pm_compose_reshape(&e->c, align(e, a, &first), x, 3),
                     pm_compose_reshape(&e->c, align(e, b, &second), y, 3));
    made.value = pm_compose_reshape(&e->c, product, shape, made.rank);
    *a = made;
}

// *a becomes the sum of products of both over the axes that are not needed.
static void combine(einsum *e, term *a, term *b, const bool *needed)
{
    term groups[GROUPS] = {{0}}, all = *a;
    bool kept[LABELS];
    memcpy(kept, needed, sizeof kept);
    for (uint32_t d = 0; d < b->rank; d++)
        kept[b->labels[d]] = true;
    sum_unneeded(e, a, kept);
    memcpy(kept, needed, sizeof kept);
    for (uint32_t d = 0; d < a->rank; d++)
        kept[a->labels[d]] = true;
    sum_unneeded(e, b, kept);
    split(a, b, needed, groups);
    if (a->rank + groups[RIGHT].rank > PM_MAX_RANK) {
        pm_compose_fail(&e->c, pm_fail(PM_UNSUPPORTED, "more than %d axes at a time", PM_MAX_RANK));
        return;
    }
    if (groups[SUMMED].rank > 0 && is_whole(e, a) && is_whole(e, b) &&
        pm_compose_tensor(&e->c, a->value).type == PM_TYPE_F32) {
        multiply(e, a, b, groups);
        return;
    }
    all = *a;
    append(e, &all, &groups[RIGHT]);
    all.value = pm_compose_2(&e->c, "Mul", align(e, a, &all), align(e, b, &all));
    *a = all;
    sum_unneeded(e, a, needed);
}

static pm_status lower_einsum(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    enum { MAX_TERMS = 16 };
    einsum e = {.c = pm_compose_open(program, node), .at = pm_node_string(node, "equation", "")};
    term terms[MAX_TERMS];
    bool needed[LABELS] = {0};
    (void)training;
    if (node->input_count > MAX_TERMS)
        return pm_fail(PM_UNSUPPORTED, "%u operands", node->input_count);
    for (uint32_t i = 0; i < node->input_count && !e.bad; i++) {
        e.bad = node->inputs[i] == PM_NO_VALUE || (i > 0 && *e.at++ != ',');
        if (!e.bad)
            terms[i] = read_operand(&e, node->inputs[i]);
    }
    term out = e.bad ? (term){0} : read_output(&e);
    if (e.bad)
        return pm_fail(PM_INVALID, "equation %.64s does not fit its operands",
                       pm_node_string(node, "equation", ""));
    for (uint32_t i = 0; i < node->input_count; i++) {
        memset(needed, 0, sizeof needed);
        for (uint32_t d = 0; d < out.rank; d++)
            needed[out.labels[d]] = true;
        for (uint32_t k = i + 1; k < node->input_count; k++)
            for (uint32_t d = 0; d < terms[k].rank; d++)
                needed[terms[k].labels[d]] = true;
        if (i == 0)
            sum_unneeded(&e, &terms[0], needed);
        else
            combine(&e, &terms[0], &terms[i], needed);
        if (e.c.status.code != PM_OK)
            return e.c.status;
    }
    outputs[0] = align(&e, &terms[0], &out);
    return e.c.status;
}

const pm_operator PM_FAMILY_EINSUM[] = {
    {.domain = "",
     .name = "Einsum",
     .since = 12,
     .min_inputs = 1,
     .max_inputs = PM_MAX_NODE_VALUES,
     .max_outputs = 1,
     .attributes = EQUATION,
     .infer = pm_infer_lowered,
     .lower = lower_einsum},
    {0},
};
