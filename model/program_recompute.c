#include "model/program_recompute.h"

#include "model/operators.h"

#include <stdlib.h>
#include <string.h>

#define NOWHERE UINT32_MAX

typedef struct recompute {
    pm_graph *program;
    size_t forward; // nodes
    uint32_t segments;
    uint32_t *segment; // (values): the forward segment that makes it, or NOWHERE
    uint32_t *of_node; // (forward nodes): its segment
    bool *kept;        // (values): read by a backward node
    bool *crosses;     // (values): read by a later segment, so there anyway
    bool *again;       // (values): made again
    uint32_t *copies;  // (values): what takes its place in the backward pass
    bool *done;        // (segments): its copies stand
    pm_node *ordered;  // all nodes in their new order
    size_t ordered_count;
} recompute;

static bool is_view(const pm_node *node)
{
    return node->op->traits & PM_TRAIT_VIEW;
}

// Whether the value is made by the forward pass for each lane.
static bool is_activation(const recompute *r, uint32_t value)
{
    return value != PM_NO_VALUE && r->segment[value] != NOWHERE;
}

// What looks at all lanes at once is made once, and so is all that it makes.
static bool makes_shared(const pm_graph *p, const pm_node *node)
{
    for (uint32_t i = 0; i < node->output_count; i++)
        if (node->outputs[i] != PM_NO_VALUE && p->values[node->outputs[i]].shared)
            return true;
    return false;
}

static void mark_kept(recompute *r)
{
    const pm_graph *p = r->program;
    for (size_t n = 0; n < r->forward; n++)
        for (uint32_t i = 0; !makes_shared(p, &p->nodes[n]) && i < p->nodes[n].output_count; i++)
            if (p->nodes[n].outputs[i] != PM_NO_VALUE)
                r->segment[p->nodes[n].outputs[i]] = 0;
    for (size_t n = r->forward; n < p->node_count; n++)
        for (uint32_t i = 0; i < p->nodes[n].input_count; i++)
            if (is_activation(r, p->nodes[n].inputs[i]))
                r->kept[p->nodes[n].inputs[i]] = true;
}

static size_t kept_bytes(const recompute *r, const pm_node *node)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < node->output_count && !is_view(node); i++)
        if (is_activation(r, node->outputs[i]) && r->kept[node->outputs[i]])
            bytes += pm_tensor_bytes(&r->program->values[node->outputs[i]].tensor);
    return bytes;
}

static void cut(recompute *r)
{
    const pm_graph *p = r->program;
    size_t all = 0, before = 0;
    for (size_t n = 0; n < r->forward; n++)
        all += kept_bytes(r, &p->nodes[n]);
    for (size_t n = 0; n < r->forward; n++) {
        const uint32_t s = all ? (uint32_t)((unsigned __int128)before * r->segments / (all + 1)) : 0;
        r->of_node[n] = s;
        before += kept_bytes(r, &p->nodes[n]);
        for (uint32_t i = 0; i < p->nodes[n].output_count; i++)
            if (is_activation(r, p->nodes[n].outputs[i]))
                r->segment[p->nodes[n].outputs[i]] = s;
    }
}

// A view lies in the memory of what it looks at: one crosses when the other does.
static void mark_crossing(recompute *r)
{
    const pm_graph *p = r->program;
    for (size_t n = 0; n < r->forward; n++)
        for (uint32_t i = 0; i < p->nodes[n].input_count; i++) {
            const uint32_t value = p->nodes[n].inputs[i];
            if (is_activation(r, value) && r->segment[value] != r->of_node[n])
                r->crosses[value] = true;
        }
    for (size_t n = r->forward; n-- > 0;)
        if (is_view(&p->nodes[n]) && r->crosses[p->nodes[n].outputs[0]])
            r->crosses[p->nodes[n].inputs[0]] = true;
    for (size_t n = 0; n < r->forward; n++)
        if (is_view(&p->nodes[n]) && r->crosses[p->nodes[n].inputs[0]])
            r->crosses[p->nodes[n].outputs[0]] = true;
}

static bool is_made_again(const recompute *r, uint32_t value)
{
    return is_activation(r, value) && r->segment[value] + 1 < r->segments && !r->crosses[value];
}

static bool makes_again(const recompute *r, const pm_node *node)
{
    for (uint32_t i = 0; i < node->output_count; i++)
        if (node->outputs[i] != PM_NO_VALUE && r->again[node->outputs[i]])
            return true;
    return false;
}

// What the backward nodes read, and what that is made of inside its segment.
static void mark_again(recompute *r)
{
    const pm_graph *p = r->program;
    for (uint32_t v = 0; v < p->value_count; v++)
        r->again[v] = r->kept[v] && is_made_again(r, v);
    for (size_t n = r->forward; n-- > 0;)
        for (uint32_t i = 0; makes_again(r, &p->nodes[n]) && i < p->nodes[n].input_count; i++)
            if (is_made_again(r, p->nodes[n].inputs[i]))
                r->again[p->nodes[n].inputs[i]] = true;
}

