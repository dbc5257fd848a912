// Losses as a training plan needs them: each row's loss, whether it is right, and, in the same pass, the
// gradient of the sum of row losses times scale.
#include "model/task.h"

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

const pm_operator PM_FAMILY_LOSS[] = {
    {.domain = PM_DOMAIN,
     .name = "CrossEntropyRows",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 3,
     .attributes = SCALE,
     .infer = infer_cross_entropy,
     .plan = pm_task_plan_whole,
     .run = run_cross_entropy},
    {.domain = PM_DOMAIN,
     .name = "SoftCrossEntropyRows",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 3,
     .attributes = SCALE,
     .infer = infer_soft_cross_entropy,
     .plan = pm_task_plan_whole,
     .run = run_soft_cross_entropy},
    {.domain = PM_DOMAIN,
     .name = "SquaredErrorRows",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 3,
     .attributes = SCALE,
     .infer = infer_squared_error,
     .plan = pm_task_plan_whole,
     .run = run_squared_error},
    {0},
};
