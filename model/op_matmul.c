// Gemm: y (m, n) = alpha * op(A) (m, k) * op(B) (k, n) + beta * C, C broadcast to y.
#include "core/arena.h"
#include "model/blas.h"
#include "model/gradient.h"
#include "model/product_pairs.h"
#include "model/task.h"

#include <inttypes.h>
#include <string.h>

// Floats of a product that a lane sum makes at a time, so that the levels of the tree stay in cache, and rows
// at least, so that packing the other operand for each chunk costs little beside the product. In pairs each
// chunk rounds its operands anew, so it is larger.
enum { CHUNK = 1 << 16, CHUNK_ROWS = 64, PAIRS_CHUNK = 1 << 18 };

static const pm_attribute_spec GEMM[] = {{"alpha", PM_ATTRIBUTE_FLOAT},
                                         {"beta", PM_ATTRIBUTE_FLOAT},
                                         {"transA", PM_ATTRIBUTE_INT},
                                         {"transB", PM_ATTRIBUTE_INT},
                                         {0}};

// How C repeats over y.
typedef enum addend { ADDEND_NONE, ADDEND_ONE, ADDEND_ROW, ADDEND_COLUMN, ADDEND_WHOLE } addend;

typedef struct gemm {
    bool transpose_a, transpose_b;
    float alpha, beta;
    size_t m, n, k;
    addend c;
    bool small;          // by BLIS
    bool ends_with_row;  // the product adds C, a row, at the end of each sum
    bool relu;           // over y
    bool ends_with_relu; // by the product, at the end of each sum
} gemm;

static bool flag(const pm_node *node, const char *name)
{
    return pm_node_int(node, name, 0) != 0;
}

static pm_status infer_gemm(pm_shapes *s)
{
    const pm_tensor *a = &s->in[0]->tensor, *b = &s->in[1]->tensor;
    pm_status status = pm_infer_float(s);
    if (status.code != PM_OK)
        return status;
    if (a->rank != 2)
        return pm_infer_refuse(s, 0, "(N, features); a Flatten before it helps");
    if (b->rank != 2)
        return pm_infer_refuse(s, 1, "a matrix");
    const bool ta = flag(s->node, "transA"), tb = flag(s->node, "transB");
    if (a->shape[!ta] != b->shape[tb]) {
        char text[128];
        return pm_fail(PM_INVALID, "weight %.64s has shape %s for an input of %" PRId64 " features",
                       s->in[1]->name ? s->in[1]->name : "", pm_value_text(s->in[1], text, sizeof text),
                       a->shape[!ta]);
    }
    s->out[0] = (pm_tensor){.type = PM_TYPE_F32, .rank = 2, .shape = {a->shape[ta], b->shape[!tb]}};
    if (!pm_infer_has(s, 2))
        return status;
    const pm_tensor *c = &s->in[2]->tensor;
    for (uint32_t d = 0; d < c->rank; d++)
        if (c->rank > 2 || (c->shape[d] != 1 && c->shape[d] != s->out[0].shape[2 - c->rank + d]))
            return pm_infer_refuse(s, 2, "one that broadcasts to the product's");
    return status;
}

static addend addend_of(const pm_task *task)
{
    const pm_tensor *c = task->node->input_count > 2 ? task->in[2] : NULL;
    if (!c)
        return ADDEND_NONE;
    const bool rows = c->rank == 2 && c->shape[0] != 1;
    const bool columns = c->rank > 0 && c->shape[c->rank - 1] != 1;
    if (rows && columns)
        return ADDEND_WHOLE;
    return columns ? ADDEND_ROW : rows ? ADDEND_COLUMN : ADDEND_ONE;
}

