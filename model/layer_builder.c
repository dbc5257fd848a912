#include "model/layer_builder.h"

#include "core/rng.h"
#include "model/operators.h"
#include "model/program.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

pm_tensor pm_layer_tensor(const pm_layer_builder *b, uint32_t value)
{
    return value == PM_NO_VALUE ? (pm_tensor){0} : b->graph->values[value].tensor;
}

size_t pm_layer_enter(pm_layer_builder *b, const char *part)
{
    size_t back = strlen(b->name);
    snprintf(b->name + back, sizeof b->name - back, ".%s", part);
    return back;
}

void pm_layer_leave(pm_layer_builder *b, size_t back)
{
    b->name[back] = '\0';
}

void pm_layer_fail(pm_layer_builder *b, pm_status status)
{
    if (b->status.code == PM_OK)
        b->status = status;
}

// Box and Muller 1958.
static double normal(pm_rng_key key, uint64_t i)
{
    double radius = sqrt(-2 * log(1 - pm_rng_uniform(key, 0, 2 * i)));
    return radius * cos(2 * M_PI * pm_rng_uniform(key, 0, 2 * i + 1));
}

static void fill(float *values, size_t count, pm_rng_key key, pm_initial initial)
{
    for (size_t i = 0; i < count; i++)
        if (initial.kind == PM_INITIAL_UNIFORM)
            values[i] = (float)(initial.size * (2 * pm_rng_uniform(key, 0, i) - 1));
        else if (initial.kind == PM_INITIAL_NORMAL)
            values[i] = (float)(initial.size * normal(key, i));
        else
            values[i] = (float)initial.size;
}

// Room for the elements of a tensor of the shape.
static void *make_tensor(pm_layer_builder *b, const char *name, pm_type type, const int64_t *shape,
                         uint32_t rank, pm_tensor *tensor)
{
    *tensor = (pm_tensor){.type = type, .rank = rank};
    if (rank > 0) // a scalar has no shape
        memcpy(tensor->shape, shape, rank * sizeof *shape);
    if (!pm_shape_count(tensor->shape, rank, PM_MAX_PARAM_COUNT, &tensor->count) || tensor->count == 0) {
        pm_layer_fail(b, pm_fail(PM_INVALID, "%s is empty or too large", name));
        return NULL;
    }
    void *data = pm_region_alloc(b->graph->region, pm_tensor_bytes(tensor));
    if (!data)
        pm_layer_fail(b, pm_fail(PM_NO_MEMORY, "%s of %zu values", name, tensor->count));
    tensor->data = data;
    return data;
}

uint32_t pm_layer_param(pm_layer_builder *b, const char *role, const int64_t *shape, uint32_t rank,
                        pm_initial initial)
{
    char name[PM_MAX_NAME], purpose[PM_MAX_NAME + 8];
    pm_tensor tensor;
    uint32_t value = PM_NO_VALUE;
    if (b->status.code != PM_OK)
        return value;
    snprintf(name, sizeof name, "%s.%s", b->name, role);
    snprintf(purpose, sizeof purpose, "init:%s", name);
    float *data = make_tensor(b, name, PM_TYPE_F32, shape, rank, &tensor);
    if (!data)
        return value;
    fill(data, tensor.count, pm_rng_key_make(b->job->seed, purpose), initial);
    b->status = pm_graph_add_value(b->graph, name, &tensor, &value);
    if (b->status.code == PM_OK)
        b->status = pm_graph_make_param(b->graph, value);
    return value;
}

uint32_t pm_layer_constant(pm_layer_builder *b, const char *role, pm_type type, const int64_t *shape,
                           uint32_t rank, const void *values)
{
    char name[PM_MAX_NAME];
    pm_tensor tensor;
    uint32_t value = PM_NO_VALUE;
    if (b->status.code != PM_OK)
        return value;
    snprintf(name, sizeof name, "%s.%s", b->name, role);
    void *data = make_tensor(b, name, type, shape, rank, &tensor);
    if (!data)
        return value;
    memcpy(data, values, pm_tensor_bytes(&tensor));
    b->status = pm_graph_add_constant(b->graph, name, &tensor, &value);
    return value;
}

uint32_t pm_layer_ints(pm_layer_builder *b, const char *role, const int64_t *values, uint32_t count)
{
    return pm_layer_constant(b, role, PM_TYPE_I64, &(int64_t){count}, 1, values);
}

uint32_t pm_layer_number(pm_layer_builder *b, const char *role, float value)
{
    return pm_layer_constant(b, role, PM_TYPE_F32, NULL, 0, &value);
}

