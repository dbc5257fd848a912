// From a graph to an ONNX ModelProto.
#include "model/onnx.h"
#include "model/onnx_upgrade.h"
#include "model/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PM_MAX_MOVED = 4, // inputs that attributes can become
    PM_MAX_DOMAINS = 8
};

typedef struct writer {
    pm_wire_out out;
    const pm_graph *graph;
    uint32_t *source;         // (values): whose value this one has, without what is left out
    const char **names;       // (values): under which it is written
    bool *renamed;            // (values): has the name of an output
    bool upgrades;            // to ONNX_OPSET
    char prefix[PM_MAX_NAME]; // of names that no value of the graph has
    pm_region *region;        // for what upgrades
} writer;

// Whether it hands its input on; a mask that is read keeps it (see pm_onnx_drop_unread).
static bool is_left_out(const pm_node *node)
{
    return strcmp(node->op->name, "Dropout") == 0 && node->output_count == 1;
}

// Inline: name and raw data where they are wanted.
static void write_tensor(pm_wire_out *out, uint32_t number, const char *name, const pm_tensor *tensor)
{
    size_t mark = pm_wire_begin(out, number);
    for (uint32_t i = 0; i < tensor->rank; i++)
        pm_wire_put_int(out, ONNX_TENSOR_DIMS, tensor->shape[i]);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, tensor->type);
    if (name)
        pm_wire_put_text(out, ONNX_TENSOR_NAME, name);
    pm_wire_put_bytes(out, ONNX_TENSOR_RAW_DATA, tensor->data, pm_tensor_bytes(tensor));
    pm_wire_end(out, mark);
}

static void write_attribute(pm_wire_out *out, const pm_attribute *attribute)
{
    static const int64_t types[] = {[PM_ATTRIBUTE_INT] = ONNX_ATTRIBUTE_TYPE_INT,
                                    [PM_ATTRIBUTE_FLOAT] = ONNX_ATTRIBUTE_TYPE_FLOAT,
                                    [PM_ATTRIBUTE_STRING] = ONNX_ATTRIBUTE_TYPE_STRING,
                                    [PM_ATTRIBUTE_TENSOR] = ONNX_ATTRIBUTE_TYPE_TENSOR,
                                    [PM_ATTRIBUTE_INTS] = ONNX_ATTRIBUTE_TYPE_INTS,
                                    [PM_ATTRIBUTE_FLOATS] = ONNX_ATTRIBUTE_TYPE_FLOATS,
                                    [PM_ATTRIBUTE_STRINGS] = ONNX_ATTRIBUTE_TYPE_STRINGS};
    size_t mark = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, attribute->name);
    switch (attribute->type) {
    case PM_ATTRIBUTE_FLOAT:
        pm_wire_put_float(out, ONNX_ATTRIBUTE_F, attribute->f);
        break;
    case PM_ATTRIBUTE_INT:
        pm_wire_put_int(out, ONNX_ATTRIBUTE_I, attribute->i);
        break;
    case PM_ATTRIBUTE_STRING:
        pm_wire_put_text(out, ONNX_ATTRIBUTE_S, attribute->s);
        break;
    case PM_ATTRIBUTE_TENSOR:
        write_tensor(out, ONNX_ATTRIBUTE_T, NULL, attribute->tensor);
        break;
    case PM_ATTRIBUTE_FLOATS:
        for (uint32_t i = 0; i < attribute->count; i++)
            pm_wire_put_float(out, ONNX_ATTRIBUTE_FLOATS, attribute->floats[i]);
        break;
    case PM_ATTRIBUTE_INTS:
        for (uint32_t i = 0; i < attribute->count; i++)
            pm_wire_put_int(out, ONNX_ATTRIBUTE_INTS, attribute->ints[i]);
        break;
    case PM_ATTRIBUTE_STRINGS: // of no operator that a graph holds
        break;
    }
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, types[attribute->type]);
    pm_wire_end(out, mark);
}

static const char *name_of(const writer *w, uint32_t value)
{
    return value == PM_NO_VALUE ? "" : w->names[w->source[value]];
}

// PREFIX.NODE.role
static void added_name(const writer *w, const pm_node *node, const char *role, char *name)
{
    snprintf(name, PM_MAX_NAME, "%s.%zu.%s", w->prefix, (size_t)(node - w->graph->nodes), role);
}

// Writes the attribute as a constant and gives its name to the input where it goes.
static void move_attribute(writer *w, const pm_node *node, const pm_attribute *attribute, char *name)
{
    const pm_value *x = &w->graph->values[node->inputs[0]];
    const pm_tensor *tensor = pm_onnx_attribute_tensor(attribute, x->tensor.type, w->region);
    added_name(w, node, attribute->name, name);
    w->out.failed = w->out.failed || !tensor;
    if (tensor)
        write_tensor(&w->out, ONNX_GRAPH_INITIALIZER, name, tensor);
}

