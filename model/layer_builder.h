#pragma once
// Short notation for appending nodes to a source graph while layers become ONNX operators. A failure sticks:
// what follows does nothing and gives PM_NO_VALUE.
#include "model/graph_impl.h"

enum { PM_LAYER_KINDS = PM_OP_DOT_INTERACTION + 1, PM_LAYER_NAME = 160 };

// A list of layers while it is built, and the list that holds it.
typedef struct pm_layer_list {
    const pm_layer *layers;
    uint32_t count, at;
    const struct pm_layer_list *outer; // NULL: this is the model's
} pm_layer_list;

typedef struct pm_layer_builder {
    pm_graph *graph;
    const pm_job *job;
    pm_layer_list *list;              // being built
    uint32_t numbers[PM_LAYER_KINDS]; // layers of each kind so far
    uint32_t value;                   // the running activation
    bool attentive;                   // the model attends: initial values are GPT-2's
    uint32_t blocks;                  // Transformer layers of the model
    char name[PM_LAYER_NAME];         // of the layer, or part of one, that is built: "transformer1.norm1"
    pm_status status;
} pm_layer_builder;

// Initial values: a constant, uniform in +-size, or normal with deviation size.
typedef struct pm_initial {
    enum { PM_INITIAL_CONSTANT, PM_INITIAL_UNIFORM, PM_INITIAL_NORMAL } kind;
    double size;
} pm_initial;

// The type and shape of a value: a copy, since values move.
pm_tensor pm_layer_tensor(const pm_layer_builder *b, uint32_t value);

// Goes into a part of the layer; what it gives is for the way back.
size_t pm_layer_enter(pm_layer_builder *b, const char *part);
void pm_layer_leave(pm_layer_builder *b, size_t back);

void pm_layer_fail(pm_layer_builder *b, pm_status status);

// The parameter NAME.role.
uint32_t pm_layer_param(pm_layer_builder *b, const char *role, const int64_t *shape, uint32_t rank,
                        pm_initial initial);

// The constant NAME.role, whose elements are copied: of any type, a list of whole numbers, a float32 scalar.
uint32_t pm_layer_constant(pm_layer_builder *b, const char *role, pm_type type, const int64_t *shape,
                           uint32_t rank, const void *values);
uint32_t pm_layer_ints(pm_layer_builder *b, const char *role, const int64_t *values, uint32_t count);
uint32_t pm_layer_number(pm_layer_builder *b, const char *role, float value);

// The node NAME, or NAME.part where part is given, of the graph's opset; its outputs are NODE.y, NODE.y1 ...
void pm_layer_nodes(pm_layer_builder *b, const char *part, const char *op, const uint32_t *inputs,
                    uint32_t input_count, const pm_attribute *attributes, uint32_t attribute_count,
                    uint32_t *outputs, uint32_t output_count);

// The same with one output.
uint32_t pm_layer_node(pm_layer_builder *b, const char *part, const char *op, const uint32_t *inputs,
                       uint32_t input_count, const pm_attribute *attributes, uint32_t attribute_count);
uint32_t pm_layer_1(pm_layer_builder *b, const char *part, const char *op, uint32_t x);
uint32_t pm_layer_2(pm_layer_builder *b, const char *part, const char *op, uint32_t x, uint32_t y);

// The initial weights of a layer of fan_in inputs and fan_out outputs at the list's place: see
// pm_graph_from_job.
pm_initial pm_layer_initial(const pm_layer_builder *b, double fan_in, double fan_out);

// The layers of a list, called name in messages, from the running activation on (layers.c).
void pm_layer_build(pm_layer_builder *b, const char *name, const pm_layer *layers, uint32_t count);

// Layers of several nodes (layer_blocks.c, layer_interaction.c): from the running activation to its
// successor.
void pm_layer_gelu(pm_layer_builder *b);
void pm_layer_global_pool(pm_layer_builder *b);
void pm_layer_norm(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_matmul(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_embedding(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_positions(pm_layer_builder *b);
void pm_layer_attention(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_transformer(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_recurrent(pm_layer_builder *b, const pm_layer *layer);
void pm_layer_interaction(pm_layer_builder *b, const pm_layer *layer);
