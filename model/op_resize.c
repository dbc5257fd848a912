// Resize and Upsample. Each axis is resized by itself: the nearest neighbour is a move, interpolation a
// product with a matrix of weights, so that both have gradients.
#include "model/convert.h"
#include "model/move.h"

#include <math.h>
#include <string.h>

static const pm_attribute_spec RESIZE[] = {{"mode", PM_ATTRIBUTE_STRING},
                                           {"coordinate_transformation_mode", PM_ATTRIBUTE_STRING},
                                           {"nearest_mode", PM_ATTRIBUTE_STRING},
                                           {"cubic_coeff_a", PM_ATTRIBUTE_FLOAT},
                                           {"exclude_outside", PM_ATTRIBUTE_INT},
                                           {"extrapolation_value", PM_ATTRIBUTE_FLOAT},
                                           {0}};
static const pm_attribute_spec UPSAMPLE[] = {
    {"mode", PM_ATTRIBUTE_STRING}, {"scales", PM_ATTRIBUTE_FLOATS}, {0}};

// One axis: in elements become out.
typedef struct resize_axis {
    int64_t in, out;
    double scale, start, end; // start, end: of tf_crop_and_resize
} resize_axis;

typedef struct resize {
    pm_compose c;
    const char *coordinates, *nearest;
    bool exclude_outside;
    double a; // of the cubic
} resize;

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

// Where output element o lies among the inputs.
static double place_of(const resize *r, const resize_axis *x, int64_t o)
{
    const double at = (double)o, last = (double)(x->in - 1);
    if (is(r->coordinates, "align_corners"))
        // The resized length may be a fraction, as in the standard's reference implementation.
        return x->out == 1 ? 0 : at * last / ((double)x->in * x->scale - 1);
    if (is(r->coordinates, "asymmetric"))
        return at / x->scale;
    if (is(r->coordinates, "tf_half_pixel_for_nn"))
        return (at + 0.5) / x->scale;
    if (is(r->coordinates, "tf_crop_and_resize"))
        return x->out > 1 ? (x->start + at * (x->end - x->start) / (double)(x->out - 1)) * last
                          : 0.5 * (x->start + x->end) * last;
    if (is(r->coordinates, "pytorch_half_pixel") && x->out == 1)
        return 0;
    return (at + 0.5) / x->scale - 0.5;
}