static const pm_onnx_move *find_move(const writer *w, const pm_node *node, const pm_attribute *attribute)
{
    return w->upgrades ? pm_onnx_find_move(node->op->name, attribute->name, w->graph->opset) : NULL;
}

// spatial had one value left and went with opset 9.
static bool stays(const writer *w, const pm_node *node, const pm_attribute *attribute)
{
    return !find_move(w, node, attribute) && !(w->upgrades && strcmp(attribute->name, "spatial") == 0);
}

static void write_node(writer *w, const pm_node *node)
{
    pm_wire_out *out = &w->out;
    char moved[PM_MAX_MOVED][PM_MAX_NAME] = {{0}};
    uint32_t inputs = node->input_count;
    for (uint32_t i = 0; i < node->attribute_count; i++) {
        const pm_onnx_move *move = find_move(w, node, &node->attributes[i]);
        if (!move)
            continue;
        move_attribute(w, node, &node->attributes[i], moved[move->input]);
        inputs = inputs > move->input ? inputs : move->input + 1;
    }
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_NODE);
    for (uint32_t i = 0; i < inputs; i++) {
        const char *name = i < PM_MAX_MOVED ? moved[i] : "";
        pm_wire_put_text(out, ONNX_NODE_INPUT,
                         !name[0] && i < node->input_count ? name_of(w, node->inputs[i]) : name);
    }
    for (uint32_t i = 0; i < node->output_count; i++)
        pm_wire_put_text(out, ONNX_NODE_OUTPUT, name_of(w, node->outputs[i]));
    pm_wire_put_text(out, ONNX_NODE_NAME, node->name);
    const bool renamed = w->upgrades && strcmp(node->op->name, "Scatter") == 0;
    pm_wire_put_text(out, ONNX_NODE_OP_TYPE, renamed ? "ScatterElements" : node->op->name);
    if (node->op->domain[0])
        pm_wire_put_text(out, ONNX_NODE_DOMAIN, node->op->domain);
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (stays(w, node, &node->attributes[i]))
            write_attribute(out, &node->attributes[i]);
    pm_wire_end(out, mark);
}

// A node of one output: name, inputs and output as given.
static void write_plain(writer *w, const char *op, const char *name, const char *const inputs[2],
                        const char *output, const pm_attribute *attribute)
{
    size_t mark = pm_wire_begin(&w->out, ONNX_GRAPH_NODE);
    for (uint32_t i = 0; i < 2 && inputs[i]; i++)
        pm_wire_put_text(&w->out, ONNX_NODE_INPUT, inputs[i]);
    pm_wire_put_text(&w->out, ONNX_NODE_OUTPUT, output);
    pm_wire_put_text(&w->out, ONNX_NODE_NAME, name);
    pm_wire_put_text(&w->out, ONNX_NODE_OP_TYPE, op);
    if (attribute)
        write_attribute(&w->out, attribute);
    pm_wire_end(&w->out, mark);
}

// Over all from axis on: flattened to rows there, and back to the shape that it had.
static void write_softmax(writer *w, const pm_node *node)
{
    char flat[PM_MAX_NAME], soft[PM_MAX_NAME], shape[PM_MAX_NAME];
    const char *x = name_of(w, node->inputs[0]), *y = name_of(w, node->outputs[0]);
    const pm_attribute from = pm_attribute_int("axis", pm_node_int(node, "axis", 1)),
                       last = pm_attribute_int("axis", -1);
    added_name(w, node, "flat", flat);
    added_name(w, node, "soft", soft);
    added_name(w, node, "shape", shape);
    write_plain(w, "Flatten", flat, (const char *const[]){x, NULL}, flat, &from);
    write_plain(w, node->op->name, node->name, (const char *const[]){flat, NULL}, soft, &last);
    write_plain(w, "Shape", shape, (const char *const[]){x, NULL}, shape, NULL);
    write_plain(w, "Reshape", soft, (const char *const[]){soft, shape}, y, NULL);
}

static pm_attribute text_attribute(const char *name, const char *text)
{
    return (pm_attribute){.name = name, .type = PM_ATTRIBUTE_STRING, .s = text};
}

