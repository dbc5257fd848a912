// What a training plan has more: loss and gradient in its program, and when to call the step's hooks.
#include "model/compose.h"
#include "model/losses.h"
#include "model/plan_impl.h"
#include "model/program.h"
#include "model/program_recompute.h"

#include <stdlib.h>

size_t pm_loss_places(const pm_graph *graph, pm_loss loss)
{
    const pm_port *output = pm_graph_output(graph, 0);
    return loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY && output->rank == 2 && output->shape[0] > 0
               ? (size_t)output->shape[0]
               : 1;
}

// *of becomes what the loss is of: the first output, its places as rows.
static pm_status add_loss(pm_plan *plan, uint32_t *of, uint32_t *seed)
{
    uint32_t output = *of;
    pm_graph *p = plan->program;
    const pm_loss_kind *kind = pm_loss_kind_of(plan->loss);
    const pm_node named = {.name = "loss"};
    if (plan->row_losses > 1 && p->values[output].tensor.rank == 3) {
        pm_compose c = pm_compose_open(p, &named);
        const pm_tensor x = p->values[output].tensor;
        output = pm_compose_reshape(&c, output, (const int64_t[]){x.shape[0] * x.shape[1], x.shape[2]}, 2);
        if (c.status.code != PM_OK)
            return c.status;
        *of = output;
    }
    pm_tensor target = p->values[output].tensor;
    target.data = NULL;
    if (target.rank == 0 || target.shape[0] != (int64_t)plan->rows_per_lane * plan->row_losses)
        return pm_fail(PM_INVALID, "the first output must have one row for each of the input");
    if (kind->target == PM_TARGET_CLASS)
        target = (pm_tensor){.type = PM_TYPE_I32, .rank = 1, .shape = {target.shape[0]}};
    pm_status status = pm_graph_add_value(p, "target", &target, &plan->target);
    if (status.code == PM_OK)
        status = pm_graph_add_input(p, plan->target);
    if (status.code != PM_OK)
        return status;
    uint32_t made[3] = {PM_NO_VALUE, PM_NO_VALUE, PM_NO_VALUE};
    status = pm_recipe_add(p, &named,
                           (pm_recipe){.domain = PM_DOMAIN,
                                       .op = kind->op,
                                       PM_VALUES(output, plan->target),
                                       PM_ATTRIBUTES(pm_attribute_float("scale", plan->loss_scale)),
                                       .output_count = 3},
                           made);
    *seed = made[0];
    plan->row_loss = made[1];
    plan->correct = made[2];
    return status;
}

pm_status pm_plan_find_sparse(pm_plan *plan)
{
    plan->sparse = pm_region_alloc(plan->region, plan->program->param_count * sizeof *plan->sparse);
    if (!plan->sparse)
        return pm_fail(PM_NO_MEMORY, "a list of parameters");
    return pm_program_sparse(plan->program, plan->max_lanes, plan->sparse);
}

// Keeps what the step gives back: the row losses, the gradients and whose rows they are.
static pm_status prune(pm_plan *plan)
{
    pm_graph *p = plan->program;
    uint32_t *keep = calloc(3 * p->param_count + 2, sizeof *keep);
    size_t count = 0;
    if (!keep)
        return pm_fail(PM_NO_MEMORY, "a list of gradients");
    keep[count++] = plan->row_loss;
    keep[count++] = plan->correct;
    for (size_t i = 0; i < p->param_count; i++)
        if (plan->gradient_values[i] != PM_NO_VALUE)
            keep[count++] = plan->gradient_values[i];
    for (size_t i = 0; i < p->param_count; i++)
        if (plan->sparse[i].ids != PM_NO_VALUE) {
            keep[count++] = plan->sparse[i].ids;
            keep[count++] = plan->sparse[i].count;
        }
    p->output_count = 0;
    pm_status status = pm_program_prune(p, keep, count);
    free(keep);
    return status;
}

