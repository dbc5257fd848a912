// RNN, GRU and LSTM, unrolled over their time: one product with the input weights for all steps of a
// direction, then each step's product with the state. Gates are in the order of ONNX: i o f c (LSTM), z r h
// (GRU).
#include "model/move.h"

#include <string.h>

static const pm_attribute_spec RECURRENT[] = {
    {"hidden_size", PM_ATTRIBUTE_INT},  {"direction", PM_ATTRIBUTE_STRING},
    {"layout", PM_ATTRIBUTE_INT},       {"linear_before_reset", PM_ATTRIBUTE_INT},
    {"input_forget", PM_ATTRIBUTE_INT}, {0}};

enum { MAX_STEPS = 4096, MAX_UNROLLED = 1 << 20 };

typedef enum cell { CELL_RNN, CELL_GRU, CELL_LSTM } cell;

// A whole node; steps, rows, features and hidden are extents.
typedef struct recurrent {
    pm_compose c;
    cell cell;
    int64_t steps, rows, features, hidden, gates, directions;
    bool reverse_first, batch_first, linear_before_reset, input_forget;
    uint32_t x;    // (steps, rows, features)
    uint32_t lens; // (rows, 1) as int64, or PM_NO_VALUE
    uint32_t *y;   // (steps * directions), each (1, 1, rows, hidden)
} recurrent;

// One direction: its weights and state.
typedef struct direction {
    uint32_t projected, r,
        bias_r;         // (steps * rows, gates * hidden), (gates * hidden, hidden), (gates * hidden)
    uint32_t peepholes; // (3 * hidden)
    uint32_t h, s;      // (rows, hidden): output and, of an LSTM, cell state
} direction;

// x[start, start + extent) along the axis
static uint32_t cut(recurrent *r, uint32_t x, uint32_t axis, int64_t start, int64_t extent)
{
    const pm_tensor t = pm_compose_tensor(&r->c, x);
    pm_move m = pm_move_all(&t);
    if (r->c.status.code != PM_OK)
        return PM_NO_VALUE;
    m.axes[axis].extent = extent;
    m.axes[axis].start = start * m.axes[axis].step;
    return pm_move_add(&r->c, &m, x, PM_NO_VALUE);
}

// Block d of input's first axis, in the shape.
static uint32_t block(recurrent *r, uint32_t input, int64_t d, const int64_t *shape, uint32_t rank)
{
    return pm_compose_reshape(&r->c, cut(r, input, 0, d, 1), shape, rank);
}

// x (m, k) times w (n, k) transposed, plus bias (n) where there is one.
static uint32_t product(recurrent *r, uint32_t x, uint32_t w, uint32_t bias)
{
    const pm_attribute transposed = pm_attribute_int("transB", 1);
    const uint32_t inputs[] = {x, w, bias};
    return pm_compose_with(&r->c, "Gemm", inputs, bias == PM_NO_VALUE ? 2 : 3, &transposed, 1);
}

#define C1(op, x) pm_compose_1(&r->c, op, x)
#define C2(op, x, y) pm_compose_2(&r->c, op, x, y)

static uint32_t gate(recurrent *r, uint32_t z, int64_t index, int64_t count)
{
    return cut(r, z, 1, index * r->hidden, count * r->hidden);
}

// peepholes[index] * state added to z, where there are any
static uint32_t peep(recurrent *r, const direction *d, uint32_t z, int64_t index, uint32_t state)
{
    if (d->peepholes == PM_NO_VALUE)
        return z;
    return C2("Add", z, C2("Mul", state, cut(r, d->peepholes, 0, index * r->hidden, r->hidden)));
}