// The rows of y do not depend on each other when A's rows are the lanes' and everything else is shared. The
// rows of a lane sum are made a chunk at a time.
static pm_status plan_gemm(pm_task *task)
{
    const pm_tensor *a = task->in[0];
    gemm *p = pm_region_alloc(task->region, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a task");
    *p = (gemm){.transpose_a = flag(task->node, "transA"),
                .transpose_b = flag(task->node, "transB"),
                .alpha = pm_node_float(task->node, "alpha", 1),
                .beta = pm_node_float(task->node, "beta", 1),
                .m = (size_t)task->out[0]->shape[0],
                .n = (size_t)task->out[0]->shape[1]};
    p->k = (size_t)a->shape[!p->transpose_a];
    p->c = addend_of(task);
    const bool one_addend = p->c == ADDEND_NONE || (task->shared[2] && p->c <= ADDEND_ROW);
    task->whole = !task->shared[0] && task->shared[1] && !p->transpose_a && one_addend;
    task->detail = p;
    task->pairs = task->training && task->precision == PM_PRECISION_BF16 && p->k > 0;
    const size_t most = task->pairs ? PAIRS_CHUNK : CHUNK;
    const size_t chunk = p->n < most / CHUNK_ROWS ? most / (p->n ? p->n : 1) : CHUNK_ROWS;
    task->part = (chunk < p->m ? chunk : p->m) * p->n;
    p->relu = flag(task->node, "relu");
    const bool ends = (task->whole || task->pairs) && p->k > 0 && p->alpha == 1;
    p->ends_with_row = ends && p->c == ADDEND_ROW && p->beta == 1;
    p->ends_with_relu = p->relu && (p->ends_with_row || (ends && p->c == ADDEND_NONE));
    task->alone = task->whole && !task->pairs;
    p->small = !task->whole && !task->pairs && pm_product_is_small(p->m, p->n, p->k);
    task->unit = p->small ? 0 : p->n;
    task->packed_bytes =
        task->training || !task->whole ? 0 : pm_product_packed_bytes(task->kernels, p->n, p->k);
    const size_t rows = task->whole ? task->max_lanes * p->m : p->m;
    // Weights may not be packed yet; it takes no more where they are.
    const pm_product shape = {.transpose_a = p->transpose_a, .m = rows, .n = p->n, .k = p->k};
    task->scratch_bytes = task->pairs ? pm_product_pairs_bytes(task->kernels, rows, p->n, p->k)
                          : p->small  ? 0
                                      : pm_product_bytes(task->kernels, &shape);
    return pm_ok();
}

static void pack_gemm(const pm_task *task, const pm_call *call, float *packed)
{
    const gemm *p = task->detail;
    pm_product_pack(task->kernels,
                    &(pm_product){.transpose_b = p->transpose_b,
                                  .n = p->n,
                                  .k = p->k,
                                  .b = call->in[1],
                                  .b_stride = p->transpose_b ? p->k : p->n},
                    packed);
}

static void scale(float *y, size_t count, float factor)
{
    for (size_t i = 0; factor != 1 && i < count; i++)
        y[i] *= factor;
}

// Adds beta * C to the rows from first.
static void add_addend(const pm_task *task, const gemm *p, const float *c, size_t first, size_t rows,
                       float *y)
{
    if (p->c == ADDEND_NONE)
        return;
    if (p->c == ADDEND_ROW && p->beta == 1) {
        task->kernels->add_row(y, c, rows, p->n);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < p->n; j++) {
            const size_t at = p->c == ADDEND_ONE      ? 0
                              : p->c == ADDEND_ROW    ? j
                              : p->c == ADDEND_COLUMN ? first + r
                                                      : (first + r) * p->n + j;
            y[r * p->n + j] += p->beta * c[at];
        }
}

// When all lanes go at once their number is that of the batch, and a row's bits must not depend on it; one
// lane alone always has the same shape.
static void run_gemm(const pm_task *task, const pm_call *call)
{
    const gemm *p = task->detail;
    const bool part = call->count < p->m * p->n;
    const size_t first = p->n ? call->first / p->n : 0;
    const size_t rows = task->whole ? call->lanes * p->m : part ? call->count / p->n : p->m;
    const float *a = call->in[0];
    float *y = call->out[0];
    const pm_product product = {.transpose_a = p->transpose_a,
                                .transpose_b = p->transpose_b,
                                .m = rows,
                                .n = p->n,
                                .k = p->k,
                                .a = a + (p->transpose_a ? first : first * p->k),
                                .a_stride = p->transpose_a ? p->m : p->k,
                                .b_packed = call->packed != NULL,
                                .b = call->packed ? call->packed : call->in[1],
                                .b_stride = p->transpose_b ? p->k : p->n,
                                .c = y,
                                .c_stride = p->n,
                                .bias = p->ends_with_row ? call->in[2] : NULL,
                                .relu = p->ends_with_relu};
    if (rows == 0 || p->n == 0)
        return;
    if (p->k == 0)
        memset(y, 0, rows * p->n * sizeof *y);
    else if (task->pairs)
        pm_product_pairs(task->kernels, &product, call->scratch);
    else if (p->small)
        pm_blas_run(&product);
    else
        pm_product_run(task->kernels, &product, call->scratch);
    scale(y, rows * p->n, p->alpha);
    if (p->c != ADDEND_NONE && !p->ends_with_row)
        add_addend(task, p, call->in[2], first, rows, y);
    if (p->relu && !p->ends_with_relu)
        task->kernels->relu(y, y, rows * p->n);
}

// --- gradient

typedef struct factors {
    uint32_t a, b;
    bool transpose_a, transpose_b;
} factors;

static pm_status give_product(pm_gradient *g, const pm_node *node, uint32_t input, factors f)
{
    const pm_attribute attributes[] = {pm_attribute_float("alpha", pm_node_float(node, "alpha", 1)),
                                       pm_attribute_int("transA", f.transpose_a),
                                       pm_attribute_int("transB", f.transpose_b)};
    return pm_gradient_give_recipe(
        g, node, input,
        (pm_recipe){
            .domain = "", .op = "Gemm", PM_VALUES(f.a, f.b), .attributes = attributes, .attribute_count = 3});
}

static pm_status give_addend(pm_gradient *g, const pm_node *node, uint32_t dy)
{
    const float beta = pm_node_float(node, "beta", 1);
    pm_status status = pm_ok();
    if (beta != 1) {
        pm_graph *program = pm_gradient_program(g);
        const float *data = pm_region_copy(program->region, &beta, sizeof beta);
        const pm_tensor tensor = {.type = PM_TYPE_F32, .data = data};
        uint32_t factor = PM_NO_VALUE;
        status =
            data ? pm_graph_add_constant(program, NULL, &tensor, &factor) : pm_fail(PM_NO_MEMORY, "beta");
        if (status.code == PM_OK)
            status = pm_recipe_add(program, node,
                                   (pm_recipe){.domain = "", .op = "Mul", PM_VALUES(dy, factor)}, &dy);
    }
    return status.code == PM_OK ? pm_gradient_give_summed(g, node, 2, dy) : status;
}

// Weights first: their gradients can leave while the input's is made.
static pm_status gradient_gemm(pm_gradient *g, const pm_node *node)
{
    const uint32_t a = node->inputs[0], b = node->inputs[1];
    const bool ta = flag(node, "transA"), tb = flag(node, "transB");
    uint32_t dy = pm_gradient_of(g, node, 0);
    pm_status status = pm_gradient_through_relu(g, node, &dy);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 1))
        status = give_product(g, node, 1, tb ? (factors){dy, a, true, ta} : (factors){a, dy, !ta, false});
    if (status.code == PM_OK && pm_gradient_wants(g, node, 2))
        status = give_addend(g, node, dy);
    if (status.code == PM_OK && pm_gradient_wants(g, node, 0))
        status = give_product(g, node, 0, ta ? (factors){b, dy, tb, true} : (factors){dy, b, false, !tb});
    return status;
}

static const pm_attribute_spec OLD_GEMM[] = {{"alpha", PM_ATTRIBUTE_FLOAT},   {"beta", PM_ATTRIBUTE_FLOAT},
                                             {"transA", PM_ATTRIBUTE_INT},    {"transB", PM_ATTRIBUTE_INT},
                                             {"broadcast", PM_ATTRIBUTE_INT}, {0}};

const pm_operator PM_FAMILY_MATMUL[] = {
    {.domain = "",
     .name = "Gemm",
     .since = 1,
     .until = 6,
     .min_inputs = 3,
     .max_inputs = 3,
     .max_outputs = 1,
     .attributes = OLD_GEMM,
     .infer = infer_gemm,
     .gradient = gradient_gemm,
     .plan = plan_gemm,
     .run = run_gemm,
     .pack = pack_gemm},
    {.domain = "",
     .name = "Gemm",
     .since = 7,
     .min_inputs = 2,
     .max_inputs = 3,
     .max_outputs = 1,
     .attributes = GEMM,
     .infer = infer_gemm,
     .gradient = gradient_gemm,
     .plan = plan_gemm,
     .run = run_gemm,
     .pack = pack_gemm},
    {0},
};
