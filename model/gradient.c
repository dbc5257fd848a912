#include "model/gradient.h"

#include "model/program.h"

#include <stdlib.h>
#include <string.h>

struct pm_gradient {
    pm_graph *program;
    size_t values;     // forward values
    bool *wanted;      // (values): some trained parameter has influence on it
    bool *sums;        // (values): its gradient is summed over the lanes here
    uint32_t *sum;     // (values): of the contributions so far; in the end the gradient
    uint32_t *readers; // (values): nodes not visited yet that may contribute
    uint32_t *gradients;
};

pm_graph *pm_gradient_program(pm_gradient *g)
{
    return g->program;
}

uint32_t pm_gradient_of(const pm_gradient *g, const pm_node *node, uint32_t output)
{
    if (output >= node->output_count || node->outputs[output] == PM_NO_VALUE)
        return PM_NO_VALUE;
    return g->sum[node->outputs[output]];
}

bool pm_gradient_wants(const pm_gradient *g, const pm_node *node, uint32_t input)
{
    return input < node->input_count && node->inputs[input] != PM_NO_VALUE && g->wanted[node->inputs[input]];
}

pm_status pm_recipe_add(pm_graph *program, const pm_node *node, pm_recipe recipe, uint32_t *outputs)
{
    const pm_node added = {.op = pm_operator_newest(recipe.domain, recipe.op),
                           .name = node->name,
                           .inputs = recipe.inputs,
                           .input_count = recipe.input_count,
                           .output_count = recipe.output_count ? recipe.output_count : 1,
                           .attributes = recipe.attributes,
                           .attribute_count = recipe.attribute_count};
    if (!added.op)
        return pm_fail(PM_INTERNAL, "no operator %s", recipe.op);
    const pm_operator *op = added.op;
    return pm_wrap(op->lower ? op->lower(program, false, &added, outputs)
                             : pm_program_add(program, &added, outputs),
                   "%s", recipe.op);
}

// *sum += value, as a node of its own when there is something to add to.
static pm_status accumulate(pm_gradient *g, const pm_node *node, uint32_t value, uint32_t *sum)
{
    if (*sum == PM_NO_VALUE) {
        *sum = value;
        return pm_ok();
    }
    uint32_t total = PM_NO_VALUE;
    pm_status status = pm_recipe_add(g->program, node,
                                     (pm_recipe){.domain = "", .op = "Add", PM_VALUES(*sum, value)}, &total);
    *sum = total;
    return status;
}

static pm_status sum_lanes(pm_gradient *g, const pm_node *node, uint32_t value, uint32_t *sum)
{
    return pm_recipe_add(g->program, node,
                         (pm_recipe){.domain = PM_DOMAIN, .op = "LaneSum", PM_VALUES(value)}, sum);
}

// All readers of the value are visited.
static pm_status complete(pm_gradient *g, const pm_node *node, uint32_t value)
{
    uint32_t *sum = &g->sum[value];
    const int64_t param = g->program->values[value].param;
    pm_status status = pm_ok();
    if (*sum == PM_NO_VALUE || !g->sums[value])
        return status;
    if (!g->program->values[*sum].shared)
        status = sum_lanes(g, node, *sum, sum);
    if (status.code == PM_OK && param != PM_NO_PARAM)
        g->gradients[param] = *sum;
    return status;
}

pm_status pm_gradient_give(pm_gradient *g, const pm_node *node, uint32_t input, uint32_t value)
{
    const uint32_t target = node->inputs[input];
    if (!pm_shape_equal(&g->program->values[target].tensor, &g->program->values[value].tensor))
        return pm_fail(PM_INTERNAL, "the gradient of input %u has another shape than the input", input);
    pm_status status = accumulate(g, node, value, &g->sum[target]);
    if (status.code != PM_OK || g->readers[target] != 1)
        return status;
    g->readers[target] =
        0; // at once, so that a parameter's gradient can leave before the next input's is made
    return complete(g, node, target);
}

pm_status pm_gradient_give_recipe(pm_gradient *g, const pm_node *node, uint32_t input, pm_recipe recipe)
{
    uint32_t value = PM_NO_VALUE;
    pm_status status = pm_recipe_add(g->program, node, recipe, &value);
    return status.code == PM_OK ? pm_gradient_give(g, node, input, value) : status;
}

pm_status pm_gradient_give_summed(pm_gradient *g, const pm_node *node, uint32_t input, uint32_t value)
{
    const pm_tensor t = g->program->values[node->inputs[input]].tensor; // a copy: values move
    if (pm_shape_equal(&t, &g->program->values[value].tensor))
        return pm_gradient_give(g, node, input, value);
    const pm_attribute shape = pm_attribute_ints("shape", t.shape, t.rank);
    return pm_gradient_give_recipe(g, node, input,
                                   (pm_recipe){.domain = PM_DOMAIN,
                                               .op = "SumTo",
                                               PM_VALUES(value),
                                               .attributes = &shape,
                                               .attribute_count = 1});
}

