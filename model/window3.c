#include "model/window3.h"

#include "model/window.h"

#include <inttypes.h>
#include <string.h>

const pm_attribute_spec PM_WINDOW3_SPECS[] = {
    {"kernel", PM_ATTRIBUTE_INTS},    {"strides", PM_ATTRIBUTE_INTS},
    {"dilations", PM_ATTRIBUTE_INTS}, {"begin", PM_ATTRIBUTE_INTS},
    {"shape", PM_ATTRIBUTE_INTS},     {"group", PM_ATTRIBUTE_INT},
    {"count_all", PM_ATTRIBUTE_INT},  {0}};

static pm_status place_axis(pm_window_spec *s, uint32_t d, int64_t in, const char *auto_pad, int64_t *out)
{
    const int64_t window = s->dilations[d] * (s->kernel[d] - 1) + 1;
    const bool upper = strcmp(auto_pad, "SAME_UPPER") == 0, lower = strcmp(auto_pad, "SAME_LOWER") == 0;
    if (upper || lower) {
        const int64_t same = (in + s->strides[d] - 1) / s->strides[d];
        const int64_t total = (same - 1) * s->strides[d] + window - in;
        s->begin[d] = total > 0 ? (total + lower) / 2 : 0;
        s->end[d] = total > 0 ? total - s->begin[d] : 0;
    } else if (strcmp(auto_pad, "VALID") == 0) {
        s->begin[d] = s->end[d] = 0;
    } else if (strcmp(auto_pad, "NOTSET") != 0) {
        return pm_fail(PM_UNSUPPORTED, "auto_pad %.32s", auto_pad);
    }
    const int64_t room = in + s->begin[d] + s->end[d] - window;
    if (room < 0 || window > PM_MAX_WINDOW)
        return pm_fail(PM_INVALID, "a window of %" PRId64 " does not fit into %" PRId64 " with its pads",
                       window, in);
    *out = (room + (s->ceil ? s->strides[d] - 1 : 0)) / s->strides[d] + 1;
    if (s->ceil && (*out - 1) * s->strides[d] >= in + s->begin[d])
        --*out; // it would begin in the padding at the end
    return pm_ok();
}

pm_status pm_window_spec_read(const pm_node *node, const pm_tensor *x, const pm_tensor *weight,
                              pm_window_spec *spec, int64_t *out)
{
    int64_t pads[6] = {0};
    if (x->rank < 3 || x->rank > 5 || x->count == 0)
        return pm_fail(PM_UNSUPPORTED, "an input of rank %u, built for one to three spatial axes", x->rank);
    *spec = (pm_window_spec){.axes = x->rank - 2, .strides = {1, 1, 1}, .dilations = {1, 1, 1}};
    spec->ceil = pm_node_int(node, "ceil_mode", 0) != 0;
    for (uint32_t d = 0; weight && d < spec->axes; d++)
        spec->kernel[d] = weight->shape[2 + d];
    int64_t kernel[3] = {spec->kernel[0], spec->kernel[1], spec->kernel[2]};
    pm_status status = pm_window_ints(node, "kernel_shape", spec->axes, 1, kernel);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "strides", spec->axes, 1, spec->strides);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "dilations", spec->axes, 1, spec->dilations);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "pads", 2 * spec->axes, 0, pads);
    if (status.code == PM_OK && !pm_shape_count(kernel, spec->axes, PM_MAX_WINDOW, &(size_t){0}))
        status = pm_fail(PM_UNSUPPORTED, "a window of more than %d elements", PM_MAX_WINDOW);
    for (uint32_t d = 0; status.code == PM_OK && d < spec->axes; d++) {
        if (kernel[d] < 1 || kernel[d] > PM_MAX_WINDOW || (weight && kernel[d] != spec->kernel[d]))
            return pm_fail(PM_INVALID, "kernel_shape is missing, out of range or not the weight's");
        spec->kernel[d] = kernel[d];
        spec->begin[d] = pads[d];
        spec->end[d] = pads[spec->axes + d];
        status = place_axis(spec, d, x->shape[2 + d], pm_node_string(node, "auto_pad", "NOTSET"), &out[d]);
    }
    return status;
}