// The new output and cell state from projected inputs (rows, 4 hidden).
static void step_lstm(recurrent *r, const direction *d, uint32_t projected, uint32_t *h, uint32_t *s)
{
    const uint32_t z = C2("Add", projected, product(r, d->h, d->r, PM_NO_VALUE));
    const uint32_t i = C1("Sigmoid", peep(r, d, gate(r, z, 0, 1), 0, d->s));
    const uint32_t f = r->input_forget ? C2("Sub", pm_compose_number(&r->c, PM_TYPE_F32, 1), i)
                                       : C1("Sigmoid", peep(r, d, gate(r, z, 2, 1), 2, d->s));
    const uint32_t fresh = C2("Mul", i, C1("Tanh", gate(r, z, 3, 1)));
    *s = C2("Add", C2("Mul", f, d->s), fresh);
    const uint32_t o = C1("Sigmoid", peep(r, d, gate(r, z, 1, 1), 1, *s));
    *h = C2("Mul", o, C1("Tanh", *s));
}

static uint32_t step_gru(recurrent *r, const direction *d, uint32_t projected)
{
    const int64_t n = r->hidden;
    const uint32_t weight = cut(r, d->r, 0, 0, 2 * n), weight_h = cut(r, d->r, 0, 2 * n, n);
    const bool biased = d->bias_r != PM_NO_VALUE;
    const uint32_t bias = biased ? cut(r, d->bias_r, 0, 0, 2 * n) : PM_NO_VALUE;
    const uint32_t bias_h = biased ? cut(r, d->bias_r, 0, 2 * n, n) : PM_NO_VALUE;
    const uint32_t zr = C1("Sigmoid", C2("Add", gate(r, projected, 0, 2), product(r, d->h, weight, bias)));
    const uint32_t z = gate(r, zr, 0, 1), reset = gate(r, zr, 1, 1);
    const uint32_t recalled = r->linear_before_reset ? C2("Mul", reset, product(r, d->h, weight_h, bias_h))
                                                     : product(r, C2("Mul", reset, d->h), weight_h, bias_h);
    const uint32_t fresh = C1("Tanh", C2("Add", gate(r, projected, 2, 1), recalled));
    return C2("Add", fresh, C2("Mul", z, C2("Sub", d->h, fresh)));
}

// Step t: past the end of a row its state stays and its output is 0.
static void step(recurrent *r, direction *d, int64_t t, uint32_t *y)
{
    const uint32_t projected = cut(r, d->projected, 0, t * r->rows, r->rows);
    uint32_t h = PM_NO_VALUE, s = PM_NO_VALUE;
    if (r->cell == CELL_LSTM)
        step_lstm(r, d, projected, &h, &s);
    else if (r->cell == CELL_GRU)
        h = step_gru(r, d, projected);
    else
        h = C1("Tanh", C2("Add", projected, product(r, d->h, d->r, PM_NO_VALUE)));
    uint32_t shown = h;
    if (r->lens != PM_NO_VALUE) {
        const uint32_t there = pm_compose_by(&r->c, "Greater", r->lens, (double)t);
        shown = pm_compose_3(&r->c, "Where", there, h, pm_compose_number(&r->c, PM_TYPE_F32, 0));
        h = pm_compose_3(&r->c, "Where", there, h, d->h);
        if (s != PM_NO_VALUE)
            s = pm_compose_3(&r->c, "Where", there, s, d->s);
    }
    d->h = h;
    d->s = s;
    *y = pm_compose_reshape(&r->c, shown, (const int64_t[]){1, 1, r->rows, r->hidden}, 4);
}

// An initial state (directions, rows, hidden), or (rows, directions, hidden) with the batch first; zeros.
static uint32_t initial(recurrent *r, uint32_t input, int64_t d)
{
    const int64_t state[] = {r->rows, r->hidden};
    uint32_t value = pm_compose_input(&r->c, input);
    if (value == PM_NO_VALUE)
        return pm_compose_expand(&r->c, pm_compose_number(&r->c, PM_TYPE_F32, 0), state, 2);
    const pm_tensor t = pm_compose_tensor(&r->c, value);
    if (t.rank != 3 || t.count != (size_t)(r->directions * r->rows * r->hidden)) {
        pm_compose_fail(&r->c, pm_fail(PM_INVALID, "input %u does not fit", input));
        return PM_NO_VALUE;
    }
    if (r->batch_first)
        value = pm_compose_transpose(&r->c, value, (const int64_t[]){1, 0, 2});
    return block(r, value, d, state, 2);
}

