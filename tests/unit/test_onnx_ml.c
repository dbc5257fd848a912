#include "tests/unit/models.h"

#include <math.h>

enum { NODE = ONNX_GRAPH_NODE };

static void put_floats(pm_wire_out *out, const char *name, const float *values, int count)
{
    const size_t attribute = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, name);
    for (int i = 0; i < count; i++)
        pm_wire_put_float(out, ONNX_ATTRIBUTE_FLOATS, values[i]);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_FLOATS);
    pm_wire_end(out, attribute);
}

static void put_text(pm_wire_out *out, const char *name, const char *text)
{
    const size_t attribute = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, name);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_S, text);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, ONNX_ATTRIBUTE_TYPE_STRING);
    pm_wire_end(out, attribute);
}

// The class labels, 7 and 9, or two texts.
static void put_labels(pm_wire_out *out, bool texts)
{
    const size_t attribute = pm_wire_begin(out, ONNX_NODE_ATTRIBUTE);
    pm_wire_put_text(out, ONNX_ATTRIBUTE_NAME, texts ? "classlabels_strings" : "classlabels_ints");
    for (int label = 7; label <= 9; label += 2)
        if (texts)
            pm_wire_put_text(out, ONNX_ATTRIBUTE_STRINGS, label == 7 ? "cat" : "dog");
        else
            pm_wire_put_int(out, ONNX_ATTRIBUTE_INTS, label);
    pm_wire_put_int(out, ONNX_ATTRIBUTE_TYPE, texts ? ONNX_ATTRIBUTE_TYPE_STRINGS : ONNX_ATTRIBUTE_TYPE_INTS);
    pm_wire_end(out, attribute);
}

// Scores 1 - 2 + 0.5 = -0.5 and 3 + 8 - 1 = 10 of x = (1, 2).
static void put_classifier(pm_wire_out *out, const char *outputs, bool texts, const char *transform)
{
    static const float weights[] = {1, -1, 3, 4}, biases[] = {0.5f, -1};
    const size_t node = models_open_node(out, NODE, "ai.onnx.ml.LinearClassifier", "x", outputs);
    put_floats(out, "coefficients", weights, 4);
    put_floats(out, "intercepts", biases, 2);
    put_labels(out, texts);
    put_text(out, "post_transform", transform);
    pm_wire_end(out, node);
}

static void classifier(pm_wire_out *out)
{
    put_classifier(out, "label y", false, "LOGISTIC");
}

// As scikit-learn's exporter ends a model: the scores become a list of maps.
static void with_maps(pm_wire_out *out)
{
    put_classifier(out, "label scores", true, "SOFTMAX");
    models_node(out, NODE, "ai.onnx.ml.ZipMap", "scores", "y");
}

static pm_status read(pm_graph **graph, void (*parts)(pm_wire_out *out), const char *output)
{
    pm_wire_out out = {0};
    const models_parts model = {.graph = parts};
    models_write(&out, &model);
    pm_status status = pm_graph_read_onnx_in(graph, out.data, out.size, NULL, output);
    free(out.data);
    return status;
}

Test(onnx_ml, a_linear_classifier_has_its_coefficients_as_parameters)
{
    pm_graph *graph = NULL;
    NETS_OK(read(&graph, classifier, NULL));
    cr_assert_eq(pm_graph_param_count(graph), 2);
    cr_assert_eq(pm_graph_param(graph, 0)->rank, 2);
    cr_assert_eq(pm_graph_param(graph, 0)->initial[3], 4);
    models_gives(graph, 1 / (1 + expf(0.5f)), 1 / (1 + expf(-10)));
}

Test(onnx_ml, the_values_behind_the_scores_can_be_chosen_and_the_rest_is_not_read)
{
    pm_graph *graph = NULL;
    cr_assert_eq(read(&graph, with_maps, NULL).code, PM_UNSUPPORTED);
    NETS_OK(read(&graph, with_maps, "scores.logits"));
    cr_assert_str_eq(pm_graph_output_name(graph), "scores.logits");
    models_gives(graph, -0.5f, 10);
    pm_status status = read(&graph, with_maps, "nothing");
    cr_assert(strstr(status.message, "no node makes a value nothing"), "%s", status.message);
}

Test(onnx_ml, a_step_goes_to_the_coefficients)
{
    pm_graph *graph = NULL;
    pm_plan *plan = NULL;
    NETS_OK(read(&graph, with_maps, "scores.logits"));
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 1, 1, 1));
    pm_step step = {.lane_count = 1};
    const float x[] = {1, 2};
    memcpy(pm_plan_input(plan), x, sizeof x);
    *(int32_t *)pm_plan_target(plan) = 0;
    NETS_OK(pm_plan_step(plan, &step));
    const float share = 1 / (1 + expf(-10.5f)); // of the second class
    cr_assert_float_eq(pm_plan_gradient(plan, 0)[3], 2 * share, 1e-5);
    cr_assert_float_eq(pm_plan_gradient(plan, 1)[1], share, 1e-5);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

