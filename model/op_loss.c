// Losses as a training plan needs them: each row's loss, whether it is right, and, in the same pass, the
// gradient of the sum of row losses times scale.
#include "model/task.h"

#include <math.h>

static const pm_attribute_spec SCALE[] = {{"scale", PM_ATTRIBUTE_FLOAT}, {0}};

static void row_outputs(pm_shapes *s, int64_t rows)
{
    s->out[0] = s->in[0]->tensor;
    s->out[1] = (pm_tensor){.type = PM_TYPE_F64, .rank = 1, .shape = {rows}};
    s->out[2] = (pm_tensor){.type = PM_TYPE_U8, .rank = 1, .shape = {rows}};
}

static pm_status infer_cross_entropy(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor, *target = &s->in[1]->tensor;
    if (x->type != PM_TYPE_F32 || x->rank != 2)
        return pm_infer_refuse(s, 0, "an output (N, classes) of float32");
    if (target->type != PM_TYPE_I32 || target->rank != 1 || target->shape[0] != x->shape[0])
        return pm_infer_refuse(s, 1, "a class for each row");
    row_outputs(s, x->shape[0]);
    return pm_ok();
}

static pm_status infer_squared_error(pm_shapes *s)
{
    const pm_tensor *x = &s->in[0]->tensor;
    if (x->type != PM_TYPE_F32 || x->rank == 0 || x->count == 0)
        return pm_infer_refuse(s, 0, "an output (N, ...) of float32");
    if (!pm_shape_equal(x, &s->in[1]->tensor))
        return pm_infer_refuse(s, 1, "the output's");
    row_outputs(s, x->shape[0]);
    return pm_ok();
}

static pm_status infer_soft_cross_entropy(pm_shapes *s)
{
    if (s->in[0]->tensor.rank != 2)
        return pm_infer_refuse(s, 0, "an output (N, classes) of float32");
    return infer_squared_error(s);
}

static void run_cross_entropy(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    task->kernels->cross_entropy(call->in[0], call->in[1], pm_node_float(task->node, "scale", 1),
                                 call->out[0], call->out[1], call->out[2], call->lanes * (size_t)x->shape[0],
                                 (size_t)x->shape[1]);
}

static void run_soft_cross_entropy(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    task->kernels->soft_cross_entropy(call->in[0], call->in[1], pm_node_float(task->node, "scale", 1),
                                      call->out[0], call->out[1], call->out[2],
                                      call->lanes * (size_t)x->shape[0], (size_t)x->shape[1]);
}

static void run_squared_error(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    task->kernels->squared_error(call->in[0], call->in[1], pm_node_float(task->node, "scale", 1),
                                 call->out[0], call->out[1], call->lanes * (size_t)x->shape[0],
                                 x->count / (size_t)x->shape[0]);
}

static void run_absolute_error(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const size_t rows = call->lanes * (size_t)x->shape[0], outputs = x->count / (size_t)x->shape[0];
    const float step = pm_node_float(task->node, "scale", 1) / (float)outputs;
    const float *at = call->in[0], *target = call->in[1];
    float *dx = call->out[0];
    double *loss = call->out[1];
    for (size_t r = 0; r < rows; r++, at += outputs, target += outputs, dx += outputs) {
        double sum = 0;
        for (size_t j = 0; j < outputs; j++) {
            const float difference = at[j] - target[j];
            sum += fabs((double)difference);
            dx[j] = difference > 0 ? step : difference < 0 ? -step : 0;
        }
        loss[r] = sum / (double)outputs;
    }
}

// log(1 + exp(x)), which overflows nowhere; *slope is its derivative, 1 / (1 + exp(-x)).
static double softplus(double x, double *slope)
{
    const double small = exp(-fabs(x));
    *slope = x > 0 ? 1 / (1 + small) : small / (1 + small);
    return (x > 0 ? x : 0) + log1p(small);
}

// A row is right when every output is on the side of 0 where its target is of 1/2.
static void run_binary_cross_entropy(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const size_t rows = call->lanes * (size_t)x->shape[0], outputs = x->count / (size_t)x->shape[0];
    const double step = (double)pm_node_float(task->node, "scale", 1) / (double)outputs;
    const float *at = call->in[0], *target = call->in[1];
    float *dx = call->out[0];
    double *loss = call->out[1];
    uint8_t *correct = call->out[2];
    for (size_t r = 0; r < rows; r++, at += outputs, target += outputs, dx += outputs) {
        double sum = 0, slope = 0;
        correct[r] = 1;
        for (size_t j = 0; j < outputs; j++) {
            sum += softplus((double)at[j], &slope) - (double)at[j] * (double)target[j];
            dx[j] = (float)(step * (slope - (double)target[j]));
            correct[r] = correct[r] && (at[j] > 0) == (target[j] > 0.5f);
        }
        loss[r] = sum / (double)outputs;
    }
}

// A row is right when no other output is as large as the class's.
static void run_ranking(const pm_task *task, const pm_call *call)
{
    const pm_tensor *x = task->in[0];
    const size_t rows = call->lanes * (size_t)x->shape[0], outputs = (size_t)x->shape[1];
    const double others = (double)outputs - 1, step = (double)pm_node_float(task->node, "scale", 1) / others;
    const float *at = call->in[0];
    const int32_t *classes = call->in[1];
    float *dx = call->out[0];
    double *loss = call->out[1];
    uint8_t *correct = call->out[2];
    for (size_t r = 0; r < rows; r++, at += outputs, dx += outputs) {
        const size_t class = (size_t)classes[r];
        double sum = 0, pull = 0, slope = 0;
        correct[r] = 1;
        for (size_t j = 0; j < outputs; j++) {
            if (j == class)
                continue;
            sum += softplus((double)at[j] - (double)at[class], &slope);
            pull += slope;
            dx[j] = (float)(step * slope);
            correct[r] = correct[r] && at[j] < at[class];
        }
        dx[class] = (float)(-step * pull);
        loss[r] = sum / others;
    }
}

static pm_status infer_ranking(pm_shapes *s)
{
    pm_status status = infer_cross_entropy(s);
    if (status.code == PM_OK && s->in[0]->tensor.shape[1] < 2)
        return pm_infer_refuse(s, 0, "(N, at least 2 items)");
    return status;
}

#define ENTRY(op, infer_it, run_it)                                                                          \
    {                                                                                                        \
        .domain = PM_DOMAIN, .name = op, .min_inputs = 2, .max_inputs = 2, .max_outputs = 3,                 \
        .attributes = SCALE, .infer = infer_it, .plan = pm_task_plan_whole, .run = run_it                    \
    }

const pm_operator PM_FAMILY_LOSS[] = {
    ENTRY("CrossEntropyRows", infer_cross_entropy, run_cross_entropy),
    ENTRY("SoftCrossEntropyRows", infer_soft_cross_entropy, run_soft_cross_entropy),
    ENTRY("SquaredErrorRows", infer_squared_error, run_squared_error),
    ENTRY("AbsoluteErrorRows", infer_squared_error, run_absolute_error),
    ENTRY("BinaryCrossEntropyRows", infer_squared_error, run_binary_cross_entropy),
    ENTRY("RankingRows", infer_ranking, run_ranking),
    {0},
};