static direction open_direction(recurrent *r, int64_t d)
{
    const pm_node *node = r->c.node;
    const int64_t width = r->gates * r->hidden, flat[] = {r->steps * r->rows, r->features};
    const uint32_t w = block(r, node->inputs[1], d, (const int64_t[]){width, r->features}, 2);
    const uint32_t b = pm_compose_input(&r->c, 3), x = pm_compose_reshape(&r->c, r->x, flat, 2);
    direction made = {.bias_r = PM_NO_VALUE, .peepholes = PM_NO_VALUE, .s = PM_NO_VALUE};
    uint32_t bias = PM_NO_VALUE;
    made.r = block(r, node->inputs[2], d, (const int64_t[]){width, r->hidden}, 2);
    if (b != PM_NO_VALUE) {
        const uint32_t both = block(r, b, d, (const int64_t[]){2 * width}, 1);
        bias = cut(r, both, 0, 0, width);
        made.bias_r = cut(r, both, 0, width, width);
        if (r->cell != CELL_GRU)
            bias = C2("Add", bias, made.bias_r);
    }
    made.projected = product(r, x, w, bias);
    made.h = initial(r, 5, d);
    if (r->cell == CELL_LSTM) {
        const uint32_t p = pm_compose_input(&r->c, 7);
        made.s = initial(r, 6, d);
        if (p != PM_NO_VALUE)
            made.peepholes = block(r, p, d, (const int64_t[]){3 * r->hidden}, 1);
    }
    return made;
}

static pm_status check_input(const recurrent *r, uint32_t input, uint32_t rank, const int64_t *shape)
{
    const uint32_t value = pm_compose_input(&r->c, input);
    const pm_tensor t = pm_compose_tensor(&r->c, value);
    if (value == PM_NO_VALUE)
        return pm_ok();
    if (t.type != PM_TYPE_F32)
        return pm_fail(PM_UNSUPPORTED, "input %u is %s, built for float32", input, pm_type_name(t.type));
    return t.rank == rank && memcmp(t.shape, shape, rank * sizeof *shape) == 0
               ? pm_ok()
               : pm_fail(PM_INVALID, "input %u does not fit the others", input);
}

static pm_status open_recurrent(recurrent *r, pm_graph *program, const pm_node *node)
{
    const char *name = node->op->name, *way = pm_node_string(node, "direction", "forward");
    *r = (recurrent){.c = pm_compose_open(program, node), .x = node->inputs[0], .lens = PM_NO_VALUE};
    r->cell = name[0] == 'R' ? CELL_RNN : name[0] == 'G' ? CELL_GRU : CELL_LSTM;
    r->gates = r->cell == CELL_RNN ? 1 : r->cell == CELL_GRU ? 3 : 4;
    r->reverse_first = strcmp(way, "reverse") == 0;
    r->directions = strcmp(way, "bidirectional") == 0 ? 2 : 1;
    r->batch_first = pm_node_int(node, "layout", 0) != 0;
    r->linear_before_reset = pm_node_int(node, "linear_before_reset", 0) != 0;
    r->input_forget = pm_node_int(node, "input_forget", 0) != 0;
    const pm_tensor t = pm_compose_tensor(&r->c, r->x), w = pm_compose_tensor(&r->c, node->inputs[1]);
    if (t.rank != 3 || t.type != PM_TYPE_F32 || w.rank != 3 || w.shape[1] % r->gates || t.count == 0)
        return pm_fail(PM_INVALID, "wanted an input (steps, rows, features) and a weight of %d gates",
                       (int)r->gates);
    if (r->batch_first)
        r->x = pm_compose_transpose(&r->c, r->x, (const int64_t[]){1, 0, 2});
    r->steps = t.shape[r->batch_first ? 1 : 0];
    r->rows = t.shape[r->batch_first ? 0 : 1];
    r->features = t.shape[2];
    r->hidden = w.shape[1] / r->gates;
    const int64_t n = r->gates * r->hidden;
    if (program->node_count > MAX_UNROLLED)
        return pm_fail(PM_UNSUPPORTED, "more than %d nodes once unrolled", MAX_UNROLLED);
    if (r->steps > MAX_STEPS)
        return pm_fail(PM_UNSUPPORTED, "%lld steps, built for %d", (long long)r->steps, MAX_STEPS);
    pm_status status = check_input(r, 1, 3, (const int64_t[]){r->directions, n, r->features});
    if (status.code == PM_OK)
        status = check_input(r, 2, 3, (const int64_t[]){r->directions, n, r->hidden});
    if (status.code == PM_OK)
        status = check_input(r, 3, 2, (const int64_t[]){r->directions, 2 * n});
    if (status.code == PM_OK)
        status = check_input(r, 7, 2, (const int64_t[]){r->directions, 3 * r->hidden});
    const uint32_t lens = pm_compose_input(&r->c, 4);
    if (status.code == PM_OK && lens != PM_NO_VALUE) {
        if (pm_compose_tensor(&r->c, lens).count != (size_t)r->rows)
            return pm_fail(PM_INVALID, "sequence_lens does not fit the rows");
        r->lens = pm_compose_reshape(&r->c, pm_compose_cast(&r->c, lens, PM_TYPE_I64),
                                     (const int64_t[]){r->rows, 1}, 2);
    }
    r->y = pm_region_alloc(program->region, (size_t)(r->steps * r->directions) * sizeof *r->y);
    return r->y ? status : pm_fail(PM_NO_MEMORY, "steps");
}

