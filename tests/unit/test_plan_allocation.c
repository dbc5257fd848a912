// Steps and requests under a counting allocator: this program's malloc and its siblings count and go on to
// the C library's. Not built under the sanitizers, whose allocators are in the way.
#include "model/plan.h"

#include "tests/unit/graphs.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static atomic_size_t allocations;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

Test(plan_allocation, the_counter_counts)
{
    const size_t before = atomic_load(&allocations);
    void *volatile memory = malloc(100);
    free(memory);
    cr_assert_eq(atomic_load(&allocations), before + 1);
}

static void check_steps(pm_graph *graph)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 3, 4, 12));
    for (uint64_t i = 0; i < 4; i++) {
        pm_step step = {.seed = 1, .step = i, .lane_count = 4};
        nets_fill(plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 3, 0, 4);
        const size_t before = atomic_load(&allocations);
        const pm_status status = pm_plan_step(plan, &step);
        const size_t made = atomic_load(&allocations) - before;
        NETS_OK(status);
        if (i > 0) // BLIS fills its pools in the first
            cr_assert_eq(made, 0, "step %d makes %zu allocations", (int)i, made);
    }
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan_allocation, a_step_of_a_sparse_table_allocates_nothing)
{
    static pm_layer bottom[] = {{.op = PM_OP_GEMM, .units = 4}};
    check_steps(nets_graph(true, PM_LOSS_SOFTMAX_CROSS_ENTROPY,
                           NETS_LAYERS({.op = PM_OP_DOT_INTERACTION,
                                        .numbers = 5,
                                        .vocabulary = 100,
                                        .units = 4,
                                        .sparse = true,
                                        .layers = bottom,
                                        .layer_count = 1},
                                       {.op = PM_OP_GEMM, .units = 5})));
}

static void check_requests(pm_graph *graph, bool prepared)
{
    enum { MOST = 5 };
    pm_plan *plan = NULL;
    static float input[MOST * 2 * 9 * 8], output[MOST * 16];
    NETS_OK(pm_plan_create_inference(&plan, graph, MOST));
    if (prepared)
        NETS_OK(pm_plan_prepare(plan));
    for (uint32_t rows = 1; rows <= MOST; rows++) {
        const size_t before = atomic_load(&allocations);
        const pm_status status = pm_plan_infer(plan, input, rows, output);
        const size_t made = atomic_load(&allocations) - before;
        NETS_OK(status);
        cr_assert_eq(made, 0, "a request of %u rows makes %zu allocations", rows, made);
    }
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan_allocation, a_step_of_a_dense_net_allocates_nothing)
{
    check_steps(nets_mlp());
}

Test(plan_allocation, a_step_of_an_image_net_allocates_nothing)
{
    check_steps(nets_cnn());
}

Test(plan_allocation, a_step_of_a_graph_with_branches_allocates_nothing)
{
    check_steps(graphs_branches());
}

Test(plan_allocation, a_request_allocates_nothing)
{
    check_requests(nets_mlp(), false);
    check_requests(nets_cnn(), false);
    check_requests(graphs_branches(), false);
}

Test(plan_allocation, a_request_of_a_prepared_plan_allocates_nothing)
{
    check_requests(nets_mlp(), true);
    check_requests(nets_cnn(), true);
    check_requests(graphs_branches(), true);
}

Test(plan_allocation, a_plan_that_needs_too_much_memory_is_refused_with_its_node)
{
    pm_graph *graph = nets_cnn();
    pm_plan *plan = NULL;
    pm_status status =
        pm_plan_create_inference_with(&plan, graph, 100, &(pm_plan_options){.most_bytes = 1 << 17});
    cr_assert_eq(status.code, PM_NO_MEMORY, "%s", status.message);
    cr_assert(strstr(status.message, "node conv1 (Conv) needs"), "%s", status.message);
    cr_assert_null(plan);
    // Nothing is reserved on the way to the refusal of what would take gigabytes.
    status = pm_plan_create_inference_with(&plan, graph, 1 << 23, &(pm_plan_options){.most_bytes = 1 << 30});
    cr_assert_eq(status.code, PM_NO_MEMORY, "%s", status.message);
    NETS_OK(pm_plan_create_inference_with(&plan, graph, 1, &(pm_plan_options){.most_bytes = 1 << 20}));
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
