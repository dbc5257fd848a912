#include "model/program_fuse_pairs.h"

#include "model/operators.h"
#include "model/program.h"

#include <stdlib.h>
#include <string.h>

#define NOBODY UINT32_MAX

typedef struct finder {
    const pm_graph *program;
    uint32_t *makers;  // (values): the node, or NOBODY
    uint32_t *readers; // (values): how many
} finder;

static bool is_op(const pm_node *node, const char *domain, const char *name)
{
    return strcmp(node->op->domain, domain) == 0 && strcmp(node->op->name, name) == 0;
}

// The node that makes the value, if one node alone reads that.
static const pm_node *maker(const finder *f, uint32_t value)
{
    return f->makers[value] != NOBODY && f->readers[value] == 1 ? &f->program->nodes[f->makers[value]] : NULL;
}

// Whether b is x with its last two of three axes exchanged.
static bool is_turned(const finder *f, uint32_t b, uint32_t x)
{
    const pm_node *node = maker(f, b);
    uint32_t rank = 0;
    const int64_t *order = node ? pm_node_ints(node, "perm", &rank) : NULL;
    return node && is_op(node, "", "Transpose") && node->inputs[0] == x && rank == 3 && order[0] == 0 &&
           order[1] == 2 && order[2] == 1;
}

// Whether the places are known, and inside the products of count vectors.
static bool are_places(const pm_value *v, int64_t count)
{
    const int64_t *places = v->tensor.data;
    bool inside = v->constant && v->tensor.type == PM_TYPE_I64 && v->tensor.rank == 1 && places;
    for (size_t i = 0; inside && i < v->tensor.count; i++)
        inside = places[i] >= 0 && places[i] < count * count;
    return inside;
}

// The vectors whose pairs the Gather picks, or PM_NO_VALUE.
static uint32_t vectors_of(const finder *f, const pm_node *node)
{
    const pm_graph *p = f->program;
    if (!is_op(node, "", "Gather") || pm_node_int(node, "axis", 0) != 1)
        return PM_NO_VALUE;
    const pm_node *view = maker(f, node->inputs[0]);
    if (!view || !(view->op->traits & PM_TRAIT_VIEW))
        return PM_NO_VALUE;
    const pm_node *product = maker(f, view->inputs[0]);
    if (!product || !is_op(product, PM_DOMAIN, "MatMul") ||
        !is_turned(f, product->inputs[1], product->inputs[0]))
        return PM_NO_VALUE;
    const pm_tensor *x = &p->values[product->inputs[0]].tensor, *flat = &p->values[node->inputs[0]].tensor;
    const bool fits = x->type == PM_TYPE_F32 && x->rank == 3 && x->shape[2] > 0 && flat->rank == 2 &&
                      flat->shape[0] == x->shape[0] && !p->values[product->inputs[0]].shared;
    return fits && are_places(&p->values[node->inputs[1]], x->shape[1]) ? product->inputs[0] : PM_NO_VALUE;
}

static pm_status fuse(pm_graph *p, const finder *f)
{
    const pm_operator *op = pm_operator_newest(PM_DOMAIN, "PairProducts");
    bool any = false;
    for (size_t n = 0; n < p->node_count; n++) {
        const uint32_t x = vectors_of(f, &p->nodes[n]);
        if (x == PM_NO_VALUE)
            continue;
        const uint32_t inputs[] = {x, p->nodes[n].inputs[1]};
        p->nodes[n].inputs = pm_region_copy(p->region, inputs, sizeof inputs);
        p->nodes[n].op = op;
        p->nodes[n].attribute_count = 0;
        if (!p->nodes[n].inputs)
            return pm_fail(PM_NO_MEMORY, "node %.64s", p->nodes[n].name);
        any = true;
    }
    return any ? pm_program_prune(p, NULL, 0) : pm_ok();
}

pm_status pm_program_fuse_pairs(pm_graph *program)
{
    finder f = {.program = program,
                .makers = calloc(program->value_count + 1, sizeof *f.makers),
                .readers = calloc(program->value_count + 1, sizeof *f.readers)};
    pm_status status = pm_fail(PM_NO_MEMORY, "a program of %zu nodes", program->node_count);
    if (f.makers && f.readers) {
        for (size_t v = 0; v < program->value_count; v++)
            f.makers[v] = NOBODY;
        for (size_t i = 0; i < program->output_count; i++)
            f.readers[program->outputs[i]]++;
        for (uint32_t n = 0; n < program->node_count; n++) {
            for (uint32_t i = 0; i < program->nodes[n].input_count; i++)
                if (program->nodes[n].inputs[i] != PM_NO_VALUE)
                    f.readers[program->nodes[n].inputs[i]]++;
            for (uint32_t i = 0; i < program->nodes[n].output_count; i++)
                if (program->nodes[n].outputs[i] != PM_NO_VALUE)
                    f.makers[program->nodes[n].outputs[i]] = n;
        }
        status = fuse(program, &f);
    }
    free(f.makers);
    free(f.readers);
    return status;
}
