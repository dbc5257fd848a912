// Matrix products: squares of operands that change, as in training, and few rows by frozen weights, as in
// answers.
#include "cli/bench.h"
#include "core/arena.h"
#include "model/plan.h"
#include "model/product.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct trial {
    pm_product product;
    void *scratch;
} trial;

static pm_status run_product(void *ctx)
{
    const trial *t = ctx;
    pm_product_run_fixed(pm_kernels_get(), &t->product, t->scratch);
    return pm_ok();
}

static pm_status square(const pm_bench *bench, size_t n)
{
    float *a = pm_bench_numbers(n * n, 1), *b = pm_bench_numbers(n * n, 2), *c = pm_bench_numbers(n * n, 3);
    trial t = {
        .product = {
            .m = n, .n = n, .k = n, .a = a, .a_stride = n, .b = b, .b_stride = n, .c = c, .c_stride = n}};
    const double operations = 2.0 * (double)n * (double)n * (double)n;
    double seconds = 1;
    pm_status status = pm_fail(PM_NO_MEMORY, "squares of %zu", n);
    t.scratch = aligned_alloc(PM_ALIGN, pm_align(pm_product_fixed_bytes(pm_kernels_get(), &t.product)));
    if (a && b && c && t.scratch)
        status = pm_bench_median(bench, run_product, &t, &seconds);
    if (status.code == PM_OK)
        printf("product %zux%zux%zu: %.1f us, %.1f GFLOP/s, %.2f of multiply-adds\n", n, n, n, seconds * 1e6,
               operations / seconds * 1e-9, operations / seconds / bench->multiply_adds);
    free(a);
    free(b);
    free(c);
    free(t.scratch);
    return status;
}

// A model of one product of n features to n, its weights packed.
static pm_status make_frozen(pm_graph **graph, pm_plan **plan, size_t n, uint32_t rows)
{
    char name[] = "x";
    int64_t shape[] = {(int64_t)n};
    pm_layer layer = {.op = PM_OP_GEMM, .units = (uint32_t)n, .no_bias = true};
    const pm_job job = {
        .seed = 1,
        .loss = PM_LOSS_MEAN_SQUARED_ERROR,
        .model = {
            .input_name = name, .input_shape = shape, .input_rank = 1, .layers = &layer, .layer_count = 1}};
    pm_status status = pm_graph_from_job(graph, &job);
    if (status.code == PM_OK)
        status = pm_plan_create_inference(plan, *graph, rows);
    return status.code == PM_OK ? pm_plan_prepare(*plan) : status;
}

// The limit is that of the multiply-adds or, for few rows, of reading the weights from where they fit.
static pm_status frozen_rows(const pm_bench *bench, size_t n, double read_rate)
{
    static const uint32_t ROWS[] = {1, 8, 16, 32, 64};
    enum { COUNT = sizeof ROWS / sizeof ROWS[0] };
    pm_graph *graph = NULL;
    pm_bench_request f = {.input = pm_bench_numbers(ROWS[COUNT - 1] * n, 1),
                          .output = pm_bench_numbers(ROWS[COUNT - 1] * n, 2)};
    pm_status status = pm_fail(PM_NO_MEMORY, "frozen weights of %zu", n);
    if (f.input && f.output)
        status = make_frozen(&graph, &f.plan, n, ROWS[COUNT - 1]);
    for (size_t i = 0; i < COUNT && status.code == PM_OK; i++) {
        double seconds = 1;
        f.rows = ROWS[i];
        status = pm_bench_median(bench, pm_bench_request_run, &f, &seconds);
        const double weights = (double)n * (double)n, operations = 2.0 * weights * f.rows;
        const double compute = operations / bench->multiply_adds, read = weights * sizeof(float) / read_rate;
        if (status.code == PM_OK)
            printf("frozen %ux%zux%zu: %.1f us, %.1f GFLOP/s, %.2f of %s\n", f.rows, n, n, seconds * 1e6,
                   operations / seconds * 1e-9, (compute > read ? compute : read) / seconds,
                   compute > read ? "multiply-adds" : "memory");
    }
    pm_plan_destroy(&f.plan);
    pm_graph_destroy(&graph);
    free((void *)(uintptr_t)f.input);
    free(f.output);
    return status;
}

pm_status pm_bench_products(const pm_bench *bench)
{
    pm_status status = pm_ok();
    for (size_t n = 128; n <= 2048 && status.code == PM_OK; n *= 2)
        status = square(bench, n);
    for (size_t n = 512; n <= 2048 && status.code == PM_OK; n *= 2) {
        double read_rate = 1;
        status = pm_bench_read_rate(bench, n * n * sizeof(float), &read_rate);
        if (status.code == PM_OK)
            status = frozen_rows(bench, n, read_rate);
    }
    return status;
}
