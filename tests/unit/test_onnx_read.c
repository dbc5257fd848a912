#include "model/onnx.h"
#include "model/wire.h"
#include "tests/unit/graphs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OFFSETS = 64 };

static pm_buffer *written(const pm_graph *graph)
{
    uint64_t offsets[OFFSETS], at = 128;
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        offsets[i] = at;
        at += pm_graph_param(graph, i)->count * sizeof(float);
    }
    pm_buffer *onnx = NULL;
    NETS_OK(pm_graph_write_onnx(graph, "model.safetensors", offsets, &onnx));
    return onnx;
}

static float *inferred(const pm_graph *graph, const pm_graph *weights, size_t rows)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, (uint32_t)rows));
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        NETS_OK(pm_plan_bind(plan, i, pm_graph_param(weights, i)->initial));
    size_t inputs = rows * pm_graph_input_count(graph);
    float *x = malloc(inputs * sizeof *x), *y = malloc(rows * pm_graph_output_count(graph) * sizeof *y);
    for (size_t i = 0; i < inputs; i++)
        x[i] = nets_number(4, i);
    NETS_OK(pm_plan_infer(plan, x, (uint32_t)rows, y));
    pm_plan_destroy(&plan);
    free(x);
    return y;
}

static void check_round_trip(pm_graph *graph)
{
    pm_buffer *onnx = written(graph), *second = NULL;
    pm_graph *back = NULL;
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size));
    cr_assert_eq(pm_graph_param_count(back), pm_graph_param_count(graph));
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        const pm_param *a = pm_graph_param(graph, i), *b = pm_graph_param(back, i);
        cr_assert_str_eq(a->name, b->name);
        cr_assert(a->kind == b->kind && a->count == b->count && a->rank == b->rank &&
                  a->momentum == b->momentum);
        cr_assert(memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0);
        cr_assert_eq(b->initial, NULL);
    }
    cr_assert_str_eq(pm_graph_output_name(back), pm_graph_output_name(graph));
    float *y = inferred(graph, graph, 3), *z = inferred(back, graph, 3);
    cr_assert(memcmp(y, z, 3 * pm_graph_output_count(graph) * sizeof *y) == 0);
    second = written(back);
    cr_assert(second->size == onnx->size && memcmp(second->data, onnx->data, onnx->size) == 0);
    free(y);
    free(z);
    pm_buffer_unref(&onnx);
    pm_buffer_unref(&second);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
}

Test(onnx_read, a_written_graph_reads_back_and_gives_the_same_bits)
{
    check_round_trip(nets_mlp());
    check_round_trip(nets_cnn());
    check_round_trip(graphs_branches());
    check_round_trip(
        nets_graph(true, PM_LOSS_MEAN_SQUARED_ERROR,
                   NETS_LAYERS({.op = PM_OP_DROPOUT}, {.op = PM_OP_GEMM, .units = 4}, {.op = PM_OP_SOFTMAX},
                               {.op = PM_OP_DROPOUT}, {.op = PM_OP_DROPOUT})));
}

Test(onnx_read, unbound_external_weights_are_missed_by_name)
{
    pm_graph *graph = nets_mlp(), *back = NULL;
    pm_buffer *onnx = written(graph);
    pm_plan *plan = NULL;
    float x[11] = {0}, y[5];
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size));
    NETS_OK(pm_plan_create_inference(&plan, back, 1));
    pm_status status = pm_plan_infer(plan, x, 1, y);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "gemm1.weight"), "%s", status.message);
    cr_assert_eq(pm_plan_prepare(plan).code, PM_INVALID);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
    pm_buffer_unref(&onnx);
}

// --- models made by hand: x (N, 2) -> one node -> y

typedef struct recipe {
    const char *op, *domain;
    int64_t opset;
    int64_t data_type, rows;
    bool raw, short_data, half_data;
    const char *input, *output; // of the node
    const char *attribute;
} recipe;

