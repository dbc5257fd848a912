// Functions of the model, put in where they are called, and the branch of an If whose condition is known.
#include "model/onnx_reader.h"
#include "model/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- functions

static int by_domain_and_name(const void *a, const void *b)
{
    const pm_onnx_function *f = a, *g = b;
    const int order = pm_onnx_text_compare(f->domain, g->domain);
    return order ? order : pm_onnx_text_compare(f->name, g->name);
}

static bool read_function(pm_onnx_function *f, pm_wire message)
{
    pm_wire_field field;
    *f = (pm_onnx_function){.message = message};
    while (pm_wire_next(&message, &field)) {
        if (field.number == ONNX_FUNCTION_NAME)
            f->name = pm_onnx_text_of(&field);
        else if (field.number == ONNX_FUNCTION_DOMAIN)
            f->domain = pm_onnx_text_of(&field);
    }
    if (pm_onnx_text_is(f->domain, "ai.onnx"))
        f->domain = (pm_onnx_text){0};
    return !message.bad && f->name.size > 0;
}

pm_status pm_onnx_index_functions(pm_onnx_reader *r, pm_wire model)
{
    size_t count = 0;
    pm_wire_field field;
    pm_status status = pm_onnx_count_fields(model, ONNX_MODEL_FUNCTIONS, &count);
    if (status.code != PM_OK || count == 0)
        return status;
    r->functions = calloc(count, sizeof *r->functions);
    if (!r->functions)
        return pm_fail(PM_NO_MEMORY, "%zu functions", count);
    while (pm_wire_next(&model, &field))
        if (field.number == ONNX_MODEL_FUNCTIONS &&
            !read_function(&r->functions[r->function_count++], pm_wire_inner(&field)))
            return pm_fail(PM_CORRUPT, "a function is malformed");
    qsort(r->functions, count, sizeof *r->functions, by_domain_and_name);
    for (size_t i = 1; i < count; i++)
        if (by_domain_and_name(&r->functions[i - 1], &r->functions[i]) == 0)
            return pm_fail(PM_INVALID, "two functions have one name");
    return status;
}

const pm_onnx_function *pm_onnx_find_function(const pm_onnx_reader *r, pm_onnx_text domain, pm_onnx_text name)
{
    const pm_onnx_function key = {.domain = domain, .name = name};
    return r->function_count ? bsearch(&key, r->functions, r->function_count, sizeof key, by_domain_and_name)
                             : NULL;
}

// --- what calls and branches share

// The opset of the default domain that a function is written in; the model's where it does not say.
static int64_t opset_of(pm_wire function, int64_t otherwise)
{
    pm_wire_field field;
    while (pm_wire_next(&function, &field)) {
        if (field.number != ONNX_FUNCTION_OPSET_IMPORT)
            continue;
        pm_onnx_text domain = {0};
        int64_t version = otherwise;
        for (pm_wire opset = pm_wire_inner(&field); pm_wire_next(&opset, &field);) {
            if (field.number == ONNX_OPSET_DOMAIN)
                domain = pm_onnx_text_of(&field);
            else if (field.number == ONNX_OPSET_VERSION)
                version = (int64_t)field.value;
        }
        if (domain.size == 0 || pm_onnx_text_is(domain, "ai.onnx"))
            otherwise = version;
    }
    return otherwise;
}

// "NODE/", which no other call has.
static pm_status choose_prefix(pm_onnx_reader *r, const pm_onnx_node *node, const char **prefix)
{
    char text[2 * PM_MAX_NAME];
    int size = snprintf(text, sizeof text, "%s/", node->name);
    if (pm_names_find(r->taken, text, (size_t)size) != PM_NO_NAME)
        size = snprintf(text, sizeof text, "%s.%zu/", node->name, r->node_count);
    *prefix = pm_region_text(r->graph->region, text);
    return *prefix ? pm_names_add(r->taken, *prefix, (size_t)size, 0) : pm_fail(PM_NO_MEMORY, "a prefix");
}

