// The ONNX operators that are moves or views: Slice, Expand, Tile, Pad, Split, Squeeze, Unsqueeze,
// DepthToSpace, SpaceToDepth.
#include "model/convert.h"
#include "model/move.h"

#include <inttypes.h>
#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec SLICE[] = {
    {"starts", PM_ATTRIBUTE_INTS}, {"ends", PM_ATTRIBUTE_INTS}, {"axes", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec PAD[] = {
    {"pads", PM_ATTRIBUTE_INTS}, {"mode", PM_ATTRIBUTE_STRING}, {"value", PM_ATTRIBUTE_FLOAT}, {0}};
static const pm_attribute_spec SPLIT[] = {{"axis", PM_ATTRIBUTE_INT}, {"split", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec AXES[] = {{"axes", PM_ATTRIBUTE_INTS}, {0}};
static const pm_attribute_spec BLOCKS[] = {
    {"blocksize", PM_ATTRIBUTE_INT}, {"mode", PM_ATTRIBUTE_STRING}, {0}};

enum { LIST = 2 * PM_MAX_RANK };

// [start, end) by step along one axis, as NumPy cuts it.
static void slice_axis(pm_compose *c, pm_move_axis *a, int64_t start, int64_t end, int64_t step)
{
    const int64_t n = a->extent;
    if (step == 0 || step < -INT32_MAX || step > INT32_MAX) {
        if (step == 0)
            pm_compose_fail(c, pm_fail(PM_INVALID, "a step of 0"));
        step = step < 0 ? -INT32_MAX : INT32_MAX;
    }
    start = start < 0 ? (start < -n ? -1 - n : start) + n : start;
    end = end < 0 ? (end < -n ? -1 - n : end) + n : end;
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    start = start < 0 ? (step > 0 ? 0 : low) : start > high ? high : start;
    end = end < low ? low : end > high ? high : end;
    const int64_t room = step > 0 ? end - start : start - end, size = step > 0 ? step : -step;
    a->extent = room > 0 ? (room + size - 1) / size : 0;
    a->start = start * a->step;
    a->step *= step;
}

static pm_status lower_slice(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t starts[LIST], ends[LIST], axes[LIST], steps[LIST];
    bool given = false, has_axes = false, has_steps = false;
    (void)training;
    const uint32_t count = pm_compose_list(&c, "starts", 1, starts, &given);
    const uint32_t end_count = pm_compose_list(&c, "ends", 2, ends, &given);
    const uint32_t axis_count = pm_compose_list(&c, "axes", 3, axes, &has_axes);
    const uint32_t step_count = pm_compose_list(&c, "steps", 4, steps, &has_steps);
    if (count != end_count || (has_axes && axis_count != count) || (has_steps && step_count != count) ||
        count > x.rank)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "starts, ends, axes and steps differ in number"));
    pm_move m = pm_move_all(&x);
    uint32_t seen = 0;
    for (uint32_t i = 0; c.status.code == PM_OK && i < count; i++) {
        const uint32_t axis = pm_compose_axis(&c, has_axes ? axes[i] : (int64_t)i, x.rank);
        if (seen >> axis & 1)
            pm_compose_fail(&c, pm_fail(PM_INVALID, "axis %u is given twice", axis));
        seen |= 1u << axis;
        slice_axis(&c, &m.axes[axis], starts[i], ends[i], has_steps ? steps[i] : 1);
    }
    outputs[0] = pm_move_add(&c, &m, node->inputs[0], PM_NO_VALUE);
    return c.status;
}

static pm_status lower_expand(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t wanted[PM_MAX_RANK], shape[PM_MAX_RANK];
    (void)training;
    const uint32_t count = pm_compose_read(&c, node->inputs[1], PM_MAX_RANK, wanted);
    const uint32_t rank = count > x.rank ? count : x.rank;
    for (uint32_t d = 0; c.status.code == PM_OK && d < rank; d++) {
        const int64_t a = d + x.rank >= rank ? x.shape[d + x.rank - rank] : 1;
        const int64_t b = d + count >= rank ? wanted[d + count - rank] : 1;
        if (a != b && a != 1 && b != 1)
            pm_compose_fail(&c,
                            pm_fail(PM_INVALID, "an extent of %" PRId64 " does not become %" PRId64, a, b));
        shape[d] = a == 1 ? b : a;
    }
    size_t total = 0;
    if (c.status.code == PM_OK && !pm_shape_count(shape, rank, PM_MAX_ROW_COUNT, &total))
        pm_compose_fail(&c, pm_fail(PM_INVALID, "the shape is too large"));
    outputs[0] = c.status.code == PM_OK ? pm_compose_expand(&c, node->inputs[0], shape, rank) : PM_NO_VALUE;
    return c.status;
}

static pm_status lower_tile(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t repeats[PM_MAX_RANK];
    (void)training;
    if (pm_compose_read(&c, node->inputs[1], PM_MAX_RANK, repeats) != x.rank)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "repeats must have one number for each axis"));
    pm_move m = pm_move_all(&x);
    for (uint32_t d = 0; c.status.code == PM_OK && d < x.rank; d++) {
        pm_move_axis *a = &m.axes[d];
        const int64_t n = a->extent;
        if (repeats[d] == 1)
            continue;
        if (repeats[d] < 0 || (n > 0 && repeats[d] > (int64_t)PM_MAX_ROW_COUNT / n)) {
            pm_compose_fail(&c, pm_fail(PM_INVALID, "repeats: %" PRId64, repeats[d]));
            break;
        }
        int64_t *table = pm_move_table(&c, n * repeats[d]);
        for (int64_t i = 0; table && i < n * repeats[d]; i++)
            table[i] = i % n * a->step;
        a->offsets = table;
        a->extent = n * repeats[d];
    }
    outputs[0] = pm_move_add(&c, &m, node->inputs[0], PM_NO_VALUE);
    return c.status;
}

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE } pad_mode;

