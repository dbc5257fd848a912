#include "model/program_sparse.h"

#include "model/compose.h"
#include "model/program.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// Where a node comes in the new order: first what ids follow from, then the rest; a node that takes the place
// of others comes where the first of them was.
typedef struct place {
    uint32_t node; // where it is now
    bool late, dropped;
    size_t at;
} place;

typedef struct sparsity {
    pm_graph *program;
    uint32_t max_lanes;
    uint32_t *readers; // (nodes at first): of the parameter at hand
    size_t reader_count;
    place *places;
    size_t place_count, place_capacity;
} sparsity;

static bool reads_rows(const pm_node *node, uint32_t value)
{
    return strcmp(node->op->name, "Gather") == 0 && node->op->domain[0] == '\0' && node->inputs[0] == value &&
           node->inputs[1] != value && pm_node_int(node, "axis", 0) == 0;
}

static bool reads(const pm_node *node, uint32_t value)
{
    for (uint32_t i = 0; i < node->input_count; i++)
        if (node->inputs[i] == value)
            return true;
    return false;
}

pm_status pm_graph_check_sparse(const pm_graph *source, size_t param)
{
    const uint32_t value = source->param_values[param];
    const pm_param *p = &source->params[param];
    size_t readers = 0;
    if (p->rank < 2 || p->shape[0] >= INT32_MAX)
        return pm_fail(PM_UNSUPPORTED, "sparse parameter %.64s is no table of up to %d rows", p->name,
                       INT32_MAX - 1);
    for (size_t i = 0; i < source->output_count; i++)
        if (source->outputs[i] == value)
            return pm_fail(PM_UNSUPPORTED, "sparse parameter %.64s is an output", p->name);
    for (size_t n = 0; n < source->node_count; n++) {
        const pm_node *node = &source->nodes[n];
        if (!reads(node, value))
            continue;
        if (!reads_rows(node, value))
            return pm_fail(
                PM_UNSUPPORTED,
                "sparse parameter %.64s is read by node %.64s (%s); it may be the data of Gathers on "
                "axis 0 only",
                p->name, node->name, node->op->name);
        readers++;
    }
    return readers > 0 ? pm_ok()
                       : pm_fail(PM_UNSUPPORTED, "sparse parameter %.64s is read by no Gather", p->name);
}

static bool add_place(sparsity *s, uint32_t node, bool late, size_t at)
{
    if (s->place_count == s->place_capacity) {
        const size_t capacity = 2 * s->place_capacity + 64;
        place *grown = realloc(s->places, capacity * sizeof *grown);
        if (!grown)
            return false;
        s->places = grown;
        s->place_capacity = capacity;
    }
    s->places[s->place_count++] = (place){.node = node, .late = late, .at = at};
    return true;
}

// Gives the nodes appended since the last call their place.
static void place_new(sparsity *s, pm_compose *c, bool late, size_t at)
{
    for (size_t n = s->place_count; n < s->program->node_count; n++)
        if (!add_place(s, (uint32_t)n, late, late ? at : n))
            pm_compose_fail(c, pm_fail(PM_NO_MEMORY, "a program of %zu nodes", n));
}

// Brings what the value follows from to the front.
static pm_status bring_forward(sparsity *s, uint32_t value, const char *param)
{
    const pm_graph *p = s->program;
    bool *wanted = calloc(p->value_count, sizeof *wanted);
    if (!wanted)
        return pm_fail(PM_NO_MEMORY, "a program of %zu nodes", p->node_count);
    pm_status status = p->values[value].shared
                           ? pm_fail(PM_UNSUPPORTED, "sparse parameter %.64s is read by fixed ids", param)
                           : pm_ok();
    wanted[value] = true;
    for (size_t n = p->node_count; n-- > 0;) {
        const pm_node *node = &p->nodes[n];
        bool any = false;
        for (uint32_t i = 0; i < node->output_count; i++)
            any = any || (node->outputs[i] != PM_NO_VALUE && wanted[node->outputs[i]]);
        if (!any)
            continue;
        s->places[n].late = false;
        s->places[n].at = n;
        for (uint32_t i = 0; i < node->input_count; i++)
            if (node->inputs[i] != PM_NO_VALUE)
                wanted[node->inputs[i]] = true;
    }
    for (size_t i = 0; status.code == PM_OK && i < p->param_count; i++)
        if (wanted[p->param_values[i]])
            status = pm_fail(PM_UNSUPPORTED, "the ids of sparse parameter %.64s follow from parameters too",
                             param);
    free(wanted);
    return status;
}

