#include "cluster/tally.h"

#include <stdlib.h>
#include <string.h>

typedef struct sheet {
    bool used;
    uint64_t clock;
    pm_lane_set in;
    pm_score *nodes; // 2 * lanes; those in hold counters of their own
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

static void drop_counters(pm_score *score)
{
    free((void *)(uintptr_t)score->counters);
    score->counters = NULL;
    score->counter_count = 0;
}

static void empty(const pm_tally *tally, sheet *s)
{
    for (uint32_t i = 0; s->nodes && i < 2 * tally->lanes; i++)
        drop_counters(&s->nodes[i]);
    memset(&s->in, 0, sizeof s->in);
    s->used = false;
}

// A copy with counters of its own; none when out of memory.
static pm_score own(const pm_score *score)
{
    pm_score copy = *score;
    uint64_t *counters = score->counter_count ? malloc(score->counter_count * sizeof *counters) : NULL;
    if (counters)
        memcpy(counters, score->counters, score->counter_count * sizeof *counters);
    copy.counters = counters;
    copy.counter_count = counters ? score->counter_count : 0;
    return copy;
}

// The sum of two neighbours, which are emptied.
static pm_score add(pm_score *left, pm_score *right)
{
    pm_score sum = {.loss_sum = left->loss_sum + right->loss_sum,
                    .correct = left->correct + right->correct,
                    .rows = left->rows + right->rows};
    if (left->counters && left->counter_count == right->counter_count) {
        uint64_t *counters = (uint64_t *)(uintptr_t)left->counters;
        for (size_t i = 0; i < left->counter_count; i++)
            counters[i] += right->counters[i];
        sum.counters = counters;
        sum.counter_count = left->counter_count;
        left->counters = NULL;
    }
    drop_counters(left);
    drop_counters(right);
    return sum;
}

void pm_tally_destroy(pm_tally **tally)
{
    if (!tally || !*tally)
        return;
    pm_tally_reset(*tally);
    free((*tally)->scores);
    free((*tally)->sheets);
    free(*tally);
    *tally = NULL;
}

void pm_tally_reset(pm_tally *tally)
{
    for (uint32_t i = 0; tally->sheets && i < tally->window; i++)
        empty(tally, &tally->sheets[i]);
}

bool pm_tally_add(pm_tally *tally, uint64_t clock, pm_block block, pm_score score, pm_score *total)
{
    sheet *s = &tally->sheets[clock % tally->window];
    if (s->used && s->clock > clock)
        return false;
    if (!s->used || s->clock < clock) {
        empty(tally, s);
        s->used = true;
        s->clock = clock;
    }
    uint32_t node = pm_block_node(block, tally->lanes);
    if (pm_lane_set_covers(&s->in, node))
        return false;
    for (uint32_t below; (below = pm_lane_set_below(&s->in, node, tally->lanes));) {
        pm_lane_set_drop(&s->in, below);
        drop_counters(&s->nodes[below]);
    }
    s->nodes[node] = own(&score);
    pm_lane_set_put(&s->in, node);
    for (; node > 1 && pm_lane_set_has(&s->in, node ^ 1); node /= 2) {
        s->nodes[node / 2] = add(&s->nodes[node & ~1u], &s->nodes[node | 1]);
        pm_lane_set_drop(&s->in, node);
        pm_lane_set_drop(&s->in, node ^ 1);
        pm_lane_set_put(&s->in, node / 2);
    }
    if (node == 1)
        *total = s->nodes[1]; // the mark of the root stays: what comes again is covered
    return node == 1;
}
