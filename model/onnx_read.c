// From the bytes of an ONNX ModelProto, which may be hostile, to a graph. Nothing is allocated beyond a small
// multiple of the bytes: declared shapes cost nothing until data of that size is there.
#include "model/onnx_reader.h"
#include "model/program.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_opset(pm_onnx_reader *r, pm_wire wire)
{
    pm_wire_field field;
    pm_onnx_text domain = {0};
    int64_t version = 0;
    while (pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_OPSET_DOMAIN)
            domain = pm_onnx_text_of(&field);
        else if (field.number == ONNX_OPSET_VERSION)
            version = (int64_t)field.value;
    }
    const bool ours = domain.size == 0 || pm_onnx_text_is(domain, "ai.onnx");
    if (ours)
        r->graph->opset = version;
    r->has_opset = r->has_opset || ours;
    r->has_other_opset = r->has_other_opset || !ours;
    return !wire.bad;
}

static pm_status check_versions(pm_onnx_reader *r)
{
    if (r->ir_version > ONNX_IR_VERSION)
        return pm_fail(PM_UNSUPPORTED,
                       "IR version %" PRId64 ", built for up to %d: export it for opset %d or an older one",
                       r->ir_version, ONNX_IR_VERSION, ONNX_OPSET_MAX);
    if (!r->has_opset && r->has_other_opset)
        r->graph->opset = ONNX_OPSET; // of nothing but operators of other domains
    if (r->graph->opset < ONNX_OPSET_MIN || r->graph->opset > ONNX_OPSET_MAX)
        return pm_fail(PM_UNSUPPORTED, "opset %" PRId64 " of the default domain, built for %d to %d",
                       r->graph->opset, ONNX_OPSET_MIN, ONNX_OPSET_MAX);
    return pm_ok();
}

static pm_status read_model(pm_onnx_reader *r, pm_wire model)
{
    pm_wire wire = model;
    pm_wire_field field;
    bool good = true;
    while (good && pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_MODEL_GRAPH) {
            good = !r->has_graph && field.type == PM_WIRE_BYTES;
            r->has_graph = true;
            r->graph_message = pm_wire_inner(&field);
        } else if (field.number == ONNX_MODEL_OPSET_IMPORT) {
            good = read_opset(r, pm_wire_inner(&field));
        } else if (field.number == ONNX_MODEL_IR_VERSION) {
            r->ir_version = (int64_t)field.value;
        }
    }
    if (!good || wire.bad || !r->has_graph)
        return pm_fail(PM_CORRUPT, "not an ONNX model");
    pm_status status = check_versions(r);
    return status.code == PM_OK ? pm_onnx_index_functions(r, model) : status;
}

// --- inputs and outputs of the graph

// One TensorShapeProto.Dimension: its value, or -1 when it has none.
static bool read_extent(pm_wire wire, int64_t *extent)
{
    pm_wire_field field;
    *extent = -1;
    while (pm_wire_next(&wire, &field))
        if (field.number == ONNX_DIM_VALUE)
            *extent = (int64_t)field.value;
    return !wire.bad;
}

static bool read_shape(pm_wire wire, pm_tensor *shape)
{
    pm_wire_field field;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_SHAPE_DIM)
            continue;
        if (shape->rank == PM_MAX_RANK || !read_extent(pm_wire_inner(&field), &shape->shape[shape->rank]))
            return false;
        shape->rank++;
    }
    return !wire.bad;
}

// The field with the number inside a message; the last one wins, as protobuf has it.
static bool find_message(pm_wire wire, uint32_t number, pm_wire *inner)
{
    pm_wire_field field;
    bool found = false;
    while (pm_wire_next(&wire, &field))
        if (field.number == number) {
            *inner = pm_wire_inner(&field);
            found = true;
        }
    return found && !wire.bad && !inner->bad;
}

static pm_status read_type(pm_wire wire, const char *name, pm_tensor *tensor)
{
    pm_wire type, tensor_type, shape, scan;
    pm_wire_field field;
    int64_t element = 0;
    if (!find_message(wire, ONNX_VALUE_TYPE, &type))
        return pm_fail(PM_INVALID, "input %.64s has no type", name);
    if (!find_message(type, ONNX_TYPE_TENSOR, &tensor_type))
        return pm_fail(PM_UNSUPPORTED, "input %.64s is no tensor but a sequence, optional, map or the like",
                       name);
    if (!find_message(tensor_type, ONNX_TENSOR_TYPE_SHAPE, &shape) || !read_shape(shape, tensor))
        return pm_fail(PM_INVALID, "input %.64s has no tensor type with a shape of at most %d extents", name,
                       PM_MAX_RANK);
    for (scan = tensor_type; pm_wire_next(&scan, &field);)
        if (field.number == ONNX_TENSOR_TYPE_ELEM)
            element = (int64_t)field.value;
    tensor->type = element > 0 && element <= PM_TYPE_BF16 ? (pm_type)element : PM_TYPE_NONE;
    if (pm_type_size(tensor->type) == 0)
        return pm_fail(PM_UNSUPPORTED, "input %.64s has data type %" PRId64 ", which is not built", name,
                       element);
    return pm_ok();
}