// The names of the outputs: outside from the node, inside from the message's fields of a number.
static pm_status match_outputs(pm_onnx_reader *r, const pm_onnx_scope *outer, const pm_onnx_node *node,
                               uint32_t number, pm_onnx_scope *inner)
{
    size_t count = 0;
    pm_status status = pm_onnx_count_fields(inner->message, number, &count);
    if (status.code == PM_OK && count < node->output_count)
        status = pm_fail(PM_INVALID, "it has %zu outputs, %u are wanted", count, node->output_count);
    if (status.code != PM_OK)
        return status;
    pm_onnx_text *texts = pm_region_alloc(r->graph->region, count * sizeof *texts);
    const char **names = pm_region_alloc(r->graph->region, count * sizeof *names);
    pm_wire wire = inner->message;
    pm_wire_field field;
    for (uint32_t i = 0; texts && names && i < node->output_count && pm_wire_next(&wire, &field);) {
        char name[PM_MAX_NAME];
        if (field.number != number)
            continue;
        texts[i] = pm_onnx_text_of(&field);
        if (number == ONNX_GRAPH_OUTPUT) // a ValueInfoProto
            for (pm_wire info = pm_wire_inner(&field); pm_wire_next(&info, &field);)
                if (field.number == ONNX_VALUE_NAME)
                    texts[i] = pm_onnx_text_of(&field);
        if (node->outputs[i].size > 0) {
            status = pm_onnx_value_name(outer, node->outputs[i], name);
            names[i] = status.code == PM_OK ? pm_region_text(r->graph->region, name) : NULL;
        }
        if (status.code != PM_OK)
            return status;
        i++;
    }
    inner->outputs = texts;
    inner->output_names = names;
    inner->output_count = node->output_count;
    return texts && names ? status : pm_fail(PM_NO_MEMORY, "outputs");
}

// What the outputs are inside, they are outside, under the names that they have there.
static pm_status hand_out(pm_onnx_reader *r, pm_onnx_scope *outer, const pm_onnx_node *node,
                          pm_onnx_scope *inner)
{
    pm_status status = pm_ok();
    for (uint32_t i = 0; status.code == PM_OK && i < inner->output_count; i++) {
        uint32_t value = PM_NO_VALUE;
        if (!inner->output_names[i])
            continue;
        status = pm_onnx_find_input(r, inner, inner->outputs[i], false, &value);
        if (status.code == PM_OK && value == PM_NO_VALUE)
            status = pm_fail(PM_INVALID, "output %u is an input that is left out", i);
        if (status.code == PM_OK && strcmp(r->graph->values[value].name, inner->output_names[i]) != 0) {
            status = pm_onnx_add_plain(r->graph, "Identity", value, inner->output_names[i], NULL, &value);
            if (status.code == PM_OK)
                status = pm_onnx_take_name(r, value);
        }
        if (status.code == PM_OK)
            status = pm_onnx_declare(outer, node->outputs[i], value);
    }
    return status;
}

static pm_status inline_body(pm_onnx_reader *r, pm_onnx_scope *outer, const pm_onnx_node *node,
                             uint32_t output_field, pm_onnx_scope *inner)
{
    if (inner->depth > PM_ONNX_DEPTH)
        return pm_fail(PM_INVALID, "functions and branches lie more than %d deep", PM_ONNX_DEPTH);
    pm_status status = choose_prefix(r, node, &inner->prefix);
    if (status.code == PM_OK)
        status = match_outputs(r, outer, node, output_field, inner);
    if (status.code == PM_OK)
        status = pm_onnx_read_nodes(r, inner);
    return status.code == PM_OK ? hand_out(r, outer, node, inner) : status;
}

// --- a call

