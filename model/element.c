#include "model/element.h"

#include <string.h>

const pm_element *pm_element_find(const pm_element *table, const char *name)
{
    for (; table->name; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

pm_element_loop pm_element_loop_for(const pm_element *element, pm_type type)
{
    return element ? element->loops[type == PM_TYPE_BOOL ? PM_ELEMENT_BOOLS : (int)pm_class_of(type)] : NULL;
}

static double number_of(const pm_node *node, const pm_element_setting *setting)
{
    const pm_attribute *a = pm_node_attribute(node, setting->name);
    if (!a)
        return setting->otherwise;
    return a->type == PM_ATTRIBUTE_INT ? (double)a->i : (double)a->f;
}

pm_status pm_element_plan_task(pm_task *task, const pm_element *element, uint32_t inputs, pm_type type)
{
    pm_element_plan *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    if (!pm_element_loop_for(element, type))
        return pm_fail(PM_INTERNAL, "no loop for %s", pm_type_name(type));
    pm_broadcast_make(&p->broadcast, task, inputs);
    p->element = element;
    p->type = type;
    for (uint32_t i = 0; i < inputs; i++)
        if (task->in[i]->type == PM_TYPE_BOOL)
            p->raw_bools |= 1u << i;
    for (uint32_t i = 0; i < PM_ELEMENT_NUMBERS && element->settings[i].name; i++)
        p->numbers[i] = number_of(task->node, &element->settings[i]);
    task->detail = p;
    task->whole = true;
    return pm_ok();
}

typedef struct element_call {
    const pm_element_plan *plan;
    const pm_task *task;
    const pm_call *call;
} element_call;

// Input i's block at element at of the run, in place where it can be.
static const void *block_of(const element_call *e, const pm_run *r, uint32_t i, size_t at, size_t n,
                            double *room)
{
    const pm_type type = e->task->in[i]->type;
    const size_t size = pm_type_size(type), step = r->step[i];
    const char *from = (const char *)e->call->in[i] + (r->from[i] + at * step) * size;
    if (step == 1 && (pm_class_is_stored(type) || (e->plan->raw_bools >> i & 1)))
        return from;
    if (e->plan->raw_bools >> i & 1)
        memset(room, *from, n);
    else
        pm_convert_load(type, from, step, room, n);
    return room;
}

static void run_block(const void *ctx, const pm_run *r)
{
    const element_call *e = ctx;
    const pm_type type = e->task->out[0]->type;
    const bool direct = pm_class_is_stored(type) || type == PM_TYPE_BOOL;
    const pm_element_loop loop = pm_element_loop_for(e->plan->element, e->plan->type);
    for (size_t at = 0; at < r->n; at += PM_ELEMENT_BLOCK) {
        double rooms[PM_BROADCAST_INPUTS][PM_ELEMENT_BLOCK], result[PM_ELEMENT_BLOCK];
        const void *in[PM_BROADCAST_INPUTS];
        const size_t n = r->n - at < PM_ELEMENT_BLOCK ? r->n - at : PM_ELEMENT_BLOCK;
        char *out = (char *)e->call->out[0] + (r->at + at) * pm_type_size(type);
        for (uint32_t i = 0; i < e->plan->broadcast.inputs; i++)
            in[i] = block_of(e, r, i, at, n, rooms[i]);
        loop(in, direct ? (void *)out : result, n, e->plan->numbers);
        if (!direct)
            pm_convert_store(type, result, out, n);
    }
}

void pm_element_run(const pm_task *task, const pm_call *call)
{
    const pm_element_plan *p = task->detail;
    const element_call e = {p, task, call};
    pm_broadcast_walk(&p->broadcast, call->lanes, run_block, &e);
}