static void put_value(pm_wire_out *out, uint32_t number, const char *name)
{
    size_t info = pm_wire_begin(out, number);
    pm_wire_put_text(out, ONNX_VALUE_NAME, name);
    size_t type = pm_wire_begin(out, ONNX_VALUE_TYPE), tensor = pm_wire_begin(out, ONNX_TYPE_TENSOR);
    pm_wire_put_int(out, ONNX_TENSOR_TYPE_ELEM, ONNX_FLOAT);
    size_t shape = pm_wire_begin(out, ONNX_TENSOR_TYPE_SHAPE);
    for (int64_t extent = 1; extent <= 2; extent++) {
        size_t dim = pm_wire_begin(out, ONNX_SHAPE_DIM);
        pm_wire_put_int(out, ONNX_DIM_VALUE, extent);
        pm_wire_end(out, dim);
    }
    pm_wire_end(out, shape);
    pm_wire_end(out, tensor);
    pm_wire_end(out, type);
    pm_wire_end(out, info);
}

static void put_weight(pm_wire_out *out, const recipe *r)
{
    size_t tensor = pm_wire_begin(out, ONNX_GRAPH_INITIALIZER);
    pm_wire_put_int(out, ONNX_TENSOR_DIMS, r->rows);
    pm_wire_put_int(out, ONNX_TENSOR_DIMS, 2);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, r->data_type);
    pm_wire_put_text(out, ONNX_TENSOR_NAME, "w");
    const float values[] = {1, 2, 3, 4};
    size_t count = r->short_data ? 3 : r->half_data ? 2 : 4;
    if (r->raw) {
        pm_wire_put_bytes(out, ONNX_TENSOR_RAW_DATA, values, count * sizeof(float));
    } else {
        for (size_t i = 0; i < count; i++)
            pm_wire_put_float(out, ONNX_TENSOR_FLOAT_DATA, values[i]);
    }
    pm_wire_end(out, tensor);
}

static pm_status read_recipe(const recipe *r, pm_graph **graph)
{
    pm_wire_out out = {0};
    size_t opset = pm_wire_begin(&out, ONNX_MODEL_OPSET_IMPORT);
    pm_wire_put_int(&out, ONNX_OPSET_VERSION, r->opset);
    pm_wire_end(&out, opset);
    size_t g = pm_wire_begin(&out, ONNX_MODEL_GRAPH), node = pm_wire_begin(&out, ONNX_GRAPH_NODE);
    pm_wire_put_text(&out, ONNX_NODE_INPUT, r->input);
    if (strcmp(r->op, "Gemm") == 0)
        pm_wire_put_text(&out, ONNX_NODE_INPUT, "w");
    pm_wire_put_text(&out, ONNX_NODE_OUTPUT, r->output);
    pm_wire_put_text(&out, ONNX_NODE_NAME, "odd one");
    pm_wire_put_text(&out, ONNX_NODE_OP_TYPE, r->op);
    pm_wire_put_text(&out, ONNX_NODE_DOMAIN, r->domain);
    if (strcmp(r->op, "Gemm") == 0) {
        size_t attribute = pm_wire_begin(&out, ONNX_NODE_ATTRIBUTE);
        pm_wire_put_text(&out, ONNX_ATTRIBUTE_NAME, r->attribute);
        pm_wire_put_int(&out, ONNX_ATTRIBUTE_I, 1);
        pm_wire_put_int(&out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_INT);
        pm_wire_end(&out, attribute);
    }
    pm_wire_end(&out, node);
    put_weight(&out, r);
    put_value(&out, ONNX_GRAPH_INPUT, "x");
    put_value(&out, ONNX_GRAPH_OUTPUT, "y");
    pm_wire_end(&out, g);
    pm_status status = pm_graph_read_onnx(graph, out.data, out.size);
    free(out.data);
    return status;
}

