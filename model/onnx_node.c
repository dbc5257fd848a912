// The nodes of an ONNX graph, function or branch.
#include "model/onnx_reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { OPERATOR_NAME = 64 };

static bool is_default_domain(const char *domain)
{
    return domain[0] == '\0' || strcmp(domain, "ai.onnx") == 0;
}

static bool read_lists(pm_onnx_reader *r, pm_wire wire, pm_onnx_node *node)
{
    pm_wire_field field;
    size_t inputs = 0, outputs = 0;
    if (pm_onnx_count_fields(wire, ONNX_NODE_INPUT, &inputs).code != PM_OK ||
        pm_onnx_count_fields(wire, ONNX_NODE_OUTPUT, &outputs).code != PM_OK || inputs > PM_MAX_NODE_VALUES ||
        outputs > PM_MAX_NODE_VALUES)
        return false;
    node->inputs = pm_region_alloc(r->graph->region, inputs * sizeof *node->inputs);
    node->outputs = pm_region_alloc(r->graph->region, outputs * sizeof *node->outputs);
    while (node->inputs && node->outputs && pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_NODE_INPUT)
            node->inputs[node->input_count++] = pm_onnx_text_of(&field);
        else if (field.number == ONNX_NODE_OUTPUT)
            node->outputs[node->output_count++] = pm_onnx_text_of(&field);
        else if (field.number == ONNX_NODE_NAME)
            node->raw_name = pm_onnx_text_of(&field);
        else if (field.number == ONNX_NODE_OP_TYPE)
            node->raw_op = pm_onnx_text_of(&field);
        else if (field.number == ONNX_NODE_DOMAIN)
            node->raw_domain = pm_onnx_text_of(&field);
    }
    while (node->input_count > 0 && node->inputs[node->input_count - 1].size == 0)
        node->input_count--; // optional ones left out at the end
    while (node->output_count > 0 && node->outputs[node->output_count - 1].size == 0)
        node->output_count--;
    return !wire.bad && node->inputs && node->outputs;
}

static pm_status read_names(const pm_onnx_scope *scope, size_t index, pm_onnx_node *node)
{
    char plain[PM_MAX_NAME];
    pm_status status = pm_onnx_name(node->raw_op, "the operator", node->op);
    if (status.code == PM_OK && node->raw_domain.size > 0)
        status = pm_onnx_name(node->raw_domain, "the domain", node->domain);
    if (status.code == PM_OK && node->raw_name.size > 0)
        status = pm_onnx_name(node->raw_name, "the node", plain);
    if (status.code != PM_OK)
        return status;
    if (node->raw_name.size == 0)
        snprintf(plain, sizeof plain, "%.*s_%zu", OPERATOR_NAME, node->op, index);
    if (snprintf(node->name, sizeof node->name, "%s%s", scope->prefix, plain) >= (int)sizeof node->name)
        return pm_fail(PM_INVALID, "node %.64s has too long a name inside %.64s", plain, scope->prefix);
    return status;
}

// Whether some node of the scope makes name.
static bool is_made(const pm_onnx_scope *scope, pm_onnx_text name)
{
    pm_wire wire = scope->message;
    pm_wire_field field;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != scope->node_field)
            continue;
        for (pm_wire node = pm_wire_inner(&field); pm_wire_next(&node, &field);)
            if (field.number == ONNX_NODE_OUTPUT && pm_onnx_text_compare(pm_onnx_text_of(&field), name) == 0)
                return true;
    }
    return false;
}

pm_status pm_onnx_find_input(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text text, bool setting,
                             uint32_t *value)
{
    char name[PM_MAX_NAME];
    *value = PM_NO_VALUE;
    if (text.size == 0)
        return pm_ok();
    pm_status status = pm_onnx_name(text, "an input", name);
    if (status.code == PM_OK)
        status = pm_onnx_resolve(r, scope, text, setting, value);
    if (status.code == PM_NOT_FOUND)
        return is_made(scope, text)
                   ? pm_fail(PM_INVALID, "input %.64s is made later: a cycle, or nodes out of order", name)
                   : pm_fail(PM_INVALID, "input %.64s is made by no node and is no input of the graph", name);
    return status;
}

