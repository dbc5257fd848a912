#include "model/window.h"

#include <inttypes.h>
#include <string.h>

pm_status pm_window_ints(const pm_node *node, const char *name, uint32_t count, int64_t low, int64_t *out)
{
    uint32_t given = 0;
    const int64_t *ints = pm_node_ints(node, name, &given);
    if (!ints)
        return pm_ok();
    if (given != count)
        return pm_fail(PM_INVALID, "attribute %s must hold %u integers", name, count);
    for (uint32_t i = 0; i < count; i++) {
        if (ints[i] < low || ints[i] > PM_MAX_WINDOW)
            return pm_fail(PM_INVALID, "attribute %s: %" PRId64 " is out of range", name, ints[i]);
        out[i] = ints[i];
    }
    return pm_ok();
}

static pm_status check_attributes(const pm_node *node)
{
    int64_t dilations[2] = {1, 1};
    pm_status status = pm_window_ints(node, "dilations", 2, 1, dilations);
    if (status.code != PM_OK)
        return status;
    if (dilations[0] != 1 || dilations[1] != 1 || pm_node_int(node, "group", 1) != 1 ||
        pm_node_int(node, "ceil_mode", 0) != 0 || pm_node_int(node, "storage_order", 0) != 0 ||
        strcmp(pm_node_string(node, "auto_pad", "NOTSET"), "NOTSET") != 0)
        return pm_fail(PM_UNSUPPORTED,
                       "built for dilations 1, group 1, ceil_mode 0, storage_order 0, auto_pad NOTSET");
    return pm_ok();
}

static pm_status place(pm_window *w)
{
    const int64_t room_h = w->height + w->pad_top + w->pad_bottom - w->kernel_h;
    const int64_t room_w = w->width + w->pad_left + w->pad_right - w->kernel_w;
    if (room_h < 0 || room_w < 0)
        return pm_fail(PM_INVALID,
                       "a %" PRId64 "x%" PRId64 " kernel does not fit into %" PRId64 "x%" PRId64
                       " with its pads",
                       w->kernel_h, w->kernel_w, w->height, w->width);
    w->out_height = room_h / w->stride_h + 1;
    w->out_width = room_w / w->stride_w + 1;
    return pm_ok();
}

pm_status pm_window_read(const pm_node *node, const pm_tensor *x, const pm_tensor *weight, pm_window *window)
{
    int64_t kernel[2] = {0, 0}, strides[2] = {1, 1}, pads[4] = {0};
    if (weight) {
        kernel[0] = weight->shape[2];
        kernel[1] = weight->shape[3];
    }
    int64_t given[2] = {kernel[0], kernel[1]};
    pm_status status = check_attributes(node);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "kernel_shape", 2, 1, given);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "strides", 2, 1, strides);
    if (status.code == PM_OK)
        status = pm_window_ints(node, "pads", 4, 0, pads);
    if (status.code != PM_OK)
        return status;
    if (weight && (given[0] != kernel[0] || given[1] != kernel[1]))
        return pm_fail(PM_INVALID, "kernel_shape differs from the weight's");
    if (given[0] < 1 || given[1] < 1 || given[0] > PM_MAX_WINDOW || given[1] > PM_MAX_WINDOW)
        return pm_fail(PM_INVALID, "kernel_shape is missing or out of range");
    *window = (pm_window){.channels = x->shape[1],
                          .height = x->shape[2],
                          .width = x->shape[3],
                          .kernel_h = given[0],
                          .kernel_w = given[1],
                          .stride_h = strides[0],
                          .stride_w = strides[1],
                          .pad_top = pads[0],
                          .pad_left = pads[1],
                          .pad_bottom = pads[2],
                          .pad_right = pads[3],
                          .out_channels = weight ? weight->shape[0] : x->shape[1],
                          .count_include_pad = pm_node_int(node, "count_include_pad", 0) != 0};
    return place(window);
}

pm_tensor pm_window_output(const pm_window *window, int64_t images)
{
    return (pm_tensor){.type = PM_TYPE_F32,
                       .rank = 4,
                       .shape = {images, window->out_channels, window->out_height, window->out_width}};
}

const pm_attribute *pm_window_attributes(const pm_node *node, const char *name, const pm_tensor *shape,
                                         pm_region *region, uint32_t *count)
{
    pm_attribute *all = pm_region_alloc(region, (node->attribute_count + 1) * sizeof *all);
    const int64_t *extents = pm_region_copy(region, shape->shape, shape->rank * sizeof *extents);
    if (!all || !extents)
        return NULL;
    memcpy(all, node->attributes, node->attribute_count * sizeof *all);
    all[node->attribute_count] = pm_attribute_ints(name, extents, shape->rank);
    *count = node->attribute_count + 1;
    return all;
}

pm_tensor pm_window_shape(const pm_node *node, const char *name)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(node, name, &rank);
    pm_tensor tensor = {.type = PM_TYPE_F32, .rank = rank, .count = 1};
    for (uint32_t d = 0; d < rank && d < PM_MAX_RANK; d++) {
        tensor.shape[d] = shape[d];
        tensor.count *= (size_t)shape[d];
    }
    return tensor;
}
