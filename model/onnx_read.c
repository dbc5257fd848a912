// From the bytes of an ONNX ModelProto, which may be hostile, to a graph. Nothing is allocated beyond a small
// multiple of the bytes: declared shapes cost nothing until data of that size is there.
#include "model/names.h"
#include "model/onnx.h"
#include "model/onnx_external.h"
#include "model/onnx_tensor.h"
#include "model/program.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATOR_NAME = 64 };

typedef struct initializer {
    pm_onnx_text name;
    pm_wire message; // the whole TensorProto
    uint32_t value;  // PM_NO_VALUE until a node or output wants it
} initializer;

typedef struct reader {
    pm_graph *graph;
    const char *folder;   // of external data; NULL: they stay where they are
    size_t external_left; // bytes of them that may still be read
    pm_wire graph_message;
    bool has_graph;
    initializer *tensors; // initializers, sorted by name
    size_t tensor_count;
    pm_names *names; // inputs and outputs of nodes
    size_t node_index;
    const pm_tensor *given; // inputs of one evaluation; NULL when inputs are rows
    size_t given_count;
} reader;

// A NodeProto as read; lists are in the graph's region.
typedef struct raw_node {
    pm_onnx_text *inputs, *outputs;
    uint32_t input_count, output_count;
    pm_onnx_text name, op, domain;
} raw_node;

static pm_onnx_text text_of(const pm_wire_field *field)
{
    return (pm_onnx_text){field->bytes, field->size};
}

static bool is_default_domain(pm_onnx_text domain)
{
    return domain.size == 0 || pm_onnx_text_is(domain, "ai.onnx");
}

static bool read_opset(reader *r, pm_wire wire)
{
    pm_wire_field field;
    pm_onnx_text domain = {0};
    int64_t version = 0;
    while (pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_OPSET_DOMAIN)
            domain = text_of(&field);
        else if (field.number == ONNX_OPSET_VERSION)
            version = (int64_t)field.value;
    }
    if (!wire.bad && is_default_domain(domain))
        r->graph->opset = version;
    return !wire.bad;
}

static pm_status read_model(reader *r, pm_wire wire)
{
    pm_wire_field field;
    bool good = true;
    while (good && pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_MODEL_GRAPH) {
            good = !r->has_graph && field.type == PM_WIRE_BYTES;
            r->has_graph = true;
            r->graph_message = pm_wire_inner(&field);
        } else if (field.number == ONNX_MODEL_OPSET_IMPORT) {
            good = read_opset(r, pm_wire_inner(&field));
        }
    }
    if (!good || wire.bad || !r->has_graph)
        return pm_fail(PM_CORRUPT, "not an ONNX model");
    if (r->graph->opset < ONNX_OPSET_MIN || r->graph->opset > ONNX_OPSET_MAX)
        return pm_fail(PM_UNSUPPORTED, "opset %" PRId64 " of the default domain, built for %d to %d",
                       r->graph->opset, ONNX_OPSET_MIN, ONNX_OPSET_MAX);
    return pm_ok();
}

// --- initializers

static int by_name(const void *a, const void *b)
{
    return pm_onnx_text_compare(((const initializer *)a)->name, ((const initializer *)b)->name);
}

static initializer *find_tensor(const reader *r, pm_onnx_text name)
{
    initializer key = {.name = name};
    return r->tensor_count && name.size ? bsearch(&key, r->tensors, r->tensor_count, sizeof key, by_name)
                                        : NULL;
}

// Checks the fields of the message and counts those with the number.
static pm_status count_fields(pm_wire wire, uint32_t number, size_t *count)
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

