#include "model/program_share.h"

#include "model/operators.h"

#include <stdlib.h>
#include <string.h>

#define NOBODY UINT32_MAX

typedef struct sharing {
    pm_graph *program;
    uint32_t *same;    // (values): the value that takes its place
    uint32_t *slots;   // open addressing: nodes, or NOBODY
    size_t slot_count; // power of two, more than twice the nodes
} sharing;

// FNV-1a.
static uint64_t mix(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ b[i]) * 1099511628211u;
    return hash;
}

static uint64_t hash_of(const pm_node *node)
{
    uint64_t hash = mix(14695981039346656037u, &node->op, sizeof node->op);
    hash = mix(hash, node->inputs, node->input_count * sizeof *node->inputs);
    for (uint32_t i = 0; i < node->attribute_count; i++) {
        const pm_attribute *a = &node->attributes[i];
        hash = mix(hash, a->name, strlen(a->name));
        hash = mix(hash, &a->i, sizeof a->i);
        hash = mix(hash, &a->f, sizeof a->f);
        hash = mix(hash, a->s, a->type == PM_ATTRIBUTE_STRING ? strlen(a->s) : 0);
        hash = mix(hash, a->ints, a->type == PM_ATTRIBUTE_INTS ? a->count * sizeof *a->ints : 0);
    }
    return hash;
}

static bool same_tensor(const pm_tensor *a, const pm_tensor *b)
{
    return a->type == b->type && pm_shape_equal(a, b) && a->data && b->data &&
           memcmp(a->data, b->data, pm_tensor_bytes(a)) == 0;
}

static bool same_attribute(const pm_attribute *a, const pm_attribute *b)
{
    if (strcmp(a->name, b->name) != 0 || a->type != b->type)
        return false;
    switch (a->type) {
    case PM_ATTRIBUTE_INT:
        return a->i == b->i;
    case PM_ATTRIBUTE_FLOAT:
        return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case PM_ATTRIBUTE_STRING:
        return strcmp(a->s, b->s) == 0;
    case PM_ATTRIBUTE_TENSOR:
        return same_tensor(a->tensor, b->tensor);
    case PM_ATTRIBUTE_INTS:
        return a->count == b->count && memcmp(a->ints, b->ints, a->count * sizeof *a->ints) == 0;
    case PM_ATTRIBUTE_FLOATS:
        return a->count == b->count && memcmp(a->floats, b->floats, a->count * sizeof *a->floats) == 0;
    case PM_ATTRIBUTE_STRINGS: // of no operator that a graph holds
        break;
    }
    return false;
}

// Whether first makes all that node does, of the same.
static bool same_node(const pm_node *first, const pm_node *node)
{
    if (first->op != node->op || first->input_count != node->input_count ||
        first->output_count != node->output_count || first->attribute_count != node->attribute_count ||
        memcmp(first->inputs, node->inputs, node->input_count * sizeof *node->inputs) != 0)
        return false;
    for (uint32_t i = 0; i < node->output_count; i++)
        if (first->outputs[i] == PM_NO_VALUE && node->outputs[i] != PM_NO_VALUE)
            return false;
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (!same_attribute(&first->attributes[i], &node->attributes[i]))
            return false;
    return true;
}

// The earlier node that node repeats, or NOBODY, and then node is there to be found.
static uint32_t find_first(sharing *s, uint32_t index)
{
    const pm_node *node = &s->program->nodes[index];
    for (uint64_t at = hash_of(node);; at++) {
        uint32_t *slot = &s->slots[at & (s->slot_count - 1)];
        if (*slot == NOBODY) {
            *slot = index;
            return NOBODY;
        }
        if (same_node(&s->program->nodes[*slot], node))
            return *slot;
    }
}

static pm_status read_shared(sharing *s, pm_node *node)
{
    bool changes = false;
    for (uint32_t i = 0; i < node->input_count; i++)
        changes = changes || (node->inputs[i] != PM_NO_VALUE && s->same[node->inputs[i]] != node->inputs[i]);
    if (!changes)
        return pm_ok();
    uint32_t *inputs =
        pm_region_copy(s->program->region, node->inputs, node->input_count * sizeof *node->inputs);
    if (!inputs)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    for (uint32_t i = 0; i < node->input_count; i++)
        if (inputs[i] != PM_NO_VALUE)
            inputs[i] = s->same[inputs[i]];
    node->inputs = inputs;
    return pm_ok();
}

static pm_status share_node(sharing *s, uint32_t index)
{
    pm_node *node = &s->program->nodes[index];
    pm_status status = read_shared(s, node);
    if (status.code != PM_OK || (node->op->traits & PM_TRAIT_PER_LANE) || node->op->statistic_inputs)
        return status;
    const uint32_t first = find_first(s, index);
    for (uint32_t i = 0; first != NOBODY && i < node->output_count; i++)
        if (node->outputs[i] != PM_NO_VALUE)
            s->same[node->outputs[i]] = s->program->nodes[first].outputs[i];
    return status;
}

pm_status pm_program_share(pm_graph *program)
{
    sharing s = {.program = program, .slot_count = 4};
    while (s.slot_count <= 2 * program->node_count)
        s.slot_count *= 2;
    s.same = malloc((program->value_count + 1) * sizeof *s.same);
    s.slots = malloc(s.slot_count * sizeof *s.slots);
    pm_status status =
        s.same && s.slots ? pm_ok() : pm_fail(PM_NO_MEMORY, "a program of %zu nodes", program->node_count);
    if (status.code == PM_OK) {
        for (uint32_t i = 0; i < program->value_count; i++)
            s.same[i] = i;
        memset(s.slots, 0xff, s.slot_count * sizeof *s.slots);
    }
    for (uint32_t i = 0; status.code == PM_OK && i < program->node_count; i++)
        status = share_node(&s, i);
    for (size_t i = 0; status.code == PM_OK && i < program->output_count; i++)
        program->outputs[i] = s.same[program->outputs[i]];
    free(s.same);
    free(s.slots);
    return status;
}
