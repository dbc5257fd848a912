#pragma once
// The inside of the ONNX reader (onnx_read.c): the model being read, and the scopes of its names. Functions
// and branches are inlined: each is read into the same graph by a scope of its own.
#include "model/names.h"
#include "model/onnx.h"
#include "model/onnx_external.h"
#include "model/onnx_tensor.h"

// Behind the name of a classifier's scores: what they are made of.
#define PM_ONNX_LOGITS ".logits"

enum {
    PM_ONNX_DEPTH = 32,               // functions and branches inside one another
    PM_ONNX_EXPANSION = 64 << 20,     // bytes of the functions that calls put into the graph
    PM_ONNX_CONDITION_NODES = 1 << 18 // that are looked at to decide conditions
};

typedef struct pm_onnx_initializer {
    pm_onnx_text name;
    pm_wire message; // the whole TensorProto
    uint32_t value;  // PM_NO_VALUE until a node or output wants it
} pm_onnx_initializer;

typedef struct pm_onnx_function {
    pm_onnx_text domain, name;
    pm_wire message; // the whole FunctionProto
} pm_onnx_function;

// One set of names: the graph's, a function call's, or a branch's.
typedef struct pm_onnx_scope {
    struct pm_onnx_scope *outer;      // whose values it sees: a branch's; NULL for the graph and for calls
    const struct pm_onnx_scope *from; // where the call or the branch stands; NULL for the graph
    const pm_onnx_function *function; // that is called here; NULL for the graph and for branches
    const pm_onnx_call *call;         // what attributes refer to; a branch's is its outer scope's
    unsigned depth;
    int64_t opset;   // of the default domain
    pm_wire message; // the GraphProto or FunctionProto
    uint32_t node_field;
    pm_onnx_initializer *tensors; // sorted by name
    size_t tensor_count;
    pm_names *names;
    const char *prefix;              // of the names of values and nodes: "", or "CALL/"
    const pm_onnx_text *outputs;     // of a call or branch, and the names they have outside
    const char *const *output_names; // (output_count), NULL where left out
    uint32_t output_count;
    size_t node_index;
    const bool *needed; // (nodes): the others are passed over; NULL: all are needed
} pm_onnx_scope;

typedef struct pm_onnx_reader {
    pm_graph *graph;
    const char *folder;   // of external data; NULL: they stay where they are
    const char *output;   // the value that becomes the one output; NULL: the outputs are the model's
    size_t external_left; // bytes of them that may still be read
    int64_t ir_version;
    bool has_opset, has_other_opset, has_graph;
    bool named; // the failure at hand names its node
    pm_wire graph_message;
    pm_onnx_function *functions; // sorted by domain and name
    size_t function_count;
    size_t expansion_left, condition_left; // of PM_ONNX_EXPANSION, PM_ONNX_CONDITION_NODES
    size_t node_count;                     // read so far
    pm_names *taken;                       // names of values, and prefixes
    const pm_tensor *given;                // inputs of one evaluation; NULL when inputs are rows
    size_t given_count;
} pm_onnx_reader;

// A NodeProto as read; lists are in the graph's region, texts in the model.
typedef struct pm_onnx_node {
    pm_wire message;
    pm_onnx_text *inputs, *outputs;
    uint32_t input_count, output_count;
    pm_onnx_text raw_name, raw_op, raw_domain;
    char name[PM_MAX_NAME], op[PM_MAX_NAME], domain[PM_MAX_NAME]; // name with the scope's prefix
} pm_onnx_node;

static inline pm_onnx_text pm_onnx_text_of(const pm_wire_field *field)
{
    return (pm_onnx_text){field->bytes, field->size};
}

// --- scopes (onnx_scope.c)

// Finds the scope's initializers; message and node_field are set. To be closed also after a failure.
pm_status pm_onnx_scope_open(pm_onnx_scope *scope) PM_CHECKED;
void pm_onnx_scope_close(pm_onnx_scope *scope);

// Checks the fields of the message and counts those with the number.
pm_status pm_onnx_count_fields(pm_wire wire, uint32_t number, size_t *count) PM_CHECKED;

// Whether the scope's own initializers have the name.
bool pm_onnx_has_tensor(const pm_onnx_scope *scope, pm_onnx_text name);

// What a node or the scope's outputs call by name; an initializer becomes a parameter unless it is a setting.
// PM_NOT_FOUND when nothing before it makes it; PM_NO_VALUE for a function's input that the call leaves out.
pm_status pm_onnx_resolve(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text name, bool setting,
                          uint32_t *value) PM_CHECKED;