static pm_status index_tensors(reader *r)
{
    size_t count = 0;
    pm_status status = count_fields(r->graph_message, ONNX_GRAPH_INITIALIZER, &count);
    if (status.code != PM_OK || count == 0)
        return status;
    r->tensors = calloc(count, sizeof *r->tensors);
    if (!r->tensors)
        return pm_fail(PM_NO_MEMORY, "%zu initializers", count);
    pm_wire wire = r->graph_message;
    pm_wire_field field;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_GRAPH_INITIALIZER)
            continue;
        initializer *t = &r->tensors[r->tensor_count++];
        *t = (initializer){.message = pm_wire_inner(&field), .value = PM_NO_VALUE};
        pm_wire inner = t->message;
        while (pm_wire_next(&inner, &field))
            if (field.number == ONNX_TENSOR_NAME)
                t->name = text_of(&field);
        if (inner.bad)
            return pm_fail(PM_CORRUPT, "an initializer is malformed");
    }
    qsort(r->tensors, r->tensor_count, sizeof *r->tensors, by_name);
    for (size_t i = 1; i < r->tensor_count; i++)
        if (by_name(&r->tensors[i - 1], &r->tensors[i]) == 0)
            return pm_fail(PM_INVALID, "two initializers have one name");
    return pm_ok();
}

// The initializer's value, which is a parameter when it is trainable: float32, and not a scalar, which is how
// exporters write numbers of the model's text.
static pm_status use_tensor(reader *r, initializer *t, bool setting, uint32_t *value)
{
    char name[PM_MAX_NAME];
    pm_status status = pm_ok();
    if (t->value == PM_NO_VALUE) {
        pm_tensor read;
        bool external = false;
        status = pm_onnx_name(t->name, "an initializer", name);
        if (status.code == PM_OK)
            status = pm_onnx_tensor_read(t->message, name, r->graph->region, &read, &external);
        if (status.code == PM_OK && external && r->folder) {
            status = pm_onnx_external_read(t->message, name, r->folder, r->graph->region, &read,
                                           &r->external_left);
            external = false;
        }
        if (status.code == PM_OK && external && (read.type != PM_TYPE_F32 || setting))
            status = pm_fail(PM_UNSUPPORTED, "initializer %.64s is no parameter but external", name);
        if (status.code == PM_OK)
            status = pm_graph_add_constant(r->graph, name, &read, &t->value);
        if (status.code == PM_OK && external)
            status = pm_graph_make_param(r->graph, t->value);
    }
    if (status.code != PM_OK)
        return status;
    const pm_tensor *kept = &r->graph->values[t->value].tensor;
    *value = t->value;
    return !setting && !r->given && kept->type == PM_TYPE_F32 && kept->rank > 0 && kept->count > 0
               ? pm_graph_make_param(r->graph, t->value)
               : status;
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
static pm_status add_given(reader *r, const char *name, pm_onnx_text text, pm_type type)
{
    uint32_t value = PM_NO_VALUE;
    if (r->graph->input_count >= r->given_count)
        return pm_fail(PM_INVALID, "no value is given for input %.64s", name);
    pm_tensor given = r->given[r->graph->input_count];
    if (type == PM_TYPE_BF16 && given.type == PM_TYPE_U16)
        given.type = type; // NumPy, with which such tensors are written, has no bfloat16
    if (given.type != type)
        return pm_fail(PM_INVALID, "input %.64s is %s, %s is given", name, pm_type_name(type),
                       pm_type_name(given.type));
    given.data = NULL;
    pm_status status = pm_graph_add_value(r->graph, name, &given, &value);
    if (status.code == PM_OK)
        status = pm_graph_add_input(r->graph, value);
    return status.code == PM_OK ? pm_names_add(r->names, text.bytes, text.size, value) : status;
}

// The first extent of an input is the batch; others that are not given stay -1.
static pm_status add_input(reader *r, pm_wire wire, pm_onnx_text text)
{
    char name[PM_MAX_NAME];
    pm_tensor declared = {0};
    uint32_t value = PM_NO_VALUE;
    pm_status status = pm_onnx_name(text, "an input", name);
    if (status.code == PM_OK && pm_names_find(r->names, text.bytes, text.size) != PM_NO_NAME)
        status = pm_fail(PM_INVALID, "two inputs have the name %.64s", name);
    if (status.code == PM_OK)
        status = read_type(wire, name, &declared);
    if (status.code != PM_OK)
        return status;
    if (r->given)
        return add_given(r, name, text, declared.type);
    pm_tensor shown = declared;
    for (uint32_t d = 0; d < declared.rank; d++)
        shown.shape[d] = d == 0 || declared.shape[d] < 0 ? 1 : declared.shape[d];
    status = pm_graph_add_value(r->graph, name, &shown, &value);
    if (status.code == PM_OK)
        status = pm_graph_add_input(r->graph, value);
    if (status.code == PM_OK)
        status = pm_names_add(r->names, text.bytes, text.size, value);
    if (status.code != PM_OK)
        return status;
    pm_value *v = &r->graph->values[value];
    v->batched = declared.rank > 0;
    for (uint32_t d = 1; d < declared.rank; d++)
        v->tensor.shape[d] = declared.shape[d] < 0 ? -1 : declared.shape[d];
    return status;
}

// What a node or the graph's outputs call by name. PM_NOT_FOUND when nothing before it makes it.
static pm_status resolve(reader *r, pm_onnx_text name, bool setting, uint32_t *value)
{
    initializer *t = find_tensor(r, name);
    if (t)
        return use_tensor(r, t, setting, value);
    *value = pm_names_find(r->names, name.bytes, name.size);
    return *value == PM_NO_NAME ? pm_fail(PM_NOT_FOUND, "no such value") : pm_ok();
}

static pm_status add_output(reader *r, pm_onnx_text text)
{
    char name[PM_MAX_NAME];
    uint32_t value = PM_NO_VALUE;
    pm_status status = pm_onnx_name(text, "an output", name);
    if (status.code == PM_OK)
        status = resolve(r, text, false, &value);
    if (status.code == PM_NOT_FOUND)
        return pm_fail(PM_INVALID, "output %.64s is made by no node", name);
    return status.code == PM_OK ? pm_graph_add_output(r->graph, value) : status;
}

// The graph's inputs that are no initializers, or its outputs.
static pm_status read_interface(reader *r, uint32_t number)
{
    pm_wire wire = r->graph_message;
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
                name = text_of(&field);
        if (number == ONNX_GRAPH_INPUT && find_tensor(r, name))
            continue;
        found++;
        status = number == ONNX_GRAPH_INPUT ? add_input(r, info, name) : add_output(r, name);
    }
    if (status.code == PM_OK && found == 0 && !(r->given && number == ONNX_GRAPH_INPUT))
        status = pm_fail(PM_INVALID, "the graph has no %s", number == ONNX_GRAPH_INPUT ? "input" : "output");
    return status;
}