static int64_t inside(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

static int64_t nearest_of(const resize *r, double at)
{
    if (is(r->nearest, "floor"))
        return (int64_t)floor(at);
    if (is(r->nearest, "ceil"))
        return (int64_t)ceil(at);
    return (int64_t)(is(r->nearest, "round_prefer_ceil") ? floor(at + 0.5) : ceil(at - 0.5));
}

static bool is_cropped(const resize *r, const resize_axis *x, double at)
{
    return is(r->coordinates, "tf_crop_and_resize") && (at < 0 || at > (double)(x->in - 1));
}

static uint32_t resize_nearest(resize *r, uint32_t x, const resize_axis *axes)
{
    const pm_tensor t = pm_compose_tensor(&r->c, x);
    pm_move m = pm_move_all(&t);
    for (uint32_t d = 0; d < t.rank; d++) {
        int64_t *table = pm_move_table(&r->c, axes[d].out);
        for (int64_t o = 0; table && o < axes[d].out; o++) {
            const double at = place_of(r, &axes[d], o);
            table[o] = is_cropped(r, &axes[d], at) ? PM_MOVE_FILL
                                                   : inside(nearest_of(r, at), axes[d].in) * m.axes[d].step;
        }
        m.axes[d].offsets = table;
        m.axes[d].extent = axes[d].out;
    }
    return pm_move_add(&r->c, &m, x, PM_NO_VALUE);
}

// The cubic convolution kernel (Keys 1981) at distance d from a tap.
static double cubic(double a, double d)
{
    d = fabs(d);
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// Row o of the weights (out, in).
static void weigh(const resize *r, const resize_axis *x, bool linear, int64_t o, float *row)
{
    const double at = place_of(r, x, o);
    if (is_cropped(r, x, at))
        return;
    const int64_t base = (int64_t)floor(at), first = linear ? 0 : -1, last = linear ? 1 : 2;
    double sum = 0;
    for (int64_t k = first; k <= last; k++) {
        const double distance = at - (double)(base + k);
        const bool out = base + k < 0 || base + k >= x->in;
        const double weight = linear ? 1 - fabs(distance) : cubic(r->a, distance);
        if (r->exclude_outside && out)
            continue;
        row[inside(base + k, x->in)] += (float)weight;
        sum += weight;
    }
    for (int64_t i = 0; r->exclude_outside && i < x->in; i++)
        row[i] = (float)((double)row[i] / sum);
}

// Axis d of x, brought to the end, times the weights.
static uint32_t resize_weighed(resize *r, uint32_t x, uint32_t d, const resize_axis *axis, bool linear)
{
    pm_tensor t = pm_compose_tensor(&r->c, x);
    pm_tensor weights = {.type = PM_TYPE_F32, .rank = 2, .shape = {axis->out, axis->in}};
    uint32_t w = PM_NO_VALUE;
    if (!pm_shape_count(weights.shape, 2, PM_MAX_ROW_COUNT, &weights.count))
        pm_compose_fail(&r->c, pm_fail(PM_UNSUPPORTED, "an axis of %lld elements", (long long)axis->out));
    float *rows = pm_compose_room(&r->c, pm_tensor_bytes(&weights));
    for (int64_t o = 0; rows && o < axis->out; o++)
        weigh(r, axis, linear, o, rows + o * axis->in);
    weights.data = rows;
    if (r->c.status.code == PM_OK)
        r->c.status = pm_graph_add_constant(r->c.program, NULL, &weights, &w);
    if (r->c.status.code != PM_OK)
        return PM_NO_VALUE;
    int64_t order[PM_MAX_RANK], shape[PM_MAX_RANK];
    for (uint32_t i = 0; i < t.rank; i++)
        order[i] = i == d ? t.rank - 1 : i == t.rank - 1 ? d : i;
    for (uint32_t i = 0; i < t.rank; i++)
        shape[i] = t.shape[order[i]];
    const int64_t flat[] = {(int64_t)(t.count / (size_t)axis->in), axis->in};
    const uint32_t last = pm_compose_reshape(&r->c, pm_compose_transpose(&r->c, x, order), flat, 2);
    const pm_attribute transposed = pm_attribute_int("transB", 1);
    const uint32_t product = pm_compose_with(&r->c, "Gemm", (const uint32_t[]){last, w}, 2, &transposed, 1);
    shape[t.rank - 1] = axis->out;
    return pm_compose_transpose(&r->c, pm_compose_reshape(&r->c, product, shape, t.rank), order);
}

// Number i of a constant list of floats; NAN where there is none.
static double listed(resize *r, uint32_t value, uint32_t i, uint32_t count)
{
    if (value == PM_NO_VALUE)
        return NAN;
    const pm_value *v = &r->c.program->values[value];
    if (!v->constant)
        pm_compose_fail(&r->c,
                        pm_fail(PM_UNSUPPORTED, "scales, sizes or roi are known only when the graph runs"));
    else if (v->tensor.count != count)
        return NAN;
    return r->c.status.code == PM_OK ? pm_convert_number(&v->tensor, i) : NAN;
}

static pm_status read_axes(resize *r, const pm_tensor *x, uint32_t roi, uint32_t scales, uint32_t sizes,
                           resize_axis *axes)
{
    uint32_t list = 0;
    const pm_attribute *given = pm_node_attribute(r->c.node, "scales");
    const bool crop = is(r->coordinates, "tf_crop_and_resize");
    if (given)
        list = given->count;
    for (uint32_t d = 0; d < x->rank; d++) {
        const double in = (double)x->shape[d], size = listed(r, sizes, d, x->rank);
        double scale = list == x->rank ? (double)given->floats[d] : listed(r, scales, d, x->rank);
        axes[d] = (resize_axis){.in = x->shape[d], .start = 0, .end = 1};
        if (crop) {
            axes[d].start = listed(r, roi, d, 2 * x->rank);
            axes[d].end = listed(r, roi, d + x->rank, 2 * x->rank);
        }
        const double out = isnan(scale) ? size : floor(in * scale * (crop ? axes[d].end - axes[d].start : 1));
        if (r->c.status.code != PM_OK)
            return r->c.status;
        if (!(out >= 1 && out < 1 << 24) || x->shape[d] < 1)
            return pm_fail(PM_INVALID, "axis %u of %g elements becomes one of %g", d, in, out);
        axes[d].out = (int64_t)out;
        axes[d].scale = isnan(scale) ? out / in : scale;
    }
    return pm_ok();
}

static pm_status lower_resize(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    const bool old = node->op->until != 0; // scales as an attribute or input 1; asymmetric
    const char *mode = pm_node_string(node, "mode", "nearest");
    resize r = {.c = pm_compose_open(program, node),
                .coordinates =
                    pm_node_string(node, "coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
                .nearest = pm_node_string(node, "nearest_mode", old ? "floor" : "round_prefer_floor"),
                .exclude_outside = pm_node_int(node, "exclude_outside", 0) != 0,
                .a = (double)pm_node_float(node, "cubic_coeff_a", -0.75f)};
    const pm_tensor x = pm_compose_tensor(&r.c, node->inputs[0]);
    const bool nearest = is(mode, "nearest"), linear = is(mode, "linear");
    resize_axis axes[PM_MAX_RANK];
    (void)training;
    if ((!nearest && !linear && !is(mode, "cubic")) || (!nearest && x.type != PM_TYPE_F32))
        return pm_fail(PM_UNSUPPORTED, "mode %.32s of %s", mode, pm_type_name(x.type));
    if (pm_node_float(node, "extrapolation_value", 0) != 0)
        return pm_fail(PM_UNSUPPORTED, "an extrapolation_value");
    pm_status status = read_axes(&r, &x, old ? PM_NO_VALUE : pm_compose_input(&r.c, 1),
                                 pm_compose_input(&r.c, old ? 1 : 2), pm_compose_input(&r.c, 3), axes);
    if (status.code != PM_OK)
        return status;
    uint32_t y = node->inputs[0];
    if (nearest)
        y = resize_nearest(&r, y, axes);
    for (uint32_t d = 0; !nearest && d < x.rank; d++)
        if (axes[d].in != axes[d].out || axes[d].scale != 1 || axes[d].start != 0 || axes[d].end != 1)
            y = resize_weighed(&r, y, d, &axes[d], linear);
    outputs[0] = y;
    return r.c.status;
}

const pm_operator PM_FAMILY_RESIZE[] = {
    PM_LOWERED("Upsample", 7, 8, 1, 1, 1, 0, UPSAMPLE, lower_resize),
    PM_LOWERED("Upsample", 9, 9, 2, 2, 1, 2, UPSAMPLE, lower_resize),
    PM_LOWERED("Resize", 10, 10, 2, 2, 1, 2, UPSAMPLE, lower_resize),
    PM_LOWERED("Resize", 11, 0, 1, 4, 1, 14, RESIZE, lower_resize),
    {0},
};
