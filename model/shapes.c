// Help for the operators' shape inference.
#include "model/operators.h"

#include <inttypes.h>
#include <string.h>

bool pm_infer_has(const pm_shapes *s, uint32_t input)
{
    return input < s->node->input_count && s->in[input];
}

pm_status pm_infer_same(pm_shapes *s)
{
    s->out[0] = s->in[0]->tensor;
    s->out[0].data = NULL;
    return pm_ok();
}

pm_status pm_infer_float(const pm_shapes *s)
{
    for (uint32_t i = 0; i < s->node->input_count; i++)
        if (s->in[i] && s->in[i]->tensor.type != PM_TYPE_F32)
            return pm_fail(PM_UNSUPPORTED, "input %u (%.64s) is %s, built for float32", i,
                           s->in[i]->name ? s->in[i]->name : "", pm_type_name(s->in[i]->tensor.type));
    return pm_ok();
}

pm_status pm_infer_refuse(const pm_shapes *s, uint32_t input, const char *wanted)
{
    char text[128];
    const pm_value *v = s->in[input];
    return pm_fail(PM_INVALID, "%.64s has shape %s, wanted %s", v->name ? v->name : "an input",
                   pm_value_text(v, text, sizeof text), wanted);
}

pm_status pm_infer_axis(const pm_shapes *s, const char *name, int64_t otherwise, uint32_t rank, bool end,
                        uint32_t *axis)
{
    const int64_t given = pm_node_int(s->node, name, otherwise), top = (int64_t)rank + (end ? 1 : 0);
    if (given < -(int64_t)rank || given >= top)
        return pm_fail(PM_INVALID, "%s %" PRId64 " is out of range for rank %u", name, given, rank);
    *axis = (uint32_t)(given < 0 ? given + (int64_t)rank : given);
    return pm_ok();
}

pm_status pm_infer_constant(const pm_shapes *s, uint32_t input, uint32_t most, int64_t *values,
                            uint32_t *count)
{
    const pm_value *v = s->in[input];
    const pm_tensor *t = &v->tensor;
    if (!v->constant)
        return pm_fail(PM_UNSUPPORTED, "input %u (%.64s) steers shapes but is known only when the graph runs",
                       input, v->name ? v->name : "");
    if ((t->type != PM_TYPE_I64 && t->type != PM_TYPE_I32) || t->count > most)
        return pm_fail(PM_INVALID, "input %u (%.64s) must hold at most %u integers", input,
                       v->name ? v->name : "", most);
    for (size_t i = 0; i < t->count; i++)
        values[i] =
            t->type == PM_TYPE_I64 ? ((const int64_t *)t->data)[i] : (int64_t)((const int32_t *)t->data)[i];
    *count = (uint32_t)t->count;
    return pm_ok();
}

pm_status pm_infer_broadcast(pm_shapes *s)
{
    pm_tensor *out = &s->out[0];
    out->rank = 0;
    for (uint32_t i = 0; i < s->node->input_count; i++)
        if (s->in[i] && s->in[i]->tensor.rank > out->rank)
            out->rank = s->in[i]->tensor.rank;
    for (uint32_t d = 0; d < out->rank; d++)
        out->shape[d] = 1;
    for (uint32_t i = 0; i < s->node->input_count; i++) {
        const pm_tensor *t = s->in[i] ? &s->in[i]->tensor : NULL;
        for (uint32_t d = 0; t && d < t->rank; d++) {
            int64_t *extent = &out->shape[out->rank - t->rank + d];
            if (*extent != t->shape[d] && *extent != 1 && t->shape[d] != 1)
                return pm_infer_refuse(s, i, "a shape that broadcasts with the other inputs'");
            *extent = *extent == 1 ? t->shape[d] : *extent;
        }
    }
    return pm_ok();
}

pm_status pm_infer_lowered(pm_shapes *s)
{
    return pm_fail(PM_UNSUPPORTED, "%s is made of other operators", s->node->op->name);
}