static pm_status hand_in(pm_onnx_reader *r, pm_onnx_scope *outer, const pm_onnx_node *node,
                         pm_onnx_scope *inner)
{
    pm_wire wire = inner->message;
    pm_wire_field field;
    pm_status status = pm_ok();
    uint32_t i = 0;
    while (status.code == PM_OK && pm_wire_next(&wire, &field)) {
        uint32_t value = PM_NO_VALUE;
        if (field.number != ONNX_FUNCTION_INPUT)
            continue;
        if (i < node->input_count) // trained or not: the function's nodes will tell
            status = pm_onnx_find_input(r, outer, node->inputs[i], true, &value);
        if (status.code == PM_OK && value != PM_NO_VALUE)
            status = pm_onnx_declare(inner, pm_onnx_text_of(&field), value);
        i++;
    }
    if (status.code == PM_OK && i < node->input_count)
        status = pm_fail(PM_INVALID, "%u inputs, the function has %u", node->input_count, i);
    return status;
}

pm_status pm_onnx_call_function(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *node,
                                const pm_onnx_function *function)
{
    const pm_onnx_call call = {.node = node->message, .function = function->message, .outer = scope->call};
    pm_onnx_scope inner = {.from = scope,
                           .function = function,
                           .call = &call,
                           .depth = scope->depth + 1,
                           .opset = opset_of(function->message, scope->opset),
                           .message = function->message,
                           .node_field = ONNX_FUNCTION_NODE};
    const size_t bytes = (size_t)(function->message.end - function->message.at);
    for (const pm_onnx_scope *s = scope; s; s = s->from)
        if (s->function == function)
            return pm_fail(PM_INVALID, "it calls itself");
    if (bytes > r->expansion_left)
        return pm_fail(PM_INVALID, "the model's functions expand to more than %d bytes", PM_ONNX_EXPANSION);
    r->expansion_left -= bytes;
    pm_status status = pm_onnx_scope_open(&inner);
    if (status.code == PM_OK)
        status = hand_in(r, scope, node, &inner);
    if (status.code == PM_OK)
        status = inline_body(r, scope, node, ONNX_FUNCTION_OUTPUT, &inner);
    pm_onnx_scope_close(&inner);
    return status;
}

// --- a branch

// Leaves those nodes of a graph that its outputs need.
static bool keep_needed(pm_graph *graph)
{
    bool *needed = calloc(graph->value_count + 1, sizeof *needed);
    size_t kept = graph->node_count;
    for (size_t i = 0; needed && i < graph->output_count; i++)
        needed[graph->outputs[i]] = true;
    for (size_t n = graph->node_count; needed && n-- > 0;) {
        const pm_node node = graph->nodes[n];
        bool wanted = false;
        for (uint32_t i = 0; i < node.output_count; i++)
            wanted = wanted || (node.outputs[i] != PM_NO_VALUE && needed[node.outputs[i]]);
        for (uint32_t i = 0; wanted && i < node.input_count; i++)
            if (node.inputs[i] != PM_NO_VALUE)
                needed[node.inputs[i]] = true;
        if (wanted)
            graph->nodes[--kept] = node;
    }
    graph->nodes += kept;
    graph->node_count -= kept;
    free(needed);
    return needed != NULL;
}

