#pragma once
// Moves: output elements taken from places of the input that are a sum of one offset for each axis. Slices,
// expansions, tiles, pads, nearest neighbours and splits are all moves, and the gradient of a move is its
// reverse, which adds up.
#include "model/compose.h"

#include <string.h>

// Copies a row of a table or a part of it: those of embeddings are so short that a call would cost more.
static inline void pm_copy_row(void *to, const void *from, size_t bytes)
{
    enum { PIECE = 64, SHORT = 4 * PIECE };
    if (bytes % PIECE || bytes > SHORT)
        memcpy(to, from, bytes);
    else
        for (size_t at = 0; at < bytes; at += PIECE)
            memcpy((char *)to + at, (const char *)from + at, PIECE);
}

enum { PM_MOVE_FILL = -1 }; // an offset: no element but the fill

// One axis of the output: element i is offsets[i], or start + i * step where offsets is NULL. Offsets are in
// elements of the input.
typedef struct pm_move_axis {
    int64_t extent, start, step;
    const int64_t *offsets;
} pm_move_axis;

typedef struct pm_move {
    uint32_t rank;
    pm_move_axis axes[PM_MAX_RANK];
} pm_move;

// The move that leaves x as it is; then change axes.
pm_move pm_move_all(const pm_tensor *x);

// A table of extent offsets for an axis of the move, in the program's region; NULL (and a failure) when it is
// too large.
int64_t *pm_move_table(pm_compose *c, int64_t extent);

// Appends the move of x. fill: a scalar of x's type, or PM_NO_VALUE for 0.
uint32_t pm_move_add(pm_compose *c, const pm_move *move, uint32_t x, uint32_t fill);

// The move that a Move node makes; tables are the node's.
pm_move pm_move_of(const pm_node *node);