// Its factors were an attribute or input 1 and are input 2, behind the region that is left out.
static void write_old_resize(writer *w, const pm_node *node)
{
    const pm_attribute *factors = pm_node_attribute(node, "scales");
    const char *scales = factors ? NULL : name_of(w, node->inputs[1]);
    char moved[PM_MAX_NAME];
    if (factors) {
        move_attribute(w, node, factors, moved);
        scales = moved;
    }
    const pm_attribute attributes[] = {
        text_attribute("coordinate_transformation_mode", "asymmetric"),
        text_attribute("nearest_mode", "floor"),
        text_attribute("mode", pm_node_string(node, "mode", "nearest")),
    };
    size_t mark = pm_wire_begin(&w->out, ONNX_GRAPH_NODE);
    pm_wire_put_text(&w->out, ONNX_NODE_INPUT, name_of(w, node->inputs[0]));
    pm_wire_put_text(&w->out, ONNX_NODE_INPUT, "");
    pm_wire_put_text(&w->out, ONNX_NODE_INPUT, scales);
    pm_wire_put_text(&w->out, ONNX_NODE_OUTPUT, name_of(w, node->outputs[0]));
    pm_wire_put_text(&w->out, ONNX_NODE_NAME, node->name);
    pm_wire_put_text(&w->out, ONNX_NODE_OP_TYPE, "Resize");
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        write_attribute(&w->out, &attributes[i]);
    pm_wire_end(&w->out, mark);
}

// A prefix that no value's or node's name has.
static void choose_prefix(writer *w)
{
    const pm_graph *g = w->graph;
    size_t length = (size_t)snprintf(w->prefix, sizeof w->prefix, "upgraded");
    bool taken = true;
    while (taken && length < PM_MAX_NAME / 2) {
        taken = false;
        for (size_t i = 0; i < g->value_count && !taken; i++)
            taken = g->values[i].name && strncmp(g->values[i].name, w->prefix, length) == 0;
        for (size_t i = 0; i < g->node_count && !taken; i++)
            taken = strncmp(g->nodes[i].name, w->prefix, length) == 0;
        if (taken)
            w->prefix[length++] = '_';
        w->prefix[length] = '\0';
    }
    w->upgrades = !taken;
}

static bool is_output(const pm_graph *graph, uint32_t value)
{
    for (size_t i = 0; i < graph->output_count; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

// Who reads the output of a node that is left out reads its input instead; when that output is the graph's,
// what it comes from takes over its name, if it has none to keep.
static void find_sources(writer *w)
{
    const pm_graph *g = w->graph;
    for (uint32_t v = 0; v < g->value_count; v++) {
        w->source[v] = v;
        w->names[v] = g->values[v].name;
        w->renamed[v] = g->values[v].param != PM_NO_PARAM || g->values[v].constant;
    }
    for (size_t i = 0; i < g->input_count; i++)
        w->renamed[g->inputs[i]] = true;
    for (size_t i = 0; i < g->output_count; i++)
        w->renamed[g->outputs[i]] = true;
    for (size_t n = 0; n < g->node_count; n++) {
        const pm_node *node = &g->nodes[n];
        if (!is_left_out(node))
            continue;
        const uint32_t output = node->outputs[0], from = w->source[node->inputs[0]];
        w->source[output] = from;
        if (!is_output(g, output) || w->renamed[from])
            continue;
        w->renamed[from] = true;
        w->names[from] = g->values[output].name;
    }
}

static void write_nodes(writer *w)
{
    const pm_graph *g = w->graph;
    for (size_t n = 0; n < g->node_count; n++) {
        const pm_node *node = &g->nodes[n];
        if (!is_left_out(node)) {
            if (w->upgrades && pm_onnx_softmax_changes(g, node))
                write_softmax(w, node);
            else if (w->upgrades && pm_onnx_is_old_resize(node))
                write_old_resize(w, node);
            else
                write_node(w, node);
            continue;
        }
        const char *input = name_of(w, node->outputs[0]), *output = g->values[node->outputs[0]].name;
        if (is_output(g, node->outputs[0]) && strcmp(input, output) != 0)
            write_plain(w, "Identity", node->name, (const char *const[]){input, NULL}, output, NULL);
    }
}

static void write_entry(pm_wire_out *out, const char *key, const char *value)
{
    size_t mark = pm_wire_begin(out, ONNX_TENSOR_EXTERNAL_DATA);
    pm_wire_put_text(out, ONNX_ENTRY_KEY, key);
    pm_wire_put_text(out, ONNX_ENTRY_VALUE, value);
    pm_wire_end(out, mark);
}

static void write_param(pm_wire_out *out, const pm_param *param, const char *weights_file, uint64_t offset)
{
    char number[32];
    size_t mark = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    for (uint32_t i = 0; i < param->rank; i++)
        pm_wire_put_int(out, ONNX_TENSOR_DIMS, param->shape[i]);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, PM_TYPE_F32);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, param->name);
    write_entry(out, "location", weights_file);
    snprintf(number, sizeof number, "%" PRIu64, offset);
    write_entry(out, "offset", number);
    snprintf(number, sizeof number, "%zu", param->count * sizeof(float));
    write_entry(out, "length", number);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_LOCATION, ONNX_LOCATION_EXTERNAL);
    pm_wire_end(out, mark);
}

