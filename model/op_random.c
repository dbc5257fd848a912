// Dropout. Its mask is a pure function of (seed, step, lane, node, element in the lane).
#include "model/compose.h"
#include "model/program.h"
#include "model/task.h"

#include <stdio.h>

static const pm_attribute_spec DROPOUT[] = {{"ratio", PM_ATTRIBUTE_FLOAT}, {"seed", PM_ATTRIBUTE_INT}, {0}};
static const pm_attribute_spec RATIO[] = {{"ratio", PM_ATTRIBUTE_FLOAT}, {0}};

static pm_status check_ratio(float ratio)
{
    return ratio >= 0 && ratio < 1 ? pm_ok() : pm_fail(PM_INVALID, "ratio must be in [0, 1)");
}

// The mask is of bools.
static pm_status infer_dropout(pm_shapes *s)
{
    pm_status status = check_ratio(pm_node_float(s->node, "ratio", 0.5f));
    if (status.code == PM_OK && s->in[0]->tensor.type != PM_TYPE_F32)
        status = pm_infer_float(s);
    if (status.code == PM_OK)
        status = pm_infer_same(s);
    for (uint32_t i = 1; i < s->node->output_count; i++) {
        s->out[i] = s->out[0];
        s->out[i].type = PM_TYPE_BOOL;
    }
    return status;
}

// From opset 12 on the ratio is an input.
static pm_status ratio_of(const pm_graph *program, const pm_node *node, float *ratio)
{
    *ratio = pm_node_float(node, "ratio", 0.5f);
    if (node->input_count > 1 && node->inputs[1] != PM_NO_VALUE) {
        const pm_value *v = &program->values[node->inputs[1]];
        if (!v->constant || v->tensor.type != PM_TYPE_F32 || v->tensor.count != 1)
            return pm_fail(PM_UNSUPPORTED, "ratio must be a constant of one float32");
        *ratio = *(const float *)v->tensor.data;
    }
    return check_ratio(*ratio);
}

static bool is_asked_to_train(const pm_graph *program, const pm_node *node)
{
    if (node->input_count < 3 || node->inputs[2] == PM_NO_VALUE)
        return false;
    const pm_tensor *mode = &program->values[node->inputs[2]].tensor;
    return mode->data && mode->type == PM_TYPE_BOOL && mode->count == 1 && *(const uint8_t *)mode->data;
}

// Nothing is dropped.
static pm_status add_full_mask(pm_graph *program, const pm_node *node, uint32_t *mask)
{
    pm_compose c = pm_compose_open(program, node);
    const pm_tensor x = pm_compose_tensor(&c, node->inputs[0]);
    *mask = pm_compose_expand(&c, pm_compose_number(&c, PM_TYPE_BOOL, 1), x.shape, x.rank);
    return c.status;
}

static pm_status lower_dropout(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    float ratio = 0;
    pm_tensor checked[2];
    pm_status status = pm_program_infer(program, node, checked);
    if (status.code == PM_OK)
        status = ratio_of(program, node, &ratio);
    if (status.code == PM_OK && !training && is_asked_to_train(program, node) && ratio > 0)
        status = pm_fail(PM_UNSUPPORTED, "training_mode where nothing is trained");
    if (status.code == PM_OK && training && node->output_count > 1)
        status = pm_fail(PM_UNSUPPORTED, "the mask as an output");
    if (status.code != PM_OK)
        return status;
    if (!training) {
        outputs[0] = node->inputs[0];
        return node->output_count > 1 ? add_full_mask(program, node, &outputs[1]) : status;
    }
    uint32_t made[2] = {PM_NO_VALUE, PM_NO_VALUE};
    status = pm_recipe_add(program, node,
                           (pm_recipe){.domain = PM_DOMAIN,
                                       .op = "DropoutTrain",
                                       PM_VALUES(node->inputs[0]),
                                       PM_ATTRIBUTES(pm_attribute_float("ratio", ratio)),
                                       .output_count = 2},
                           made);
    outputs[0] = made[0];
    return status;
}

static pm_status infer_dropout_train(pm_shapes *s)
{
    pm_status status = pm_infer_same(s);
    s->out[1] = s->out[0];
    s->out[1].type = PM_TYPE_U8;
    return status;
}

// The mask goes to scratch when nobody wants it.
static pm_status plan_dropout_train(pm_task *task)
{
    task->scratch_bytes = task->out[1] ? 0 : task->in[0]->count;
    return pm_ok();
}

static void run_dropout_train(const pm_task *task, const pm_call *call)
{
    const size_t count = task->in[0]->count;
    uint8_t *mask = call->out[1] ? call->out[1] : call->scratch;
    char purpose[PM_MAX_NAME + 16];
    snprintf(purpose, sizeof purpose, "dropout:%s", task->node->name);
    const pm_dropout dropout = {.key = pm_rng_key_make(call->seed, purpose),
                                .step = call->step,
                                .lane = call->first_lane,
                                .ratio = pm_node_float(task->node, "ratio", 0.5f)};
    task->kernels->dropout(&dropout, call->in[0], call->out[0], mask, count);
}

static void run_dropout_grad(const pm_task *task, const pm_call *call)
{
    task->kernels->dropout_backward(pm_node_float(task->node, "ratio", 0.5f), call->in[0], call->in[1],
                                    call->out[0], call->lanes * task->out[0]->count);
}

static pm_status infer_dropout_grad(pm_shapes *s)
{
    s->out[0] = s->in[1]->tensor;
    return pm_ok();
}

static pm_status gradient_dropout(pm_gradient *g, const pm_node *node)
{
    const pm_attribute ratio = pm_attribute_float("ratio", pm_node_float(node, "ratio", 0.5f));
    return pm_gradient_give_recipe(g, node, 0,
                                   (pm_recipe){.domain = PM_DOMAIN,
                                               .op = "DropoutGrad",
                                               PM_VALUES(node->outputs[1], pm_gradient_of(g, node, 0)),
                                               .attributes = &ratio,
                                               .attribute_count = 1});
}

const pm_operator PM_FAMILY_RANDOM[] = {
    {.domain = "",
     .name = "Dropout",
     .since = 7,
     .until = 11,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 2,
     .attributes = DROPOUT,
     .infer = infer_dropout,
     .lower = lower_dropout},
    {.domain = "",
     .name = "Dropout",
     .since = 12,
     .min_inputs = 1,
     .max_inputs = 3,
     .max_outputs = 2,
     .fixed_inputs = 1 << 1 | 1 << 2,
     .attributes = DROPOUT,
     .infer = infer_dropout,
     .lower = lower_dropout},
    {.domain = PM_DOMAIN,
     .name = "DropoutTrain",
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 2,
     .traits = PM_TRAIT_IN_PLACE | PM_TRAIT_PER_LANE,
     .attributes = RATIO,
     .infer = infer_dropout_train,
     .gradient = gradient_dropout,
     .plan = plan_dropout_train,
     .run = run_dropout_train},
    {.domain = PM_DOMAIN,
     .name = "DropoutGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = RATIO,
     .infer = infer_dropout_grad,
     .plan = pm_task_plan_whole,
     .run = run_dropout_grad},
    {0},
};
