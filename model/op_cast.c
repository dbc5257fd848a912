// Cast and CastLike.
#include "model/compose.h"
#include "model/convert.h"
#include "model/task.h"

static const pm_attribute_spec NONE[] = {{0}};
static const pm_attribute_spec TO[] = {{"to", PM_ATTRIBUTE_INT}, {0}};

static pm_status infer_cast(pm_shapes *s)
{
    const int64_t to = pm_node_int(s->node, "to", 0);
    if (to < 0 || to > PM_TYPE_BF16 || pm_type_size((pm_type)to) == 0)
        return pm_fail(PM_UNSUPPORTED, "a cast to data type %lld", (long long)to);
    pm_status status = pm_infer_same(s);
    s->out[0].type = (pm_type)to;
    return status;
}

static void run_cast(const pm_task *task, const pm_call *call)
{
    pm_convert_cast(task->in[0]->type, call->in[0], task->out[0]->type, call->out[0],
                    call->lanes * task->out[0]->count);
}

static pm_status gradient_cast(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const pm_type from = pm_compose_tensor(&c, node->inputs[0]).type;
    pm_compose_give(&c, g, 0, pm_compose_cast(&c, pm_gradient_of(g, node, 0), from));
    return c.status;
}

static pm_status lower_cast_like(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    (void)training;
    pm_compose c = pm_compose_open(program, node);
    outputs[0] = pm_compose_cast(&c, node->inputs[0], pm_compose_tensor(&c, node->inputs[1]).type);
    return c.status;
}

const pm_operator PM_FAMILY_CAST[] = {
    {.domain = "",
     .name = "Cast",
     .since = 6,
     .min_inputs = 1,
     .max_inputs = 1,
     .max_outputs = 1,
     .traits = PM_TRAIT_IN_PLACE,
     .attributes = TO,
     .infer = infer_cast,
     .gradient = gradient_cast,
     .plan = pm_task_plan_whole,
     .run = run_cast},
    {.domain = "",
     .name = "CastLike",
     .since = 15,
     .min_inputs = 2,
     .max_inputs = 2,
     .max_outputs = 1,
     .attributes = NONE,
     .infer = pm_infer_lowered,
     .lower = lower_cast_like},
    {0},
};
