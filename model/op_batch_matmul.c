// MatMul of any ranks, as NumPy's: the last two axes are matrices, the others broadcast.
#include "model/compose.h"
#include "model/convert.h"
#include "model/product.h"
#include "model/program.h"
#include "model/task.h"

#include <string.h>

static const pm_attribute_spec NONE[] = {{0}};

// The axes before the matrices: which matrix of a and of b makes matrix i of y.
typedef struct batch {
    size_t m, n, k, matrices;
    size_t *a, *b; // (matrices)
} batch;

static pm_status infer_matmul(pm_shapes *s)
{
    const pm_tensor *a = &s->in[0]->tensor, *b = &s->in[1]->tensor;
    pm_tensor *y = &s->out[0];
    if (a->rank < 2 || b->rank < 2 || a->type != b->type)
        return pm_infer_refuse(s, 1, "matrices of one type");
    if (a->type == PM_TYPE_BOOL || a->shape[a->rank - 1] != b->shape[b->rank - 2])
        return pm_infer_refuse(s, 1, "as many rows as the first has columns");
    y->type = a->type;
    y->rank = a->rank > b->rank ? a->rank : b->rank;
    for (uint32_t d = 0; d + 2 < y->rank; d++) {
        const int64_t x = d + a->rank >= y->rank ? a->shape[d + a->rank - y->rank] : 1;
        const int64_t z = d + b->rank >= y->rank ? b->shape[d + b->rank - y->rank] : 1;
        if (x != z && x != 1 && z != 1)
            return pm_infer_refuse(s, 1, "axes that broadcast with the first input's");
        y->shape[d] = x == 1 ? z : x;
    }
    y->shape[y->rank - 2] = a->shape[a->rank - 2];
    y->shape[y->rank - 1] = b->shape[b->rank - 1];
    return pm_ok();
}

static size_t matrix_of(const pm_tensor *t, const pm_tensor *y, size_t index)
{
    size_t at = 0, step = 1;
    for (uint32_t d = y->rank - 2; d-- > 0;) {
        const size_t i = index % (size_t)y->shape[d];
        index /= (size_t)y->shape[d];
        if (d + t->rank < y->rank)
            continue;
        const size_t extent = (size_t)t->shape[d + t->rank - y->rank];
        at += extent == 1 ? 0 : i * step;
        step *= extent;
    }
    return at;
}

static pm_status plan_matmul(pm_task *task)
{
    const pm_tensor *a = task->in[0], *y = task->out[0];
    batch *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    *p = (batch){.m = (size_t)y->shape[y->rank - 2],
                 .n = (size_t)y->shape[y->rank - 1],
                 .k = (size_t)a->shape[a->rank - 1],
                 .matrices = pm_extent(y, 0, y->rank - 2)};
    p->a = pm_region_alloc(task->region, p->matrices * sizeof(size_t));
    p->b = pm_region_alloc(task->region, p->matrices * sizeof(size_t));
    if (!p->a || !p->b)
        return pm_fail(PM_NO_MEMORY, "a task");
    for (size_t i = 0; i < p->matrices; i++) {
        p->a[i] = matrix_of(task->in[0], y, i);
        p->b[i] = matrix_of(task->in[1], y, i);
    }
    task->detail = p;
    task->scratch_bytes =
        y->type == PM_TYPE_F32
            ? pm_product_fixed_bytes(task->kernels, &(pm_product){.m = p->m, .n = p->n, .k = p->k})
            : (p->m * p->k + p->k * p->n + p->m * p->n) * sizeof(double);
    return pm_ok();
}

#define PRODUCT(name, type)                                                                                  \
    static void name(const batch *p, const void *left, const void *right, void *out)                         \
    {                                                                                                        \
        const type *a = left, *b = right;                                                                    \
        type *y = out;                                                                                       \
        memset(y, 0, p->m * p->n * sizeof *y);                                                               \
        for (size_t i = 0; i < p->m; i++)                                                                    \
            for (size_t k = 0; k < p->k; k++)                                                                \
                for (size_t j = 0; j < p->n; j++)                                                            \
                    y[i * p->n + j] += a[i * p->k + k] * b[k * p->n + j];                                    \
    }

PRODUCT(product_half, float)
PRODUCT(product_f64, double)
PRODUCT(product_u64, uint64_t)

