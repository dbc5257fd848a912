#include "cluster/tally.h"

#include <stdlib.h>
#include <string.h>

typedef struct sheet {
    bool used;
    uint64_t clock;
    pm_lane_set in;
    pm_score *nodes; // 2 * lanes
} sheet;

struct pm_tally {
    uint32_t lanes, window;
    pm_score *scores;
    sheet *sheets; // clock c in place c % window
};

pm_status pm_tally_create(pm_tally **tally, uint32_t lanes, uint32_t window)
{
    pm_tally *t = calloc(1, sizeof *t);
    if (!t)
        return pm_fail(PM_NO_MEMORY, "a tally");
    t->lanes = lanes;
    t->window = window;
    t->scores = calloc((size_t)window * 2 * lanes, sizeof *t->scores);
    t->sheets = calloc(window, sizeof *t->sheets);
    if (!t->scores || !t->sheets) {
        pm_tally_destroy(&t);
        return pm_fail(PM_NO_MEMORY, "a tally");
    }
    for (uint32_t i = 0; i < window; i++)
        t->sheets[i].nodes = t->scores + (size_t)i * 2 * lanes;
    *tally = t;
    return pm_ok();
}

void pm_tally_destroy(pm_tally **tally)
{
    if (!tally || !*tally)
        return;
    free((*tally)->scores);
    free((*tally)->sheets);
    free(*tally);
    *tally = NULL;
}

void pm_tally_reset(pm_tally *tally)
{
    for (uint32_t i = 0; i < tally->window; i++)
        tally->sheets[i].used = false;
}

bool pm_tally_add(pm_tally *tally, uint64_t clock, pm_block block, pm_score score, pm_score *total)
{
    sheet *s = &tally->sheets[clock % tally->window];
    if (s->used && s->clock > clock)
        return false;
    if (!s->used || s->clock < clock) {
        memset(&s->in, 0, sizeof s->in);
        s->used = true;
        s->clock = clock;
    }
    uint32_t node = pm_block_node(block, tally->lanes);
    if (pm_lane_set_covers(&s->in, node))
        return false;
    for (uint32_t below; (below = pm_lane_set_below(&s->in, node, tally->lanes));)
        pm_lane_set_drop(&s->in, below);
    s->nodes[node] = score;
    pm_lane_set_put(&s->in, node);
    for (; node > 1 && pm_lane_set_has(&s->in, node ^ 1); node /= 2) {
        const pm_score *left = &s->nodes[node & ~1u], *right = &s->nodes[node | 1];
        s->nodes[node / 2] = (pm_score){left->loss_sum + right->loss_sum, left->correct + right->correct,
                                        left->rows + right->rows};
        pm_lane_set_drop(&s->in, node);
        pm_lane_set_drop(&s->in, node ^ 1);
        pm_lane_set_put(&s->in, node / 2);
    }
    if (node == 1)
        *total = s->nodes[1]; // the mark of the root stays: what comes again is covered
    return node == 1;
}
