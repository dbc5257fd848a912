// Which nodes a value follows from, by their names alone: the others may be of operators that nothing here
// knows.
#include "model/onnx_reader.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = PM_ONNX_DEPTH };

static pm_status want(pm_names *wanted, pm_onnx_text name)
{
    if (name.size == 0 || pm_names_find(wanted, name.bytes, name.size) != PM_NO_NAME)
        return pm_ok();
    return pm_names_add(wanted, name.bytes, name.size, 0);
}

static pm_status want_graph(pm_names *wanted, pm_wire graph, unsigned depth);

// What the node reads; inside its graphs (branches) everything that any node reads, of which some may be its
// own.
static pm_status want_inputs(pm_names *wanted, pm_wire node, unsigned depth)
{
    pm_wire_field field, inner;
    pm_status status = pm_ok();
    while (status.code == PM_OK && pm_wire_next(&node, &field)) {
        if (field.number == ONNX_NODE_INPUT)
            status = want(wanted, pm_onnx_text_of(&field));
        if (field.number != ONNX_NODE_ATTRIBUTE)
            continue;
        for (pm_wire attribute = pm_wire_inner(&field);
             status.code == PM_OK && pm_wire_next(&attribute, &inner);)
            if (inner.number == ONNX_ATTRIBUTE_G || inner.number == ONNX_ATTRIBUTE_GRAPHS)
                status = want_graph(wanted, pm_wire_inner(&inner), depth + 1);
    }
    return status;
}

static pm_status want_graph(pm_names *wanted, pm_wire graph, unsigned depth)
{
    pm_wire_field field, inner;
    pm_status status = depth > DEPTH ? pm_fail(PM_UNSUPPORTED, "branches more than %d deep", DEPTH) : pm_ok();
    while (status.code == PM_OK && pm_wire_next(&graph, &field)) {
        if (field.number == ONNX_GRAPH_NODE)
            status = want_inputs(wanted, pm_wire_inner(&field), depth);
        if (field.number != ONNX_GRAPH_OUTPUT) // a branch may give back what is made outside
            continue;
        for (pm_wire info = pm_wire_inner(&field); status.code == PM_OK && pm_wire_next(&info, &inner);)
            if (inner.number == ONNX_VALUE_NAME)
                status = want(wanted, pm_onnx_text_of(&inner));
    }
    return status;
}

// "Z.logits" is made by the node that makes Z (onnx_ml.c).
static bool makes_wanted(const pm_names *wanted, pm_wire node, const pm_onnx_text *behind)
{
    pm_wire_field field;
    while (pm_wire_next(&node, &field)) {
        const pm_onnx_text name = pm_onnx_text_of(&field);
        if (field.number == ONNX_NODE_OUTPUT && name.size > 0 &&
            (pm_names_find(wanted, name.bytes, name.size) != PM_NO_NAME ||
             pm_onnx_text_compare(name, *behind) == 0))
            return true;
    }
    return false;
}

pm_status pm_onnx_select(pm_wire graph, const char *output, bool *needed, size_t count)
{
    static const char END[] = PM_ONNX_LOGITS;
    const size_t size = strlen(output), end = sizeof END - 1;
    const bool inside = size > end && strcmp(output + size - end, END) == 0;
    const pm_onnx_text behind = {(const unsigned char *)output, inside ? size - end : 0};
    pm_wire *nodes = calloc(count + 1, sizeof *nodes);
    pm_names *wanted = pm_names_create();
    pm_wire_field field;
    size_t found = 0;
    pm_status status =
        nodes && wanted ? pm_names_add(wanted, output, size, 0) : pm_fail(PM_NO_MEMORY, "%zu nodes", count);
    while (nodes && found < count && pm_wire_next(&graph, &field))
        if (field.number == ONNX_GRAPH_NODE)
            nodes[found++] = pm_wire_inner(&field);
    for (size_t n = found; status.code == PM_OK && n-- > 0;) {
        needed[n] = makes_wanted(wanted, nodes[n], &behind);
        if (needed[n])
            status = want_inputs(wanted, nodes[n], 0);
    }
    pm_names_destroy(&wanted);
    free(nodes);
    return status;
}