// What reads the old value reads the new one from now on.
static void replace(sparsity *s, pm_compose *c, uint32_t old, uint32_t new)
{
    pm_graph *p = s->program;
    if (c->status.code != PM_OK)
        return;
    for (size_t n = 0; n < p->node_count; n++) {
        pm_node *node = &p->nodes[n];
        if (!reads(node, old))
            continue;
        uint32_t *inputs = pm_region_copy(p->region, node->inputs, node->input_count * sizeof *inputs);
        if (!inputs) {
            pm_compose_fail(c, pm_fail(PM_NO_MEMORY, "node %.64s", node->name));
            return;
        }
        for (uint32_t i = 0; i < node->input_count; i++)
            inputs[i] = inputs[i] == old ? new : inputs[i];
        node->inputs = inputs;
    }
    for (size_t i = 0; i < p->output_count; i++)
        p->outputs[i] = p->outputs[i] == old ? new : p->outputs[i];
    p->values[new].name = p->values[old].name;
}

// All ids that the Gathers read, of one lane.
static uint32_t join_ids(sparsity *s, pm_compose *c)
{
    pm_graph *p = s->program;
    if (s->reader_count == 1)
        return p->nodes[s->readers[0]].inputs[1];
    uint32_t *lists = pm_compose_room(c, s->reader_count * sizeof *lists);
    const pm_attribute axis = pm_attribute_int("axis", 0);
    for (size_t i = 0; lists && i < s->reader_count; i++) {
        const uint32_t ids = p->nodes[s->readers[i]].inputs[1];
        const int64_t count = (int64_t)pm_compose_tensor(c, ids).count;
        lists[i] = pm_compose_reshape(c, pm_compose_cast(c, ids, PM_TYPE_I64), &count, 1);
    }
    return lists ? pm_compose_with(c, "Concat", lists, (uint32_t)s->reader_count, &axis, 1) : PM_NO_VALUE;
}

// What the Gathers gave, cut out of all rows, in the place of the first.
static void give_rows(sparsity *s, pm_compose *c, uint32_t rows)
{
    pm_graph *p = s->program;
    int64_t first = 0;
    for (size_t i = 0; c->status.code == PM_OK && i < s->reader_count; i++) {
        const uint32_t old = p->nodes[s->readers[i]].outputs[0];
        const pm_tensor y = pm_compose_tensor(c, old);
        const int64_t last = first + (int64_t)pm_compose_tensor(c, p->nodes[s->readers[i]].inputs[1]).count;
        uint32_t mine = rows;
        if (s->reader_count > 1) {
            const uint32_t from = pm_compose_ints(c, &first, 1), to = pm_compose_ints(c, &last, 1);
            mine = pm_compose_reshape(c, pm_compose_3(c, "Slice", rows, from, to), y.shape, y.rank);
        }
        replace(s, c, old, mine);
        s->places[s->readers[i]].dropped = true;
        first = last;
    }
}

static void find_readers(sparsity *s, uint32_t value)
{
    s->reader_count = 0;
    for (size_t n = 0; n < s->program->node_count; n++)
        if (!s->places[n].dropped && reads(&s->program->nodes[n], value))
            s->readers[s->reader_count++] = (uint32_t)n;
}

