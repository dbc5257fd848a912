// From the bytes of an ONNX ModelProto, which may be hostile, to a graph. Nothing is allocated beyond a small
// multiple of the bytes: declared shapes cost nothing until data of that size is there.
#include "model/onnx.h"
#include "model/onnx_tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODE_INPUTS = 8, OPERATOR_NAME = 64 };

typedef struct reader {
    pm_graph *graph;
    pm_wire graph_message;
    bool has_graph;
    int64_t opset;           // of the default domain; 0: not given
    pm_onnx_tensor *tensors; // sorted by name
    size_t tensor_count;
    char running[PM_MAX_NAME]; // name of the running activation
    uint32_t value;            // and its value
    size_t node_index;
} reader;

// A NodeProto as read.
typedef struct raw_node {
    pm_onnx_text inputs[MAX_NODE_INPUTS];
    uint32_t input_count;
    pm_onnx_text output, name, op, domain;
    uint32_t output_count; // with a name
    bool too_many;
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
        r->opset = version;
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
    if (r->opset < ONNX_OPSET_MIN || r->opset > ONNX_OPSET_MAX)
        return pm_fail(PM_UNSUPPORTED, "opset %" PRId64 " of the default domain, built for %d to %d",
                       r->opset, ONNX_OPSET_MIN, ONNX_OPSET_MAX);
    return pm_ok();
}

static int by_name(const void *a, const void *b)
{
    return pm_onnx_text_compare(((const pm_onnx_tensor *)a)->name, ((const pm_onnx_tensor *)b)->name);
}

static pm_onnx_tensor *find_tensor(const reader *r, pm_onnx_text name)
{
    pm_onnx_tensor key = {.name = name};
    return r->tensor_count ? bsearch(&key, r->tensors, r->tensor_count, sizeof key, by_name) : NULL;
}

// Checks the fields of the graph and counts those with the number.
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
        pm_onnx_tensor *tensor = &r->tensors[r->tensor_count++];
        tensor->message = pm_wire_inner(&field);
        pm_wire inner = tensor->message;
        while (pm_wire_next(&inner, &field))
            if (field.number == ONNX_TENSOR_NAME)
                tensor->name = text_of(&field);
        if (inner.bad)
            return pm_fail(PM_CORRUPT, "an initializer is malformed");
    }
    qsort(r->tensors, r->tensor_count, sizeof *r->tensors, by_name);
    for (size_t i = 1; i < r->tensor_count; i++)
        if (by_name(&r->tensors[i - 1], &r->tensors[i]) == 0)
            return pm_fail(PM_INVALID, "two initializers have one name");
    return pm_ok();
}

// One TensorShapeProto.Dimension: its value, or 0 when it has none.
static bool read_extent(pm_wire wire, int64_t *extent)
{
    pm_wire_field field;
    *extent = 0;
    while (pm_wire_next(&wire, &field))
        if (field.number == ONNX_DIM_VALUE)
            *extent = (int64_t)field.value;
    return !wire.bad;
}

static bool read_shape(pm_wire wire, int64_t *shape, uint32_t *rank)
{
    pm_wire_field field;
    *rank = 0;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_SHAPE_DIM)
            continue;
        if (*rank == PM_MAX_RANK || !read_extent(pm_wire_inner(&field), &shape[*rank]))
            return false;
        ++*rank;
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

// A graph input that is no initializer becomes the running activation.
static pm_status read_input(reader *r, pm_wire wire, pm_onnx_text name)
{
    pm_wire type, tensor, shape_message, scan;
    int64_t shape[PM_MAX_RANK], element = 0;
    uint32_t rank = 0;
    pm_status status = pm_onnx_name(name, "the input", r->running);
    if (status.code != PM_OK)
        return status;
    if (!find_message(wire, ONNX_VALUE_TYPE, &type) || !find_message(type, ONNX_TYPE_TENSOR, &tensor) ||
        !find_message(tensor, ONNX_TENSOR_TYPE_SHAPE, &shape_message) ||
        !read_shape(shape_message, shape, &rank))
        return pm_fail(PM_INVALID, "input %.64s has no tensor type with a shape of at most %d extents",
                       r->running, PM_MAX_RANK);
    pm_wire_field field;
    for (scan = tensor; pm_wire_next(&scan, &field);)
        if (field.number == ONNX_TENSOR_TYPE_ELEM)
            element = (int64_t)field.value;
    if (element != ONNX_FLOAT)
        return pm_fail(PM_UNSUPPORTED, "input %.64s has data type %" PRId64 ", built for float32 (1)",
                       r->running, element);
    if (rank < 2)
        return pm_fail(PM_UNSUPPORTED, "input %.64s must have a batch dimension and others", r->running);
    shape[0] = PM_BATCH;
    for (uint32_t i = 1; i < rank; i++)
        if (shape[i] <= 0)
            return pm_fail(PM_UNSUPPORTED, "input %.64s: extent %u is not fixed", r->running, i);
    return pm_graph_add_value(r->graph, r->running, shape, rank, &r->value);
}

