// Sums: over the lanes, over what broadcasting had widened, over all but the channels.
#include "model/compose.h"
#include "model/task.h"

#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec SHAPE[] = {{"shape", PM_ATTRIBUTE_INTS}, {0}};

// One lane's share of the sum; the executor adds the lanes.
static void run_lane_sum(const pm_task *task, const pm_call *call)
{
    memcpy(call->out[0], call->in[0], pm_tensor_bytes(task->in[0]));
}

static pm_status infer_sum_to(pm_shapes *s)
{
    uint32_t rank = 0;
    const int64_t *shape = pm_node_ints(s->node, "shape", &rank);
    const pm_tensor *x = &s->in[0]->tensor;
    if (x->type != PM_TYPE_F32 || rank > x->rank)
        return pm_infer_refuse(s, 0, "a float32 shape that shape broadcasts to");
    s->out[0] = (pm_tensor){.type = x->type, .rank = rank};
    for (uint32_t d = 0; d < rank; d++) {
        s->out[0].shape[d] = shape[d];
        if (shape[d] != 1 && shape[d] != x->shape[x->rank - rank + d])
            return pm_infer_refuse(s, 0, "a float32 shape that shape broadcasts to");
    }
    return pm_ok();
}

// An input axis by axis: its extent and how far the output moves along it, 0 where it is summed.
typedef struct sum_axes {
    uint32_t rank;
    size_t extent[PM_MAX_RANK], stride[PM_MAX_RANK];
} sum_axes;

// Neighbours that are summed, or kept, together are merged.
static pm_status plan_sum_to(pm_task *task)
{
    const pm_tensor *x = task->in[0], *y = task->out[0];
    sum_axes *a = pm_region_alloc(task->region, sizeof *a);
    if (!a)
        return pm_fail(PM_NO_MEMORY, "a task");
    for (uint32_t d = 0; d < x->rank; d++) {
        const uint32_t missing = x->rank - y->rank;
        const bool kept = d >= missing && y->shape[d - missing] == x->shape[d];
        const size_t extent = (size_t)x->shape[d];
        const size_t stride = kept ? pm_extent(y, d - missing + 1, y->rank) : 0;
        if (extent == 1)
            continue;
        if (a->rank > 0 && a->stride[a->rank - 1] == stride * extent) {
            a->extent[a->rank - 1] *= extent;
            a->stride[a->rank - 1] = stride;
            continue;
        }
        a->extent[a->rank] = extent;
        a->stride[a->rank++] = stride;
    }
    task->detail = a;
    return pm_ok();
}

static void sum_any(const sum_axes *a, const float *x, size_t count, float *y, size_t sums)
{
    size_t index[PM_MAX_RANK] = {0}, at = 0;
    memset(y, 0, sums * sizeof *y);
    for (size_t i = 0; i < count; i++) {
        y[at] += x[i];
        for (uint32_t d = a->rank; d-- > 0;) {
            at += a->stride[d];
            if (++index[d] < a->extent[d])
                break;
            at -= a->stride[d] * a->extent[d];
            index[d] = 0;
        }
    }
}

static void run_sum_to(const pm_task *task, const pm_call *call)
{
    const sum_axes *a = task->detail;
    const float *x = call->in[0];
    float *y = call->out[0];
    if (a->rank == 1 && a->stride[0] == 0)
        task->kernels->sum_channels(x, 1, 1, a->extent[0], y);
    else if (a->rank == 2 && a->stride[0] == 1 && a->stride[1] == 0)
        task->kernels->sum_channels(x, 1, a->extent[0], a->extent[1], y);
    else if (a->rank == 2 && a->stride[0] == 0)
        task->kernels->sum_rows(x, a->extent[0], a->extent[1], y);
    else if (a->rank == 3 && a->stride[0] == 0 && a->stride[2] == 0)
        task->kernels->sum_channels(x, a->extent[0], a->extent[1], a->extent[2], y);
    else
        sum_any(a, x, task->in[0]->count, y, task->out[0]->count);
}

static pm_status gradient_sum_to(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    pm_compose_give(&c, g, 0, pm_compose_expand(&c, pm_gradient_of(g, node, 0), x.shape, x.rank));
    return c.status;
}

static pm_status infer_channel_sum(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    if (x->type != PM_TYPE_F32 || x->rank < 2)
        return pm_infer_refuse(s, 0, "(N, channels, ...) of float32");
    s->out[0] = (pm_tensor){.type = x->type, .rank = 1, .shape = {x->shape[1]}};
    return pm_ok();
}

static void run_channel_sum(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    task->kernels->sum_channels(call->in[0], (size_t)x->shape[0], (size_t)x->shape[1],
                                pm_extent(x, 2, x->rank), call->out[0]);
}

const pm_operator PM_FAMILY_REDUCE[] = {
    {.domain = PM_DOMAIN,
     .name = "LaneSum",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_SUMS_LANES,
     .attributes = NONE,
     .infer = pm_infer_same,
     .run = run_lane_sum},
    {.domain = PM_DOMAIN,
     .name = "SumTo",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = SHAPE,
     .infer = infer_sum_to,
     .gradient = gradient_sum_to,
     .plan = plan_sum_to,
     .run = run_sum_to},
    {.domain = PM_DOMAIN,
     .name = "ChannelSum",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .attributes = NONE,
     .infer = infer_channel_sum,
     .run = run_channel_sum},
    {0},
};