static const recipe GOOD = {.op = "Gemm",
                            .domain = "",
                            .opset = 13,
                            .data_type = ONNX_FLOAT,
                            .rows = 2,
                            .input = "x",
                            .output = "y",
                            .attribute = "transB"};

Test(onnx_read, inline_weights_become_initial_values)
{
    pm_graph *graph = NULL;
    NETS_OK(read_recipe(&GOOD, &graph));
    cr_assert_eq(pm_graph_param_count(graph), 1);
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(pm_graph_param(graph, 0)->initial[i], (float)(i + 1));
    pm_graph_destroy(&graph);
}

static void check_refused(recipe r, pm_code code, const char *cause)
{
    pm_graph *graph = NULL;
    pm_status status = read_recipe(&r, &graph);
    cr_assert_eq(status.code, code, "%s", status.message);
    cr_assert(strstr(status.message, cause), "%s", status.message);
    cr_assert_eq(graph, NULL);
}

Test(onnx_read, an_unknown_operator_is_named_with_node_domain_and_opset)
{
    recipe r = GOOD;
    r.op = "Det";
    check_refused(r, PM_UNSUPPORTED, "node odd one: operator Det of domain '', opset 13");
    r = GOOD;
    r.domain = "com.acme";
    check_refused(r, PM_UNSUPPORTED, "operator Gemm of domain 'com.acme', opset 13");
}

Test(onnx_read, what_is_not_built_or_does_not_fit_is_refused_by_name)
{
    recipe r = GOOD;
    r.opset = 0;
    check_refused(r, PM_UNSUPPORTED, "opset 0");
    r.opset = 5;
    check_refused(r, PM_INVALID, "2 inputs, wanted 3"); // C was not optional then
    r.opset = 18;
    check_refused(r, PM_UNSUPPORTED, "opset 18");
    r = GOOD;
    r.data_type = 14;
    check_refused(r, PM_UNSUPPORTED, "w has data type 14");
    r = GOOD;
    r.rows = INT64_C(1) << 40;
    check_refused(r, PM_INVALID, "w: its shape");
    r = GOOD;
    r.rows = -2;
    check_refused(r, PM_INVALID, "w: its shape");
    r = GOOD;
    r.rows = 1 << 28;
    check_refused(r, PM_INVALID, "w: 16 bytes of data");
    r = GOOD;
    r.short_data = true;
    check_refused(r, PM_INVALID, "w: 12 bytes of data for 4");
    r = GOOD;
    r.raw = r.short_data = true;
    check_refused(r, PM_INVALID, "w: 12 bytes of data for 4");
    r = GOOD;
    r.input = "elsewhere";
    check_refused(r, PM_INVALID, "node odd one (Gemm): input elsewhere is made by no node");
    r.input = "y";
    check_refused(r, PM_INVALID, "node odd one (Gemm): input y is made later: a cycle");
    r = GOOD;
    r.output = "x";
    check_refused(r, PM_INVALID, "node odd one (Gemm): two values have the name x");
    r.output = "w";
    check_refused(r, PM_INVALID, "node odd one (Gemm): two values have the name w");
    r.output = "z";
    check_refused(r, PM_INVALID, "output y is made by no node");
    r = GOOD;
    r.attribute = "transC";
    check_refused(r, PM_UNSUPPORTED, "node odd one (Gemm): attribute transC");
    r = GOOD;
    r.op = "Relu\n";
    check_refused(r, PM_INVALID, "control character");
}