// Reads the one real input, or the one output's name.
static pm_status read_interface(reader *r, uint32_t number, pm_onnx_text *output)
{
    pm_wire wire = r->graph_message, info;
    pm_wire_field field;
    size_t found = 0;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != number)
            continue;
        info = pm_wire_inner(&field);
        pm_onnx_text name = {0};
        for (pm_wire scan = info; pm_wire_next(&scan, &field);)
            if (field.number == ONNX_VALUE_NAME)
                name = text_of(&field);
        if (number == ONNX_GRAPH_INPUT && find_tensor(r, name))
            continue;
        if (found++)
            return pm_fail(PM_UNSUPPORTED, "several %ss, built for one",
                           number == ONNX_GRAPH_INPUT ? "input" : "output");
        if (number == ONNX_GRAPH_OUTPUT)
            *output = name;
        else {
            pm_status status = read_input(r, info, name);
            if (status.code != PM_OK)
                return status;
        }
    }
    return found
               ? pm_ok()
               : pm_fail(PM_INVALID, "the graph has no %s", number == ONNX_GRAPH_INPUT ? "input" : "output");
}

static bool read_raw_node(pm_wire wire, raw_node *raw)
{
    pm_wire_field field;
    *raw = (raw_node){0};
    while (pm_wire_next(&wire, &field)) {
        if (field.number == ONNX_NODE_INPUT) {
            if (raw->input_count == MAX_NODE_INPUTS)
                raw->too_many = true;
            else
                raw->inputs[raw->input_count++] = text_of(&field);
        } else if (field.number == ONNX_NODE_OUTPUT && field.size > 0) {
            if (raw->output_count++ == 0)
                raw->output = text_of(&field);
        } else if (field.number == ONNX_NODE_NAME) {
            raw->name = text_of(&field);
        } else if (field.number == ONNX_NODE_OP_TYPE) {
            raw->op = text_of(&field);
        } else if (field.number == ONNX_NODE_DOMAIN) {
            raw->domain = text_of(&field);
        }
    }
    while (raw->input_count > 0 && raw->inputs[raw->input_count - 1].size == 0)
        raw->input_count--; // optional inputs left out at the end
    return !wire.bad;
}

static bool read_attribute_ints(const pm_wire_field *field, pm_attribute *attribute)
{
    pm_wire packed = field->type == PM_WIRE_BYTES ? pm_wire_inner(field) : pm_wire_open(NULL, 0);
    uint64_t value = field->value;
    bool more = field->type == PM_WIRE_VARINT || pm_wire_varint(&packed, &value);
    while (more) {
        if (attribute->int_count == PM_MAX_RANK)
            return false;
        attribute->ints[attribute->int_count++] = (int64_t)value;
        more = field->type == PM_WIRE_BYTES && pm_wire_varint(&packed, &value);
    }
    return !packed.bad;
}