// --- nodes

static bool read_raw_node(reader *r, pm_wire wire, raw_node *raw)
{
    pm_wire_field field;
    size_t inputs = 0, outputs = 0;
    *raw = (raw_node){0};
    if (count_fields(wire, ONNX_NODE_INPUT, &inputs).code != PM_OK ||
        count_fields(wire, ONNX_NODE_OUTPUT, &outputs).code != PM_OK || inputs > PM_MAX_NODE_VALUES ||
        outputs > PM_MAX_NODE_VALUES)
        return false;
    raw->inputs = pm_region_alloc(r->graph->region, inputs * sizeof *raw->inputs);
    raw->outputs = pm_region_alloc(r->graph->region, outputs * sizeof *raw->outputs);
    while (raw->inputs && raw->outputs && pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_NODE_INPUT)
            raw->inputs[raw->input_count++] = text_of(&field);
        else if (field.number == ONNX_NODE_OUTPUT)
            raw->outputs[raw->output_count++] = text_of(&field);
        else if (field.number == ONNX_NODE_NAME)
            raw->name = text_of(&field);
        else if (field.number == ONNX_NODE_OP_TYPE)
            raw->op = text_of(&field);
        else if (field.number == ONNX_NODE_DOMAIN)
            raw->domain = text_of(&field);
    }
    while (raw->input_count > 0 && raw->inputs[raw->input_count - 1].size == 0)
        raw->input_count--; // optional ones left out at the end
    while (raw->output_count > 0 && raw->outputs[raw->output_count - 1].size == 0)
        raw->output_count--;
    return !wire.bad && raw->inputs && raw->outputs;
}

// Whether some node of the graph makes name.
static bool is_made(const reader *r, pm_onnx_text name)
{
    pm_wire wire = r->graph_message;
    pm_wire_field field;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_GRAPH_NODE)
            continue;
        for (pm_wire node = pm_wire_inner(&field); pm_wire_next(&node, &field);)
            if (field.number == ONNX_NODE_OUTPUT && pm_onnx_text_compare(text_of(&field), name) == 0)
                return true;
    }
    return false;
}

