// Products of pairs of vectors as one operator, against the graph that writes all products down.
#include "model/program_fuse_pairs.h"

#include "model/plan_view.h"
#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

enum { MOST = 40 };

// Which pairs: some of each vector with itself and those before it, the first of them twice; or each vector
// with every other, once.
typedef enum choice { SOME, OTHERS } choice;

// x (N, count * width) to the products of its vectors at the places. again: the products are read a second
// time, so that they stay.
static pm_graph *make_graph(int64_t count, int64_t width, choice chosen, bool again)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(count * width));
    const uint32_t weight = graphs_param(g, "weight", GRAPHS_SHAPE(count * width, count * width));
    const int64_t turned[] = {0, 2, 1};
    const pm_attribute axis = pm_attribute_int("axis", 1), order = pm_attribute_ints("perm", turned, 3);
    int64_t places[MOST * MOST];
    size_t found = 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j <= i; j += chosen == SOME ? i % 3 + 1 : 1)
            if (chosen == SOME || j < i)
                places[found++] = (i + j) % 2 ? i * count + j : j * count + i;
    if (chosen == SOME)
        places[found++] = 0;
    const uint32_t shape = graphs_integers(g, "shape", (const int64_t[]){0, count, width}, 3);
    const uint32_t mixed =
        graphs_node(g, "Tanh", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, weight))));
    const uint32_t vectors = graphs_node(g, "Reshape", GRAPHS_VALUES(mixed, shape));
    const uint32_t flipped = graphs_node_with(g, "Transpose", &vectors, 1, &order, 1);
    const uint32_t products = graphs_node(g, "MatMul", GRAPHS_VALUES(vectors, flipped));
    const uint32_t flat = graphs_node(g, "Flatten", &products, 1);
    const uint32_t inputs[] = {flat, graphs_integers(g, "places", places, found)};
    uint32_t pairs = graphs_node_with(g, "Gather", inputs, 2, &axis, 1);
    if (again)
        pairs = graphs_node_with(g, "Concat", GRAPHS_VALUES(pairs, flat), &axis, 1);
    const int64_t outputs = (int64_t)found + (again ? count * count : 0);
    return graphs_finish(
        g, graphs_node(g, "Gemm", GRAPHS_VALUES(pairs, graphs_param(g, "out", GRAPHS_SHAPE(outputs, 3)))));
}

static bool is_fused(const pm_plan *plan)
{
    bool fused = false;
    for (size_t t = 0; t < pm_plan_tasks(plan); t++)
        fused = fused || strcmp(pm_plan_task(plan, t).op, "PairProducts") == 0;
    return fused;
}

Test(program_fuse_pairs, products_that_are_read_otherwise_stay)
{
    for (int again = 0; again < 2; again++) {
        pm_graph *graph = make_graph(5, 4, SOME, again);
        pm_plan *plan = NULL;
        NETS_OK(pm_plan_create_inference(&plan, graph, 3));
        cr_assert_eq(is_fused(plan), !again);
        pm_plan_destroy(&plan);
        pm_graph_destroy(&graph);
    }
}

Test(program_fuse_pairs, the_operator_gives_the_products)
{
    static const int64_t sizes[][2] = {{2, 1}, {5, 4}, {27, 16}, {33, 3}, {7, 37}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t count = sizes[k][0], width = sizes[k][1];
        pm_graph *graph = make_graph(count, width, SOME, false);
        pm_plan *plan = NULL;
        float *x = malloc((size_t)(2 * count * width) * sizeof *x), y[6], one[3];
        for (int64_t i = 0; i < 2 * count * width; i++)
            x[i] = nets_number(5, (uint64_t)i);
        NETS_OK(pm_plan_create_inference(&plan, graph, 2));
        cr_assert(is_fused(plan));
        NETS_OK(pm_plan_infer(plan, x, 2, y));
        NETS_OK(pm_plan_infer(plan, x + count * width, 1, one));
        cr_assert_arr_eq(y + 3, one, sizeof one, "a row's bits do not depend on the batch");
        const float *w = pm_graph_param(graph, 0)->initial, *out = pm_graph_param(graph, 1)->initial;
        double wanted[3] = {0}, v[MOST * MOST];
        for (int64_t i = 0; i < count * width; i++) {
            double sum = 0;
            for (int64_t j = 0; j < count * width; j++)
                sum += (double)x[j] * (double)w[j * count * width + i];
            v[i] = tanh(sum);
        }
        size_t pair = 0;
        for (int64_t i = 0; i <= count; i++)
            for (int64_t j = 0; i < count ? j <= i : j < 1; j += i % 3 + 1, pair++)
                for (int64_t d = 0; d < width; d++)
                    for (int o = 0; o < 3; o++)
                        wanted[o] += (double)out[pair * 3 + (size_t)o] *
                                     (i < count ? v[i * width + d] * v[j * width + d] : v[d] * v[d]);
        for (int o = 0; o < 3; o++)
            cr_assert_float_eq(y[o], wanted[o], 1e-4, "%d vectors of %d", (int)count, (int)width);
        free(x);
        pm_plan_destroy(&plan);
        pm_graph_destroy(&graph);
    }
}

Test(program_fuse_pairs, the_gradient_goes_back_to_both_vectors_of_a_pair)
{
    gradients_check(make_graph(5, 4, SOME, false), PM_LOSS_SOFTMAX_CROSS_ENTROPY);
    gradients_check(make_graph(7, 3, SOME, true), PM_LOSS_MEAN_SQUARED_ERROR);
    gradients_check(make_graph(5, 16, SOME, false), PM_LOSS_MEAN_SQUARED_ERROR);
    gradients_check(make_graph(19, 16, OTHERS, false), PM_LOSS_MEAN_SQUARED_ERROR);
    gradients_check(make_graph(6, 5, OTHERS, false), PM_LOSS_MEAN_SQUARED_ERROR);
}