// The values of an attribute whose type is known; text comes back beside it.
static bool read_attribute_value(pm_wire wire, pm_attribute *attribute, pm_onnx_text *text)
{
    static const int64_t types[] = {[PM_ATTRIBUTE_INT] = ONNX_ATTRIBUTE_TYPE_INT,
                                    [PM_ATTRIBUTE_FLOAT] = ONNX_ATTRIBUTE_TYPE_FLOAT,
                                    [PM_ATTRIBUTE_INTS] = ONNX_ATTRIBUTE_TYPE_INTS,
                                    [PM_ATTRIBUTE_STRING] = ONNX_ATTRIBUTE_TYPE_STRING};
    pm_wire_field field;
    bool good = true;
    while (good && pm_wire_next(&wire, &field)) {
        uint32_t bits = (uint32_t)field.value;
        switch (field.number) {
        case ONNX_ATTRIBUTE_I:
            attribute->i = (int64_t)field.value;
            break;
        case ONNX_ATTRIBUTE_F:
            memcpy(&attribute->f, &bits, sizeof bits);
            break;
        case ONNX_ATTRIBUTE_S:
            *text = text_of(&field);
            break;
        case ONNX_ATTRIBUTE_INTS:
            good = read_attribute_ints(&field, attribute);
            break;
        case ONNX_ATTRIBUTE_TYPE:
            good = (int64_t)field.value == types[attribute->type];
            break;
        default:
            break;
        }
    }
    return good && !wire.bad;
}

static pm_status read_attribute(pm_wire wire, pm_node *node)
{
    pm_wire_field field;
    pm_onnx_text name = {0}, text = {0};
    char printable[PM_MAX_NAME];
    for (pm_wire scan = wire; pm_wire_next(&scan, &field);)
        if (field.number == ONNX_ATTRIBUTE_NAME)
            name = text_of(&field);
    pm_status status = pm_onnx_name(name, "an attribute", printable);
    if (status.code != PM_OK)
        return status;
    const pm_attribute_spec *spec = node->op->attributes;
    while (spec->name && !pm_onnx_text_is(name, spec->name))
        spec++;
    if (!spec->name)
        return pm_fail(PM_UNSUPPORTED, "attribute %.64s", printable);
    if (pm_node_attribute(node, spec->name) || node->attribute_count == PM_MAX_ATTRIBUTES)
        return pm_fail(PM_INVALID, "attribute %s is given twice", spec->name);
    pm_attribute attribute = {.name = spec->name, .type = spec->type};
    if (!read_attribute_value(wire, &attribute, &text))
        return pm_fail(PM_INVALID, "attribute %s is malformed or of the wrong type", spec->name);
    if (spec->type == PM_ATTRIBUTE_STRING) {
        // auto_pad is the one string; NOTSET means that pads counts.
        return pm_onnx_text_is(text, "NOTSET") ? pm_ok()
                                               : pm_fail(PM_UNSUPPORTED, "%s other than NOTSET", spec->name);
    }
    node->attributes[node->attribute_count++] = attribute;
    return pm_ok();
}

static pm_status read_attributes(pm_wire wire, pm_node *node)
{
    pm_wire_field field;
    pm_status status = pm_ok();
    while (status.code == PM_OK && pm_wire_next(&wire, &field))
        if (field.number == ONNX_NODE_ATTRIBUTE)
            status = read_attribute(pm_wire_inner(&field), node);
    return status;
}

// The parameters among the node's inputs.
static pm_status read_node_params(reader *r, const raw_node *raw, pm_node *node)
{
    if (raw->too_many || raw->input_count < node->op->min_inputs || raw->input_count > node->op->max_inputs)
        return pm_fail(PM_INVALID, "%u inputs, wanted %u to %u", raw->input_count, node->op->min_inputs,
                       node->op->max_inputs);
    for (uint32_t i = 1; i < raw->input_count; i++) {
        pm_onnx_tensor *tensor = find_tensor(r, raw->inputs[i]);
        if (!tensor || tensor->used)
            return pm_fail(PM_UNSUPPORTED, "input %u is no initializer of its own", i);
        tensor->used = true;
        pm_status status = pm_onnx_add_param(r->graph, tensor, &node->inputs[i]);
        if (status.code != PM_OK)
            return status;
    }
    node->input_count = raw->input_count;
    return pm_ok();
}