// Where element i, which may lie outside, of an axis of n elements comes from; -1: nowhere.
static int64_t pad_source(pad_mode mode, int64_t i, int64_t n)
{
    if (mode == PAD_CONSTANT)
        return i < 0 || i >= n ? -1 : i;
    if (mode == PAD_EDGE)
        return i < 0 ? 0 : i >= n ? n - 1 : i;
    const int64_t period = n > 1 ? 2 * (n - 1) : 1;
    i = (i % period + period) % period;
    return i < n ? i : period - i;
}

static void pad_axis(pm_compose *c, pm_move_axis *a, int64_t before, int64_t after, pad_mode mode)
{
    const int64_t n = a->extent, most = INT32_MAX;
    if (before < -most || after < -most || before > most || after > most || n + before + after < 0 ||
        (n == 0 && mode != PAD_CONSTANT)) {
        pm_compose_fail(c, pm_fail(PM_INVALID, "pads %" PRId64 " and %" PRId64 " for an extent of %" PRId64,
                                   before, after, n));
        return;
    }
    int64_t *table = pm_move_table(c, n + before + after);
    for (int64_t i = 0; table && i < n + before + after; i++) {
        const int64_t source = pad_source(mode, i - before, n);
        table[i] = source < 0 ? PM_MOVE_FILL : source * a->step;
    }
    a->offsets = table;
    a->extent = n + before + after;
}

