#include "tests/unit/models.h"

enum { NODE = ONNX_GRAPH_NODE };

static const float ONES[] = {1, 1}, FOURS[] = {4, 4};

static pm_graph *read_good(models_parts parts)
{
    pm_graph *graph = NULL;
    NETS_OK(models_read(&graph, parts));
    return graph;
}

// --- equal values merged

static void tied(pm_wire_out *out)
{
    models_tensor(out, "a.weight", PM_TYPE_F32, 2, FOURS);
    models_node(out, NODE, "Identity", "a.weight", "b.weight");
    models_node(out, NODE, "Mul", "x a.weight", "t");
    models_node(out, NODE, "Add", "t b.weight", "y");
}

Test(onnx_forms, a_weight_under_two_names_is_two_parameters_and_that_is_said)
{
    pm_graph *graph = read_good((models_parts){.graph = tied});
    cr_assert_eq(pm_graph_param_count(graph), 2);
    cr_assert_str_eq(pm_graph_param(graph, 0)->name, "a.weight");
    cr_assert_str_eq(pm_graph_param(graph, 1)->name, "b.weight");
    cr_assert_eq(pm_graph_param(graph, 1)->initial[1], 4);
    cr_assert_eq(pm_graph_notes(graph), 1);
    cr_assert(strstr(pm_graph_note(graph, 0), "a.weight and b.weight"), "%s", pm_graph_note(graph, 0));
    models_gives(graph, 8, 12);
}

// --- batch normalization in training forms

static void put_norm(pm_wire_out *out, bool mode, const char *outputs)
{
    models_tensor(out, "scale", PM_TYPE_F32, 2, ONES);
    models_tensor(out, "bias", PM_TYPE_F32, 2, ONES);
    models_tensor(out, "mean", PM_TYPE_F32, 2, ONES);
    models_tensor(out, "var", PM_TYPE_F32, 2, FOURS);
    const size_t node = models_open_node(out, NODE, "BatchNormalization", "x scale bias mean var", outputs);
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "epsilon", ONNX_ATTRIBUTE_TYPE_FLOAT, 1e-9);
    if (mode)
        models_attribute(out, ONNX_NODE_ATTRIBUTE, "training_mode", ONNX_ATTRIBUTE_TYPE_INT, 1);
    pm_wire_end(out, node);
}

static void five_outputs(pm_wire_out *out)
{
    put_norm(out, false, "y m v saved_m saved_v");
}

static void training_mode(pm_wire_out *out)
{
    put_norm(out, true, "y m v");
}

static void reads_statistics(pm_wire_out *out)
{
    put_norm(out, true, "t m v");
    models_node(out, NODE, "Add", "t m", "y");
}

static void check_norm(models_parts parts)
{
    pm_graph *graph = read_good(parts), *back = NULL;
    pm_plan *plan = NULL;
    pm_buffer *onnx = NULL;
    const uint64_t offsets[4] = {0};
    cr_assert_eq(pm_graph_param_count(graph), 4);
    cr_assert_eq(pm_graph_param(graph, 2)->kind, PM_PARAM_STATISTIC);
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_MEAN_SQUARED_ERROR, 4, 1, 4));
    pm_step step = {.lane_count = 1};
    for (size_t i = 0; i < 8; i++)
        pm_plan_input(plan)[i] = (float)i;
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert_eq(pm_plan_gradient(plan, 2)[0], 3); // the mean of 0, 2, 4, 6
    pm_plan_destroy(&plan);
    NETS_OK(pm_graph_write_onnx(graph, "weights", offsets, &onnx));
    cr_assert_eq(memmem(onnx->data, onnx->size, "training_mode", 13), NULL);
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size));
    pm_graph_destroy(&back);
    pm_buffer_unref(&onnx);
    models_gives(graph, 1, 1.5f); // by the running statistics
}

Test(onnx_forms, batch_normalization_in_either_form_of_training_trains_and_is_written_for_inference)
{
    check_norm((models_parts){.graph = five_outputs, .opset = 13});
    check_norm((models_parts){.graph = five_outputs, .opset = 9});
    check_norm((models_parts){.graph = training_mode, .opset = 14});
    models_refused((models_parts){.graph = reads_statistics, .opset = 14}, PM_UNSUPPORTED,
                   "the statistics as outputs");
}

