#include "model/product.h"

#include "core/arena.h"
#include "model/blas.h"

// A block of A, ROWS by DEPTH, stays in the second cache while B's panels pass it. A is packed where it is
// transposed, or where its rows, which lie side by side, are whole pages, FAR apart: they would fall on the
// same lines of both caches; MANY columns pay for it. B is packed many COLUMNS at a time where more than one
// block of A passes them or A is packed, too, else one panel, which is still in cache then. It is read in
// place where its rows are so SHORT that several share a page.
enum { ROWS = 192, DEPTH = 512, COLUMNS = 1024, FAR = 1024, MANY = 128, SHORT = 256 };

// A small product has fewer rows or columns than LEAST, or less WORK.
enum { LEAST = 8, WORK = 1 << 20 };

// What is packed at a time.
typedef struct block {
    size_t depth, columns; // columns are whole panels
} block;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool packs_a(bool transpose_a, size_t n, size_t k)
{
    return transpose_a || (k % FAR == 0 && n >= MANY);
}

// Parts of nearly the same depth.
static block block_of(const pm_kernels *kernels, bool transpose_a, size_t m, size_t n, size_t k)
{
    const bool many = m > ROWS || packs_a(transpose_a, n, k);
    const size_t parts = (k + DEPTH - 1) / DEPTH, panels = (n + kernels->panel - 1) / kernels->panel;
    return (block){.depth = (k + parts - 1) / parts,
                   .columns = many ? least(panels * kernels->panel, COLUMNS) : kernels->panel};
}

// From panel to panel, or line to line, of so many elements each: not a power of two, of which many would
// fall on the same lines of a cache.
static size_t apart(size_t depth, size_t width)
{
    return depth * width + PM_ALIGN / sizeof(float);
}

// Of what is packed of B, then of A.
static size_t b_bytes(const pm_kernels *kernels, const block *b)
{
    return pm_align(b->columns / kernels->panel * apart(b->depth, kernels->panel) * sizeof(float));
}

size_t pm_product_bytes(const pm_kernels *kernels, bool transpose_a, size_t m, size_t n, size_t k)
{
    const block b = block_of(kernels, transpose_a, m, n, k);
    const size_t lines = (least(m, ROWS) + kernels->line - 1) / kernels->line;
    return b_bytes(kernels, &b) +
           packs_a(transpose_a, n, k) * lines * apart(b.depth, kernels->line) * sizeof(float);
}

// Rows of B of depth from k on, columns of it from first on, in panels stride elements apart.
static void pack(const pm_kernels *kernels, const pm_product *p, size_t k, size_t depth, size_t first,
                 size_t columns, float *packed, size_t stride)
{
    if (!p->transpose_b) {
        kernels->pack_rows(p->b + k * p->b_stride + first, depth, columns, p->b_stride, packed, stride);
        return;
    }
    for (size_t j = 0; j < columns; j += kernels->panel)
        kernels->pack_panel(p->b + (first + j) * p->b_stride + k, least(columns - j, kernels->panel), depth,
                            p->b_stride, packed + j / kernels->panel * stride);
}

// All rows of C from k on by what is packed, a block of them after another.
static void run_rows(const pm_kernels *kernels, const pm_product *p, size_t k, pm_panel part, float *lines)
{
    float *c = part.c;
    for (size_t row = 0; row < p->m; row += ROWS) {
        part.rows = least(p->m - row, ROWS);
        part.c = c + row * p->c_stride;
        const float *a = p->a + (p->transpose_a ? k * p->a_stride + row : row * p->a_stride + k);
        part.a = part.packed ? lines : a;
        if (p->transpose_a)
            kernels->pack_lines(a, part.rows, part.depth, p->a_stride, lines, part.a_row);
        else if (part.packed)
            kernels->turn_lines(a, part.rows, part.depth, p->a_stride, lines, part.a_row);
        kernels->panel_product(&part);
    }
}

void pm_product_run(const pm_kernels *kernels, const pm_product *p, void *scratch)
{
    const size_t panel = kernels->panel;
    const block most = block_of(kernels, p->transpose_a, p->m, p->n, p->k);
    const bool packed = packs_a(p->transpose_a, p->n, p->k);
    const bool in_place = !p->transpose_b && p->n % panel == 0 && p->b_stride <= SHORT;
    float *lines = (float *)(void *)((unsigned char *)scratch + b_bytes(kernels, &most));
    for (size_t k = 0; k < p->k; k += most.depth) {
        const size_t depth = least(p->k - k, most.depth);
        const bool last = k + depth == p->k;
        for (size_t first = 0; first < p->n; first += most.columns) {
            const size_t columns = least(p->n - first, most.columns);
            if (!in_place)
                pack(kernels, p, k, depth, first, columns, scratch, apart(depth, panel));
            run_rows(kernels, p, k,
                     (pm_panel){.columns = columns,
                                .depth = depth,
                                .a_row = packed ? apart(depth, kernels->line) : p->a_stride,
                                .packed = packed,
                                .b = in_place ? p->b + k * p->b_stride + first : scratch,
                                .b_step = in_place ? p->b_stride : panel,
                                .b_stride = in_place ? panel : apart(depth, panel),
                                .c = p->c + first,
                                .c_stride = p->c_stride,
                                .accumulate = p->accumulate || k > 0,
                                .bias = last && p->bias ? p->bias + first : NULL,
                                .relu = last && p->relu},
                     lines);
        }
    }
}

size_t pm_product_packed_bytes(const pm_kernels *kernels, size_t n, size_t k)
{
    return (n + kernels->panel - 1) / kernels->panel * k * kernels->panel * sizeof(float);
}

void pm_product_pack(const pm_kernels *kernels, const pm_product *p, float *packed)
{
    pack(kernels, p, 0, p->k, 0, p->n, packed, p->k * kernels->panel);
}

void pm_product_run_packed(const pm_kernels *kernels, const pm_product *p, const float *packed)
{
    kernels->panel_product(&(pm_panel){.rows = p->m,
                                       .columns = p->n,
                                       .depth = p->k,
                                       .a = p->a,
                                       .a_row = p->a_stride,
                                       .b = packed,
                                       .b_step = kernels->panel,
                                       .b_stride = p->k * kernels->panel,
                                       .c = p->c,
                                       .c_stride = p->c_stride,
                                       .bias = p->bias,
                                       .relu = p->relu});
}

bool pm_product_is_small(size_t m, size_t n, size_t k)
{
    return m < LEAST || n < LEAST || m * n * k < WORK;
}

size_t pm_product_fixed_bytes(const pm_kernels *kernels, bool transpose_a, size_t m, size_t n, size_t k)
{
    return pm_product_is_small(m, n, k) ? 0 : pm_product_bytes(kernels, transpose_a, m, n, k);
}

void pm_product_run_fixed(const pm_kernels *kernels, const pm_product *p, void *scratch)
{
    if (pm_product_is_small(p->m, p->n, p->k))
        pm_blas_run(p);
    else
        pm_product_run(kernels, p, scratch);
}