// The value in a program of rows rows, or of the given inputs; PM_UNSUPPORTED when it follows not from
// constants and shapes alone.
static pm_status evaluate_condition(const pm_onnx_reader *r, const pm_graph *part, uint32_t rows, bool *yes)
{
    pm_graph *program = NULL;
    pm_tensor *inputs = calloc(part->input_count + 1, sizeof *inputs);
    pm_status status = inputs ? pm_ok() : pm_fail(PM_NO_MEMORY, "inputs");
    if (status.code == PM_OK && !r->given)
        status = pm_program_lane(part, rows, inputs);
    for (size_t i = 0; status.code == PM_OK && r->given && i < part->input_count; i++) {
        inputs[i] = part->values[part->inputs[i]].tensor;
        inputs[i].data = inputs[i].type == PM_TYPE_F32 ? NULL : r->given[i].data;
    }
    if (status.code == PM_OK)
        status = pm_program_create(&program, part, inputs, false);
    if (status.code == PM_OK) {
        const pm_value *v = &program->values[program->outputs[0]];
        if (!v->constant || v->tensor.type != PM_TYPE_BOOL || v->tensor.count != 1)
            status = pm_fail(PM_UNSUPPORTED, "its condition is not known before the model runs");
        else
            *yes = *(const unsigned char *)v->tensor.data != 0;
    }
    pm_graph_destroy(&program);
    free(inputs);
    return status;
}

static pm_status decide(pm_onnx_reader *r, uint32_t condition, bool *yes)
{
    pm_graph part = *r->graph; // as far as it is read
    bool second = false;
    pm_node *nodes = malloc((part.node_count + 1) * sizeof *nodes);
    if (!nodes || r->condition_left < part.node_count + part.value_count) {
        free(nodes);
        return nodes ? pm_fail(PM_UNSUPPORTED, "too many conditions for so many nodes")
                     : pm_fail(PM_NO_MEMORY, "a condition");
    }
    r->condition_left -= part.node_count + part.value_count;
    if (part.node_count > 0)
        memcpy(nodes, part.nodes, part.node_count * sizeof *nodes);
    part.nodes = nodes;
    part.outputs = &condition;
    part.output_count = 1;
    pm_status status = keep_needed(&part) ? pm_ok() : pm_fail(PM_NO_MEMORY, "a condition");
    if (status.code == PM_OK)
        status = pm_onnx_drop_unread(&part);
    if (status.code == PM_OK)
        status = evaluate_condition(r, &part, 1, yes);
    if (status.code == PM_OK && !r->given)
        status = evaluate_condition(r, &part, 2, &second);
    if (status.code == PM_OK && !r->given && *yes != second)
        status = pm_fail(PM_UNSUPPORTED, "its condition depends on the size of the batch");
    free(nodes);
    return status;
}

static pm_status check_branch(const pm_onnx_scope *branch)
{
    pm_wire wire = branch->message;
    pm_wire_field field;
    while (pm_wire_next(&wire, &field))
        if (field.number == ONNX_GRAPH_INPUT)
            return pm_fail(PM_INVALID, "a branch has inputs");
    return pm_ok();
}

pm_status pm_onnx_take_branch(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *node)
{
    uint32_t condition = PM_NO_VALUE;
    bool yes = false;
    pm_onnx_scope inner = {.outer = scope,
                           .from = scope,
                           .call = scope->call,
                           .depth = scope->depth + 1,
                           .opset = scope->opset,
                           .node_field = ONNX_GRAPH_NODE};
    if (node->input_count != 1 || node->output_count == 0)
        return pm_fail(PM_INVALID, "%u inputs and %u outputs, wanted 1 and at least 1", node->input_count,
                       node->output_count);
    pm_status status = pm_onnx_find_input(r, scope, node->inputs[0], true, &condition);
    if (status.code == PM_OK && condition == PM_NO_VALUE)
        status = pm_fail(PM_INVALID, "its condition is left out");
    if (status.code == PM_OK)
        status = decide(r, condition, &yes);
    if (status.code != PM_OK)
        return status;
    const char *name = yes ? "then_branch" : "else_branch";
    if (!pm_onnx_attribute_graph(node->message, name, &inner.message))
        return pm_fail(PM_INVALID, "it has no %s", name);
    status = pm_onnx_scope_open(&inner);
    if (status.code == PM_OK)
        status = check_branch(&inner);
    if (status.code == PM_OK)
        status = inline_body(r, scope, node, ONNX_GRAPH_OUTPUT, &inner);
    pm_onnx_scope_close(&inner);
    return status;
}