static pm_status add_known_node(reader *r, pm_wire wire, const raw_node *raw, const pm_operator *op,
                                char *name)
{
    char output[PM_MAX_NAME];
    pm_node node = {.op = op, .name = name, .inputs = {r->value}};
    pm_status status = pm_onnx_name(raw->output, "the output", output);
    if (status.code == PM_OK && raw->output_count != 1)
        status = pm_fail(PM_UNSUPPORTED, "%u outputs, built for one", raw->output_count);
    if (status.code == PM_OK)
        status = read_attributes(wire, &node);
    if (status.code == PM_OK)
        status = read_node_params(r, raw, &node);
    if (status.code == PM_OK)
        status = pm_graph_add_node(r->graph, &node, output);
    if (status.code == PM_OK)
        r->value = r->graph->nodes[r->graph->node_count - 1].output;
    return status;
}

static pm_status read_node(reader *r, pm_wire wire)
{
    raw_node raw;
    char name[PM_MAX_NAME], op_name[PM_MAX_NAME], domain[PM_MAX_NAME] = "";
    size_t index = r->node_index++;
    if (!read_raw_node(wire, &raw))
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
    const pm_operator *op = pm_operator_find(op_name);
    bool passes = strcmp(op_name, "Identity") == 0 || (op && op->id == PM_OPERATOR_DROPOUT);
    if ((!op && !passes) || !is_default_domain(raw.domain))
        return pm_fail(PM_UNSUPPORTED,
                       "node %.64s: operator %.48s of domain '%.48s', opset %" PRId64 ", is not built", name,
                       op_name, domain, r->opset);
    if (raw.input_count == 0 || !pm_onnx_text_is(raw.inputs[0], r->running))
        return pm_fail(PM_UNSUPPORTED,
                       "node %.64s (%s) does not read its predecessor's output: only chains are built", name,
                       op_name);
    if (!passes)
        status = add_known_node(r, wire, &raw, op, name);
    if (status.code == PM_OK)
        status = pm_onnx_name(raw.output, "the output", r->running);
    return pm_wrap(status, "node %.64s (%.48s)", name, op_name);
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
    if (status.code == PM_OK && r->graph->node_count == 0)
        status = pm_fail(PM_UNSUPPORTED, "a graph without operators");
    return status;
}

// Gives the last value the graph output's name (a pass-through node may have renamed it).
static pm_status name_output(reader *r, pm_onnx_text output)
{
    if (!pm_onnx_text_is(output, r->running))
        return pm_fail(PM_UNSUPPORTED, "the output is not the last node's (%.64s)", r->running);
    char *name = strdup(r->running);
    if (!name)
        return pm_fail(PM_NO_MEMORY, "the output's name");
    free(r->graph->values[r->value].name);
    r->graph->values[r->value].name = name;
    return pm_ok();
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static pm_status check_unique(const pm_graph *graph)
{
    const char **names = malloc(graph->value_count * sizeof *names);
    if (!names)
        return pm_fail(PM_NO_MEMORY, "%zu names", graph->value_count);
    for (size_t i = 0; i < graph->value_count; i++)
        names[i] = graph->values[i].name;
    qsort(names, graph->value_count, sizeof *names, by_text);
    pm_status status = pm_ok();
    for (size_t i = 1; status.code == PM_OK && i < graph->value_count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = pm_fail(PM_INVALID, "two values have the name %.64s", names[i]);
    free(names);
    return status;
}

pm_status pm_graph_read_onnx(pm_graph **graph, const void *bytes, size_t size)
{
    reader r = {.graph = pm_graph_create()};
    pm_onnx_text output = {0};
    if (!r.graph)
        return pm_fail(PM_NO_MEMORY, "a graph");
    pm_status status = read_model(&r, pm_wire_open(bytes, size));
    if (status.code == PM_OK)
        status = index_tensors(&r);
    if (status.code == PM_OK)
        status = read_interface(&r, ONNX_GRAPH_INPUT, NULL);
    if (status.code == PM_OK)
        status = read_interface(&r, ONNX_GRAPH_OUTPUT, &output);
    if (status.code == PM_OK)
        status = read_nodes(&r);
    if (status.code == PM_OK)
        status = name_output(&r, output);
    if (status.code == PM_OK)
        status = check_unique(r.graph);
    free(r.tensors);
    if (status.code != PM_OK) {
        pm_graph_destroy(&r.graph);
        return pm_wrap(status, "ONNX model");
    }
    pm_graph_finish(r.graph, r.value);
    *graph = r.graph;
    return status;
}
