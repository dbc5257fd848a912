// The models that are measured.
#include "cli/bench.h"
#include "core/rng.h"

#include <stdlib.h>

enum { PIXELS = 784, WIDTH = 128, PLACES = 64, VOCABULARY = 65, BLOCKS = 4 };

static const pm_job_optimizer MOMENTUM = {
    .kind = PM_OPTIMIZER_MOMENTUM, .learning_rate = 0.01, .momentum = 0.9};
static const pm_job_optimizer ADAMW = {.kind = PM_OPTIMIZER_ADAMW,
                                       .learning_rate = 0.001,
                                       .beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .epsilon = 1e-8,
                                       .weight_decay = 0.01};

// Sets the operations from the multiply-adds of a row: of the layers that read the input, whose gradient
// nobody needs, and of the others.
static void count_operations(pm_bench_model *model, double first, double others)
{
    model->forward_operations = 2 * (first + others);
    model->training_operations = 4 * first + 6 * others;
}

static pm_status make(pm_bench_model *model, pm_layer *layers, uint32_t count, int64_t *shape, uint32_t rank)
{
    char name[] = "x";
    const pm_job job = {.seed = 1,
                        .loss = PM_LOSS_SOFTMAX_CROSS_ENTROPY,
                        .model = {.input_name = name,
                                  .input_shape = shape,
                                  .input_rank = rank,
                                  .layers = layers,
                                  .layer_count = count}};
    return pm_graph_from_job(&model->graph, &job);
}

static pm_status make_mlp(pm_bench_model *model)
{
    pm_layer layers[] = {{.op = PM_OP_FLATTEN}, {.op = PM_OP_GEMM, .units = 512},
                         {.op = PM_OP_RELU},    {.op = PM_OP_GEMM, .units = 256},
                         {.op = PM_OP_RELU},    {.op = PM_OP_GEMM, .units = 10}};
    *model = (pm_bench_model){
        .name = "mlp", .unit = "images", .batch = 128, .places = 1, .classes = 10, .optimizer = MOMENTUM};
    count_operations(model, PIXELS * 512, 512 * 256 + 256 * 10);
    return make(model, layers, sizeof layers / sizeof layers[0], (int64_t[]){1, 28, 28}, 3);
}

static pm_status make_cnn(pm_bench_model *model)
{
    pm_layer layers[] = {{.op = PM_OP_CONV, .channels = 32, .kernel = 3, .pad = 1},
                         {.op = PM_OP_RELU},
                         {.op = PM_OP_MAX_POOL, .kernel = 2},
                         {.op = PM_OP_CONV, .channels = 64, .kernel = 3, .pad = 1},
                         {.op = PM_OP_RELU},
                         {.op = PM_OP_MAX_POOL, .kernel = 2},
                         {.op = PM_OP_FLATTEN},
                         {.op = PM_OP_GEMM, .units = 128},
                         {.op = PM_OP_RELU},
                         {.op = PM_OP_GEMM, .units = 10}};
    *model = (pm_bench_model){
        .name = "cnn", .unit = "images", .batch = 128, .places = 1, .classes = 10, .optimizer = MOMENTUM};
    count_operations(model, PIXELS * 32 * 9, 196 * 64 * 288 + 3136 * 128 + 128 * 10);
    return make(model, layers, sizeof layers / sizeof layers[0], (int64_t[]){1, 28, 28}, 3);
}

// Operations are those of all places with all others, also where the causal mask spares some.
static pm_status make_gpt(pm_bench_model *model)
{
    pm_layer layers[BLOCKS + 4] = {{.op = PM_OP_EMBEDDING, .vocabulary = VOCABULARY, .units = WIDTH},
                                   {.op = PM_OP_POSITION_EMBEDDING}};
    for (uint32_t i = 0; i < BLOCKS; i++)
        layers[2 + i] = (pm_layer){.op = PM_OP_TRANSFORMER, .heads = 4, .epsilon = 1e-5};
    layers[BLOCKS + 2] = (pm_layer){.op = PM_OP_LAYER_NORMALIZATION, .epsilon = 1e-5};
    layers[BLOCKS + 3] = (pm_layer){.op = PM_OP_MATMUL, .units = VOCABULARY, .no_bias = true};
    *model = (pm_bench_model){.name = "gpt",
                              .unit = "tokens",
                              .batch = 12,
                              .places = PLACES,
                              .classes = VOCABULARY,
                              .vocabulary = VOCABULARY,
                              .optimizer = ADAMW};
    const double block = 12.0 * WIDTH * WIDTH + 2.0 * PLACES * WIDTH;
    count_operations(model, 0, PLACES * (BLOCKS * block + WIDTH * VOCABULARY));
    return make(model, layers, sizeof layers / sizeof layers[0], (int64_t[]){PLACES}, 1);
}

pm_status pm_bench_model_make(pm_bench_model *model, size_t index)
{
    static pm_status (*const makers[PM_BENCH_MODELS])(pm_bench_model *) = {make_mlp, make_cnn, make_gpt};
    return makers[index](model);
}

void *pm_bench_model_inputs(const pm_bench_model *model, uint32_t rows, uint64_t stream)
{
    const size_t count = rows * pm_graph_input_count(model->graph);
    if (!model->vocabulary)
        return pm_bench_numbers(count, stream);
    int64_t *numbers = aligned_alloc(64, (count * sizeof *numbers + 63) / 64 * 64 + 64);
    const pm_rng_key key = pm_rng_key_make(stream, "bench");
    for (size_t i = 0; numbers && i < count; i++)
        numbers[i] = (int64_t)(pm_rng_uniform(key, 0, i) * model->vocabulary);
    return numbers;
}