// A model x (N, 2) -> Constant c, of all kinds of value, -> Add -> y.
static pm_status read_constant(void (*put)(pm_wire_out *out), pm_graph **graph)
{
    pm_wire_out out = {0};
    size_t opset = pm_wire_begin(&out, ONNX_MODEL_OPSET_IMPORT);
    pm_wire_put_int(&out, ONNX_OPSET_VERSION, 13);
    pm_wire_end(&out, opset);
    size_t g = pm_wire_begin(&out, ONNX_MODEL_GRAPH), node = pm_wire_begin(&out, ONNX_GRAPH_NODE);
    pm_wire_put_text(&out, ONNX_NODE_OUTPUT, "c");
    pm_wire_put_text(&out, ONNX_NODE_OP_TYPE, "Constant");
    size_t attribute = pm_wire_begin(&out, ONNX_NODE_ATTRIBUTE);
    put(&out);
    pm_wire_end(&out, attribute);
    pm_wire_end(&out, node);
    node = pm_wire_begin(&out, ONNX_GRAPH_NODE);
    pm_wire_put_text(&out, ONNX_NODE_INPUT, "x");
    pm_wire_put_text(&out, ONNX_NODE_INPUT, "c");
    pm_wire_put_text(&out, ONNX_NODE_OUTPUT, "y");
    pm_wire_put_text(&out, ONNX_NODE_OP_TYPE, "Add");
    pm_wire_end(&out, node);
    put_value(&out, ONNX_GRAPH_INPUT, "x");
    put_value(&out, ONNX_GRAPH_OUTPUT, "y");
    pm_wire_end(&out, g);
    pm_status status = pm_graph_read_onnx(graph, out.data, out.size);
    free(out.data);
    return status;
}

static void put_float(pm_wire_out *out)
{
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, "value_float");
    pm_wire_put_float(out, ONNX_ATTRIBUTE_F, 0.5f);
}

static void put_floats(pm_wire_out *out)
{
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, "value_floats");
    pm_wire_put_float(out, ONNX_ATTRIBUTE_FLOATS, 0.5f);
    pm_wire_put_float(out, ONNX_ATTRIBUTE_FLOATS, 0.5f);
}

static void put_tensor(pm_wire_out *out)
{
    const float values[] = {0.5f, 0.5f};
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, "value");
    size_t tensor = pm_wire_begin(out, ONNX_ATTRIBUTE_T);
    pm_wire_put_int(out, ONNX_TENSOR_DIMS, 2);
    pm_wire_put_int(out, ONNX_TENSOR_DATA_TYPE, ONNX_FLOAT);
    pm_wire_put_bytes(out, ONNX_TENSOR_FLOAT_DATA, values, sizeof values);
    pm_wire_end(out, tensor);
}

static void put_int(pm_wire_out *out)
{
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, "value_int");
    pm_wire_put_int(out, ONNX_ATTRIBUTE_I, 1);
}

Test(onnx_read, constant_nodes_are_constants_and_not_trained)
{
    void (*const puts[])(pm_wire_out *) = {put_float, put_floats, put_tensor};
    const float x[] = {1, 2};
    for (size_t i = 0; i < 3; i++) {
        pm_graph *graph = NULL;
        pm_plan *plan = NULL;
        float y[2] = {0};
        NETS_OK(read_constant(puts[i], &graph));
        cr_assert_eq(pm_graph_param_count(graph), 0);
        NETS_OK(pm_plan_create_inference(&plan, graph, 1));
        NETS_OK(pm_plan_infer(plan, x, 1, y));
        cr_assert(y[0] == 1.5f && y[1] == 2.5f);
        pm_plan_destroy(&plan);
        pm_graph_destroy(&graph);
    }
    pm_graph *graph = NULL;
    pm_status status = read_constant(put_int, &graph);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "Add_1 (Add): inputs are float32 and int64"), "%s", status.message);
}