static pm_status read_inputs(reader *r, const raw_node *raw, const pm_operator *op, uint32_t *inputs)
{
    for (uint32_t i = 0; i < raw->input_count; i++) {
        char name[PM_MAX_NAME];
        inputs[i] = PM_NO_VALUE;
        if (raw->inputs[i].size == 0)
            continue;
        pm_status status = pm_onnx_name(raw->inputs[i], "an input", name);
        if (status.code == PM_OK)
            status = resolve(r, raw->inputs[i], i < 32 && op->fixed_inputs >> i & 1, &inputs[i]);
        if (status.code == PM_NOT_FOUND)
            return is_made(r, raw->inputs[i])
                       ? pm_fail(PM_INVALID, "input %.64s is made later: a cycle, or nodes out of order",
                                 name)
                       : pm_fail(PM_INVALID, "input %.64s is made by no node and is no input of the graph",
                                 name);
        if (status.code != PM_OK)
            return status;
    }
    return pm_ok();
}

// Values without a type for the outputs, under names that are new; a constant has its tensor.
static pm_status add_outputs(reader *r, const raw_node *raw, const pm_tensor *constant, uint32_t *outputs)
{
    for (uint32_t i = 0; i < raw->output_count; i++) {
        char name[PM_MAX_NAME];
        const pm_onnx_text text = raw->outputs[i];
        const pm_tensor unknown = {0};
        outputs[i] = PM_NO_VALUE;
        if (text.size == 0)
            continue;
        pm_status status = pm_onnx_name(text, "an output", name);
        if (status.code == PM_OK &&
            (pm_names_find(r->names, text.bytes, text.size) != PM_NO_NAME || find_tensor(r, text)))
            status = pm_fail(PM_INVALID, "two values have the name %.64s", name);
        if (status.code == PM_OK)
            status = constant ? pm_graph_add_constant(r->graph, name, constant, &outputs[i])
                              : pm_graph_add_value(r->graph, name, &unknown, &outputs[i]);
        if (status.code == PM_OK)
            status = pm_names_add(r->names, text.bytes, text.size, outputs[i]);
        if (status.code != PM_OK)
            return status;
    }
    return pm_ok();
}

static pm_status add_constant(reader *r, pm_wire wire, const raw_node *raw, uint32_t *outputs)
{
    pm_tensor constant;
    if (raw->output_count != 1 || raw->input_count != 0)
        return pm_fail(PM_INVALID, "wanted no input and one output");
    pm_status status = pm_onnx_constant_read(wire, r->graph->region, &constant);
    return status.code == PM_OK ? add_outputs(r, raw, &constant, outputs) : status;
}

static pm_status add_known_node(reader *r, pm_wire wire, const raw_node *raw, const pm_operator *op,
                                const char *name)
{
    uint32_t *inputs = pm_region_alloc(r->graph->region, raw->input_count * sizeof *inputs);
    uint32_t *outputs = pm_region_alloc(r->graph->region, raw->output_count * sizeof *outputs);
    if (!inputs || !outputs)
        return pm_fail(PM_NO_MEMORY, "a node");
    if (!op)
        return add_constant(r, wire, raw, outputs);
    pm_node node = {.op = op,
                    .name = name,
                    .inputs = inputs,
                    .input_count = raw->input_count,
                    .outputs = outputs,
                    .output_count = raw->output_count};
    pm_status status = pm_onnx_attributes_read(wire, op->attributes, r->graph->region, &node.attributes,
                                               &node.attribute_count);
    if (status.code == PM_OK)
        status = read_inputs(r, raw, op, inputs);
    if (status.code == PM_OK)
        status = add_outputs(r, raw, NULL, outputs);
    return status.code == PM_OK ? pm_graph_add_node(r->graph, &node) : status;
}

