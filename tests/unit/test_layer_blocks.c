#include "model/graph.h"

#include "tests/unit/gradients.h"

#include <math.h>
#include <string.h>

static const pm_loss CE = PM_LOSS_SOFTMAX_CROSS_ENTROPY;

enum { PLACES = 5, CHANNELS = 6, TOKENS = 11, ROWS = 4 };

static pm_status try_sequence(pm_graph **graph, uint32_t rank, const pm_layer *layers, size_t count)
{
    int64_t shape[] = {PLACES, CHANNELS};
    char name[] = "x";
    pm_job job = {.seed = 7, .loss = CE};
    job.model = (pm_job_model){.input_name = name,
                               .input_shape = shape,
                               .input_rank = rank,
                               .layers = (pm_layer *)(uintptr_t)layers,
                               .layer_count = (uint32_t)count};
    return pm_graph_from_job(graph, &job);
}

// A graph of the layers over (PLACES, CHANNELS).
static pm_graph *sequence(const pm_layer *layers, size_t count)
{
    pm_graph *graph = NULL;
    NETS_OK(try_sequence(&graph, 2, layers, count));
    return graph;
}

#define EPSILON .epsilon = 1e-5
#define FLAT_HEAD                                                                                            \
    {.op = PM_OP_FLATTEN},                                                                                   \
    {                                                                                                        \
        .op = PM_OP_GEMM, .units = 3                                                                         \
    }

static pm_graph *small_gpt(void)
{
    pm_graph *graph = NULL;
    NETS_OK(try_sequence(&graph, 1,
                         NETS_LAYERS({.op = PM_OP_EMBEDDING, .vocabulary = TOKENS, .units = 8},
                                     {.op = PM_OP_POSITION_EMBEDDING},
                                     {.op = PM_OP_TRANSFORMER, .heads = 2, EPSILON},
                                     {.op = PM_OP_TRANSFORMER, .heads = 4, EPSILON, .units = 10},
                                     {.op = PM_OP_LAYER_NORMALIZATION, EPSILON},
                                     {.op = PM_OP_MATMUL, .units = TOKENS, .no_bias = true})));
    return graph;
}

static pm_graph *small_resnet(void)
{
    const pm_layer block[] = {{.op = PM_OP_CONV, .channels = 4, .kernel = 3, .pad = 1, .stride = 2},
                              {.op = PM_OP_BATCH_NORMALIZATION, EPSILON},
                              {.op = PM_OP_SIGMOID},
                              {.op = PM_OP_CONV, .channels = 4, .kernel = 3, .pad = 1}};
    const pm_layer shortcut[] = {{.op = PM_OP_CONV, .channels = 4, .kernel = 1, .stride = 2}};
    const pm_layer plain[] = {{.op = PM_OP_CONV, .channels = 4, .kernel = 3, .pad = 1}};
    return nets_graph(
        false, CE,
        NETS_LAYERS({.op = PM_OP_RESIDUAL,
                     .layers = (pm_layer *)(uintptr_t)block,
                     .layer_count = 4,
                     .shortcut = (pm_layer *)(uintptr_t)shortcut,
                     .shortcut_count = 1},
                    {.op = PM_OP_TANH},
                    {.op = PM_OP_RESIDUAL, .layers = (pm_layer *)(uintptr_t)plain, .layer_count = 1},
                    {.op = PM_OP_GLOBAL_AVERAGE_POOL}, {.op = PM_OP_GEMM, .units = 5}));
}

static const pm_param *find_param(const pm_graph *graph, const char *name)
{
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        if (strcmp(pm_graph_param(graph, i)->name, name) == 0)
            return pm_graph_param(graph, i);
    cr_assert(false, "there is no parameter %s", name);
    return NULL;
}

static double deviation_of(const pm_param *p)
{
    double sum = 0;
    for (size_t i = 0; i < p->count; i++)
        sum += (double)p->initial[i] * (double)p->initial[i];
    return sqrt(sum / (double)p->count);
}

Test(layer_blocks, residual_blocks_have_the_gradient_of_their_sum)
{
    gradients_check(small_resnet(), CE);
}