// A ValueInfoProto, the batch named "N".
static void write_value(pm_wire_out *out, uint32_t number, const char *name, const pm_value *value)
{
    const pm_tensor *t = &value->tensor;
    size_t info = pm_wire_begin(out, number);
    pm_wire_put_text(out, ONNX_VALUE_NAME, name);
    size_t type = pm_wire_begin(out, ONNX_VALUE_TYPE), tensor = pm_wire_begin(out, ONNX_TYPE_TENSOR);
    pm_wire_put_int(out, ONNX_TENSOR_TYPE_ELEM, t->type);
    size_t shape = pm_wire_begin(out, ONNX_TENSOR_TYPE_SHAPE);
    for (uint32_t i = 0; i < t->rank; i++) {
        size_t extent = pm_wire_begin(out, ONNX_SHAPE_DIM);
        if (i == 0 && value->batched)
            pm_wire_put_text(out, ONNX_DIM_PARAM, "N");
        else
            pm_wire_put_int(out, ONNX_DIM_VALUE, t->shape[i]);
        pm_wire_end(out, extent);
    }
    pm_wire_end(out, shape);
    pm_wire_end(out, tensor);
    pm_wire_end(out, type);
    pm_wire_end(out, info);
}

static void write_graph(writer *w, const char *weights_file, const uint64_t *offsets)
{
    const pm_graph *g = w->graph;
    pm_wire_out *out = &w->out;
    size_t mark = pm_wire_begin(out, ONNX_MODEL_GRAPH);
    write_nodes(w);
    pm_wire_put_text(out, ONNX_GRAPH_NAME, "paramill");
    for (size_t i = 0; i < g->param_count; i++)
        write_param(out, &g->params[i], weights_file, offsets[i]);
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i].constant)
            write_tensor(out, ONNX_GRAPH_INITIALIZER, g->values[i].name, &g->values[i].tensor);
    for (size_t i = 0; i < g->input_count; i++)
        write_value(out, ONNX_GRAPH_INPUT, g->values[g->inputs[i]].name, &g->values[g->inputs[i]]);
    for (size_t i = 0; i < g->output_count; i++)
        write_value(out, ONNX_GRAPH_OUTPUT, g->values[g->outputs[i]].name, &g->values[g->outputs[i]]);
    pm_wire_end(out, mark);
}

static void write_opset(pm_wire_out *out, const char *domain, int64_t version)
{
    size_t mark = pm_wire_begin(out, ONNX_MODEL_OPSET_IMPORT);
    pm_wire_put_text(out, ONNX_OPSET_DOMAIN, domain);
    pm_wire_put_int(out, ONNX_OPSET_VERSION, version);
    pm_wire_end(out, mark);
}

// The domains besides the default one, each once.
static void write_other_opsets(writer *w)
{
    const char *seen[PM_MAX_DOMAINS];
    size_t count = 0;
    for (size_t n = 0; n < w->graph->node_count; n++) {
        const pm_operator *op = w->graph->nodes[n].op;
        bool known = op->domain[0] == '\0' || count == PM_MAX_DOMAINS;
        for (size_t k = 0; k < count && !known; k++)
            known = strcmp(seen[k], op->domain) == 0;
        if (known)
            continue;
        seen[count++] = op->domain;
        write_opset(&w->out, op->domain, op->since);
    }
}

pm_status pm_graph_write_onnx(const pm_graph *graph, const char *weights_file, const uint64_t *offsets,
                              pm_buffer **onnx)
{
    const size_t n = graph->value_count + 1;
    writer w = {.graph = graph,
                .source = calloc(n, sizeof(uint32_t)),
                .names = calloc(n, sizeof(char *)),
                .renamed = calloc(n, sizeof(bool))};
    pm_buffer *buffer = NULL;
    if (graph->opset < ONNX_OPSET && pm_onnx_can_upgrade(graph))
        choose_prefix(&w);
    w.region = pm_region_create();
    if (w.source && w.names && w.renamed && w.region) {
        find_sources(&w);
        pm_wire_put_int(&w.out, ONNX_MODEL_IR_VERSION, ONNX_IR_VERSION);
        pm_wire_put_text(&w.out, ONNX_MODEL_PRODUCER_NAME, "paramill");
        write_graph(&w, weights_file, offsets);
        write_opset(&w.out, "", w.upgrades ? ONNX_OPSET : graph->opset);
        write_other_opsets(&w);
        buffer = w.out.failed ? NULL : pm_buffer_copy(w.out.data, w.out.size);
    }
    pm_region_destroy(&w.region);
    free(w.out.data);
    free(w.source);
    free(w.names);
    free(w.renamed);
    if (!buffer)
        return pm_fail(PM_NO_MEMORY, "an ONNX model");
    *onnx = buffer;
    return pm_ok();
}