static pm_status find_inputs(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw,
                             const pm_operator *op, uint32_t *inputs)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; status.code == PM_OK && i < raw->input_count; i++)
        status =
            pm_onnx_find_input(r, scope, raw->inputs[i], i < 32 && op->fixed_inputs >> i & 1, &inputs[i]);
    return status;
}

pm_status pm_onnx_add_output(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text text,
                             const pm_tensor *constant, uint32_t *output)
{
    char name[PM_MAX_NAME];
    const pm_tensor unknown = {0};
    pm_status status = pm_onnx_value_name(scope, text, name);
    if (status.code == PM_OK)
        status = constant ? pm_graph_add_constant(r->graph, name, constant, output)
                          : pm_graph_add_value(r->graph, name, &unknown, output);
    if (status.code == PM_OK)
        status = pm_onnx_declare(scope, text, *output);
    return status.code == PM_OK ? pm_onnx_take_name(r, *output) : status;
}

static pm_status add_outputs(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw,
                             uint32_t *outputs)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; status.code == PM_OK && i < raw->output_count; i++) {
        outputs[i] = PM_NO_VALUE;
        if (raw->outputs[i].size > 0)
            status = pm_onnx_add_output(r, scope, raw->outputs[i], NULL, &outputs[i]);
    }
    return status;
}

static pm_status add_constant(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw)
{
    pm_tensor constant;
    uint32_t value = PM_NO_VALUE;
    if (raw->output_count != 1 || raw->input_count != 0)
        return pm_fail(PM_INVALID, "wanted no input and one output");
    pm_status status = pm_onnx_constant_read(raw->message, scope->call, r->graph->region, &constant);
    if (status.code == PM_OK && !r->given && pm_onnx_is_half(constant.type))
        status = pm_onnx_widen(r->graph->region, &constant);
    return status.code == PM_OK ? pm_onnx_add_output(r, scope, raw->outputs[0], &constant, &value) : status;
}

// An Identity that gives a weight a second name.
static pm_status add_untied(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw, bool *untied)
{
    uint32_t from = PM_NO_VALUE, value = PM_NO_VALUE;
    *untied = false;
    if (r->given || strcmp(raw->op, "Identity") != 0 || raw->input_count != 1 || raw->output_count != 1)
        return pm_ok();
    pm_status status = pm_onnx_find_input(r, scope, raw->inputs[0], true, &from);
    if (status.code != PM_OK || from == PM_NO_VALUE)
        return status;
    const pm_value *v = &r->graph->values[from];
    const pm_tensor tensor = v->tensor;
    if (!v->weight || tensor.type != PM_TYPE_F32 || tensor.rank == 0 || !tensor.data)
        return status;
    *untied = true;
    status = pm_onnx_add_output(r, scope, raw->outputs[0], &tensor, &value);
    if (status.code != PM_OK)
        return status;
    r->graph->values[value].weight = true;
    return pm_graph_add_note(
        r->graph,
        "parameters %s and %s came as one, which the exporter makes of equal values: they "
        "are two again and train apart",
        r->graph->values[from].name, r->graph->values[value].name);
}

static pm_status add_known(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw,
                           const pm_operator *op)
{
    uint32_t *inputs = pm_region_alloc(r->graph->region, raw->input_count * sizeof *inputs);
    uint32_t *outputs = pm_region_alloc(r->graph->region, raw->output_count * sizeof *outputs);
    if (!inputs || !outputs)
        return pm_fail(PM_NO_MEMORY, "a node");
    pm_node node = {.op = op,
                    .name = raw->name,
                    .inputs = inputs,
                    .input_count = raw->input_count,
                    .outputs = outputs,
                    .output_count = raw->output_count};
    pm_attribute *attributes = NULL;
    pm_status status = pm_onnx_attributes_read(raw->message, scope->call, op->attributes, r->graph->region,
                                               &attributes, &node.attribute_count);
    node.attributes = attributes;
    if (status.code == PM_OK)
        status = find_inputs(r, scope, raw, op, inputs);
    if (status.code == PM_OK && !r->given)
        status = pm_onnx_settle_node(r->graph, &node, attributes);
    if (status.code == PM_OK)
        status = add_outputs(r, scope, raw, outputs);
    return status.code == PM_OK ? pm_graph_add_node(r->graph, &node) : status;
}