Test(layer_blocks, attention_has_the_gradient_of_what_it_computes)
{
    gradients_check(sequence(NETS_LAYERS({.op = PM_OP_POSITION_EMBEDDING},
                                         {.op = PM_OP_ATTENTION, .heads = 3}, FLAT_HEAD)),
                    CE);
    gradients_check(sequence(NETS_LAYERS({.op = PM_OP_ATTENTION, .heads = 2, .full = true}, FLAT_HEAD)), CE);
}

Test(layer_blocks, transformers_have_the_gradient_of_what_they_compute)
{
    gradients_check(sequence(NETS_LAYERS({.op = PM_OP_TRANSFORMER, .heads = 2, EPSILON, .units = 9},
                                         {.op = PM_OP_LAYER_NORMALIZATION, EPSILON}, FLAT_HEAD)),
                    CE);
}

Test(layer_blocks, recurrent_layers_have_the_gradient_of_what_they_compute)
{
    gradients_check(sequence(NETS_LAYERS({.op = PM_OP_LSTM, .units = 4}, FLAT_HEAD)), CE);
    gradients_check(
        sequence(NETS_LAYERS({.op = PM_OP_GRU, .units = 4}, {.op = PM_OP_GRU, .units = 7, .last = true},
                             {.op = PM_OP_GEMM, .units = 3})),
        CE);
    gradients_check(sequence(NETS_LAYERS({.op = PM_OP_LSTM, .units = 4, .last = true}, {.op = PM_OP_GELU},
                                         {.op = PM_OP_GEMM, .units = 3})),
                    CE);
}

Test(layer_blocks, shapes_and_names_follow_the_layers)
{
    pm_graph *graph = small_gpt();
    const char *names[] = {"embedding1.weight",
                           "positions1.weight",
                           "transformer1.norm1.scale",
                           "transformer1.norm1.bias",
                           "transformer1.attention.weight",
                           "transformer1.attention.bias",
                           "transformer1.attention.out.weight",
                           "transformer1.attention.out.bias",
                           "transformer1.norm2.scale",
                           "transformer1.norm2.bias",
                           "transformer1.expand.weight",
                           "transformer1.expand.bias",
                           "transformer1.contract.weight",
                           "transformer1.contract.bias",
                           "transformer2.norm1.scale"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_assert_str_eq(pm_graph_param(graph, i)->name, names[i]);
    const pm_param *qkv = find_param(graph, "transformer1.attention.weight");
    cr_assert(qkv->rank == 2 && qkv->shape[0] == 8 && qkv->shape[1] == 24);
    cr_assert_eq(find_param(graph, "transformer1.expand.weight")->shape[1], 32);
    cr_assert_eq(find_param(graph, "transformer2.expand.weight")->shape[1], 10);
    cr_assert_eq(pm_graph_input(graph, 0)->type, PM_TYPE_I64);
    uint32_t rank;
    const int64_t *shape = pm_graph_output_shape(graph, &rank);
    cr_assert(rank == 2 && shape[0] == PLACES && shape[1] == TOKENS);
    cr_assert_str_eq(pm_graph_output_name(graph), "logits");
    pm_graph_destroy(&graph);
    graph = small_resnet();
    cr_assert_eq(find_param(graph, "conv3.weight")->shape[2], 1, "a shortcut's layers number on");
    cr_assert_eq(find_param(graph, "conv4.weight")->shape[2], 3);
    pm_graph_destroy(&graph);
}

Test(layer_blocks, initial_values_are_those_of_gpt2)
{
    pm_graph *graph = NULL;
    NETS_OK(try_sequence(&graph, 1,
                         NETS_LAYERS({.op = PM_OP_EMBEDDING, .vocabulary = 300, .units = 64},
                                     {.op = PM_OP_TRANSFORMER, .heads = 2, EPSILON},
                                     {.op = PM_OP_TRANSFORMER, .heads = 2, EPSILON})));
    cr_assert_float_eq(deviation_of(find_param(graph, "embedding1.weight")), 0.02, 4e-4);
    cr_assert_float_eq(deviation_of(find_param(graph, "transformer2.expand.weight")), 0.02, 4e-4);
    cr_assert_float_eq(deviation_of(find_param(graph, "transformer1.contract.weight")), 0.01, 2e-4);
    cr_assert_float_eq(deviation_of(find_param(graph, "transformer2.attention.out.weight")), 0.01, 2e-4);
    cr_assert_float_eq(deviation_of(find_param(graph, "transformer2.expand.bias")), 0, 1e-12);
    pm_graph_destroy(&graph);
}

// Runs the graph, with its parameters from another where given, over the tokens.
static void run_tokens(const pm_graph *graph, const pm_graph *from, const int64_t *tokens, float *logits)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, ROWS));
    for (size_t i = 0; from && i < pm_graph_param_count(graph); i++)
        NETS_OK(pm_plan_bind(plan, i, find_param(from, pm_graph_param(graph, i)->name)->initial));
    NETS_OK(pm_plan_run(plan, (const void *const[]){tokens}, ROWS, (void *const[]){logits}));
    pm_plan_destroy(&plan);
}

