// The tile of matrix products over panels; see model/kernels.h. This file alone is compiled with contraction:
// every product here is followed by its one addition, so each element is a chain of fused multiply-adds over
// rising depth, the same in a tile of any number of rows.
#include "model/kernels_variant.h"

#include <string.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

// ROWS: of a tile that needs a register to find each; EVEN_ROWS: of one that needs a register for four of
// them; IN_LINE: of one whose rows are neighbours in a, where there are registers for more sums, and LINE_MIN
// neighbours and a DEEP sum pay for them. b is asked for SOON before its turn, what is packed AHEAD of it.
#if defined(__AVX512F__)
enum { ROWS = 8, EVEN_ROWS = 12, IN_LINE = 14 };
#else
enum { ROWS = 6, EVEN_ROWS = ROWS, IN_LINE = ROWS };
#endif
enum { PANEL = 2 * VECTOR, LINE_MIN = 6, DEEP = 48, SOON = 8, AHEAD = 24, FAR = 1024 };

typedef uint32_t words __attribute__((vector_size(VECTOR * sizeof(float))));

// How a is read: evenly, as b is then, or packed in lines; at rising places; at steps, in pairs at steps, at
// steps by rows that are neighbours.
typedef enum kind { EVEN, PACKED, PLAIN, STEPPED, PAIRS, LINE } kind;

static inline vector rectified(vector x)
{
    const vector zero = {0};
    typedef int32_t mask __attribute__((vector_size(sizeof(vector))));
    return (vector)(~(mask)(x < zero) & (mask)x);
}

// The pair of bfloat16 at a place that need not be even, in every element.
static inline __attribute__((always_inline)) vector pair_at(const uint16_t *a)
{
    uint32_t pair;
    memcpy(&pair, a, sizeof pair);
    return (vector)((words){0} + pair);
}

// sum + the products of the second, then of the first of each pair.
static inline __attribute__((always_inline)) vector add_pairs(vector sum, vector a, vector b)
{
#if defined(__AVX512BF16__)
    return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    sum += (vector)((words)a & 0xffff0000u) * (vector)((words)b & 0xffff0000u);
    return sum + (vector)((words)a << 16) * (vector)((words)b << 16);
#endif
}

// Bias and rectifier.
static inline __attribute__((always_inline)) void end(const size_t rows, const size_t vectors,
                                                      const pm_panel *p, vector sums[4][IN_LINE])
{
    if (p->bias)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            const vector bias = *(const vector *)(p->bias + v * VECTOR);
#pragma GCC unroll 16
            for (size_t r = 0; r < rows; r++)
                sums[v][r] += bias;
        }
    if (p->relu)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
#pragma GCC unroll 16
            for (size_t r = 0; r < rows; r++)
                sums[v][r] = rectified(sums[v][r]);
}