// The name in the graph (PM_MAX_NAME bytes) of what a node of the scope makes.
pm_status pm_onnx_value_name(const pm_onnx_scope *scope, pm_onnx_text text, char *name) PM_CHECKED;

// Takes the name of a new value: PM_INVALID when another one has it.
pm_status pm_onnx_take_name(pm_onnx_reader *r, uint32_t value) PM_CHECKED;

// Gives the value a name in the scope: PM_INVALID when another one has it.
pm_status pm_onnx_declare(pm_onnx_scope *scope, pm_onnx_text text, uint32_t value) PM_CHECKED;

// --- nodes (onnx_node.c)

// Reads the scope's nodes into the graph.
pm_status pm_onnx_read_nodes(pm_onnx_reader *r, pm_onnx_scope *scope) PM_CHECKED;

// Finds what an input calls by name, PM_NO_VALUE for an empty one. setting: it is not trained here.
pm_status pm_onnx_find_input(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text text, bool setting,
                             uint32_t *value) PM_CHECKED;

// Appends a node of one input and a new value, both under the name; NULL: a value without one.
pm_status pm_onnx_add_plain(pm_graph *graph, const char *op, uint32_t input, const char *name,
                            const pm_attribute *attribute, uint32_t *value) PM_CHECKED;

// A value that a node of the scope makes, without a type, or a constant with its tensor, under a name that is
// new.
pm_status pm_onnx_add_output(pm_onnx_reader *r, pm_onnx_scope *scope, pm_onnx_text text,
                             const pm_tensor *constant, uint32_t *output) PM_CHECKED;

// --- other ways in

// Which nodes of a graph the value follows from: fills needed (nodes) (onnx_select.c).
pm_status pm_onnx_select(pm_wire graph, const char *output, bool *needed, size_t count) PM_CHECKED;

// Reads a node of ai.onnx.ml as nodes of the default domain, its coefficients as parameters; *taken: whether
// it is one that is known here (onnx_ml.c).
pm_status pm_onnx_add_ml(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *raw,
                         bool *taken) PM_CHECKED;

// --- what is inlined (onnx_inline.c)

pm_status pm_onnx_index_functions(pm_onnx_reader *r, pm_wire model) PM_CHECKED;

// NULL when the model has no such function.
const pm_onnx_function *pm_onnx_find_function(const pm_onnx_reader *r, pm_onnx_text domain,
                                              pm_onnx_text name);

// Reads the function's nodes in place of the node. PM_INVALID when it would not end or grow too large.
pm_status pm_onnx_call_function(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *node,
                                const pm_onnx_function *function) PM_CHECKED;

// Reads one branch's nodes in place of an If. PM_UNSUPPORTED when its condition does not follow from
// constants and shapes.
pm_status pm_onnx_take_branch(pm_onnx_reader *r, pm_onnx_scope *scope, const pm_onnx_node *node) PM_CHECKED;

// --- what exporters leave behind (onnx_forms.c)

// Brings a node that is about to be added from a form of training to that of inference, and one that makes
// half floats to float32; notes what was folded. The node's attributes are changed.
pm_status pm_onnx_settle_node(pm_graph *graph, pm_node *node, pm_attribute *attributes) PM_CHECKED;

// Drops the statistics and masks at the end of outputs that no node and no output of the graph reads.
pm_status pm_onnx_drop_unread(pm_graph *graph) PM_CHECKED;

// Makes constants again of the parameters that no output can be differentiated by, such as masks.
pm_status pm_onnx_keep_trainable(pm_graph *graph) PM_CHECKED;

// Casts an input of half floats for those who read it, and an output to the type that it is declared with.
// What an input was cast to gets its name when all others are taken.
pm_status pm_onnx_widen_input(pm_onnx_reader *r, uint32_t *value) PM_CHECKED;
pm_status pm_onnx_name_widened(pm_onnx_reader *r) PM_CHECKED;
pm_status pm_onnx_narrow_output(pm_onnx_reader *r, pm_type declared, uint32_t *value) PM_CHECKED;

// Half floats are storage: the tensor in float32, in region.
pm_status pm_onnx_widen(pm_region *region, pm_tensor *tensor) PM_CHECKED;

static inline bool pm_onnx_is_half(pm_type type)
{
    return type == PM_TYPE_F16 || type == PM_TYPE_BF16;
}