pm_status pm_plan_add_training(pm_plan *plan)
{
    pm_graph *p = plan->program;
    uint32_t seed = PM_NO_VALUE;
    uint32_t output = p->outputs[0];
    plan->gradient_values = pm_region_alloc(plan->region, p->param_count * sizeof(uint32_t));
    if (!plan->gradient_values)
        return pm_fail(PM_NO_MEMORY, "a list of gradients");
    pm_status status = add_loss(plan, &output, &seed);
    const size_t forward_count = p->node_count;
    if (status.code == PM_OK)
        status = pm_gradient_build(p, output, seed, plan->gradient_values);
    if (status.code == PM_OK)
        status = pm_program_recompute(p, forward_count, plan->segments);
    for (size_t i = 0; status.code == PM_OK && i < p->param_count; i++)
        if (p->params[i].kind == PM_PARAM_STATISTIC && !p->params[i].frozen &&
            plan->gradient_values[i] == PM_NO_VALUE)
            status = pm_fail(PM_INVALID,
                             "statistic %.64s is of a node that no gradient goes through: freeze it as well",
                             plan->graph->params[i].name);
    return status.code == PM_OK ? prune(plan) : status;
}

static int by_task(const void *a, const void *b)
{
    const pm_event *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    return x->param < y->param ? -1 : x->param > y->param;
}

// Parameters are announced before the first task that reads them, statistics only where they are frozen.
static void find_before(pm_plan *plan, bool *seen)
{
    const pm_graph *p = plan->program;
    for (uint32_t t = 0; t < plan->task_count; t++) {
        const pm_node *node = plan->tasks[t].node;
        for (uint32_t i = 0; i < node->input_count; i++) {
            const int64_t param =
                node->inputs[i] == PM_NO_VALUE ? PM_NO_PARAM : p->values[node->inputs[i]].param;
            if (param == PM_NO_PARAM || seen[param] ||
                (p->params[param].kind == PM_PARAM_STATISTIC && !p->params[param].frozen))
                continue;
            seen[param] = true;
            plan->before[plan->before_count++] = (pm_event){t, (uint32_t)param};
        }
    }
}

// A gradient is complete after the task that makes it, never before the loss is known to be finite; one that
// no task makes is zero and told last; of what is frozen nothing is told.
static void find_after(pm_plan *plan)
{
    const uint32_t last = (uint32_t)plan->task_count - 1, first = (uint32_t)plan->forward_count;
    for (uint32_t i = 0; i < plan->program->param_count; i++) {
        if (plan->program->params[i].frozen)
            continue;
        pm_event *event = &plan->after[plan->after_count++];
        *event = (pm_event){last, i};
        const uint32_t value = plan->gradient_values[i];
        for (uint32_t t = 0; value != PM_NO_VALUE && t < plan->task_count; t++)
            for (uint32_t k = 0; k < plan->tasks[t].node->output_count; k++)
                if (plan->tasks[t].node->outputs[k] == value)
                    event->task = t < first ? first : t;
    }
    qsort(plan->after, plan->after_count, sizeof *plan->after, by_task);
}

static void find_rows_known(pm_plan *plan)
{
    for (uint32_t t = 0; t < plan->task_count; t++)
        for (size_t i = 0; i < plan->program->param_count; i++)
            if (plan->sparse[i].ids != PM_NO_VALUE && plan->tasks[t].node->output_count > 1 &&
                plan->tasks[t].node->outputs[1] == plan->sparse[i].ids)
                plan->rows_known = t + 1;
}

pm_status pm_plan_find_events(pm_plan *plan)
{
    const size_t params = plan->program->param_count;
    bool *seen = pm_region_alloc(plan->region, params * sizeof *seen);
    plan->before = pm_region_alloc(plan->region, params * sizeof *plan->before);
    plan->after = pm_region_alloc(plan->region, params * sizeof *plan->after);
    if (!seen || !plan->before || !plan->after)
        return pm_fail(PM_NO_MEMORY, "the hooks of a plan");
    find_before(plan, seen);
    find_after(plan);
    find_rows_known(plan);
    return pm_ok();
}
