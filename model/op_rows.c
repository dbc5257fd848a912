// Rows of a table by ids that are known before its values are (model/program_sparse.h): the ids of a step
// sorted, the rows read by place, and the sum of what comes back for each row.
//
// The sum of a row is made as that of a dense gradient would be: inside a lane in the order of the places
// that read the row, then along the tree over the lanes, left + right, where lanes that do not read the row
// add nothing.
#include "model/compose.h"
#include "model/move.h"
#include "model/task.h"

#include <string.h>

enum { DIGIT = 11, DIGITS = 1 << DIGIT, TREE = 9 };

static const pm_attribute_spec ROWS[] = {
    {"extent", PM_ATTRIBUTE_INT}, {"most", PM_ATTRIBUTE_INT}, {"lanes", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec SHAPE[] = {{"shape", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec NONE[] = {{0}};

static pm_tensor list_of(int64_t count)
{
    return (pm_tensor){.type = PM_TYPE_I32, .rank = 1, .shape = {count}};
}

// --- Rows: ids (one lane) to places (like ids), the ids of all lanes in ascending order (most), where the
// reads of each begin in the list of reads (most + 1), that list (lanes * ids), how many rows there are (1)

static pm_status infer_rows(pm_shapes *s)
{
    const pm_tensor *ids = &s->in[0]->tensor;
    const int64_t most = pm_node_int(s->node, "most", 0), lanes = pm_node_int(s->node, "lanes", 0);
    if (ids->type != PM_TYPE_I64 && ids->type != PM_TYPE_I32)
        return pm_fail(PM_INVALID, "indices are %s", pm_type_name(ids->type));
    s->out[0] = *ids;
    s->out[0].type = PM_TYPE_I32;
    s->out[0].data = NULL;
    s->out[1] = list_of(most);
    s->out[2] = list_of(most + 1);
    s->out[3] = list_of((int64_t)ids->count * lanes);
    s->out[4] = list_of(1);
    return pm_ok();
}

static pm_status plan_rows(pm_task *task)
{
    task->whole = task->joins = true;
    task->scratch_bytes = 2 * task->out[3]->count * sizeof(uint64_t) + DIGITS * sizeof(uint32_t);
    return pm_ok();
}

// An id in [0, extent), negative ones counted from the end; -1 when out of range.
static int64_t id_at(const pm_tensor *t, const void *ids, size_t i, int64_t extent)
{
    const int64_t id = t->type == PM_TYPE_I64 ? ((const int64_t *)ids)[i] : ((const int32_t *)ids)[i];
    const int64_t at = id < 0 ? id + extent : id;
    return at < 0 || at >= extent ? -1 : at;
}

// Sorts count keys by bits [shift, shift + DIGIT), equal ones in their order.
static void sort_digit(const uint64_t *from, uint64_t *to, size_t count, uint32_t shift, uint32_t *starts)
{
    memset(starts, 0, DIGITS * sizeof *starts);
    for (size_t i = 0; i < count; i++)
        starts[from[i] >> shift & (DIGITS - 1)]++;
    uint32_t sum = 0;
    for (size_t d = 0; d < DIGITS; d++) {
        const uint32_t here = starts[d];
        starts[d] = sum;
        sum += here;
    }
    for (size_t i = 0; i < count; i++)
        to[starts[from[i] >> shift & (DIGITS - 1)]++] = from[i];
}

static void run_rows(const pm_task *task, const pm_call *call)
{
    const int64_t extent = pm_node_int(task->node, "extent", 0);
    const size_t reads = task->in[0]->count * call->lanes;
    int32_t *places = call->out[0], *ids = call->out[1], *starts = call->out[2], *order = call->out[3];
    uint64_t *keys = call->scratch, *spare = keys + task->out[3]->count; // id, then read
    uint32_t *digits = (uint32_t *)(void *)(spare + task->out[3]->count);
    size_t count = 0, rows = 0;
    starts[0] = 0;
    for (size_t i = 0; i < reads; i++) {
        const int64_t id = id_at(task->in[0], call->in[0], i, extent);
        places[i] = -1;
        if (id >= 0)
            keys[count++] = (uint64_t)id << 32 | i;
    }
    for (uint32_t bit = 0; bit < 32 && (extent - 1) >> bit > 0; bit += DIGIT) {
        sort_digit(keys, spare, count, 32 + bit, digits);
        uint64_t *sorted = spare;
        spare = keys;
        keys = sorted;
    }
    for (size_t i = 0; i < count; i++) {
        const uint32_t read = (uint32_t)keys[i];
        rows += i == 0 || keys[i] >> 32 != keys[i - 1] >> 32; // no branch: nobody could guess it
        ids[rows - 1] = (int32_t)(keys[i] >> 32);
        starts[rows] = (int32_t)i + 1;
        places[read] = (int32_t)rows - 1;
        order[i] = (int32_t)read;
    }
    *(int32_t *)call->out[4] = (int32_t)rows;
}

// --- GatherRows: (rows, places, starts, reads, count) to the rows at the places, zeros where there is none

static pm_status infer_gather_rows(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *places = &s->in[1]->tensor;
    if (x->rank - 1 + places->rank > PM_MAX_RANK)
        return pm_fail(PM_UNSUPPORTED, "a rank of %u", x->rank - 1 + places->rank);
    pm_tensor *y = &s->out[0];
    y->type = x->type;
    for (uint32_t d = 0; d < places->rank; d++)
        y->shape[y->rank++] = places->shape[d];
    for (uint32_t d = 1; d < x->rank; d++)
        y->shape[y->rank++] = x->shape[d];
    return pm_ok();
}

static pm_status plan_gather_rows(pm_task *task)
{
    task->whole = true;
    return pm_ok();
}

static void run_gather_rows(const pm_task *task, const pm_call *call)
{
    const size_t count = task->in[1]->count * call->lanes,
                 width = pm_extent(task->in[0], 1, task->in[0]->rank);
    const int32_t *places = call->in[1];
    const float *rows = call->in[0];
    float *to = call->out[0];
    for (size_t i = 0; i < count; i++, to += width)
        if (places[i] < 0)
            memset(to, 0, width * sizeof *to);
        else
            pm_copy_row(to, rows + (size_t)places[i] * width, width * sizeof *to);
}

static pm_status gradient_gather_rows(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const pm_attribute shape = pm_attribute_ints("shape", x.shape, x.rank);
    const uint32_t inputs[] = {pm_gradient_of(g, node, 0), node->inputs[2], node->inputs[3], node->inputs[4]};
    pm_compose_give(&c, g, 0, pm_compose_with(&c, ".RowsSum", inputs, 4, &shape, 1));
    return c.status;
}

// --- RowsSum: (dy, starts, reads, count) to the sum of each row; beyond count nothing is written

static pm_status infer_rows_sum(pm_shapes *s)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(s->node, "shape", &rank);
    s->out[0] = (pm_tensor){.type = PM_TYPE_F32, .rank = rank};
    memcpy(s->out[0].shape, shape, rank * sizeof *shape);
    return pm_ok();
}

static pm_status plan_rows_sum(pm_task *task)
{
    task->whole = task->joins = true;
    task->scratch_bytes = TREE * pm_extent(task->out[0], 1, task->out[0]->rank) * sizeof(float);
    return pm_ok();
}

// The level of the tree at which two lanes meet.
static uint32_t meeting(uint32_t a, uint32_t b)
{
    return a == b ? 0 : 32 - (uint32_t)__builtin_clz(a ^ b);
}

// One row's sums that wait for their right neighbours, the lowest first.
typedef struct row_sum {
    float *sums[TREE + 1]; // the first is the row's
    uint32_t lanes[TREE + 1];
    uint32_t top;
} row_sum;

// A row is too short for a kernel's call.
static void add(float *sum, const float *x, size_t width)
{
    for (size_t j = 0; j < width; j++)
        sum[j] += x[j];
}

static void join(row_sum *r, size_t width)
{
    add(r->sums[r->top - 2], r->sums[r->top - 1], width);
    r->top--;
}

static void sum_row(const pm_task *task, const float *dy, const int32_t *reads, size_t count, size_t width,
                    row_sum *r)
{
    const uint32_t lane_reads = (uint32_t)(task->in[0]->count / width);
    r->top = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t lane = (uint32_t)reads[i] / lane_reads;
        if (r->top == 0 || lane != r->lanes[r->top - 1]) {
            while (r->top > 1 &&
                   meeting(r->lanes[r->top - 2], r->lanes[r->top - 1]) < meeting(r->lanes[r->top - 1], lane))
                join(r, width);
            r->lanes[r->top] = lane;
            memset(r->sums[r->top++], 0, width * sizeof(float));
        }
        add(r->sums[r->top - 1], dy + (size_t)reads[i] * width, width);
    }
    while (r->top > 1)
        join(r, width);
}

static void run_rows_sum(const pm_task *task, const pm_call *call)
{
    const size_t width = pm_extent(task->out[0], 1, task->out[0]->rank);
    const int32_t *starts = call->in[1], *reads = call->in[2], rows = *(const int32_t *)call->in[3];
    row_sum r = {.top = 0};
    for (uint32_t i = 1; i <= TREE; i++)
        r.sums[i] = (float *)call->scratch + (i - 1) * width;
    for (int32_t row = 0; row < rows; row++) {
        r.sums[0] = (float *)call->out[0] + (size_t)row * width;
        sum_row(task, call->in[0], reads + starts[row], (size_t)(starts[row + 1] - starts[row]), width, &r);
    }
}

const pm_operator PM_FAMILY_ROWS[] = {
    {.domain = PM_DOMAIN,
     .name = "Rows",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 5,
     .attributes = ROWS,
     .infer = infer_rows,
     .plan = plan_rows,
     .run = run_rows},
    {.domain = PM_DOMAIN,
     .name = "GatherRows",
     .min_inputs = 5,
     .max_inputs = 5,
     .max_outputs = 1,
     .attributes = NONE,
     .infer = infer_gather_rows,
     .gradient = gradient_gather_rows,
     .plan = plan_gather_rows,
     .run = run_gather_rows},
    {.domain = PM_DOMAIN,
     .name = "RowsSum",
     .min_inputs = 4,
     .max_inputs = 4,
     .max_outputs = 1,
     .traits = PM_TRAIT_JOINS_LANES,
     .attributes = SHAPE,
     .infer = infer_rows_sum,
     .plan = plan_rows_sum,
     .run = run_rows_sum},
    {0},
};