// --- half floats

static const uint16_t HALVES[] = {0x3C00, 0xC000}; // 1, -2
static const uint16_t BRAINS[] = {0x3F80, 0xC000};

static void half_weights(pm_wire_out *out)
{
    models_tensor(out, "w", PM_TYPE_F16, 2, HALVES);
    models_node(out, NODE, "Mul", "x w", "y");
}

static void brain_weights(pm_wire_out *out)
{
    models_tensor(out, "w", PM_TYPE_BF16, 2, BRAINS);
    models_node(out, NODE, "Mul", "x w", "y");
}

static void check_half(void (*body)(pm_wire_out *), pm_type type, const uint16_t x[2], const uint16_t y[2])
{
    pm_graph *graph = read_good((models_parts){.graph = body, .input = type, .output = type}), *back = NULL;
    pm_plan *plan = NULL;
    pm_buffer *onnx = NULL;
    const uint64_t offset = 0;
    uint16_t got[2] = {0};
    NETS_OK(pm_graph_write_onnx(graph, "weights", &offset, &onnx));
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size));
    cr_assert(pm_graph_input(back, 0)->type == type && pm_graph_output(back, 0)->type == type);
    pm_graph_destroy(&back);
    pm_buffer_unref(&onnx);
    cr_assert_eq(pm_graph_param_count(graph), 1);
    cr_assert(pm_graph_param(graph, 0)->initial[0] == 1 && pm_graph_param(graph, 0)->initial[1] == -2);
    cr_assert(pm_graph_input(graph, 0)->type == type && pm_graph_output(graph, 0)->type == type);
    cr_assert_str_eq(pm_graph_output_name(graph), "y");
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    NETS_OK(pm_plan_run(plan, (const void *const[]){x}, 1, (void *const[]){got}));
    cr_assert(memcmp(got, y, sizeof got) == 0, "%x %x", got[0], got[1]);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(onnx_forms, half_floats_are_storage_of_float32_parameters_inputs_and_outputs)
{
    const uint16_t minus_half[] = {0x3C00, 0x4400}; // 1, 4
    check_half(half_weights, PM_TYPE_F16, HALVES, minus_half);
    const uint16_t minus_brain[] = {0x3F80, 0x4080};
    check_half(brain_weights, PM_TYPE_BF16, BRAINS, minus_brain);
    models_gives(read_good((models_parts){.graph = half_weights}), 1, -4);
}

static void output_is_a_weight(pm_wire_out *out)
{
    models_tensor(out, "y", PM_TYPE_F16, 2, HALVES);
    models_node(out, NODE, "Neg", "x", "t");
}

Test(onnx_forms, what_half_floats_cannot_be_is_refused)
{
    models_refused((models_parts){.graph = output_is_a_weight, .output = PM_TYPE_F16}, PM_UNSUPPORTED,
                   "output y of float16 is an input or a constant");
}

// --- versions and folded norms

static void convolves(pm_wire_out *out)
{
    models_tensor(out, "12", PM_TYPE_F32, 2, ONES);
    models_node(out, NODE, "Add", "x 12", "y");
}

Test(onnx_forms, a_newer_ir_version_is_refused_with_what_to_do)
{
    models_gives(read_good((models_parts){.graph = convolves, .ir_version = 3}), 2, 3);
    models_refused((models_parts){.graph = convolves, .ir_version = 9}, PM_UNSUPPORTED,
                   "IR version 9, built for up to 8: export it for opset 17 or an older one");
}

static void masks(pm_wire_out *out)
{
    models_tensor(out, "mask", PM_TYPE_F32, 2, ONES);
    models_tensor(out, "w", PM_TYPE_F32, 2, FOURS);
    models_node(out, NODE, "Equal", "mask w", "hit");
    models_node(out, NODE, "Where", "hit x w", "y");
}

Test(onnx_forms, what_no_output_can_be_differentiated_by_is_no_parameter)
{
    pm_graph *graph = read_good((models_parts){.graph = masks});
    cr_assert_eq(pm_graph_param_count(graph), 1);
    cr_assert_str_eq(pm_graph_param(graph, 0)->name, "w");
    models_gives(graph, 4, 4);
}