// The next of the given inputs under the name.
static pm_status add_given(pm_onnx_reader *r, const char *name, pm_type type, uint32_t *value)
{
    if (r->graph->input_count >= r->given_count)
        return pm_fail(PM_INVALID, "no value is given for input %.64s", name);
    pm_tensor given = r->given[r->graph->input_count];
    if (type == PM_TYPE_BF16 && given.type == PM_TYPE_U16)
        given.type = type; // NumPy, with which such tensors are written, has no bfloat16
    if (given.type != type)
        return pm_fail(PM_INVALID, "input %.64s is %s, %s is given", name, pm_type_name(type),
                       pm_type_name(given.type));
    given.data = NULL;
    return pm_graph_add_value(r->graph, name, &given, value);
}

// The first extent of an input is the batch; others that are not given stay -1.
static pm_status add_rows(pm_onnx_reader *r, const char *name, const pm_tensor *declared, uint32_t *value)
{
    pm_tensor shown = *declared;
    for (uint32_t d = 0; d < declared->rank; d++)
        shown.shape[d] = d == 0 || declared->shape[d] < 0 ? 1 : declared->shape[d];
    pm_status status = pm_graph_add_value(r->graph, name, &shown, value);
    if (status.code != PM_OK)
        return status;
    pm_value *v = &r->graph->values[*value];
    v->batched = declared->rank > 0;
    for (uint32_t d = 1; d < declared->rank; d++)
        v->tensor.shape[d] = declared->shape[d] < 0 ? -1 : declared->shape[d];
    return status;
}

static pm_status add_input(pm_onnx_reader *r, pm_onnx_scope *scope, pm_wire wire, pm_onnx_text text)
{
    char name[PM_MAX_NAME];
    pm_tensor declared = {0};
    uint32_t value = PM_NO_VALUE;
    pm_status status = pm_onnx_name(text, "an input", name);
    if (status.code == PM_OK && pm_names_find(scope->names, text.bytes, text.size) != PM_NO_NAME)
        status = pm_fail(PM_INVALID, "two inputs have the name %.64s", name);
    if (status.code == PM_OK)
        status = read_type(wire, name, &declared);
    if (status.code == PM_OK)
        status = r->given ? add_given(r, name, declared.type, &value) : add_rows(r, name, &declared, &value);
    if (status.code == PM_OK)
        status = pm_onnx_take_name(r, value);
    if (status.code == PM_OK)
        status = pm_graph_add_input(r->graph, value);
    if (status.code == PM_OK && !r->given && pm_onnx_is_half(declared.type))
        status = pm_onnx_widen_input(r, &value);
    return status.code == PM_OK ? pm_onnx_declare(scope, text, value) : status;
}

// The element type that a ValueInfoProto declares, if any.
static pm_type declared_type(pm_wire info)
{
    pm_wire type, tensor;
    pm_wire_field field;
    uint64_t element = 0;
    if (!find_message(info, ONNX_VALUE_TYPE, &type) || !find_message(type, ONNX_TYPE_TENSOR, &tensor))
        return PM_TYPE_NONE;
    while (pm_wire_next(&tensor, &field))
        if (field.number == ONNX_TENSOR_TYPE_ELEM)
            element = field.value;
    return element <= PM_TYPE_BF16 ? (pm_type)element : PM_TYPE_NONE;
}

static pm_status add_output(pm_onnx_reader *r, pm_onnx_scope *scope, pm_wire info, pm_onnx_text text)
{
    char name[PM_MAX_NAME];
    uint32_t value = PM_NO_VALUE;
    const pm_type declared = declared_type(info);
    pm_status status = pm_onnx_name(text, "an output", name);
    if (status.code == PM_OK)
        status = pm_onnx_resolve(r, scope, text, false, &value);
    if (status.code == PM_NOT_FOUND)
        return pm_fail(PM_INVALID, "output %.64s is made by no node", name);
    if (status.code == PM_OK && !r->given && pm_onnx_is_half(declared))
        status = pm_onnx_narrow_output(r, declared, &value);
    return status.code == PM_OK ? pm_graph_add_output(r->graph, value) : status;
}

// The graph's inputs that are no initializers, or its outputs.
static pm_status read_interface(pm_onnx_reader *r, pm_onnx_scope *scope, uint32_t number)
{
    pm_wire wire = scope->message;
    pm_wire_field field;
    pm_status status = pm_ok();
    size_t found = 0;
    while (status.code == PM_OK && pm_wire_next(&wire, &field)) {
        if (field.number != number)
            continue;
        const pm_wire info = pm_wire_inner(&field);
        pm_onnx_text name = {0};
        for (pm_wire scan = info; pm_wire_next(&scan, &field);)
            if (field.number == ONNX_VALUE_NAME)
                name = pm_onnx_text_of(&field);
        if (number == ONNX_GRAPH_INPUT && pm_onnx_has_tensor(scope, name))
            continue;
        found++;
        status =
            number == ONNX_GRAPH_INPUT ? add_input(r, scope, info, name) : add_output(r, scope, info, name);
    }
    if (status.code == PM_OK && found == 0 && !(r->given && number == ONNX_GRAPH_INPUT))
        status = pm_fail(PM_INVALID, "the graph has no %s", number == ONNX_GRAPH_INPUT ? "input" : "output");
    return status;
}

