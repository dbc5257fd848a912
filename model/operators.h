#pragma once
// The operators this room knows: one table entry for each operator and range of opsets, in files by family
// (op_*.c). An entry says what the operator's attributes are, which types and shapes it gives, how its
// gradient is built, and how it runs.
//
// Names, attributes and defaults of the default domain are those of the ONNX operator specification
// (https://github.com/onnx/onnx/blob/main/docs/Operators.md); domain "paramill" holds what only programs
// contain: losses, gradients, training forms.
#include "model/graph_impl.h"

#define PM_DOMAIN "paramill"

typedef struct pm_task pm_task;
typedef struct pm_call pm_call;
typedef struct pm_gradient pm_gradient;

typedef struct pm_attribute_spec {
    const char *name; // NULL ends a list
    pm_attribute_type type;
} pm_attribute_spec;

// What an operator's infer sees: values with known types and shapes in, types and shapes out. An input whose
// tensor.data is set and which is constant has known elements.
typedef struct pm_shapes {
    const pm_node *node;
    const pm_value *const *in; // (node->input_count), NULL where left out
    pm_tensor *out;            // (node->output_count), empty
    pm_region *region;         // for elements that infer knows at once
} pm_shapes;

typedef enum pm_trait {
    PM_TRAIT_VIEW = 1,        // output 0 has the bytes of input 0: nothing runs
    PM_TRAIT_IN_PLACE = 2,    // output 0 may be written over any input of its size and type: element-wise
    PM_TRAIT_PER_LANE = 4,    // differs from lane to lane even when its inputs do not: random numbers
    PM_TRAIT_SUMS_LANES = 8,  // its output is one for all lanes: the tree sum over them
    PM_TRAIT_JOINS_LANES = 16 // likewise, but it takes all lanes at once and makes the sum itself
} pm_trait;

typedef struct pm_operator {
    const char *domain, *name;
    int32_t since, until; // opsets; until 0: to the newest built
    uint32_t min_inputs, max_inputs, max_outputs;
    uint32_t statistic_inputs; // bit i: input i is a running statistic
    uint32_t fixed_inputs;     // bit i: input i is a setting, never trained
    uint32_t traits;
    const pm_attribute_spec *attributes;

    // Checks inputs and attributes; gives types and shapes (counts follow) of the outputs.
    pm_status (*infer)(pm_shapes *s);

    // Appends other nodes to the program instead of this one (whose inputs are the program's values) and
    // gives their values as its outputs. NULL: the node itself is appended.
    pm_status (*lower)(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs);

    // Appends the nodes that make the gradients of the inputs that want one; see model/gradient.h. NULL: the
    // operator has no derivative, or a zero one.
    pm_status (*gradient)(pm_gradient *g, const pm_node *node);

    // How it runs; see model/task.h. plan may be NULL; run is NULL for views and for what is always lowered;
    // pack is set where frozen inputs have a layout of their own.
    pm_status (*plan)(pm_task *task);
    void (*run)(const pm_task *task, const pm_call *call);
    void (*pack)(const pm_task *task, const pm_call *call, float *packed);
} pm_operator;

// By domain ("" is the default one), name and opset (of the default domain); NULL when unknown.
const pm_operator *pm_operator_find(const char *domain, const char *name, int64_t opset);

// The newest form of an operator this room is sure to have.
const pm_operator *pm_operator_newest(const char *domain, const char *name);

// A family's entries, ending with a NULL name.
extern const pm_operator PM_FAMILY_ELEMENTWISE[], PM_FAMILY_SHAPE[], PM_FAMILY_MATMUL[], PM_FAMILY_CONV[],
    PM_FAMILY_POOL[], PM_FAMILY_NORM[], PM_FAMILY_REDUCE[], PM_FAMILY_RANDOM[], PM_FAMILY_LOSS[],
    PM_FAMILY_UNARY[], PM_FAMILY_BINARY[], PM_FAMILY_CAST[], PM_FAMILY_MOVE[], PM_FAMILY_REDUCTIONS[],
    PM_FAMILY_MOVES[], PM_FAMILY_CONV3[], PM_FAMILY_POOL3[], PM_FAMILY_BATCH_MATMUL[], PM_FAMILY_COMPOSED[],
    PM_FAMILY_GATHER[], PM_FAMILY_MAKE[], PM_FAMILY_RECURRENT[], PM_FAMILY_OPTIMIZER[], PM_FAMILY_SORT[],
    PM_FAMILY_RESIZE[], PM_FAMILY_EINSUM[], PM_FAMILY_BLOCK[], PM_FAMILY_ATTENTION[], PM_FAMILY_ROWS[],
    PM_FAMILY_PAIRS[];

// Lower Conv and pools that are not plain windows over images (op_conv3.c, op_pool3.c).
pm_status pm_lower_conv(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs);
pm_status pm_lower_pool3(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs);
pm_status pm_lower_average_pool(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs);

// Lowers Add, Sub, Mul and Div of types that have no loops of their own (op_binary.c).
pm_status pm_lower_arithmetic(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs);

// --- help for infer (shapes.c)

// Output 0 is as input 0.
pm_status pm_infer_same(pm_shapes *s);

// PM_UNSUPPORTED unless every input that is there is float32.
pm_status pm_infer_float(const pm_shapes *s);

// PM_INVALID "NAME has shape SHAPE, wanted WANTED".
pm_status pm_infer_refuse(const pm_shapes *s, uint32_t input, const char *wanted);

// Whether an input is there.
bool pm_infer_has(const pm_shapes *s, uint32_t input);

// The attribute as an axis in [0, rank) (or [0, rank] when end), negative ones counted from the back.
pm_status pm_infer_axis(const pm_shapes *s, const char *name, int64_t otherwise, uint32_t rank, bool end,
                        uint32_t *axis);

// The integers of a constant input of at most most elements; PM_UNSUPPORTED when they are not known before
// the graph runs.
pm_status pm_infer_constant(const pm_shapes *s, uint32_t input, uint32_t most, int64_t *values,
                            uint32_t *count);

// For what is always lowered: PM_UNSUPPORTED.
pm_status pm_infer_lowered(pm_shapes *s);

// Output 0's shape is the broadcast of all inputs' (as NumPy's); its type is left alone.
pm_status pm_infer_broadcast(pm_shapes *s);