Test(onnx_read, a_batch_written_into_the_graph_is_refused)
{
    pm_graph *g = graphs_create(), *back = NULL;
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(8));
    const uint32_t fixed = graphs_integers(g, "fixed", (const int64_t[]){4, -1}, 2);
    const pm_tensor unknown = {0};
    uint32_t y = PM_NO_VALUE;
    NETS_OK(pm_graph_add_value(g, "y", &unknown, &y));
    NETS_OK(pm_graph_add_node(g, &(pm_node){.op = pm_operator_find("", "Reshape", 13),
                                            .name = "reshape",
                                            .inputs = (const uint32_t[]){x, fixed},
                                            .input_count = 2,
                                            .outputs = &y,
                                            .output_count = 1}));
    graphs_finish(g, y);
    pm_buffer *onnx = written(g);
    pm_status status = pm_graph_read_onnx(&back, onnx->data, onnx->size);
    cr_assert_eq(status.code, PM_UNSUPPORTED);
    cr_assert(strstr(status.message, "y has shape (4, 2) for one row and (4, 4) for two"), "%s",
              status.message);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&g);
}

Test(onnx_read, bytes_that_are_no_model_are_refused)
{
    pm_graph *graph = NULL;
    cr_assert_eq(pm_graph_read_onnx(&graph, "", 0).code, PM_CORRUPT);
    cr_assert_eq(pm_graph_read_onnx(&graph, "{\"a\": 1}", 8).code, PM_CORRUPT);
    pm_graph *whole = nets_cnn();
    pm_buffer *onnx = written(whole);
    for (size_t size = 0; size < onnx->size; size++)
        if (pm_graph_read_onnx(&graph, onnx->data, size).code == PM_OK)
            pm_graph_destroy(&graph);
    cr_assert_eq(graph, NULL);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&whole);
}

// Changes one to four places: a byte, a bit, a copied stretch or a cut.
static size_t mutate(unsigned char *bytes, size_t size, uint64_t trial)
{
    pm_rng_key key = pm_rng_key_make(trial, "mutations");
    uint64_t changes = 1 + pm_rng_below(key, 0, 0, 4);
    for (uint64_t c = 1; c <= changes && size > 1; c++) {
        size_t at = pm_rng_below(key, 1, c, size), from = pm_rng_below(key, 2, c, size);
        size_t length = pm_rng_below(key, 3, c, 40);
        length = at + length > size ? size - at : length;
        length = from + length > size ? size - from : length;
        switch (pm_rng_below(key, 4, c, 8)) {
        case 0:
            memmove(bytes + at, bytes + from, length);
            break;
        case 1:
            memmove(bytes + at, bytes + at + length, size - at - length);
            size -= length;
            break;
        case 2:
            bytes[at] = 0xFF;
            break;
        case 3:
            size = at + 1;
            break;
        case 4:
            bytes[at] ^= (unsigned char)(1u << pm_rng_below(key, 5, c, 8));
            break;
        default:
            bytes[at] = (unsigned char)pm_rng_below(key, 5, c, 256);
        }
    }
    return size;
}

Test(onnx_read, a_hundred_thousand_mutations_do_no_harm, .timeout = 120)
{
    pm_graph *graphs[] = {nets_mlp(), nets_cnn(), graphs_branches()};
    pm_buffer *models[] = {written(graphs[0]), written(graphs[1]), written(graphs[2])};
    size_t accepted = 0;
    for (uint64_t trial = 0; trial < 100000; trial++) {
        const pm_buffer *model = models[trial % 3];
        unsigned char *copy =
            malloc(model->size); // of exact size: a read beyond the end is seen by the sanitizer
        memcpy(copy, model->data, model->size);
        size_t size = mutate(copy, model->size, trial);
        unsigned char *exact = malloc(size);
        memcpy(exact, copy, size);
        pm_graph *graph = NULL;
        pm_status status = pm_graph_read_onnx(&graph, exact, size);
        cr_assert((status.code == PM_OK) == (graph != NULL));
        cr_assert(status.code == PM_OK || status.message[0]);
        accepted += status.code == PM_OK;
        pm_graph_destroy(&graph);
        free(exact);
        free(copy);
    }
    cr_assert(accepted > 1000 && accepted < 99000, "%zu accepted", accepted);
    for (size_t i = 0; i < 3; i++) {
        pm_buffer_unref(&models[i]);
        pm_graph_destroy(&graphs[i]);
    }
}