// The one value that is wanted for an output, which need be none of the model's.
static pm_status take_output(pm_onnx_reader *r, pm_onnx_scope *scope)
{
    const pm_onnx_text name = {(const unsigned char *)r->output, strlen(r->output)};
    uint32_t value = PM_NO_VALUE;
    pm_status status = pm_onnx_resolve(r, scope, name, false, &value);
    if (status.code == PM_NOT_FOUND)
        return pm_fail(PM_INVALID, "no node makes a value %.64s", r->output);
    return status.code == PM_OK ? pm_graph_add_output(r->graph, value) : status;
}

// The nodes, of all or of those that the wanted output follows from.
static pm_status read_needed(pm_onnx_reader *r, pm_onnx_scope *scope)
{
    size_t count = 0;
    pm_status status = r->output ? pm_onnx_count_fields(scope->message, scope->node_field, &count) : pm_ok();
    bool *needed = r->output && status.code == PM_OK ? calloc(count + 1, sizeof *needed) : NULL;
    if (r->output && status.code == PM_OK)
        status = needed ? pm_onnx_select(scope->message, r->output, needed, count)
                        : pm_fail(PM_NO_MEMORY, "%zu nodes", count);
    scope->needed = needed;
    if (status.code == PM_OK)
        status = pm_onnx_read_nodes(r, scope);
    scope->needed = NULL;
    free(needed);
    return status;
}

static pm_status read_graph(pm_onnx_reader *r, pm_onnx_scope *scope)
{
    pm_status status = pm_onnx_scope_open(scope);
    if (status.code == PM_OK)
        status = read_interface(r, scope, ONNX_GRAPH_INPUT);
    if (status.code == PM_OK)
        status = read_needed(r, scope);
    if (status.code == PM_OK)
        status = pm_onnx_name_widened(r);
    if (status.code == PM_OK)
        status = r->output ? take_output(r, scope) : read_interface(r, scope, ONNX_GRAPH_OUTPUT);
    if (status.code == PM_OK && r->graph->node_count == 0 && !r->given)
        status = pm_fail(PM_UNSUPPORTED, "a graph without operators");
    if (status.code == PM_OK)
        status = pm_onnx_drop_unread(r->graph);
    if (status.code == PM_OK && !r->given)
        status = pm_onnx_keep_trainable(r->graph);
    if (status.code == PM_OK && !r->given)
        status = pm_program_check_rows(r->graph);
    return status.code == PM_OK ? pm_graph_finish(r->graph) : status;
}

static pm_status read_all(pm_onnx_reader *r, pm_graph **graph, const void *bytes, size_t size)
{
    r->external_left = PM_ONNX_EXTERNAL_MAX;
    r->expansion_left = PM_ONNX_EXPANSION;
    r->condition_left = PM_ONNX_CONDITION_NODES;
    r->graph = pm_graph_create();
    r->taken = pm_names_create();
    pm_status status =
        r->graph && r->taken ? read_model(r, pm_wire_open(bytes, size)) : pm_fail(PM_NO_MEMORY, "a graph");
    if (status.code == PM_OK) {
        pm_onnx_scope scope = {.opset = r->graph->opset,
                               .message = r->graph_message,
                               .node_field = ONNX_GRAPH_NODE,
                               .prefix = ""};
        status = read_graph(r, &scope);
        pm_onnx_scope_close(&scope);
    }
    free(r->functions);
    pm_names_destroy(&r->taken);
    if (status.code == PM_OK)
        *graph = r->graph;
    else
        pm_graph_destroy(&r->graph);
    return pm_wrap(status, "ONNX model");
}

pm_status pm_graph_read_onnx(pm_graph **graph, const void *bytes, size_t size)
{
    return pm_graph_read_onnx_in(graph, bytes, size, NULL, NULL);
}

pm_status pm_graph_read_onnx_in(pm_graph **graph, const void *bytes, size_t size, const char *folder,
                                const char *output)
{
    pm_onnx_reader r = {.folder = folder, .output = output};
    return read_all(&r, graph, bytes, size);
}

pm_status pm_onnx_graph_read(pm_graph **graph, const void *bytes, size_t size, const pm_tensor *inputs,
                             size_t input_count)
{
    static const pm_tensor none = {0};
    pm_onnx_reader r = {.given = input_count ? inputs : &none, .given_count = input_count};
    return read_all(&r, graph, bytes, size);
}