// Names the node of a failure, unless one inside it is named already: its name tells where it lies.
static pm_status name_failure(pm_onnx_reader *r, const pm_onnx_node *raw, pm_status status)
{
    if (status.code == PM_OK || r->named)
        return status;
    r->named = true;
    return pm_wrap(status, "node %.64s (%.48s)", raw->name, raw->op);
}

// The operator's form, which must be that of the model's opset too where a function has its own.
static pm_status add_operator(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw, bool ours)
{
    const char *domain = ours ? "" : raw->domain;
    const bool hidden = strcmp(raw->domain, PM_DOMAIN) == 0; // not for models
    const pm_operator *op = hidden ? NULL : pm_operator_find(domain, raw->op, scope->opset);
    bool untied = false, taken = false;
    if (!op && !r->given && strcmp(raw->domain, "ai.onnx.ml") == 0) {
        pm_status status = pm_onnx_add_ml(r, scope, raw, &taken);
        if (taken)
            return status;
    }
    if (!op || op != pm_operator_find(domain, raw->op, r->graph->opset)) {
        r->named = true;
        return pm_fail(PM_UNSUPPORTED,
                       "node %.64s: operator %.48s of domain '%.48s', opset %" PRId64 ", is not built%s",
                       raw->name, raw->op, raw->domain, scope->opset,
                       op ? " inside a function of another opset than the model's" : "");
    }
    pm_status status = add_untied(r, scope, raw, &untied);
    if (status.code == PM_OK && !untied)
        status = add_known(r, scope, raw, op);
    return status;
}

static pm_status read_node(pm_onnx_reader *r, pm_onnx_scope *scope, pm_wire wire)
{
    pm_onnx_node raw = {.message = wire};
    const size_t index = scope->node_index++;
    if (++r->node_count > PM_MAX_NODES) {
        r->named = true;
        return pm_fail(PM_UNSUPPORTED, "more than %d nodes", PM_MAX_NODES);
    }
    if (!read_lists(r, wire, &raw))
        return pm_fail(PM_CORRUPT, "node %zu is malformed", index);
    pm_status status = read_names(scope, index, &raw);
    if (status.code != PM_OK)
        return pm_wrap(status, "node %zu", index);
    const bool ours = is_default_domain(raw.domain);
    const pm_onnx_text no_domain = {0};
    const pm_onnx_function *function =
        pm_onnx_find_function(r, ours ? no_domain : raw.raw_domain, raw.raw_op);
    if (function)
        status = pm_onnx_call_function(r, scope, &raw, function);
    else if (ours && strcmp(raw.op, "If") == 0)
        status = pm_onnx_take_branch(r, scope, &raw);
    else if (ours && strcmp(raw.op, "Constant") == 0)
        status = add_constant(r, scope, &raw);
    else
        status = add_operator(r, scope, &raw, ours);
    return name_failure(r, &raw, status);
}

pm_status pm_onnx_read_nodes(pm_onnx_reader *r, pm_onnx_scope *scope)
{
    size_t count = 0;
    pm_wire wire = scope->message;
    pm_wire_field field;
    pm_status status = pm_onnx_count_fields(wire, scope->node_field, &count);
    if (status.code == PM_OK && count > PM_MAX_NODES)
        status = pm_fail(PM_UNSUPPORTED, "%zu nodes, at most %d are built", count, PM_MAX_NODES);
    while (status.code == PM_OK && pm_wire_next(&wire, &field)) {
        if (field.number != scope->node_field)
            continue;
        if (scope->needed && !scope->needed[scope->node_index])
            scope->node_index++;
        else
            status = read_node(r, scope, pm_wire_inner(&field));
    }
    return status;
}

pm_status pm_onnx_add_plain(pm_graph *graph, const char *op, uint32_t input, const char *name,
                            const pm_attribute *attribute, uint32_t *value)
{
    const pm_tensor unknown = {0};
    pm_status status = pm_graph_add_value(graph, name, &unknown, value);
    const pm_node node = {.op = pm_operator_find("", op, graph->opset),
                          .name = name ? name : op,
                          .inputs = &input,
                          .input_count = 1,
                          .outputs = value,
                          .output_count = 1,
                          .attributes = attribute,
                          .attribute_count = attribute != NULL};
    if (status.code == PM_OK && !node.op)
        status = pm_fail(PM_UNSUPPORTED, "operator %s, opset %" PRId64, op, graph->opset);
    return status.code == PM_OK ? pm_graph_add_node(graph, &node) : status;
}
