// The names of an ONNX graph, of a function call or of a branch, and what they stand for.
#include "model/onnx_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pm_status pm_onnx_count_fields(pm_wire wire, uint32_t number, size_t *count)
{
    pm_wire_field field;
    *count = 0;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != number)
            continue;
        if (field.type != PM_WIRE_BYTES)
            return pm_fail(PM_CORRUPT, "the graph has a malformed field");
        ++*count;
    }
    return wire.bad ? pm_fail(PM_CORRUPT, "the graph is malformed") : pm_ok();
}

static int by_name(const void *a, const void *b)
{
    return pm_onnx_text_compare(((const pm_onnx_initializer *)a)->name,
                                ((const pm_onnx_initializer *)b)->name);
}

static pm_onnx_initializer *find_tensor(const pm_onnx_scope *scope, pm_onnx_text name)
{
    pm_onnx_initializer key = {.name = name};
    return scope->tensor_count && name.size
               ? bsearch(&key, scope->tensors, scope->tensor_count, sizeof key, by_name)
               : NULL;
}

bool pm_onnx_has_tensor(const pm_onnx_scope *scope, pm_onnx_text name)
{
    return find_tensor(scope, name) != NULL;
}

static pm_status index_tensors(pm_onnx_scope *scope)
{
    size_t count = 0;
    pm_status status = pm_onnx_count_fields(scope->message, ONNX_GRAPH_INITIALIZER, &count);
    if (status.code != PM_OK || count == 0)
        return status;
    scope->tensors = calloc(count, sizeof *scope->tensors);
    if (!scope->tensors)
        return pm_fail(PM_NO_MEMORY, "%zu initializers", count);
    pm_wire wire = scope->message;
    pm_wire_field field;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_GRAPH_INITIALIZER)
            continue;
        pm_onnx_initializer *t = &scope->tensors[scope->tensor_count++];
        *t = (pm_onnx_initializer){.message = pm_wire_inner(&field), .value = PM_NO_VALUE};
        pm_wire inner = t->message;
        while (pm_wire_next(&inner, &field))
            if (field.number == ONNX_TENSOR_NAME)
                t->name = pm_onnx_text_of(&field);
        if (inner.bad)
            return pm_fail(PM_CORRUPT, "an initializer is malformed");
    }
    qsort(scope->tensors, scope->tensor_count, sizeof *scope->tensors, by_name);
    for (size_t i = 1; i < scope->tensor_count; i++)
        if (by_name(&scope->tensors[i - 1], &scope->tensors[i]) == 0)
            return pm_fail(PM_INVALID, "two initializers have one name");
    return pm_ok();
}

pm_status pm_onnx_scope_open(pm_onnx_scope *scope)
{
    scope->names = pm_names_create();
    if (!scope->names)
        return pm_fail(PM_NO_MEMORY, "a graph's names");
    // In a FunctionProto the field is a list of outputs.
    return scope->node_field == ONNX_GRAPH_NODE ? index_tensors(scope) : pm_ok();
}

void pm_onnx_scope_close(pm_onnx_scope *scope)
{
    free(scope->tensors);
    pm_names_destroy(&scope->names);
}

pm_status pm_onnx_value_name(const pm_onnx_scope *scope, pm_onnx_text text, char *name)
{
    char plain[PM_MAX_NAME];
    pm_status status = pm_onnx_name(text, "a value", plain);
    if (status.code != PM_OK)
        return status;
    for (uint32_t i = 0; i < scope->output_count; i++)
        if (scope->output_names[i] && pm_onnx_text_compare(scope->outputs[i], text) == 0) {
            snprintf(name, PM_MAX_NAME, "%s", scope->output_names[i]);
            return status;
        }
    if (snprintf(name, PM_MAX_NAME, "%s%s", scope->prefix, plain) >= PM_MAX_NAME)
        return pm_fail(PM_INVALID, "value %.64s has too long a name inside %.64s", plain, scope->prefix);
    return status;
}