Test(layer_blocks, a_place_does_not_see_those_after_it)
{
    pm_graph *graph = small_gpt();
    int64_t tokens[ROWS * PLACES];
    float before[ROWS * PLACES * TOKENS], after[ROWS * PLACES * TOKENS];
    for (int i = 0; i < ROWS * PLACES; i++)
        tokens[i] = (7 * i + 3) % TOKENS;
    run_tokens(graph, NULL, tokens, before);
    tokens[3] = (tokens[3] + 1) % TOKENS;
    run_tokens(graph, NULL, tokens, after);
    cr_assert_eq(memcmp(before, after, 3 * TOKENS * sizeof *before), 0);
    cr_assert_neq(memcmp(before + 3 * TOKENS, after + 3 * TOKENS, TOKENS * sizeof *before), 0);
    cr_assert_neq(memcmp(before + 4 * TOKENS, after + 4 * TOKENS, TOKENS * sizeof *before), 0);
    cr_assert_eq(memcmp(before + 5 * TOKENS, after + 5 * TOKENS, sizeof before - 5 * TOKENS * sizeof *before),
                 0, "another row");
    pm_graph_destroy(&graph);
}

Test(layer_blocks, what_is_exported_computes_the_same)
{
    pm_graph *graph = small_gpt(), *again = NULL;
    uint64_t *offsets = calloc(pm_graph_param_count(graph), sizeof *offsets), at = 0;
    pm_buffer *onnx = NULL;
    int64_t tokens[ROWS * PLACES];
    float ours[ROWS * PLACES * TOKENS], theirs[ROWS * PLACES * TOKENS];
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        offsets[i] = at;
        at += pm_graph_param(graph, i)->count * sizeof(float);
    }
    for (int i = 0; i < ROWS * PLACES; i++)
        tokens[i] = (5 * i + 1) % TOKENS;
    NETS_OK(pm_graph_write_onnx(graph, "weights", offsets, &onnx));
    NETS_OK(pm_graph_read_onnx(&again, onnx->data, onnx->size));
    run_tokens(graph, NULL, tokens, ours);
    run_tokens(again, graph, tokens, theirs);
    cr_assert_eq(memcmp(ours, theirs, sizeof ours), 0);
    pm_buffer_unref(&onnx);
    free(offsets);
    pm_graph_destroy(&graph);
    pm_graph_destroy(&again);
}

