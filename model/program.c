#include "model/program.h"

#include "model/operators.h"
#include "model/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Constants of more elements are left to run with the rest, once, when a plan is prepared; as are all when
// the program has grown to FOLD_BYTES.
enum { FOLD_MAX = 1 << 16, FOLD_BYTES = 64 << 20 };

static pm_status check_counts(const pm_node *node)
{
    const pm_operator *op = node->op;
    if (node->input_count < op->min_inputs || node->input_count > op->max_inputs)
        return pm_fail(PM_INVALID, "%u inputs, wanted %u to %u", node->input_count, op->min_inputs,
                       op->max_inputs);
    if (node->output_count == 0 || node->output_count > op->max_outputs)
        return pm_fail(PM_INVALID, "%u outputs, wanted 1 to %u", node->output_count, op->max_outputs);
    for (uint32_t i = 0; i < op->min_inputs; i++)
        if (node->inputs[i] == PM_NO_VALUE)
            return pm_fail(PM_INVALID, "input %u is left out", i);
    return pm_ok();
}

pm_status pm_program_infer(const pm_graph *graph, const pm_node *node, pm_tensor *outputs)
{
    const pm_value **in = pm_region_alloc(graph->region, (node->input_count + 1) * sizeof(void *));
    if (!in)
        return pm_fail(PM_NO_MEMORY, "inference of shapes");
    memset(outputs, 0, node->output_count * sizeof *outputs);
    pm_shapes s = {.node = node, .in = in, .out = outputs, .region = graph->region};
    pm_status status = check_counts(node);
    for (uint32_t i = 0; i < node->input_count; i++)
        in[i] = node->inputs[i] == PM_NO_VALUE ? NULL : &graph->values[node->inputs[i]];
    if (status.code == PM_OK)
        status = node->op->infer(&s);
    for (uint32_t i = 0; status.code == PM_OK && i < node->output_count; i++) {
        char text[128];
        pm_tensor *t = &outputs[i];
        if (!pm_shape_count(t->shape, t->rank, PM_MAX_ROW_COUNT, &t->count))
            return pm_fail(PM_INVALID, "output %u of shape %s is too large", i,
                           pm_shape_text(t->shape, t->rank, text, sizeof text));
    }
    return status;
}

// What is known of the inputs together.
typedef struct input_facts {
    bool constant, shared;
    size_t count; // elements
} input_facts;

static input_facts look_at_inputs(const pm_graph *program, const pm_node *node)
{
    input_facts facts = {true, true, 0};
    for (uint32_t i = 0; i < node->input_count; i++) {
        if (node->inputs[i] == PM_NO_VALUE)
            continue;
        const pm_value *v = &program->values[node->inputs[i]];
        facts.constant = facts.constant && v->constant;
        facts.shared = facts.shared && v->shared;
        facts.count += v->tensor.count < FOLD_MAX ? v->tensor.count : FOLD_MAX;
    }
    return facts;
}

// Gives outputs their elements where they are known without running; false when they are not.
static pm_status fold(pm_graph *program, const pm_node *node, pm_tensor *outputs, bool *folded)
{
    const input_facts facts = look_at_inputs(program, node);
    const pm_operator *op = node->op;
    *folded = outputs[0].data != NULL;
    if (*folded || !facts.constant || node->output_count != 1 || (op->traits & PM_TRAIT_PER_LANE))
        return pm_ok();
    if (op->traits & PM_TRAIT_VIEW) {
        outputs[0].data = program->values[node->inputs[0]].tensor.data;
        *folded = true;
        return pm_ok();
    }
    if (!op->run || facts.count + outputs[0].count > FOLD_MAX || pm_region_used(program->region) > FOLD_BYTES)
        return pm_ok();
    *folded = true;
    return pm_task_fold(program, node, &outputs[0], program->region);
}

