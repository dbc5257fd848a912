#include "model/plan_view.h"

#include "core/arena.h"
#include "tests/unit/graphs.h"

#include <string.h>

// A piece of the reservation over time.
typedef struct piece {
    size_t offset, bytes;
    uint32_t first, last;
} piece;

static size_t pieces_of(const pm_plan *plan, piece *pieces)
{
    size_t count = 0;
    const uint32_t end = (uint32_t)pm_plan_tasks(plan);
    for (uint32_t i = 0; i < pm_plan_values(plan); i++) {
        const pm_value_view v = pm_plan_value(plan, i);
        if (v.root == i && v.first <= v.last && (v.place == PM_VALUE_KEPT || v.place == PM_VALUE_SHARED))
            pieces[count++] = (piece){v.offset, v.bytes, v.first, v.last};
    }
    for (uint32_t t = 0; t < end; t++) {
        const pm_task_view task = pm_plan_task(plan, t);
        if (task.scratch_bytes)
            pieces[count++] = (piece){task.scratch_offset, task.scratch_bytes, t, t};
        if (task.packed_bytes)
            pieces[count++] = (piece){task.packed_offset, task.packed_bytes, 0, end};
    }
    return count;
}

// No two pieces are at one place at one time, none is beyond the peak, and the peak is what is reserved.
static void check_memory(const pm_plan *plan)
{
    enum { MOST = 512 };
    static piece pieces[MOST];
    cr_assert_leq(pm_plan_values(plan) + 2 * pm_plan_tasks(plan), MOST);
    const size_t count = pieces_of(plan, pieces);
    const size_t page = pm_plan_peak(plan) >= 2 << 20 ? 2 << 20 : PM_ALIGN;
    size_t highest = 0;
    for (size_t i = 0; i < count; i++) {
        const piece *a = &pieces[i];
        highest = highest > a->offset + pm_align(a->bytes) ? highest : a->offset + pm_align(a->bytes);
        for (size_t k = 0; k < i; k++) {
            const piece *b = &pieces[k];
            const bool apart_in_time = a->last < b->first || b->last < a->first;
            const bool apart_in_place =
                a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
            cr_assert(apart_in_time || apart_in_place, "[%zu, +%zu) of tasks %u-%u and [%zu, +%zu) of %u-%u",
                      a->offset, a->bytes, a->first, a->last, b->offset, b->bytes, b->first, b->last);
        }
    }
    cr_assert_eq(highest, pm_plan_peak(plan), "pieces end at %zu, peak %zu", highest, pm_plan_peak(plan));
    cr_assert_eq(pm_plan_bytes(plan), (highest + page - 1) / page * page);
}

static void check_plans(pm_graph *graph)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 7));
    check_memory(plan);
    pm_plan_destroy(&plan);
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 3, 1, 3));
    check_memory(plan);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan_view, the_peak_of_a_dense_net_is_what_its_pieces_take_and_what_is_reserved)
{
    check_plans(nets_mlp());
}

Test(plan_view, the_peak_of_an_image_net_is_what_its_pieces_take_and_what_is_reserved)
{
    check_plans(nets_cnn());
}

Test(plan_view, the_peak_of_a_graph_with_branches_is_what_its_pieces_take_and_what_is_reserved)
{
    check_plans(graphs_branches());
}

static pm_task_view task_of(const pm_plan *plan, const char *op)
{
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        if (strcmp(pm_plan_task(plan, t).op, op) == 0)
            return pm_plan_task(plan, t);
    cr_assert_fail("no task %s", op);
    return (pm_task_view){0};
}

Test(plan_view, operations_and_bytes_are_those_of_all_lanes)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 4));
    const pm_task_view gemm = task_of(plan, "Gemm");
    cr_assert_eq(gemm.flops, 4 * (2 * 11 * 70 + 70));
    cr_assert_eq(gemm.moved, sizeof(float) * (4 * 11 + 11 * 70 + 70 + 4 * 70));
    cr_assert_not(gemm.backward);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);

    graph = nets_cnn();
    NETS_OK(pm_plan_create_training(&plan, graph, PM_LOSS_SOFTMAX_CROSS_ENTROPY, 2, 2, 4));
    const pm_task_view weight = task_of(plan, "ConvWeightGrad"); // of the last one: 9 out, 6 in, 3 x 3
    cr_assert_eq(weight.flops, 2ull * 4 * (9 * 2 * 2) * (6 * 3 * 3));
    cr_assert(weight.backward);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

Test(plan_view, values_keep_their_names_and_aliases_their_place)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_inference(&plan, graph, 4));
    const pm_task_view tanh = task_of(plan, "Tanh");
    const pm_value_view in = pm_plan_value(plan, tanh.inputs[0]), out = pm_plan_value(plan, tanh.outputs[0]);
    cr_assert_str_eq(in.name, "gemm2.y");
    cr_assert_eq(out.root, tanh.inputs[0]);
    cr_assert_eq(out.offset, in.offset);
    cr_assert_eq(pm_plan_value(plan, pm_plan_task(plan, pm_plan_tasks(plan) - 1).outputs[0]).place,
                 PM_VALUE_BOUND);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}

static int64_t ticks(void)
{
    static int64_t now = 0;
    return now += 5;
}

Test(plan_view, every_task_that_runs_is_timed_until_timing_ends)
{
    pm_graph *graph = nets_mlp();
    pm_plan *plan = NULL;
    int64_t times[32] = {0};
    float x[11] = {1}, y[5];
    NETS_OK(pm_plan_create_inference(&plan, graph, 1));
    cr_assert_leq(pm_plan_tasks(plan), 32);
    pm_plan_time_tasks(plan, ticks, times);
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        cr_assert_eq(times[t], pm_plan_task(plan, t).view ? 0 : 5);
    memset(times, 0, sizeof times);
    pm_plan_time_tasks(plan, NULL, NULL);
    NETS_OK(pm_plan_infer(plan, x, 1, y));
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        cr_assert_eq(times[t], 0);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