// The node reading copies where there are any.
static pm_status rewire(recompute *r, pm_node *node)
{
    uint32_t *inputs =
        pm_region_copy(r->program->region, node->inputs, node->input_count * sizeof *node->inputs);
    if (!inputs)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    for (uint32_t i = 0; i < node->input_count; i++)
        if (inputs[i] != PM_NO_VALUE)
            inputs[i] = r->copies[inputs[i]];
    node->inputs = inputs;
    return pm_ok();
}

// Appends a copy of a forward node; outputs that only the first needs are left to it.
static pm_status copy_node(recompute *r, const pm_node *node)
{
    pm_graph *p = r->program;
    uint32_t *outputs = pm_region_copy(p->region, node->outputs, node->output_count * sizeof *outputs);
    pm_status status = outputs ? pm_ok() : pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    for (uint32_t i = 0; status.code == PM_OK && i < node->output_count; i++) {
        if (outputs[i] == PM_NO_VALUE)
            continue;
        const pm_tensor tensor = p->values[outputs[i]].tensor;
        status = pm_graph_add_value(p, NULL, &tensor, &outputs[i]);
        if (status.code == PM_OK && r->again[node->outputs[i]])
            r->copies[node->outputs[i]] = outputs[i];
    }
    pm_node copy = *node;
    copy.outputs = outputs;
    if (status.code == PM_OK)
        status = rewire(r, &copy);
    if (status.code == PM_OK)
        r->ordered[r->ordered_count++] = copy;
    return status;
}

static pm_status make_again(recompute *r, uint32_t segment)
{
    pm_status status = pm_ok();
    r->done[segment] = true;
    for (size_t n = 0; status.code == PM_OK && n < r->forward; n++)
        if (r->of_node[n] == segment && makes_again(r, &r->program->nodes[n]))
            status = copy_node(r, &r->program->nodes[n]);
    return status;
}

static pm_status order_backward(recompute *r)
{
    pm_graph *p = r->program;
    for (size_t n = r->forward; n < p->node_count; n++) {
        pm_node node = p->nodes[n];
        pm_status status = pm_ok();
        for (uint32_t i = 0; status.code == PM_OK && i < node.input_count; i++) {
            const uint32_t value = node.inputs[i];
            if (is_activation(r, value) && r->again[value] && !r->done[r->segment[value]])
                status = make_again(r, r->segment[value]);
        }
        if (status.code == PM_OK)
            status = rewire(r, &node);
        if (status.code != PM_OK)
            return status;
        r->ordered[r->ordered_count++] = node;
    }
    return pm_ok();
}

static pm_status run(recompute *r)
{
    pm_graph *p = r->program;
    const size_t values = p->value_count;
    for (uint32_t v = 0; v < values; v++) {
        r->segment[v] = NOWHERE;
        r->copies[v] = v;
    }
    mark_kept(r);
    cut(r);
    mark_crossing(r);
    mark_again(r);
    memcpy(r->ordered, p->nodes, r->forward * sizeof *p->nodes);
    r->ordered_count = r->forward;
    pm_status status = order_backward(r);
    if (status.code != PM_OK)
        return status;
    free(p->nodes);
    p->nodes = r->ordered;
    p->node_count = p->node_capacity = r->ordered_count;
    r->ordered = NULL;
    return status;
}

pm_status pm_program_recompute(pm_graph *program, size_t forward_count, uint32_t segments)
{
    if (segments < 2 || forward_count == 0)
        return pm_ok();
    const size_t values = program->value_count;
    recompute r = {.program = program,
                   .forward = forward_count,
                   .segments = segments,
                   .segment = calloc(values, sizeof(uint32_t)),
                   .of_node = calloc(forward_count, sizeof(uint32_t)),
                   .kept = calloc(values, sizeof(bool)),
                   .crosses = calloc(values, sizeof(bool)),
                   .again = calloc(values, sizeof(bool)),
                   .copies = calloc(values, sizeof(uint32_t)),
                   .done = calloc(segments, sizeof(bool)),
                   .ordered = calloc(program->node_count + forward_count, sizeof(pm_node))};
    pm_status status = pm_fail(PM_NO_MEMORY, "a program of %zu nodes", program->node_count);
    if (r.segment && r.of_node && r.kept && r.crosses && r.again && r.copies && r.done && r.ordered)
        status = run(&r);
    free(r.segment);
    free(r.of_node);
    free(r.kept);
    free(r.crosses);
    free(r.again);
    free(r.copies);
    free(r.done);
    free(r.ordered);
    return status;
}
