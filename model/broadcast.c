#include "model/broadcast.h"

// Elements that input i moves along the output's axis d: 0 where it is broadcast.
static size_t stride_of(const pm_tensor *in, const pm_tensor *out, uint32_t d)
{
    const uint32_t missing = out->rank - in->rank;
    if (d < missing || in->shape[d - missing] == 1)
        return 0;
    return pm_extent(in, d - missing + 1, in->rank);
}

void pm_broadcast_make(pm_broadcast *b, const pm_task *task, uint32_t inputs)
{
    const pm_tensor *out = task->out[0];
    *b = (pm_broadcast){.inputs = inputs, .rank = 1, .extent = {1}, .lane_count = out->count, .dense = true};
    for (uint32_t i = 0; i < inputs; i++) {
        b->lane_stride[i] = task->shared[i] ? 0 : task->in[i]->count;
        b->dense = b->dense && task->in[i]->count == out->count && (task->shared[i] == task->is_shared);
    }
    for (uint32_t d = 0; d < out->rank; d++) {
        if (out->shape[d] == 1)
            continue;
        const uint32_t last = b->rank - 1;
        bool merges = b->extent[last] > 1;
        for (uint32_t i = 0; i < inputs; i++)
            merges = merges && b->stride[i][last] == stride_of(task->in[i], out, d) * (size_t)out->shape[d];
        if (!merges && b->extent[last] > 1)
            b->rank++;
        const uint32_t axis = b->rank - 1;
        b->extent[axis] = merges ? b->extent[axis] * (size_t)out->shape[d] : (size_t)out->shape[d];
        for (uint32_t i = 0; i < inputs; i++)
            b->stride[i][axis] = stride_of(task->in[i], out, d);
    }
}

static void walk_lane(const pm_broadcast *b, size_t lane, void (*body)(const void *ctx, const pm_run *run),
                      const void *ctx)
{
    const uint32_t inner = b->rank - 1;
    size_t index[PM_MAX_RANK] = {0};
    pm_run run = {.at = lane * b->lane_count, .n = b->extent[inner]};
    for (uint32_t i = 0; i < b->inputs; i++) {
        run.from[i] = lane * b->lane_stride[i];
        run.step[i] = b->stride[i][inner];
    }
    for (;;) {
        body(ctx, &run);
        run.at += run.n;
        uint32_t d = inner;
        for (; d > 0; d--) {
            for (uint32_t i = 0; i < b->inputs; i++)
                run.from[i] += b->stride[i][d - 1];
            if (++index[d - 1] < b->extent[d - 1])
                break;
            for (uint32_t i = 0; i < b->inputs; i++)
                run.from[i] -= b->stride[i][d - 1] * b->extent[d - 1];
            index[d - 1] = 0;
        }
        if (d == 0)
            return;
    }
}

void pm_broadcast_walk(const pm_broadcast *b, size_t lanes, void (*body)(const void *ctx, const pm_run *run),
                       const void *ctx)
{
    if (b->lane_count == 0)
        return;
    if (b->dense) {
        const pm_run run = {.n = lanes * b->lane_count, .step = {1, 1, 1}};
        body(ctx, &run);
        return;
    }
    for (size_t lane = 0; lane < lanes; lane++)
        walk_lane(b, lane, body, ctx);
}