pm_status pm_program_add(pm_graph *program, const pm_node *node, uint32_t *outputs)
{
    bool folded = false;
    pm_tensor *tensors = pm_region_alloc(program->region, (node->output_count + 1) * sizeof *tensors);
    if (!tensors)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    pm_status status = pm_program_infer(program, node, tensors);
    if (status.code == PM_OK)
        status = fold(program, node, tensors, &folded);
    const bool shared = (look_at_inputs(program, node).shared && !(node->op->traits & PM_TRAIT_PER_LANE)) ||
                        (node->op->traits & (PM_TRAIT_SUMS_LANES | PM_TRAIT_JOINS_LANES));
    for (uint32_t i = 0; status.code == PM_OK && i < node->output_count; i++) {
        if (folded) {
            status = pm_graph_add_constant(program, NULL, &tensors[i], &outputs[i]);
            continue;
        }
        status = pm_graph_add_value(program, NULL, &tensors[i], &outputs[i]);
        if (status.code == PM_OK)
            program->values[outputs[i]].shared = shared;
    }
    if (status.code != PM_OK || folded)
        return status;
    pm_node added = *node;
    added.outputs = outputs;
    return pm_graph_add_node(program, &added);
}

pm_status pm_program_lane(const pm_graph *source, uint32_t rows, pm_tensor *tensors)
{
    for (size_t i = 0; i < source->input_count; i++) {
        const pm_value *v = &source->values[source->inputs[i]];
        tensors[i] = v->tensor;
        if (v->batched)
            tensors[i].shape[0] = rows;
        for (uint32_t d = 0; d < v->tensor.rank; d++)
            if (tensors[i].shape[d] < 0)
                return pm_fail(PM_UNSUPPORTED, "input %.64s: extent %u is not fixed", v->name, d);
        if (!pm_shape_count(tensors[i].shape, v->tensor.rank, PM_MAX_ROW_COUNT, &tensors[i].count) ||
            tensors[i].count == 0)
            return pm_fail(PM_INVALID, "input %.64s is empty or too large", v->name);
    }
    return pm_ok();
}

// The source's inputs, parameters and constants become the program's.
static pm_status add_leaves(pm_graph *program, const pm_graph *source, const pm_tensor *inputs, uint32_t *map)
{
    pm_status status = pm_ok();
    for (size_t i = 0; status.code == PM_OK && i < source->input_count; i++) {
        const pm_value *v = &source->values[source->inputs[i]];
        uint32_t *value = &map[source->inputs[i]];
        if (inputs[i].data)
            status = pm_graph_add_constant(program, v->name, &inputs[i], value);
        else
            status = pm_graph_add_value(program, v->name, &inputs[i], value);
        if (status.code == PM_OK)
            status = pm_graph_add_input(program, *value);
    }
    for (size_t i = 0; status.code == PM_OK && i < source->param_count; i++) {
        const pm_value *v = &source->values[source->param_values[i]];
        uint32_t *value = &map[source->param_values[i]];
        status = pm_graph_add_value(program, v->name, &v->tensor, value);
        if (status.code == PM_OK)
            status = pm_graph_make_param(program, *value);
        if (status.code == PM_OK)
            program->params[i] = source->params[i];
    }
    for (size_t i = 0; status.code == PM_OK && i < source->value_count; i++)
        if (source->values[i].constant)
            status =
                pm_graph_add_constant(program, source->values[i].name, &source->values[i].tensor, &map[i]);
    return status;
}

