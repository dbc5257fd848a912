#include "tests/unit/gradients.h"
#include "tests/unit/graphs.h"

// x (N, 12) through a Gemm and to (N, 3, 4), then an Einsum with a parameter (4, 5), to (N, ...).
static pm_graph *with_einsum(const char *equation, const int64_t *shape, size_t rank)
{
    pm_graph *g = graphs_create();
    const uint32_t x = graphs_input(g, "x", GRAPHS_SHAPE(12)), w = graphs_param(g, "w", GRAPHS_SHAPE(12, 12)),
                   m = graphs_param(g, "m", GRAPHS_SHAPE(4, 5));
    const uint32_t rows = graphs_integers(g, "rows", (const int64_t[]){-1, 3, 4}, 3);
    const uint32_t wide =
        graphs_node(g, "Reshape", GRAPHS_VALUES(graphs_node(g, "Gemm", GRAPHS_VALUES(x, w)), rows));
    const pm_attribute a = {.name = "equation", .type = PM_ATTRIBUTE_STRING, .s = equation};
    const uint32_t y = graphs_node_with(g, "Einsum", GRAPHS_VALUES(wide, m), &a, 1);
    g->values[y].tensor = graphs_tensor(PM_TYPE_F32, shape, rank);
    g->values[y].batched = true;
    return graphs_finish(g, y);
}

Test(op_einsum, gradients_are_those_of_finite_differences)
{
    gradients_check(with_einsum("nij,jk->nik", GRAPHS_SHAPE(1, 3, 5)), PM_LOSS_MEAN_SQUARED_ERROR);
    gradients_check(with_einsum("...ij,jk->...ki", GRAPHS_SHAPE(1, 5, 3)), PM_LOSS_MEAN_SQUARED_ERROR);
    gradients_check(with_einsum("nij,kl->nil", GRAPHS_SHAPE(1, 3, 5)), PM_LOSS_MEAN_SQUARED_ERROR);
}

static void check_refused(const char *equation)
{
    pm_plan *plan = NULL;
    pm_graph *graph = with_einsum(equation, GRAPHS_SHAPE(1, 3, 5));
    const pm_status status = pm_plan_create_inference(&plan, graph, 1);
    cr_assert_eq(status.code, PM_INVALID, "%s: %s", equation, status.message);
    cr_assert(strstr(status.message, "does not fit its operands"), "%s", status.message);
    pm_graph_destroy(&graph);
}

Test(op_einsum, equations_that_do_not_fit_are_refused)
{
    const char *const equations[] = {
        "",           "nij",          "nij,jk,",        "nij,jk->nii",   "nij,jk->nz",
        "nij,ik->nk", "nijk,jk->nik", "nij,jk-nik",     "nij,jk->nik->", "n.j,jk->nik",
        "nii,jk->nk", "nij;jk->nik",  "....ij,jk->nik", "nij,jk->n..ik"};
    for (size_t i = 0; i < sizeof equations / sizeof equations[0]; i++)
        check_refused(equations[i]);
}