static void best(pm_wire_out *out)
{
    put_classifier(out, "label scores", false, "NONE");
    const size_t node = models_open_node(out, NODE, "Cast", "label", "number");
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "to", ONNX_ATTRIBUTE_TYPE_INT, PM_TYPE_F32);
    pm_wire_end(out, node);
    models_tensor(out, "shape", PM_TYPE_I64, 2, (const int64_t[]){-1, 1});
    models_node(out, NODE, "Reshape", "number shape", "column");
    models_node(out, NODE, "Add", "column scores", "y");
}

Test(onnx_ml, labels_are_those_of_the_largest_scores)
{
    pm_graph *graph = NULL;
    NETS_OK(read(&graph, best, NULL));
    models_gives(graph, 8.5f, 19);
}

static void pipeline(pm_wire_out *out)
{
    static const float offset[] = {0, 1}, scale[] = {3, 8}, weights[] = {2, 0, 0, 1};
    size_t node = models_open_node(out, NODE, "ai.onnx.ml.Scaler", "x", "a"); // (3, 8)
    put_floats(out, "offset", offset, 2);
    put_floats(out, "scale", scale, 2);
    pm_wire_end(out, node);
    node = models_open_node(out, NODE, "ai.onnx.ml.Normalizer", "a", "b"); // (3 / 8, 1)
    put_text(out, "norm", "MAX");
    pm_wire_end(out, node);
    models_tensor(out, "columns", PM_TYPE_I64, 2, (const int64_t[]){1, 0});
    models_node(out, NODE, "ai.onnx.ml.ArrayFeatureExtractor", "b columns", "c"); // (1, 3 / 8)
    node = models_open_node(out, NODE, "ai.onnx.ml.LinearRegressor", "c", "d");   // (2, 3 / 8)
    put_floats(out, "coefficients", weights, 4);
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "targets", ONNX_ATTRIBUTE_TYPE_INT, 2);
    pm_wire_end(out, node);
    node = models_open_node(out, NODE, "ai.onnx.ml.Binarizer", "d", "e"); // (1, 0)
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "threshold", ONNX_ATTRIBUTE_TYPE_FLOAT, 0.5);
    pm_wire_end(out, node);
    models_node(out, NODE, "Add", "d e", "y");
}

Test(onnx_ml, what_is_done_to_numbers_before_and_after_is_not_trained)
{
    pm_graph *graph = NULL;
    NETS_OK(read(&graph, pipeline, NULL));
    cr_assert_eq(pm_graph_param_count(graph), 1);
    models_gives(graph, 3, 0.375f);
}

Test(onnx_ml, what_was_read_is_written_as_operators_of_the_default_domain)
{
    pm_graph *graph = NULL, *back = NULL;
    pm_buffer *onnx = NULL;
    NETS_OK(read(&graph, with_maps, "scores"));
    const uint64_t offsets[] = {0, 16};
    NETS_OK(pm_graph_write_onnx(graph, "weights", offsets, &onnx));
    NETS_OK(pm_graph_read_onnx(&back, onnx->data, onnx->size)); // its external data stay where they are
    pm_plan *plan = NULL;
    const float x[] = {1, 2};
    float y[2];
    NETS_OK(pm_plan_create_inference(&plan, back, 1));
    for (size_t i = 0; i < 2; i++)
        NETS_OK(pm_plan_bind(plan, i, pm_graph_param(graph, i)->initial));
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    cr_assert(y[0] == 1 / (1 + expf(10.5f)) && y[1] == 1 / (1 + expf(-10.5f)), "%g %g", (double)y[0],
              (double)y[1]);
    pm_plan_destroy(&plan);
    pm_buffer_unref(&onnx);
    pm_graph_destroy(&back);
    pm_graph_destroy(&graph);
}

static void uneven(pm_wire_out *out)
{
    static const float weights[] = {1, 2, 3};
    const size_t node = models_open_node(out, NODE, "ai.onnx.ml.LinearRegressor", "x", "y");
    put_floats(out, "coefficients", weights, 3);
    models_attribute(out, ONNX_NODE_ATTRIBUTE, "targets", ONNX_ATTRIBUTE_TYPE_INT, 2);
    pm_wire_end(out, node);
}

static void probit(pm_wire_out *out)
{
    put_classifier(out, "label y", false, "PROBIT");
}

static void trees(pm_wire_out *out)
{
    models_node(out, NODE, "ai.onnx.ml.TreeEnsembleRegressor", "x", "y");
}

Test(onnx_ml, what_does_not_fit_or_is_not_built_is_refused_by_name)
{
    models_refused((models_parts){.graph = uneven}, PM_INVALID, "3 coefficients and 0 intercepts for 2");
    models_refused((models_parts){.graph = probit}, PM_UNSUPPORTED, "(LinearClassifier): post_transform");
    models_refused((models_parts){.graph = trees}, PM_UNSUPPORTED,
                   "TreeEnsembleRegressor of domain 'ai.onnx.ml'");
    models_refused((models_parts){.graph = with_maps}, PM_UNSUPPORTED, "its labels are texts");
}