static pm_status lower_pad(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const char *name = pm_node_string(node, "mode", "constant");
    const pad_mode mode = strcmp(name, "reflect") == 0 ? PAD_REFLECT
                          : strcmp(name, "edge") == 0  ? PAD_EDGE
                                                       : PAD_CONSTANT;
    int64_t pads[LIST];
    bool given = false;
    (void)training;
    if (mode == PAD_CONSTANT && strcmp(name, "constant") != 0)
        pm_compose_fail(&c, pm_fail(PM_UNSUPPORTED, "mode %.32s", name));
    if (pm_compose_list(&c, "pads", 1, pads, &given) != 2 * x.rank)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "pads must have two numbers for each axis"));
    pm_move m = pm_move_all(&x);
    for (uint32_t d = 0; c.status.code == PM_OK && d < x.rank; d++)
        if (pads[d] || pads[d + x.rank])
            pad_axis(&c, &m.axes[d], pads[d], pads[d + x.rank], mode);
    uint32_t fill = pm_compose_input(&c, 2);
    if (fill == PM_NO_VALUE && pm_node_attribute(node, "value"))
        fill = pm_compose_number(&c, x.type, (double)pm_node_float(node, "value", 0));
    const pm_tensor filler = pm_compose_tensor(&c, fill);
    if (fill != PM_NO_VALUE && (filler.type != x.type || filler.count != 1))
        pm_compose_fail(&c, pm_fail(PM_INVALID, "the fill must be one number of the input's type"));
    outputs[0] = pm_move_add(&c, &m, node->inputs[0], fill);
    return c.status;
}

static pm_status lower_split(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const uint32_t axis = pm_compose_axis(&c, pm_node_int(node, "axis", 0), x.rank), n = node->output_count;
    int64_t *parts = pm_region_alloc(program->region, n * sizeof *parts);
    uint32_t given = 0;
    (void)training;
    if (!parts)
        return pm_fail(PM_NO_MEMORY, "parts");
    const int64_t *ints = pm_node_ints(node, "split", &given);
    const uint32_t input = pm_compose_input(&c, 1);
    if (c.status.code != PM_OK)
        return c.status;
    const int64_t extent = x.shape[axis], even = (extent + n - 1) / n;
    for (uint32_t i = 0; i < n; i++)
        parts[i] = i + 1 < n ? even : extent - even * (n - 1);
    if (ints && given == n)
        memcpy(parts, ints, n * sizeof *parts);
    else if (input != PM_NO_VALUE)
        given = pm_compose_read(&c, input, n, parts);
    if ((ints || input != PM_NO_VALUE) && given != n)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "%u parts for %u outputs", given, n));
    int64_t start = 0;
    for (uint32_t i = 0; c.status.code == PM_OK && i < n; i++) {
        pm_move m = pm_move_all(&x);
        if (parts[i] < 0 || parts[i] > extent - start)
            return pm_fail(PM_INVALID, "part %u of %" PRId64 " is outside of the axis", i, parts[i]);
        m.axes[axis].extent = parts[i];
        m.axes[axis].start = start * m.axes[axis].step;
        start += parts[i];
        outputs[i] = pm_move_add(&c, &m, node->inputs[0], PM_NO_VALUE);
    }
    if (c.status.code == PM_OK && start != extent)
        return pm_fail(PM_INVALID, "the parts are %" PRId64 " of %" PRId64, start, extent);
    return c.status;
}

static pm_status lower_squeeze(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t axes[LIST], shape[PM_MAX_RANK];
    bool given = false;
    (void)training;
    const uint32_t count = pm_compose_list(&c, "axes", 1, axes, &given);
    const uint32_t bits = pm_compose_axes(&c, axes, count, x.rank);
    uint32_t rank = 0;
    for (uint32_t d = 0; d < x.rank; d++) {
        const bool gone = given ? bits >> d & 1 : x.shape[d] == 1;
        if (gone && x.shape[d] != 1)
            pm_compose_fail(&c, pm_fail(PM_INVALID, "axis %u has %" PRId64 " elements", d, x.shape[d]));
        if (!gone)
            shape[rank++] = x.shape[d];
    }
    outputs[0] = pm_compose_reshape(&c, node->inputs[0], shape, rank);
    return c.status;
}

