#include "model/onnx_upgrade.h"

#include "model/plan.h"
#include "tests/unit/graphs.h"

#include <string.h>

// The graph written and read again, with its parameters' values.
static pm_graph *there_and_back(const pm_graph *graph)
{
    pm_graph *back = NULL;
    pm_buffer *onnx = NULL;
    NETS_OK(pm_graph_write_onnx(graph, "weights", (const uint64_t[8]){0}, &onnx));
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size));
    pm_buffer_unref(&onnx);
    return back;
}

static void check_same_answers(const pm_graph *a, const pm_graph *b)
{
    enum { ROWS = 3 };
    const pm_graph *graphs[] = {a, b};
    float x[ROWS * 64], y[2][ROWS * 64];
    const size_t inputs = pm_graph_input_count(a), outputs = pm_graph_output_count(a);
    cr_assert_eq(outputs, pm_graph_output_count(b));
    for (size_t i = 0; i < ROWS * inputs; i++)
        x[i] = 3 * nets_number(1, i);
    for (int i = 0; i < 2; i++) {
        pm_plan *plan = NULL;
        NETS_OK(pm_plan_create_inference(&plan, graphs[i], ROWS));
        NETS_OK(pm_plan_infer(plan, x, ROWS, y[i]));
        pm_plan_destroy(&plan);
    }
    cr_assert_eq(memcmp(y[0], y[1], ROWS * outputs * sizeof(float)), 0);
}

static pm_graph *softmax(int64_t opset, int64_t axis, const char *input)
{
    pm_graph *g = graphs_create();
    g->opset = opset;
    const uint32_t x = graphs_input(g, input, GRAPHS_SHAPE(3, 4));
    const pm_attribute at = pm_attribute_int("axis", axis);
    return graphs_finish(
        g, graphs_node(g, "Relu", GRAPHS_VALUES(graphs_node_with(g, "Softmax", GRAPHS_VALUES(x), &at, 1))));
}

Test(onnx_upgrade, a_softmax_over_all_from_an_axis_on_means_the_same_in_opset_13)
{
    for (int64_t axis = 1; axis < 3; axis++) {
        pm_graph *graph = softmax(9, axis, "x"), *back = there_and_back(graph);
        cr_assert_eq(back->opset, 13);
        check_same_answers(graph, back);
        pm_graph_destroy(&back);
        pm_graph_destroy(&graph);
    }
}

Test(onnx_upgrade, added_names_are_nobodys)
{
    pm_graph *graph = softmax(9, 1, "upgraded.0.flat"), *back = there_and_back(graph);
    cr_assert_eq(back->opset, 13);
    check_same_answers(graph, back);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
}

Test(onnx_upgrade, newer_models_keep_their_opset_and_nodes)
{
    pm_graph *graph = softmax(15, 1, "x"), *back = there_and_back(graph);
    cr_assert_eq(back->opset, 15);
    cr_assert_eq(back->node_count, graph->node_count);
    check_same_answers(graph, back);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
}

Test(onnx_upgrade, settings_move_where_their_opset_has_them_as_attributes_only)
{
    cr_assert_eq(pm_onnx_find_move("Unsqueeze", "axes", 12)->input, 1);
    cr_assert_null(pm_onnx_find_move("Unsqueeze", "axes", 13));
    cr_assert_eq(pm_onnx_find_move("Clip", "max", 7)->input, 2);
    cr_assert_null(pm_onnx_find_move("Clip", "max", 11));
    cr_assert_eq(pm_onnx_find_move("Slice", "axes", 9)->input, 3);
    cr_assert_null(pm_onnx_find_move("ReduceMean", "axes", 9));
}

Test(onnx_upgrade, numbers_become_scalars_and_lists_vectors)
{
    pm_region *region = pm_region_create();
    const pm_attribute number = pm_attribute_float("min", 2.5f), one = pm_attribute_int("k", 3),
                       list = pm_attribute_ints("axes", (const int64_t[]){0, -1}, 2);
    const pm_tensor *a = pm_onnx_attribute_tensor(&number, region),
                    *b = pm_onnx_attribute_tensor(&one, region), *c = pm_onnx_attribute_tensor(&list, region);
    cr_assert(a->type == PM_TYPE_F32 && a->rank == 0 && a->count == 1);
    cr_assert_eq(*(const float *)a->data, 2.5f);
    cr_assert(b->type == PM_TYPE_I64 && b->rank == 1 && b->shape[0] == 1);
    cr_assert_eq(*(const int64_t *)b->data, 3);
    cr_assert(c->rank == 1 && c->shape[0] == 2 && ((const int64_t *)c->data)[1] == -1);
    pm_region_destroy(&region);
}

// x (N, 1, 4, 4) made 2 and 1.5 times as large.
static pm_graph *resize(int64_t opset, const char *op, const char *mode)
{
    pm_graph *g = graphs_create();
    g->opset = opset;
    const float factors[] = {1, 1, 2, 1.5f};
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(1, 4, 4));
    uint32_t inputs[] = {x, PM_NO_VALUE};
    pm_attribute attributes[] = {
        {.name = "mode", .type = PM_ATTRIBUTE_STRING, .s = mode},
        {.name = "scales", .type = PM_ATTRIBUTE_FLOATS, .floats = factors, .count = 4}};
    if (opset > 8) {
        pm_tensor scales = graphs_tensor(PM_TYPE_F32, GRAPHS_SHAPE(4));
        scales.data = pm_region_copy(g->region, factors, sizeof factors);
        NETS_OK(pm_graph_add_constant(g, "scales", &scales, &inputs[1]));
    }
    const uint32_t y = graphs_node_with(g, op, inputs, opset > 8 ? 2 : 1, attributes, opset > 8 ? 1 : 2);
    g->values[y].tensor = graphs_tensor(PM_TYPE_F32, GRAPHS_SHAPE(1, 1, 8, 6));
    g->values[y].batched = true;
    return graphs_finish(g, y);
}

Test(onnx_upgrade, what_made_images_larger_is_a_resize_in_opset_13)
{
    pm_graph *graphs[] = {resize(7, "Upsample", "nearest"), resize(9, "Upsample", "linear"),
                          resize(10, "Resize", "nearest"), resize(10, "Resize", "linear")};
    for (size_t i = 0; i < 4; i++) {
        pm_graph *back = there_and_back(graphs[i]);
        cr_assert_eq(back->opset, 13);
        cr_assert_str_eq(back->nodes[0].op->name, "Resize");
        check_same_answers(graphs[i], back);
        pm_graph_destroy(&back);
        pm_graph_destroy(&graphs[i]);
    }
}