Test(layer_blocks, the_loss_of_places_is_their_mean_and_has_its_gradient)
{
    pm_graph *graph = sequence(NETS_LAYERS({.op = PM_OP_ATTENTION, .heads = 2}, {.op = PM_OP_GELU},
                                           {.op = PM_OP_MATMUL, .units = 4}));
    pm_plan *plan = NULL;
    enum { LANE_ROWS = 2, LANES = 2, TARGETS = LANES * LANE_ROWS * PLACES };
    cr_assert_eq(pm_loss_places(graph, CE), PLACES);
    NETS_OK(pm_plan_create_training(&plan, graph, CE, LANE_ROWS, LANES, LANES * LANE_ROWS));
    float *x = pm_plan_input(plan), logits[TARGETS * 4];
    int32_t *classes = pm_plan_target(plan);
    for (uint64_t i = 0; i < TARGETS * CHANNELS; i++)
        x[i] = nets_number(9, i);
    for (int i = 0; i < TARGETS; i++)
        classes[i] = i % 4;
    pm_plan *inference = NULL;
    NETS_OK(pm_plan_create_inference(&inference, graph, LANES * LANE_ROWS));
    NETS_OK(pm_plan_infer(inference, x, LANES * LANE_ROWS, logits));
    double loss = 0;
    for (int i = 0; i < TARGETS; i++) {
        double sum = 0;
        for (int k = 0; k < 4; k++)
            sum += exp((double)logits[4 * i + k]);
        loss += log(sum) - (double)logits[4 * i + classes[i]];
    }
    pm_step step = {.lane_count = LANES};
    NETS_OK(pm_plan_step(plan, &step));
    cr_assert_float_eq(step.loss, loss, 1e-5 * loss);
    // Along each parameter's gradient the mean loss grows as fast as the gradient is long.
    for (size_t p = 0; p < pm_graph_param_count(graph); p++) {
        const pm_param *param = pm_graph_param(graph, p);
        float *values = pm_plan_param(plan, p), *g = malloc(param->count * sizeof *g);
        double length = 0, moved[2];
        NETS_OK(pm_plan_step(plan, &step));
        memcpy(g, pm_plan_gradient(plan, p), param->count * sizeof *g);
        for (size_t i = 0; i < param->count; i++)
            length += (double)g[i] * (double)g[i];
        length = sqrt(length);
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < param->count; i++)
                values[i] = param->initial[i] + (side ? 5e-3f : -5e-3f) * (float)((double)g[i] / length);
            NETS_OK(pm_plan_step(plan, &step));
            moved[side] = step.loss / TARGETS;
        }
        memcpy(values, param->initial, param->count * sizeof *values);
        free(g);
        cr_expect_float_eq((moved[1] - moved[0]) / 1e-2, length, 1e-4 + 1e-2 * length, "%s", param->name);
    }
    pm_plan_destroy(&inference);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

static void check_refused(uint32_t rank, const pm_layer *layers, size_t count, const char *where,
                          const char *cause)
{
    pm_graph *graph = NULL;
    pm_status status = try_sequence(&graph, rank, layers, count);
    cr_assert_eq(status.code, PM_INVALID, "%s", status.message);
    cr_assert(strstr(status.message, where) && strstr(status.message, cause), "%s", status.message);
}

Test(layer_blocks, what_does_not_fit_is_refused_with_its_place)
{
    const pm_layer wider[] = {{.op = PM_OP_RELU}, {.op = PM_OP_MATMUL, .units = 9}};
    const pm_layer wrong[] = {{.op = PM_OP_RELU}, {.op = PM_OP_CONV, .channels = 2, .kernel = 3}};
    check_refused(
        2,
        NETS_LAYERS({.op = PM_OP_TANH},
                    {.op = PM_OP_RESIDUAL, .layers = (pm_layer *)(uintptr_t)wider, .layer_count = 2}),
        "model.layers[1] (Residual)", "layers give (N, 5, 9), its shortcut (N, 5, 6)");
    check_refused(
        2, NETS_LAYERS({.op = PM_OP_RESIDUAL, .layers = (pm_layer *)(uintptr_t)wrong, .layer_count = 2}),
        "model.layers[0] (Residual): layers[1] (Conv): ", "(N, 5, 6)");
    check_refused(2, NETS_LAYERS({.op = PM_OP_TRANSFORMER, .heads = 4, EPSILON}), "(Transformer)",
                  "6 channels cannot be shared by 4 heads");
    check_refused(1, NETS_LAYERS({.op = PM_OP_LSTM, .units = 4}), "model.layers[0] (LSTM)", "(N, T, C)");
}