void pm_window3_attributes(const pm_window_spec *spec, int64_t group, const pm_tensor *shape,
                           pm_attribute attributes[PM_WINDOW3_ATTRIBUTES])
{
    attributes[0] = pm_attribute_ints("kernel", spec->kernel, spec->axes);
    attributes[1] = pm_attribute_ints("strides", spec->strides, spec->axes);
    attributes[2] = pm_attribute_ints("dilations", spec->dilations, spec->axes);
    attributes[3] = pm_attribute_ints("begin", spec->begin, spec->axes);
    attributes[4] = pm_attribute_int("group", group);
    attributes[5] = pm_attribute_ints("shape", shape->shape, shape->rank);
    attributes[6] = pm_attribute_int("count_all", 0);
}

pm_tensor pm_window3_shape(const pm_node *node)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(node, "shape", &rank);
    pm_tensor t = {.type = PM_TYPE_F32, .rank = rank};
    memcpy(t.shape, shape, rank * sizeof *shape);
    return t;
}

pm_window3 pm_window3_read(const pm_node *node, const pm_tensor *x, const pm_tensor *y)
{
    const uint32_t axes = x->rank - 2, lead = 3 - axes;
    pm_window3 w = {.group = (size_t)pm_node_int(node, "group", 1),
                    .channels = (size_t)x->shape[1],
                    .out_channels = (size_t)y->shape[1],
                    .in_area = 1,
                    .kernel_area = 1,
                    .out_area = 1};
    uint32_t n = 0;
    const int64_t *kernel = pm_node_ints(node, "kernel", &n), *strides = pm_node_ints(node, "strides", &n);
    const int64_t *dilations = pm_node_ints(node, "dilations", &n), *begin = pm_node_ints(node, "begin", &n);
    for (uint32_t d = 0; d < 3; d++) {
        const bool real = d >= lead;
        w.in[d] = real ? (size_t)x->shape[2 + d - lead] : 1;
        w.out[d] = real ? (size_t)y->shape[2 + d - lead] : 1;
        w.kernel[d] = real ? (size_t)kernel[d - lead] : 1;
        w.stride[d] = real ? strides[d - lead] : 1;
        w.dilation[d] = real ? dilations[d - lead] : 1;
        w.begin[d] = real ? begin[d - lead] : 0;
        w.in_area *= w.in[d];
        w.out_area *= w.out[d];
        w.kernel_area *= w.kernel[d];
    }
    return w;
}

size_t pm_window3_pixel(const pm_window3 *w, size_t o, size_t k)
{
    const size_t oo[3] = {o / w->out[2] / w->out[1], o / w->out[2] % w->out[1], o % w->out[2]};
    const size_t kk[3] = {k / w->kernel[2] / w->kernel[1], k / w->kernel[2] % w->kernel[1], k % w->kernel[2]};
    size_t at = 0;
    for (uint32_t d = 0; d < 3; d++) {
        const int64_t i = (int64_t)oo[d] * w->stride[d] - w->begin[d] + (int64_t)kk[d] * w->dilation[d];
        if (i < 0 || i >= (int64_t)w->in[d])
            return SIZE_MAX;
        at = at * w->in[d] + (size_t)i;
    }
    return at;
}

void pm_window3_unroll(const pm_window3 *w, const float *image, size_t channels, float *columns)
{
    for (size_t k = 0; k < w->kernel_area; k++)
        for (size_t o = 0; o < w->out_area; o++) {
            const size_t at = pm_window3_pixel(w, o, k);
            for (size_t c = 0; c < channels; c++)
                columns[(c * w->kernel_area + k) * w->out_area + o] =
                    at == SIZE_MAX ? 0 : image[c * w->in_area + at];
        }
}

void pm_window3_fold(const pm_window3 *w, const float *columns, size_t channels, float *image)
{
    for (size_t k = 0; k < w->kernel_area; k++)
        for (size_t o = 0; o < w->out_area; o++) {
            const size_t at = pm_window3_pixel(w, o, k);
            for (size_t c = 0; at != SIZE_MAX && c < channels; c++)
                image[c * w->in_area + at] += columns[(c * w->kernel_area + k) * w->out_area + o];
        }
}