static pm_status add_source_node(pm_graph *program, const pm_graph *source, bool training,
                                 const pm_node *node, uint32_t *map)
{
    uint32_t *inputs = pm_region_alloc(program->region, node->input_count * sizeof *inputs);
    uint32_t *outputs = pm_region_alloc(program->region, node->output_count * sizeof *outputs);
    if (!inputs || !outputs)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    for (uint32_t i = 0; i < node->input_count; i++)
        inputs[i] = node->inputs[i] == PM_NO_VALUE ? PM_NO_VALUE : map[node->inputs[i]];
    pm_node mapped = *node;
    mapped.inputs = inputs;
    for (uint32_t i = 0; i < node->output_count; i++)
        outputs[i] = PM_NO_VALUE;
    pm_status status = check_counts(&mapped);
    if (status.code == PM_OK)
        status = node->op->lower ? node->op->lower(program, training, &mapped, outputs)
                                 : pm_program_add(program, &mapped, outputs);
    for (uint32_t i = 0; i < node->output_count; i++) {
        if (node->outputs[i] == PM_NO_VALUE || status.code != PM_OK)
            continue;
        map[node->outputs[i]] = outputs[i];
        if (outputs[i] != PM_NO_VALUE && !program->values[outputs[i]].name)
            program->values[outputs[i]].name = source->values[node->outputs[i]].name; // source's: it outlives
    }
    return pm_wrap(status, "node %.64s (%s)", node->name, node->op->name);
}

pm_status pm_program_create(pm_graph **program, const pm_graph *source, const pm_tensor *inputs,
                            bool training)
{
    pm_graph *p = pm_graph_create();
    uint32_t *map = calloc(source->value_count + 1, sizeof *map);
    pm_status status = p && map ? pm_ok() : pm_fail(PM_NO_MEMORY, "a program");
    if (status.code == PM_OK)
        status = add_leaves(p, source, inputs, map);
    for (size_t i = 0; status.code == PM_OK && i < source->node_count; i++)
        status = add_source_node(p, source, training, &source->nodes[i], map);
    for (size_t i = 0; status.code == PM_OK && i < source->output_count; i++)
        status = pm_graph_add_output(p, map[source->outputs[i]]);
    free(map);
    if (status.code == PM_OK)
        *program = p;
    else
        pm_graph_destroy(&p);
    return status;
}

// Copies node's outputs without those that are not live, the first aside, which kernels count on; false when
// none is or memory is out.
static bool keep_outputs(pm_graph *program, pm_node *node, const bool *live, bool *failed)
{
    bool any = false;
    for (uint32_t i = 0; i < node->output_count; i++)
        any = any || (node->outputs[i] != PM_NO_VALUE && live[node->outputs[i]]);
    if (!any)
        return false;
    uint32_t *kept = pm_region_copy(program->region, node->outputs, node->output_count * sizeof *kept);
    *failed = *failed || !kept;
    for (uint32_t i = 1; kept && i < node->output_count; i++)
        if (kept[i] != PM_NO_VALUE && !live[kept[i]])
            kept[i] = PM_NO_VALUE;
    if (kept)
        node->outputs = kept;
    return kept != NULL;
}

pm_status pm_program_prune(pm_graph *program, const uint32_t *keep, size_t keep_count)
{
    bool *live = calloc(program->value_count + 1, sizeof *live);
    bool *kept = calloc(program->node_count + 1, sizeof *kept), failed = false;
    if (!live || !kept) {
        free(live);
        free(kept);
        return pm_fail(PM_NO_MEMORY, "a program of %zu nodes", program->node_count);
    }
    for (size_t i = 0; i < program->output_count; i++)
        live[program->outputs[i]] = true;
    for (size_t i = 0; i < keep_count; i++)
        live[keep[i]] = true;
    for (size_t i = program->node_count; i-- > 0;) {
        pm_node *node = &program->nodes[i];
        kept[i] = keep_outputs(program, node, live, &failed);
        for (uint32_t k = 0; kept[i] && k < node->input_count; k++)
            if (node->inputs[k] != PM_NO_VALUE)
                live[node->inputs[k]] = true;
    }
    size_t count = 0;
    for (size_t i = 0; i < program->node_count; i++)
        if (kept[i])
            program->nodes[count++] = program->nodes[i];
    program->node_count = count;
    free(live);
    free(kept);
    return failed ? pm_fail(PM_NO_MEMORY, "a program of %zu nodes", count) : pm_ok();
}
