#pragma once
// Short notation for appending nodes to a program, for operators that are made of others and for gradients. A
// failure sticks: what follows does nothing and gives PM_NO_VALUE.
#include "model/gradient.h"

typedef struct pm_compose {
    pm_graph *program;
    const pm_node *node; // whose name the nodes have
    pm_status status;
} pm_compose;

pm_compose pm_compose_open(pm_graph *program, const pm_node *node);

// Memory of the program's region that a model's few bytes ask for; NULL, and a failure, when it is more than
// such constants may be together.
void *pm_compose_room(pm_compose *c, size_t bytes);

// The type and shape of a value: a copy, since values move.
pm_tensor pm_compose_tensor(const pm_compose *c, uint32_t value);

// A node of one output. op is of the default domain, or of "paramill" when it begins with a dot.
uint32_t pm_compose_1(pm_compose *c, const char *op, uint32_t x);
uint32_t pm_compose_2(pm_compose *c, const char *op, uint32_t x, uint32_t y);
uint32_t pm_compose_3(pm_compose *c, const char *op, uint32_t x, uint32_t y, uint32_t z);

// The same with attributes.
uint32_t pm_compose_with(pm_compose *c, const char *op, const uint32_t *inputs, uint32_t input_count,
                         const pm_attribute *attributes, uint32_t attribute_count);

// Constants: a scalar of type, a list of int64.
uint32_t pm_compose_number(pm_compose *c, pm_type type, double value);
uint32_t pm_compose_ints(pm_compose *c, const int64_t *values, uint32_t count);

// x op number, of x's type.
uint32_t pm_compose_by(pm_compose *c, const char *op, uint32_t x, double number);

uint32_t pm_compose_cast(pm_compose *c, uint32_t x, pm_type type);
uint32_t pm_compose_reshape(pm_compose *c, uint32_t x, const int64_t *shape, uint32_t rank);

// x broadcast to the shape.
uint32_t pm_compose_expand(pm_compose *c, uint32_t x, const int64_t *shape, uint32_t rank);

// x (float32) with the axes (bit d: axis d) summed, their extents 1.
uint32_t pm_compose_sum(pm_compose *c, uint32_t x, uint32_t axes);

uint32_t pm_compose_transpose(pm_compose *c, uint32_t x, const int64_t *order);

// Gives input the gradient value, summed to the input's shape; the status is the composition's.
void pm_compose_give(pm_compose *c, pm_gradient *g, uint32_t input, uint32_t value);

// Fails unless op is built for what it got.
void pm_compose_fail(pm_compose *c, pm_status status);

// The integers of a constant value of at most most elements.
uint32_t pm_compose_read(pm_compose *c, uint32_t value, uint32_t most, int64_t *integers);

// The node's list of integers: the attribute, or the constant input where it is one. *given: whether it is
// there.
uint32_t pm_compose_list(pm_compose *c, const char *attribute, uint32_t input, int64_t *integers,
                         bool *given);

// Axes counted from the back where negative: bit d for axis d. Fails on one out of range or given twice.
uint32_t pm_compose_axes(pm_compose *c, const int64_t *axes, uint32_t count, uint32_t rank);

// An axis in [0, rank).
uint32_t pm_compose_axis(pm_compose *c, int64_t axis, uint32_t rank);

// The node's input, or PM_NO_VALUE.
uint32_t pm_compose_input(const pm_compose *c, uint32_t input);

// x reduced by one of ONNX's reductions over the axes (bit d: axis d), which keep an extent of 1.
uint32_t pm_compose_reduce(pm_compose *c, const char *op, uint32_t x, uint32_t axes);

// The integers 0 .. count - 1 as int64 along axis of rank axes.
uint32_t pm_compose_count(pm_compose *c, int64_t count, uint32_t axis, uint32_t rank);

// Gelu of x (float32), with the slope that its gradient needs; where nothing needs it, it is not made.
uint32_t pm_compose_gelu(pm_compose *c, uint32_t x);

// The table entry of an operator that is always lowered.
#define PM_LOWERED(onnx, first, last, least, most, results, fixed, spec, lower_it)                           \
    {                                                                                                        \
        .domain = "", .name = onnx, .since = first, .until = last, .min_inputs = least, .max_inputs = most,  \
        .max_outputs = results, .fixed_inputs = fixed, .attributes = spec, .infer = pm_infer_lowered,        \
        .lower = lower_it                                                                                    \
    }