static pm_status lower_unsqueeze(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    int64_t axes[LIST], shape[PM_MAX_RANK];
    bool given = false;
    (void)training;
    const uint32_t count = pm_compose_list(&c, "axes", 1, axes, &given), rank = x.rank + count;
    if (rank > PM_MAX_RANK || !given)
        pm_compose_fail(&c, pm_fail(PM_INVALID, "axes make a rank of %u", rank));
    const uint32_t bits = c.status.code == PM_OK ? pm_compose_axes(&c, axes, count, rank) : 0;
    for (uint32_t d = 0, from = 0; c.status.code == PM_OK && d < rank; d++)
        shape[d] = bits >> d & 1 ? 1 : x.shape[from++];
    outputs[0] = pm_compose_reshape(&c, node->inputs[0], shape, c.status.code == PM_OK ? rank : 0);
    return c.status;
}

// Blocks of b x b: reshape to six axes, reorder, reshape.
static pm_status lower_blocks(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    const bool to_space = strcmp(node->op->name, "DepthToSpace") == 0;
    const bool columns_first = strcmp(pm_node_string(node, "mode", "DCR"), "CRD") == 0;
    const int64_t b = pm_node_int(node, "blocksize", 0);
    (void)training;
    if (x.rank != 4 || b < 1 || b > INT16_MAX ||
        (to_space ? x.shape[1] % (b * b) != 0 : x.shape[2] % b != 0 || x.shape[3] % b != 0))
        return pm_fail(PM_INVALID, "blocks of %" PRId64 " do not fit the input", b);
    const int64_t n = x.shape[0], ch = x.shape[1], h = x.shape[2], w = x.shape[3], less = ch / (b * b);
    const int64_t depth_first[] = {n, b, b, less, h, w}, column_first[] = {n, less, b, b, h, w};
    const int64_t space[] = {n, ch, h / b, b, w / b, b};
    const int64_t to_dcr[] = {0, 3, 4, 1, 5, 2}, to_crd[] = {0, 1, 4, 2, 5, 3},
                  to_depth[] = {0, 3, 5, 1, 2, 4};
    const int64_t wide[] = {n, less, h * b, w * b}, deep[] = {n, ch * b * b, h / b, w / b};
    uint32_t y = pm_compose_reshape(&c, node->inputs[0],
                                    to_space ? columns_first ? column_first : depth_first : space, 6);
    y = pm_compose_transpose(&c, y, to_space ? columns_first ? to_crd : to_dcr : to_depth);
    outputs[0] = pm_compose_reshape(&c, y, to_space ? wide : deep, 4);
    return c.status;
}

const pm_operator PM_FAMILY_MOVES[] = {
    PM_LOWERED("Slice", 1, 9, 1, 1, 1, 0, SLICE, lower_slice),
    PM_LOWERED("Slice", 10, 0, 3, 5, 1, 0x1E, NONE, lower_slice),
    PM_LOWERED("Expand", 8, 0, 2, 2, 1, 2, NONE, lower_expand),
    PM_LOWERED("Tile", 6, 0, 2, 2, 1, 2, NONE, lower_tile),
    PM_LOWERED("Pad", 2, 10, 1, 1, 1, 0, PAD, lower_pad),
    PM_LOWERED("Pad", 11, 0, 2, 3, 1, 6, PAD, lower_pad),
    PM_LOWERED("Split", 2, 12, 1, 1, PM_MAX_NODE_VALUES, 0, SPLIT, lower_split),
    PM_LOWERED("Split", 13, 0, 1, 2, PM_MAX_NODE_VALUES, 2, SPLIT, lower_split),
    PM_LOWERED("Squeeze", 1, 12, 1, 1, 1, 0, AXES, lower_squeeze),
    PM_LOWERED("Squeeze", 13, 0, 1, 2, 1, 2, NONE, lower_squeeze),
    PM_LOWERED("Unsqueeze", 1, 12, 1, 1, 1, 0, AXES, lower_unsqueeze),
    PM_LOWERED("Unsqueeze", 13, 0, 2, 2, 1, 2, NONE, lower_unsqueeze),
    PM_LOWERED("DepthToSpace", 1, 0, 1, 1, 1, 0, BLOCKS, lower_blocks),
    PM_LOWERED("SpaceToDepth", 1, 0, 1, 1, 1, 0, BLOCKS, lower_blocks),
    {0},
};