pm_status pm_gradient_give_statistic(pm_gradient *g, const pm_node *node, uint32_t input, uint32_t value)
{
    const int64_t param = g->program->values[node->inputs[input]].param;
    if (param == PM_NO_PARAM || g->program->params[param].frozen || g->gradients[param] != PM_NO_VALUE)
        return pm_ok();
    return sum_lanes(g, node, value, &g->gradients[param]);
}

// What a trained parameter has influence on, among float values.
pm_status pm_gradient_through_relu(pm_gradient *g, const pm_node *node, uint32_t *dy)
{
    if (!pm_node_int(node, "relu", 0))
        return pm_ok();
    return pm_recipe_add(g->program, node,
                         (pm_recipe){.domain = PM_DOMAIN, .op = "ReluGrad", PM_VALUES(node->outputs[0], *dy)},
                         dy);
}

static void mark_wanted(pm_gradient *g)
{
    const pm_graph *p = g->program;
    for (size_t i = 0; i < p->param_count; i++)
        g->wanted[p->param_values[i]] = p->params[i].kind == PM_PARAM_TRAINED && !p->params[i].frozen;
    for (size_t n = 0; n < p->node_count; n++) {
        const pm_node *node = &p->nodes[n];
        bool any = false;
        for (uint32_t i = 0; i < node->input_count; i++) {
            if (node->inputs[i] == PM_NO_VALUE)
                continue;
            g->readers[node->inputs[i]]++;
            any = any || g->wanted[node->inputs[i]];
        }
        for (uint32_t i = 0; i < node->output_count; i++)
            g->wanted[node->outputs[i]] =
                any && node->op->gradient && p->values[node->outputs[i]].tensor.type == PM_TYPE_F32;
    }
}

// A step's gradients are sums over lanes, and those of a block must add up to those of the whole bit for bit.
// So each parameter has one sum and nothing is computed after it: what a parameter is made into before it
// meets the lanes is differentiated lane by lane. What is merely seen otherwise may be summed before: views,
// when nothing else reads what they look at.
static void choose_sums(pm_gradient *g)
{
    const pm_graph *p = g->program;
    for (size_t i = 0; i < p->param_count; i++)
        g->sums[p->param_values[i]] = true;
    for (size_t n = 0; n < p->node_count; n++) {
        const pm_node *node = &p->nodes[n];
        if (node->op->traits & PM_TRAIT_VIEW)
            g->sums[node->outputs[0]] = g->sums[node->inputs[0]] && g->readers[node->inputs[0]] == 1;
    }
}

static pm_status visit(pm_gradient *g, size_t index)
{
    const pm_node node = g->program->nodes[index]; // its lists stay where they are
    bool any = false;
    for (uint32_t i = 0; i < node.output_count; i++)
        any = any || pm_gradient_of(g, &node, i) != PM_NO_VALUE;
    pm_status status = pm_ok();
    if (any && node.op->gradient)
        status = node.op->gradient(g, &node);
    for (uint32_t i = 0; status.code == PM_OK && i < node.input_count; i++)
        if (node.inputs[i] != PM_NO_VALUE && g->readers[node.inputs[i]] > 0 &&
            --g->readers[node.inputs[i]] == 0)
            status = complete(g, &node, node.inputs[i]);
    return pm_wrap(status, "gradient of node %.64s (%s)", node.name, node.op->name);
}

static pm_status build(pm_gradient *g, uint32_t start, uint32_t seed)
{
    const size_t nodes = g->program->node_count;
    for (size_t i = 0; i < g->values; i++)
        g->sum[i] = PM_NO_VALUE;
    for (size_t i = 0; i < g->program->param_count; i++)
        g->gradients[i] = PM_NO_VALUE;
    mark_wanted(g);
    choose_sums(g);
    if (!g->wanted[start])
        return pm_fail(PM_INVALID, "no differentiable path leads from the loss to any parameter");
    g->sum[start] = seed;
    pm_status status = pm_ok();
    for (size_t i = nodes; status.code == PM_OK && i-- > 0;)
        status = visit(g, i);
    return status;
}

pm_status pm_gradient_build(pm_graph *program, uint32_t start, uint32_t seed, uint32_t *gradients)
{
    const size_t n = program->value_count;
    pm_gradient g = {.program = program,
                     .values = n,
                     .wanted = calloc(n, sizeof(bool)),
                     .sums = calloc(n, sizeof(bool)),
                     .sum = calloc(n, sizeof(uint32_t)),
                     .readers = calloc(n, sizeof(uint32_t)),
                     .gradients = gradients};
    pm_status status = pm_fail(PM_NO_MEMORY, "a gradient over %zu values", n);
    if (g.wanted && g.sums && g.sum && g.readers)
        status = build(&g, start, seed);
    free(g.wanted);
    free(g.sums);
    free(g.sum);
    free(g.readers);
    return status;
}
