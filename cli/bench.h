#pragma once
// The parts of paramill bench: a clock, medians, and what each part prints. Every line of a figure is
// "PART WHAT … : MEDIAN microseconds, RATE, RATIO of LIMIT", where the limit was measured in the same run.
// RATE counts the operations of the definition; a convolution in tiles makes do with fewer and may pass 1.
#include "core/status.h"
#include "model/plan.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pm_bench {
    uint32_t threads;
    bool quick;
    double multiply_adds;     // floating-point operations a second of one core's multiply-adds
    double multiply_adds_all; // of all threads together
} pm_bench;

// Runs once what is measured.
typedef pm_status (*pm_bench_run)(void *ctx);

// *seconds: the median time of a run, over samples of many runs each, after a warm-up.
pm_status pm_bench_median(const pm_bench *bench, pm_bench_run run, void *ctx, double *seconds) PM_CHECKED;

// The same with the fastest sample instead: for limits.
pm_status pm_bench_best(const pm_bench *bench, pm_bench_run run, void *ctx, double *seconds) PM_CHECKED;

// A request of rows to a plan, as a pm_bench_run with it as ctx.
typedef struct pm_bench_request {
    pm_plan *plan;
    const void *input;
    float *output;
    uint32_t rows;
} pm_bench_request;

pm_status pm_bench_request_run(void *ctx) PM_CHECKED;

// Seconds of a steady clock.
double pm_bench_now(void);

// floats of numbers in [-1, 1), 64-byte aligned; the caller frees them. NULL when out of memory.
float *pm_bench_numbers(size_t count, uint64_t stream);

// The rate at which one core reads bytes again and again.
pm_status pm_bench_read_rate(const pm_bench *bench, size_t bytes, double *bytes_a_second) PM_CHECKED;

// --- the parts, each printing its lines

// Sets the bench's limits (bench_limits.c).
pm_status pm_bench_limits(pm_bench *bench) PM_CHECKED;

// Matrix products, of changing and of frozen operands (bench_products.c).
pm_status pm_bench_products(const pm_bench *bench) PM_CHECKED;

// Answers and training steps of the models (bench_inference.c, bench_training.c).
pm_status pm_bench_inference(const pm_bench *bench) PM_CHECKED;
pm_status pm_bench_training(const pm_bench *bench) PM_CHECKED;

// Training steps of a DLRM, whose tables have gradients of the rows that a step touches (bench_dlrm.c).
pm_status pm_bench_dlrm(const pm_bench *bench) PM_CHECKED;

// The models: "mlp", 784-512-256-10, and "cnn", two 3x3 convolutions of 32 and 64 channels, each with a pool,
// then 128 and 10, on 28x28 images; "gpt", 4 Transformer blocks of 4 heads, 128 wide, over 64 characters of
// 65, with biases and a last product of its own weights (no tied embedding).
typedef struct pm_bench_model {
    const char *name, *unit; // what a rate counts: "images", "tokens"
    pm_graph *graph;
    double forward_operations, training_operations; // of a row's forward pass, of its training step
    uint32_t batch;                                 // of a training step
    uint32_t places, classes;                       // units of a row, each with a target below classes
    uint32_t vocabulary;                            // inputs are whole numbers below it; 0: floats
    pm_job_optimizer optimizer;
} pm_bench_model;

enum { PM_BENCH_MODELS = 3 };
// The caller owns model->graph (bench_models.c).
pm_status pm_bench_model_make(pm_bench_model *model, size_t index) PM_CHECKED;

// rows inputs of the model, 64-byte aligned; the caller frees them. NULL when out of memory.
void *pm_bench_model_inputs(const pm_bench_model *model, uint32_t rows, uint64_t stream);