// rows rows by vectors whole vectors of c; all three are known where this is inlined, so that c is in
// registers. What is not seen through makes c's places anew at the end: kept, they would push others out.
static inline __attribute__((always_inline)) void tile(const size_t rows, const size_t vectors,
                                                       const kind how, const pm_panel *p)
{
    const bool even = how == EVEN || how == PACKED;
    const float *a[IN_LINE], *a_fours[3] = {p->a}, *b_line = p->b;
    const uint16_t *pairs[IN_LINE];
    const size_t depth = p->depth, a_row = p->a_row;
    const size_t b_stride = p->b_stride, b_step = p->b_step;
    const size_t *const b_offsets = p->b_offsets, *const a_steps = p->a_steps;
    vector sums[4][IN_LINE];
    float *c = p->c;
    size_t stride = p->c_stride;
    // What is written long after, or added to at once by the tile after this one.
    const float *ahead = p->accumulate ? c + rows * stride : c;
#pragma GCC unroll 16
    for (size_t r = 0; r < rows; r++) {
        a[r] = (const float *)p->a + (even ? 0 : p->a_offsets[r]);
        pairs[r] = (const uint16_t *)p->a + (even ? 0 : p->a_offsets[r]);
        __builtin_prefetch(ahead + r * stride, 1);
        __builtin_prefetch(ahead + r * stride + (vectors - 1) * VECTOR, 1);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            sums[v][r] = (vector){0};
    }
    for (size_t four = 1; four < 3; four++)
        a_fours[four] = a_fours[0] + (how == EVEN && 4 * four < rows ? 4 * four * a_row : 0);
    if (p->accumulate)
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++)
                sums[v][r] = *(const vector *)(c + r * stride + v * VECTOR);
    __asm__("" : "+r"(c), "+r"(stride));
    for (size_t k = 0; k < depth; k++, b_line += b_step) {
        const float *from = even ? b_line : (const float *)p->b + b_offsets[k];
        const size_t step = even ? 0 : how == PLAIN ? k : a_steps[k];
        vector b[4];
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            b[v] = *(const vector *)(from + v / 2 * b_stride + v % 2 * VECTOR);
            if (even)
                __builtin_prefetch(from + v / 2 * b_stride + v % 2 * VECTOR + SOON * b_step);
        }
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++)
                if (how == PAIRS)
                    sums[v][r] = add_pairs(sums[v][r], pair_at(pairs[r] + step), b[v]);
                else
                    sums[v][r] += (how == EVEN     ? a_fours[r / 4][r % 4 * a_row]
                                   : how == PACKED ? a_fours[0][r]
                                   : how == LINE   ? a[0][step + r]
                                                   : a[r][step]) *
                                  b[v];
        for (size_t four = 0; four < 3; four++)
            a_fours[four] += how == EVEN ? 1 : EVEN_ROWS;
    }
    __asm__("" : "+r"(c), "+r"(stride));
    end(rows, vectors, p, sums);
#pragma GCC unroll 16
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++)
            *(vector *)(c + r * stride + v * VECTOR) = sums[v][r];
}

// Each in a function of its own: in one, the registers of all would not suffice.
#define TILE(name, rows, vectors, kind)                                                                      \
    static __attribute__((noinline)) void name(const pm_panel *p)                                            \
    {                                                                                                        \
        tile(rows, vectors, kind, p);                                                                        \
    }