pm_status pm_onnx_take_name(pm_onnx_reader *r, uint32_t value)
{
    const char *name = r->graph->values[value].name;
    const size_t size = strlen(name);
    if (pm_names_find(r->taken, name, size) != PM_NO_NAME)
        return pm_fail(PM_INVALID, "two values have the name %.64s", name);
    return pm_names_add(r->taken, name, size, value);
}

pm_status pm_onnx_declare(pm_onnx_scope *scope, pm_onnx_text text, uint32_t value)
{
    char name[PM_MAX_NAME];
    pm_status status = pm_onnx_name(text, "a value", name);
    if (status.code == PM_OK &&
        (pm_names_find(scope->names, text.bytes, text.size) != PM_NO_NAME || find_tensor(scope, text)))
        status = pm_fail(PM_INVALID, "two values have the name %.64s", name);
    return status.code == PM_OK ? pm_names_add(scope->names, text.bytes, text.size, value) : status;
}

static pm_status read_tensor(pm_onnx_reader *r, const pm_onnx_initializer *t, const char *name,
                             pm_tensor *read, bool *external)
{
    pm_status status = pm_onnx_tensor_read(t->message, name, r->graph->region, read, external);
    if (status.code == PM_OK && *external && r->folder) {
        status = pm_onnx_external_read(t->message, name, r->folder, r->graph, read, &r->external_left);
        *external = false;
    }
    if (status.code == PM_OK && *external && read->type != PM_TYPE_F32)
        status = pm_fail(PM_UNSUPPORTED, "initializer %.64s is no parameter but external", name);
    if (status.code == PM_OK && !r->given && pm_onnx_is_half(read->type))
        status = pm_onnx_widen(r->graph->region, read);
    return status;
}

static pm_status add_tensor(pm_onnx_reader *r, const pm_onnx_scope *scope, pm_onnx_initializer *t,
                            bool setting)
{
    char name[PM_MAX_NAME];
    pm_tensor read;
    bool external = false;
    pm_status status = pm_onnx_value_name(scope, t->name, name);
    if (status.code == PM_OK)
        status = read_tensor(r, t, name, &read, &external);
    if (status.code == PM_OK && external && setting)
        status = pm_fail(PM_UNSUPPORTED, "initializer %.64s is no parameter but external", name);
    if (status.code == PM_OK)
        status = pm_graph_add_constant(r->graph, name, &read, &t->value);
    if (status.code == PM_OK)
        status = pm_onnx_take_name(r, t->value);
    if (status.code == PM_OK && external)
        status = pm_graph_make_param(r->graph, t->value);
    if (status.code == PM_OK)
        r->graph->values[t->value].weight = !r->given;
    return status;
}

// A weight becomes a parameter when it is float32 and no scalar, which is how exporters write numbers of the
// model's text.
static pm_status promote(pm_onnx_reader *r, uint32_t value)
{
    const pm_value *v = &r->graph->values[value];
    return v->weight && v->tensor.type == PM_TYPE_F32 && v->tensor.rank > 0 && v->tensor.count > 0
               ? pm_graph_make_param(r->graph, value)
               : pm_ok();
}

// Whether the function has an input of the name, which its call left out.
static bool is_left_out(const pm_onnx_scope *scope, pm_onnx_text name)
{
    pm_wire wire = scope->message;
    pm_wire_field field;
    while (scope->function && pm_wire_next(&wire, &field))
        if (field.number == ONNX_FUNCTION_INPUT && pm_onnx_text_compare(pm_onnx_text_of(&field), name) == 0)
            return true;
    return false;
}

pm_status pm_onnx_resolve(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text name, bool setting,
                          uint32_t *value)
{
    for (; scope; scope = scope->outer) {
        pm_onnx_initializer *t = find_tensor(scope, name);
        pm_status status = t && t->value == PM_NO_VALUE ? add_tensor(r, scope, t, setting) : pm_ok();
        if (status.code != PM_OK)
            return status;
        *value = t ? t->value : pm_names_find(scope->names, name.bytes, name.size);
        if (*value != PM_NO_NAME)
            return setting ? status : promote(r, *value);
        if (is_left_out(scope, name))
            return status; // PM_NO_VALUE
    }
    return pm_fail(PM_NOT_FOUND, "no such value");
}
