#include "model/product.h"

#include "core/arena.h"
#include "model/blas.h"

// A block of A, ROWS by DEPTH, stays in the second cache while B's panels pass it. A is packed where it is
// transposed, or where its rows, which lie side by side, are whole pages, FAR apart: more than a FEW would
// fall on the same lines of both caches; MANY columns pay for it. B is packed many COLUMNS at a time where
// more than one block of A passes them or A is packed, too, else one panel, which is still in cache then. It
// is read in place where its rows are so SHORT that several share a page.
enum { ROWS = 192, DEPTH = 512, COLUMNS = 1024, FAR = 1024, FEW = 8, MANY = 128, SHORT = 256 };

// A small product has fewer rows or columns than LEAST, or less WORK.
enum { LEAST = 8, WORK = 1 << 20 };

// A part of a product.
typedef struct block {
    size_t depth, columns; // columns are whole panels
    bool lines;            // A is packed in them
} block;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

// Parts of nearly the same depth.
static block block_of(const pm_kernels *kernels, const pm_product *p)
{
    const bool lines = p->transpose_a || (p->k % FAR == 0 && p->m > FEW && p->n >= MANY);
    const bool many = lines || p->m > ROWS;
    const size_t parts = p->b_packed && !lines ? 1 : (p->k + DEPTH - 1) / DEPTH;
    const size_t all = (p->n + kernels->panel - 1) / kernels->panel * kernels->panel;
    return (block){.depth = (p->k + parts - 1) / parts,
                   .columns = p->b_packed ? all
                              : many      ? least(all, COLUMNS)
                                          : kernels->panel,
                   .lines = lines};
}

// From panel to panel, or line to line, of so many elements each: not a power of two, of which many would
// fall on the same lines of a cache.
static size_t apart(size_t depth, size_t width)
{
    return depth * width + PM_ALIGN / sizeof(float);
}

static bool in_place(const pm_kernels *kernels, const pm_product *p)
{
    return !p->b_packed && !p->transpose_b && p->n % kernels->panel == 0 && p->b_stride <= SHORT;
}

// Of what is packed of B, then of A.
static size_t b_bytes(const pm_kernels *kernels, const pm_product *p, const block *b)
{
    const size_t panels = p->b_packed ? 0 : b->columns / kernels->panel;
    return pm_align(panels * apart(b->depth, kernels->panel) * sizeof(float));
}

size_t pm_product_bytes(const pm_kernels *kernels, const pm_product *p)
{
    const block b = block_of(kernels, p);
    const size_t lines = b.lines ? (least(p->m, ROWS) + kernels->line - 1) / kernels->line : 0;
    return b_bytes(kernels, p, &b) + lines * apart(b.depth, kernels->line) * sizeof(float);
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

// Where the panels of B are from row k on, its columns from first on.
static void find_panels(const pm_kernels *kernels, const pm_product *p, size_t k, size_t first,
                        float *scratch, pm_panel *part)
{
    const size_t panel = kernels->panel;
    part->b_step = panel;
    if (p->b_packed) {
        part->b = p->b + first * p->k + k * panel;
        part->b_stride = p->k * panel;
    } else if (in_place(kernels, p)) {
        part->b = p->b + k * p->b_stride + first;
        part->b_step = p->b_stride;
        part->b_stride = panel;
    } else {
        part->b = scratch;
        part->b_stride = apart(part->depth, panel);
        pack(kernels, p, k, part->depth, first, part->columns, scratch, part->b_stride);
    }
}

void pm_product_run(const pm_kernels *kernels, const pm_product *p, void *scratch)
{
    const block most = block_of(kernels, p);
    float *lines = (float *)(void *)((unsigned char *)scratch + b_bytes(kernels, p, &most));
    for (size_t k = 0; k < p->k; k += most.depth) {
        const size_t depth = least(p->k - k, most.depth);
        const bool last = k + depth == p->k;
        for (size_t first = 0; first < p->n; first += most.columns) {
            pm_panel part = {.columns = least(p->n - first, most.columns),
                             .depth = depth,
                             .a_row = most.lines ? apart(depth, kernels->line) : p->a_stride,
                             .packed = most.lines,
                             .c = p->c + first,
                             .c_stride = p->c_stride,
                             .accumulate = p->accumulate || k > 0,
                             .bias = last && p->bias ? p->bias + first : NULL,
                             .relu = last && p->relu};
            find_panels(kernels, p, k, first, scratch, &part);
            run_rows(kernels, p, k, part, lines);
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

bool pm_product_is_small(size_t m, size_t n, size_t k)
{
    return m < LEAST || n < LEAST || m * n * k < WORK;
}

size_t pm_product_fixed_bytes(const pm_kernels *kernels, const pm_product *p)
{
    return pm_product_is_small(p->m, p->n, p->k) ? 0 : pm_product_bytes(kernels, p);
}

void pm_product_run_fixed(const pm_kernels *kernels, const pm_product *p, void *scratch)
{
    if (pm_product_is_small(p->m, p->n, p->k))
        pm_blas_run(p);
    else
        pm_product_run(kernels, p, scratch);
}