static uint32_t joined(recurrent *r, const uint32_t *values, uint32_t count, int64_t axis)
{
    const pm_attribute along = pm_attribute_int("axis", axis);
    return count == 1 ? values[0] : pm_compose_with(&r->c, "Concat", values, count, &along, 1);
}

static pm_status lower_recurrent(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    recurrent r;
    uint32_t last[2], states[2];
    (void)training;
    pm_status status = open_recurrent(&r, program, node);
    if (status.code != PM_OK)
        return status;
    for (int64_t d = 0; d < r.directions; d++) {
        direction way = open_direction(&r, d);
        const bool reverse = r.reverse_first || d == 1;
        for (int64_t i = 0; i < r.steps && r.c.status.code == PM_OK; i++) {
            const int64_t t = reverse ? r.steps - 1 - i : i;
            step(&r, &way, t, &r.y[t * r.directions + d]);
        }
        const int64_t state[] = {1, r.rows, r.hidden};
        last[d] = pm_compose_reshape(&r.c, way.h, state, 3);
        states[d] = r.cell == CELL_LSTM ? pm_compose_reshape(&r.c, way.s, state, 3) : PM_NO_VALUE;
    }
    if (r.c.status.code != PM_OK)
        return r.c.status;
    const uint32_t n = (uint32_t)r.directions;
    for (int64_t t = 0; t < r.steps; t++)
        r.y[t] = joined(&r, r.y + t * n, n, 1);
    uint32_t made[3] = {joined(&r, r.y, (uint32_t)r.steps, 0), joined(&r, last, n, 0), PM_NO_VALUE};
    if (r.cell == CELL_LSTM)
        made[2] = joined(&r, states, n, 0);
    for (uint32_t i = 0; i < node->output_count; i++) {
        outputs[i] = made[i];
        if (r.batch_first && i == 0)
            outputs[i] = pm_compose_transpose(&r.c, made[i], (const int64_t[]){2, 0, 1, 3});
        else if (r.batch_first)
            outputs[i] = pm_compose_transpose(&r.c, made[i], (const int64_t[]){1, 0, 2});
    }
    return r.c.status;
}

#define ENTRY(onnx, most, results)                                                                           \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = 7, .min_inputs = 3, .max_inputs = most, .max_outputs = results, \
        .fixed_inputs = 1 << 4, .attributes = RECURRENT, .infer = pm_infer_lowered, .lower = lower_recurrent \
    }

const pm_operator PM_FAMILY_RECURRENT[] = {
    ENTRY("RNN", 6, 2),
    ENTRY("GRU", 6, 2),
    ENTRY("LSTM", 8, 3),
    {0},
};