// A Dropout has its ratio as an attribute up to opset 11; what is written to a file has none.
static const pm_operator *find_operator(const pm_layer_builder *b, const char *op)
{
    return pm_operator_find("", op, strcmp(op, "Dropout") == 0 ? 11 : b->graph->opset);
}

static void add_node(pm_layer_builder *b, pm_node *node, uint32_t *outputs)
{
    char name[PM_MAX_NAME];
    pm_tensor tensors[3] = {{0}};
    b->status = pm_program_shapes(b->graph, node, tensors);
    for (uint32_t i = 0; i < node->output_count && b->status.code == PM_OK; i++) {
        snprintf(name, sizeof name, i ? "%s.y%u" : "%s.y", node->name, i);
        b->status = pm_graph_add_value(b->graph, name, &tensors[i], &outputs[i]);
        if (b->status.code == PM_OK)
            b->graph->values[outputs[i]].batched = tensors[i].rank > 0 && tensors[i].shape[0] == 1;
    }
    node->outputs = outputs;
    if (b->status.code == PM_OK)
        b->status = pm_graph_add_node(b->graph, node);
}

void pm_layer_nodes(pm_layer_builder *b, const char *part, const char *op, const uint32_t *inputs,
                    uint32_t input_count, const pm_attribute *attributes, uint32_t attribute_count,
                    uint32_t *outputs, uint32_t output_count)
{
    char name[PM_MAX_NAME];
    for (uint32_t i = 0; i < output_count; i++)
        outputs[i] = PM_NO_VALUE;
    if (b->status.code != PM_OK)
        return;
    snprintf(name, sizeof name, part ? "%s.%s" : "%s", b->name, part);
    pm_node node = {.op = find_operator(b, op),
                    .name = name,
                    .inputs = inputs,
                    .input_count = input_count,
                    .outputs = outputs,
                    .output_count = output_count,
                    .attributes = attributes,
                    .attribute_count = attribute_count};
    if (node.op)
        add_node(b, &node, outputs);
    else
        b->status = pm_fail(PM_INTERNAL, "the operator %s has no entry", op);
}

uint32_t pm_layer_node(pm_layer_builder *b, const char *part, const char *op, const uint32_t *inputs,
                       uint32_t input_count, const pm_attribute *attributes, uint32_t attribute_count)
{
    uint32_t output;
    pm_layer_nodes(b, part, op, inputs, input_count, attributes, attribute_count, &output, 1);
    return output;
}

uint32_t pm_layer_1(pm_layer_builder *b, const char *part, const char *op, uint32_t x)
{
    return pm_layer_node(b, part, op, &x, 1, NULL, 0);
}

uint32_t pm_layer_2(pm_layer_builder *b, const char *part, const char *op, uint32_t x, uint32_t y)
{
    return pm_layer_node(b, part, op, (const uint32_t[]){x, y}, 2, NULL, 0);
}

typedef enum next { NEXT_NOTHING, NEXT_RELU, NEXT_OTHER } next;

// What the first layer from at on that has weights or bends its input is.
static next look_ahead(const pm_layer *layers, uint32_t count, uint32_t at)
{
    for (uint32_t i = at; i < count; i++) {
        switch (layers[i].op) {
        case PM_OP_RELU:
        case PM_OP_GELU:
            return NEXT_RELU;
        case PM_OP_RESIDUAL: {
            next inside = look_ahead(layers[i].layers, layers[i].layer_count, 0);
            if (inside != NEXT_NOTHING)
                return inside;
            break;
        }
        case PM_OP_BATCH_NORMALIZATION:
        case PM_OP_DROPOUT:
        case PM_OP_MAX_POOL:
        case PM_OP_AVERAGE_POOL:
        case PM_OP_GLOBAL_AVERAGE_POOL:
        case PM_OP_FLATTEN:
            break;
        default:
            return NEXT_OTHER;
        }
    }
    return NEXT_NOTHING;
}

pm_initial pm_layer_initial(const pm_layer_builder *b, double fan_in, double fan_out)
{
    next after = NEXT_NOTHING;
    for (const pm_layer_list *l = b->list; l && after == NEXT_NOTHING; l = l->outer)
        after = look_ahead(l->layers, l->count, l->at + 1);
    return (pm_initial){PM_INITIAL_UNIFORM, sqrt(after == NEXT_RELU ? 6 / fan_in : 6 / (fan_in + fan_out))};
}