#define EVEN_TILES(rows)                                                                                     \
    TILE(even_##rows, rows, 2, EVEN)                                                                         \
    TILE(narrow_even_##rows, rows, 1, EVEN)                                                                  \
    TILE(packed_##rows, rows, 2, PACKED)                                                                     \
    TILE(narrow_packed_##rows, rows, 1, PACKED)
#define TILES(rows)                                                                                          \
    EVEN_TILES(rows)                                                                                         \
    TILE(tile_##rows, rows, 2, PLAIN)                                                                        \
    TILE(narrow_##rows, rows, 1, PLAIN)                                                                      \
    TILE(stepped_##rows, rows, 2, STEPPED) TILE(pairs_##rows, rows, 2, PAIRS)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILE(wide_1, 1, 4, PLAIN)
TILE(wide_2, 2, 4, PLAIN)
TILE(wide_even_1, 1, 4, EVEN)
TILE(wide_even_2, 2, 4, EVEN)
#if defined(__AVX512F__)
TILES(7)
TILES(8)
EVEN_TILES(9)
EVEN_TILES(10)
EVEN_TILES(11)
EVEN_TILES(12)
TILE(line_6, 6, 2, LINE)
TILE(line_7, 7, 2, LINE)
TILE(line_8, 8, 2, LINE)
TILE(line_9, 9, 2, LINE)
TILE(line_10, 10, 2, LINE)
TILE(line_11, 11, 2, LINE)
TILE(line_12, 12, 2, LINE)
TILE(line_13, 13, 2, LINE)
TILE(line_14, 14, 2, LINE)
#define ALL_TILES(name)                                                                                      \
    {                                                                                                        \
        name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8                               \
    }
#define ALL_EVEN(name)                                                                                       \
    {                                                                                                        \
        name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11, \
            name##12                                                                                         \
    }
#else
#define ALL_EVEN ALL_TILES
#define ALL_TILES(name)                                                                                      \
    {                                                                                                        \
        name##1, name##2, name##3, name##4, name##5, name##6                                                 \
    }
#endif

typedef void (*tile_run)(const pm_panel *p);

// Tiles of one kind, by their number of rows; most: the largest.
typedef struct tiles {
    const tile_run *of;
    size_t most, width; // columns that each writes
} tiles;

// Where c has fewer columns than the tile: in memory of whole vectors.
static __attribute__((noinline)) void run_edge(const pm_panel *p, tile_run run, size_t rows, size_t width)
{
    float c[IN_LINE * 2 * PANEL], bias[2 * PANEL];
    pm_panel part = *p;
    part.c = c;
    part.c_stride = width;
    for (size_t r = 0; p->accumulate && r < rows; r++)
        memcpy(c + r * width, p->c + r * p->c_stride, p->columns * sizeof *c);
    if (p->bias)
        part.bias = memcpy(bias, p->bias, p->columns * sizeof *c);
    run(&part);
    for (size_t r = 0; r < rows; r++)
        memcpy(p->c + r * p->c_stride, c + r * width, p->columns * sizeof *c);
}

// count rows in tiles of nearly the same number, where they are not packed: a tile of few rows waits for its
// own sums.
static void run_rows(pm_panel *part, size_t count, const tiles *t)
{
    for (size_t left = count, number = (count + t->most - 1) / t->most; left > 0; number--) {
        const size_t even = (left + number - 1) / number,
                     rows = part->packed && left > EVEN_ROWS ? EVEN_ROWS : even;
        if (part->columns < t->width)
            run_edge(part, t->of[rows - 1], rows, t->width);
        else
            t->of[rows - 1](part);
        left -= rows;
        if (part->a_offsets)
            part->a_offsets += rows;
        else
            part->a = (const float *)part->a + (part->packed ? 1 : rows) * part->a_row;
        part->c += rows * part->c_stride;
    }
}

static void run_panel(const pm_panel *p)
{
    static const tile_run whole[][EVEN_ROWS] = {[EVEN] = ALL_EVEN(even_),
                                                [PACKED] = ALL_EVEN(packed_),
                                                [PLAIN] = ALL_TILES(tile_),
                                                [STEPPED] = ALL_TILES(stepped_),
                                                [PAIRS] = ALL_TILES(pairs_)};
    static const tile_run narrow[][EVEN_ROWS] = {
        [EVEN] = ALL_EVEN(narrow_even_), [PACKED] = ALL_EVEN(narrow_packed_), [PLAIN] = ALL_TILES(narrow_)};
    const kind how = p->pairs       ? PAIRS
                     : p->a_steps   ? STEPPED
                     : p->a_offsets ? PLAIN
                     : p->packed    ? PACKED
                                    : EVEN;
    pm_panel part = *p;
#if defined(__AVX512F__)
    static const tile_run lines[IN_LINE] = {
        [LINE_MIN - 1] = line_6, line_7, line_8, line_9, line_10, line_11, line_12, line_13, line_14};
    if (p->line >= LINE_MIN && p->depth >= DEEP) {
        for (size_t row = 0; row < p->rows; row += p->line)
            run_rows(&part, p->line, &(tiles){lines, IN_LINE, PANEL});
        return;
    }
#endif
    const bool half = p->columns <= VECTOR && how <= PLAIN;
    // Rows whole pages apart fall on the same lines of the first cache, which has eight ways.
    const bool even = how == PACKED || (how == EVEN && p->a_row % FAR != 0);
    const size_t most = even ? EVEN_ROWS : ROWS;
    run_rows(&part, p->rows, half ? &(tiles){narrow[how], most, VECTOR} : &(tiles){whole[how], most, PANEL});
}

// A row or two over two panels at once: one panel's sums would wait for each other.
static void panel_product(const pm_panel *p)
{
    static const tile_run wide[] = {wide_1, wide_2}, wide_even[] = {wide_even_1, wide_even_2};
    pm_panel part = *p;
    for (size_t left = p->columns; left > 0;) {
        const bool two = p->rows <= 2 && left > PANEL && !p->a_steps && !p->packed;
        const size_t most = two ? 2 * PANEL : PANEL, columns = left < most ? left : most;
        part.columns = columns;
        if (!two)
            run_panel(&part);
        else {
            pm_panel rows = part;
            run_rows(&rows, p->rows, &(tiles){p->a_offsets ? wide : wide_even, 2, most});
        }
        left -= columns;
        part.b = (const float *)part.b + most / PANEL * part.b_stride;
        part.c += columns;
        part.bias = part.bias ? part.bias + columns : NULL;
    }
}

// A square of VECTOR x VECTOR elements turned over its diagonal, in log2(VECTOR) exchanges of halves between
// rows at growing distance (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972).
#define EXCHANGE(distance, first, second)                                                                    \
    for (size_t i = 0; i < VECTOR; i++)                                                                      \
        if (!(i & (distance))) {                                                                             \
            const vector a = rows[i], b = rows[i + (distance)];                                              \
            rows[i] = __builtin_shufflevector(a, b, first);                                                  \
            rows[i + (distance)] = __builtin_shufflevector(a, b, second);                                    \
        }
#if defined(__AVX512F__)
#define FIRST_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define SECOND_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define FIRST_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SECOND_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define FIRST_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define SECOND_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define FIRST_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SECOND_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#elif defined(__AVX2__)
#define FIRST_1 0, 8, 2, 10, 4, 12, 6, 14
#define SECOND_1 1, 9, 3, 11, 5, 13, 7, 15
#define FIRST_2 0, 1, 8, 9, 4, 5, 12, 13
#define SECOND_2 2, 3, 10, 11, 6, 7, 14, 15
#define FIRST_4 0, 1, 2, 3, 8, 9, 10, 11
#define SECOND_4 4, 5, 6, 7, 12, 13, 14, 15
#else
#define FIRST_1 0, 4, 2, 6
#define SECOND_1 1, 5, 3, 7
#define FIRST_2 0, 1, 4, 5
#define SECOND_2 2, 3, 6, 7
#endif

static inline __attribute__((always_inline)) void turn(vector rows[VECTOR])
{
#pragma GCC unroll 16
    EXCHANGE(1, FIRST_1, SECOND_1)
#pragma GCC unroll 16
    EXCHANGE(2, FIRST_2, SECOND_2)
#ifdef FIRST_4
#pragma GCC unroll 16
    EXCHANGE(4, FIRST_4, SECOND_4)
#endif
#ifdef FIRST_8
#pragma GCC unroll 16
    EXCHANGE(8, FIRST_8, SECOND_8)
#endif
}

static inline void transpose_square(const float *x, size_t x_stride, float *y, size_t y_stride)
{
    vector rows[VECTOR];
#pragma GCC unroll 16
    for (size_t i = 0; i < VECTOR; i++)
        rows[i] = *(const vector *)(x + i * x_stride);
    turn(rows);
#pragma GCC unroll 16
    for (size_t i = 0; i < VECTOR; i++)
        *(vector *)(y + i * y_stride) = rows[i];
}

// In squares, the last of a row or column overlapping the one before it instead of leaving a tail.
static void transpose(const float *x, size_t rows, size_t columns, size_t x_stride, float *y, size_t y_stride)
{
    if (rows >= VECTOR && columns >= VECTOR) {
        for (size_t i = 0; i < rows; i += VECTOR)
            for (size_t j = 0; j < columns; j += VECTOR) {
                const size_t row = i + VECTOR <= rows ? i : rows - VECTOR;
                const size_t column = j + VECTOR <= columns ? j : columns - VECTOR;
                transpose_square(x + row * x_stride + column, x_stride, y + column * y_stride + row,
                                 y_stride);
            }
        return;
    }
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++)
            y[j * y_stride + i] = x[i * x_stride + j];
}

// Rows are asked for AHEAD of being packed: they are too far apart for the hardware to do so.
static void pack_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                       size_t stride)
{
    for (size_t k = 0; k < depth; k++, x += x_stride, lines += EVEN_ROWS) {
        float *line = lines;
        size_t r = 0;
        for (; r + EVEN_ROWS <= rows; r += EVEN_ROWS, line += stride) {
            __builtin_prefetch(x + r + AHEAD * x_stride);
            memcpy(line, x + r, EVEN_ROWS * sizeof *x);
        }
        memcpy(line, x + r, (rows - r) * sizeof *x);
    }
}

// A line in squares, as wide as it at least: what they write beyond its rows is written again by the next
// one, or lies in the gap after the line.
static void turn_line(const float *x, size_t rows, size_t depth, size_t x_stride, float *line)
{
    size_t k = 0;
    for (; (int)EVEN_ROWS <= (int)VECTOR && k + VECTOR <= depth; k += VECTOR) {
        vector square[VECTOR];
#pragma GCC unroll 16
        for (size_t r = 0; r < VECTOR; r++)
            square[r] = r < EVEN_ROWS && r < rows ? *(const vector *)(x + r * x_stride + k) : (vector){0};
        turn(square);
#pragma GCC unroll 16
        for (size_t i = 0; i < VECTOR; i++)
            *(vector *)(line + (k + i) * EVEN_ROWS) = square[i];
    }
    for (; k < depth; k++)
        for (size_t r = 0; r < EVEN_ROWS && r < rows; r++)
            line[k * EVEN_ROWS + r] = x[r * x_stride + k];
}

static void turn_lines(const float *x, size_t rows, size_t depth, size_t x_stride, float *lines,
                       size_t stride)
{
    for (size_t r = 0; r < rows; r += EVEN_ROWS, x += EVEN_ROWS * x_stride, lines += stride)
        turn_line(x, rows - r, depth, x_stride, lines);
}

static void pack_rows(const float *x, size_t depth, size_t columns, size_t x_stride, float *panels,
                      size_t stride)
{
    for (size_t k = 0; k < depth; k++, x += x_stride, panels += PANEL) {
        float *panel = panels;
        size_t j = 0;
        for (; j + PANEL <= columns; j += PANEL, panel += stride) {
            __builtin_prefetch(x + j + AHEAD * x_stride);
            __builtin_prefetch(x + j + VECTOR + AHEAD * x_stride);
            *(vector *)panel = *(const vector *)(x + j);
            *(vector *)(panel + VECTOR) = *(const vector *)(x + j + VECTOR);
        }
        if (j < columns) {
            memcpy(panel, x + j, (columns - j) * sizeof *x);
            memset(panel + columns - j, 0, (PANEL - (columns - j)) * sizeof *x);
        }
    }
}

static void pack_panel(const float *x, size_t rows, size_t depth, size_t x_stride, float *panel)
{
    transpose(x, rows, depth, x_stride, panel, PANEL);
    for (size_t k = 0; rows < PANEL && k < depth; k++)
        memset(panel + k * PANEL + rows, 0, (PANEL - rows) * sizeof *panel);
}

void PM_KERNEL(fill_panel)(pm_kernels *table)
{
    table->panel = PANEL;
    table->panel_product = panel_product;
    table->transpose = transpose;
    table->line = EVEN_ROWS;
    table->pack_lines = pack_lines;
    table->turn_lines = turn_lines;
    table->pack_rows = pack_rows;
    table->pack_panel = pack_panel;
}
