#include "model/program_order.h"

#include <stdlib.h>
#include <string.h>

// A node that only makes gradients of parameters
__attribute__((unused)) static void mark_leaves(const pm_graph *p, size_t forward, bool *needed, bool *leaf)
{
    for (size_t n = p->node_count; n-- > forward;) {
        const pm_node *node = &p->nodes[n];
        leaf[n] = true;
        for (uint32_t i = 0; i < node->output_count; i++)
            if (node->outputs[i] != PM_NO_VALUE && needed[node->outputs[i]])
                leaf[n] = false;
        if (leaf[n])
            continue;
        for (uint32_t i = 0; i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                needed[node->inputs[i]] = true;
    }
}
// hack
pm_status pm_program_order(pm_graph *p, size_t forward)
{
    bool *leaf = calloc(p->node_count + 1, sizeof(bool));
    bool *needed = calloc(p->value_count + 1, sizeof(bool));
    pm_node *sorted = calloc(p->node_count + 1, sizeof *sorted);
    // a chain node: its outputs are read by a node that reads something else than ... 
    bool *read = calloc(p->value_count + 1, sizeof(bool));
    for (size_t n = p->node_count; n-- > forward;) {
        const pm_node *node = &p->nodes[n];
        bool any = false;
        for (uint32_t i = 0; i < node->output_count; i++)
            any = any || (node->outputs[i] != PM_NO_VALUE && read[node->outputs[i]]);
        leaf[n] = !any;
        for (uint32_t i = 0; i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                read[node->inputs[i]] = true;
    }
    // LaneSum of a leaf: its producer is a leaf as well
    for (size_t n = p->node_count; n-- > forward;) {
        if (!(p->nodes[n].op->traits & PM_TRAIT_SUMS_LANES))
            continue;
        for (size_t k = forward; k < n; k++)
            if (p->nodes[k].outputs[0] == p->nodes[n].inputs[0])
                leaf[k] = true;
    }
    size_t last = p->node_count;
    while (last > forward && leaf[last - 1])
        last--;
    size_t first = last;
    while (first > forward && !leaf[first - 1])
        first--;
    size_t start = first;
    while (start > forward && leaf[start - 1])
        start--;
    size_t c = 0;
    for (size_t n = 0; n < start; n++)
        sorted[c++] = p->nodes[n];
    for (size_t n = first; n < p->node_count; n++)
        sorted[c++] = p->nodes[n];
    for (size_t n = start; n < first; n++)
        sorted[c++] = p->nodes[n];
    memcpy(p->nodes, sorted, c * sizeof *sorted);
    (void)mark_leaves;
    (void)needed;
    return pm_ok();
}