static pm_status read_node(reader *r, pm_wire wire)
{
    raw_node raw;
    char name[PM_MAX_NAME], op_name[PM_MAX_NAME], domain[PM_MAX_NAME] = "";
    size_t index = r->node_index++;
    if (!read_raw_node(r, wire, &raw))
        return pm_fail(PM_CORRUPT, "node %zu is malformed", index);
    pm_status status = pm_onnx_name(raw.op, "the operator", op_name);
    if (status.code == PM_OK && raw.domain.size > 0)
        status = pm_onnx_name(raw.domain, "the domain", domain);
    if (status.code == PM_OK && raw.name.size > 0)
        status = pm_onnx_name(raw.name, "the node", name);
    if (status.code != PM_OK)
        return pm_wrap(status, "node %zu", index);
    if (raw.name.size == 0)
        snprintf(name, sizeof name, "%.*s_%zu", OPERATOR_NAME, op_name, index);
    const bool ours = is_default_domain(raw.domain), constant = ours && strcmp(op_name, "Constant") == 0;
    const bool hidden = strcmp(domain, PM_DOMAIN) == 0; // not for models
    const pm_operator *op = hidden ? NULL : pm_operator_find(ours ? "" : domain, op_name, r->graph->opset);
    if (!op && !constant)
        return pm_fail(PM_UNSUPPORTED,
                       "node %.64s: operator %.48s of domain '%.48s', opset %" PRId64 ", is not built", name,
                       op_name, domain, r->graph->opset);
    return pm_wrap(add_known_node(r, wire, &raw, op, name), "node %.64s (%.48s)", name, op_name);
}

static pm_status read_nodes(reader *r)
{
    size_t count = 0;
    pm_status status = count_fields(r->graph_message, ONNX_GRAPH_NODE, &count);
    if (status.code == PM_OK && count > PM_MAX_NODES)
        status = pm_fail(PM_UNSUPPORTED, "%zu nodes, at most %d are built", count, PM_MAX_NODES);
    pm_wire wire = r->graph_message;
    pm_wire_field field;
    while (status.code == PM_OK && pm_wire_next(&wire, &field))
        if (field.number == ONNX_GRAPH_NODE)
            status = read_node(r, pm_wire_inner(&field));
    if (status.code == PM_OK && r->graph->node_count == 0 && !r->given)
        status = pm_fail(PM_UNSUPPORTED, "a graph without operators");
    return status;
}

static pm_status read_graph(reader *r, const void *bytes, size_t size)
{
    pm_status status = read_model(r, pm_wire_open(bytes, size));
    if (status.code == PM_OK)
        status = index_tensors(r);
    if (status.code == PM_OK)
        status = read_interface(r, ONNX_GRAPH_INPUT);
    if (status.code == PM_OK)
        status = read_nodes(r);
    if (status.code == PM_OK)
        status = read_interface(r, ONNX_GRAPH_OUTPUT);
    if (status.code == PM_OK && !r->given)
        status = pm_program_check_rows(r->graph);
    return status.code == PM_OK ? pm_graph_finish(r->graph) : status;
}

static pm_status read_all(reader *r, pm_graph **graph, const void *bytes, size_t size)
{
    r->external_left = PM_ONNX_EXTERNAL_MAX;
    r->graph = pm_graph_create();
    r->names = pm_names_create();
    pm_status status = r->graph && r->names ? read_graph(r, bytes, size) : pm_fail(PM_NO_MEMORY, "a graph");
    free(r->tensors);
    pm_names_destroy(&r->names);
    if (status.code == PM_OK)
        *graph = r->graph;
    else
        pm_graph_destroy(&r->graph);
    return pm_wrap(status, "ONNX model");
}

pm_status pm_graph_read_onnx(pm_graph **graph, const void *bytes, size_t size)
{
    return pm_graph_read_onnx_in(graph, bytes, size, NULL);
}

pm_status pm_graph_read_onnx_in(pm_graph **graph, const void *bytes, size_t size, const char *folder)
{
    reader r = {.folder = folder};
    return read_all(&r, graph, bytes, size);
}

pm_status pm_onnx_graph_read(pm_graph **graph, const void *bytes, size_t size, const pm_tensor *inputs,
                             size_t input_count)
{
    static const pm_tensor none = {0};
    reader r = {.given = input_count ? inputs : &none, .given_count = input_count};
    return read_all(&r, graph, bytes, size);
}