static void run_matmul(const pm_task *task, const pm_call *call)
{
    const batch *p = task->detail;
    const pm_type type = task->out[0]->type;
    const size_t size = pm_type_size(type), am = p->m * p->k, bm = p->k * p->n, ym = p->m * p->n;
    if (ym == 0)
        return;
    if (p->k == 0) {
        memset(call->out[0], 0, p->matrices * ym * size);
        return;
    }
    for (size_t i = 0; i < p->matrices; i++) {
        const char *a = (const char *)call->in[0] + p->a[i] * am * size;
        const char *b = (const char *)call->in[1] + p->b[i] * bm * size;
        char *y = (char *)call->out[0] + i * ym * size;
        if (type == PM_TYPE_F32) {
            pm_product_run_fixed(task->kernels,
                                 &(pm_product){.m = p->m,
                                               .n = p->n,
                                               .k = p->k,
                                               .a = (const void *)a,
                                               .a_stride = p->k,
                                               .b = (const void *)b,
                                               .b_stride = p->n,
                                               .c = (void *)y,
                                               .c_stride = p->n},
                                 call->scratch);
            continue;
        }
        double *wide_a = call->scratch, *wide_b = wide_a + am, *wide_y = wide_b + bm;
        pm_convert_load(type, a, 1, wide_a, am);
        pm_convert_load(type, b, 1, wide_b, bm);
        (pm_class_of(type) == PM_CLASS_F32   ? product_half
         : pm_class_of(type) == PM_CLASS_F64 ? product_f64
                                             : product_u64)(p, wide_a, wide_b, wide_y);
        pm_convert_store(type, wide_y, y, ym);
    }
}

static uint32_t flipped(pm_compose *c, uint32_t x)
{
    const uint32_t rank = pm_compose_tensor(c, x).rank;
    int64_t order[PM_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++)
        order[d] = d + 2 < rank ? d : 2 * rank - 3 - d;
    return pm_compose_transpose(c, x, order);
}

static pm_status gradient_matmul(pm_gradient *g, const pm_node *node)
{
    pm_compose c = pm_compose_open(pm_gradient_program(g), node);
    const uint32_t a = node->inputs[0], b = node->inputs[1], dy = pm_gradient_of(g, node, 0);
    if (pm_gradient_wants(g, node, 1))
        pm_compose_give(&c, g, 1, pm_compose_2(&c, "MatMul", flipped(&c, a), dy));
    if (pm_gradient_wants(g, node, 0))
        pm_compose_give(&c, g, 0, pm_compose_2(&c, "MatMul", dy, flipped(&c, b)));
    return c.status;
}

// One matrix on the right is a Gemm over all rows on the left; vectors are matrices of one row or column.
static pm_status lower_matmul(pm_graph *program, bool training, const pm_node *node, uint32_t *outputs)
{
    pm_compose c = pm_compose_open(program, node);
    uint32_t a = node->inputs[0], b = node->inputs[1];
    const pm_tensor x = pm_compose_tensor(&c, a), z = pm_compose_tensor(&c, b);
    (void)training;
    if (x.rank == 0 || z.rank == 0)
        return pm_fail(PM_INVALID, "a scalar");
    if (x.rank == 1)
        a = pm_compose_reshape(&c, a, (const int64_t[]){1, x.shape[0]}, 2);
    if (z.rank == 1)
        b = pm_compose_reshape(&c, b, (const int64_t[]){z.shape[0], 1}, 2);
    const pm_tensor left = pm_compose_tensor(&c, a), right = pm_compose_tensor(&c, b);
    uint32_t y = PM_NO_VALUE;
    if (left.type == PM_TYPE_F32 && right.type == PM_TYPE_F32 && right.rank == 2 && left.rank >= 2 &&
        left.count > 0) {
        const int64_t k = left.shape[left.rank - 1],
                      rows[] = {(int64_t)pm_extent(&left, 0, left.rank - 1), k};
        int64_t shape[PM_MAX_RANK];
        memcpy(shape, left.shape, sizeof shape);
        shape[left.rank - 1] = right.shape[1];
        y = pm_compose_2(&c, "Gemm", left.rank == 2 ? a : pm_compose_reshape(&c, a, rows, 2), b);
        y = left.rank == 2 ? y : pm_compose_reshape(&c, y, shape, left.rank);
    } else {
        y = pm_compose_2(&c, ".MatMul", a, b);
    }
    const pm_tensor t = pm_compose_tensor(&c, y);
    int64_t shape[PM_MAX_RANK];
    uint32_t rank = 0;
    for (uint32_t d = 0; d < t.rank; d++)
        if (!(d + 2 == t.rank && x.rank == 1) && !(d + 1 == t.rank && z.rank == 1))
            shape[rank++] = t.shape[d];
    outputs[0] = rank == t.rank ? y : pm_compose_reshape(&c, y, shape, rank);
    return c.status;
}

#define ENTRY(domain_name, first, lower_or_null)                                                             \
    {                                                                                                        \
        .domain = domain_name, .name = "MatMul", .since = first, .min_inputs = 2, .max_inputs = 2,           \
        .max_outputs = 1, .attributes = NONE, .infer = infer_matmul, .lower = lower_or_null,                 \
        .gradient = gradient_matmul, .plan = plan_matmul, .run = run_matmul                                  \
    }

const pm_operator PM_FAMILY_BATCH_MATMUL[] = {
    ENTRY("", 1, lower_matmul),
    ENTRY(PM_DOMAIN, 0, NULL),
    {0},
};