static pm_status rewrite(sparsity *s, size_t param, pm_sparse_values *found)
{
    pm_graph *p = s->program;
    const uint32_t value = p->param_values[param];
    const char *name = p->values[value].name;
    const pm_node first = p->nodes[s->readers[0]]; // its lists stay where they are
    pm_compose c = pm_compose_open(p, &first);
    pm_tensor table = p->values[value].tensor;
    pm_status status = pm_ok();
    for (size_t i = 0; status.code == PM_OK && i < s->reader_count; i++)
        status = bring_forward(s, p->nodes[s->readers[i]].inputs[1], name);
    if (status.code != PM_OK)
        return status;
    const uint32_t ids = join_ids(s, &c);
    const int64_t reads_all = (int64_t)pm_compose_tensor(&c, ids).count * (int64_t)s->max_lanes;
    if (c.status.code == PM_OK && reads_all > INT32_MAX)
        return pm_fail(PM_UNSUPPORTED, "a step reads %" PRId64 " rows of sparse parameter %.64s", reads_all,
                       name);
    uint32_t rows[5] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    const int64_t most = reads_all < table.shape[0] ? reads_all : table.shape[0];
    if (c.status.code == PM_OK)
        c.status = pm_recipe_add(p, &first,
                                 (pm_recipe){.domain = PM_DOMAIN,
                                             .op = "Rows",
                                             PM_VALUES(ids),
                                             PM_ATTRIBUTES(pm_attribute_int("extent", table.shape[0]),
                                                           pm_attribute_int("most", most),
                                                           pm_attribute_int("lanes", s->max_lanes)),
                                             .output_count = 5},
                                 rows);
    for (int i = 1; c.status.code == PM_OK && i < 5; i++)
        p->values[rows[i]].shared = true;
    place_new(s, &c, false, 0);
    table.shape[0] = most;
    table.count = (size_t)most * pm_extent(&table, 1, table.rank);
    p->values[value].tensor = table;
    p->params[param].count = table.count;
    const uint32_t inputs[] = {value, rows[0], rows[2], rows[3], rows[4]};
    const uint32_t y = pm_compose_with(&c, ".GatherRows", inputs, 5, NULL, 0);
    give_rows(s, &c, y);
    place_new(s, &c, true, s->readers[0]);
    *found = (pm_sparse_values){rows[1], rows[4]};
    return c.status;
}

static int by_place(const void *left, const void *right)
{
    const place *a = left, *b = right;
    if (a->late != b->late)
        return a->late ? 1 : -1;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

static pm_status reorder(sparsity *s)
{
    pm_graph *p = s->program;
    pm_node *nodes = calloc(p->node_count + 1, sizeof *nodes);
    size_t count = 0;
    if (!nodes)
        return pm_fail(PM_NO_MEMORY, "a program of %zu nodes", p->node_count);
    qsort(s->places, s->place_count, sizeof *s->places, by_place);
    for (size_t i = 0; i < s->place_count; i++)
        if (!s->places[i].dropped)
            nodes[count++] = p->nodes[s->places[i].node];
    memcpy(p->nodes, nodes, count * sizeof *nodes);
    p->node_count = count;
    free(nodes);
    return pm_ok();
}

pm_status pm_program_sparse(pm_graph *program, uint32_t max_lanes, pm_sparse_values *found)
{
    sparsity s = {.program = program, .max_lanes = max_lanes};
    pm_compose c = pm_compose_open(program, NULL);
    bool any = false;
    for (size_t i = 0; i < program->param_count; i++) {
        found[i] = (pm_sparse_values){PM_NO_VALUE, PM_NO_VALUE};
        any = any || (program->params[i].sparse);
    }
    if (!any)
        return pm_ok();
    s.readers = calloc(program->node_count + 1, sizeof *s.readers);
    if (!s.readers)
        return pm_fail(PM_NO_MEMORY, "a program of %zu nodes", program->node_count);
    for (size_t n = 0; n < program->node_count; n++)
        if (!add_place(&s, (uint32_t)n, true, n))
            pm_compose_fail(&c, pm_fail(PM_NO_MEMORY, "a program of %zu nodes", n));
    pm_status status = c.status;
    for (size_t i = 0; status.code == PM_OK && i < program->param_count; i++) {
        if (!program->params[i].sparse)
            continue;
        find_readers(&s, program->param_values[i]);
        if (s.reader_count > 0)
            status = rewrite(&s, i, &found[i]);
    }
    if (status.code == PM_OK)
        status = reorder(&s);
    free(s.readers);
    free(s.places);
    return status;
}
