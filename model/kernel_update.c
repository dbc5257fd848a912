// Kernels of the update rules, and of what goes between workers and shards; see model/kernels.h and
// ps/optimizer.h.
#include "model/kernels_variant.h"

#include <math.h>
#include <string.h>

// Arrays are gone through in blocks, and their elements asked for AHEAD of their turn where they are LONG:
// the hardware does not look past the end of a page.
enum { BLOCK = 64, AHEAD = 256, LONG = 1024, LINE = 16 };

static inline void ask(const float *x, size_t first, size_t count)
{
    for (size_t i = 0; count >= LONG && i < BLOCK; i += LINE)
        __builtin_prefetch(x + first + AHEAD + i);
}

static inline size_t end_of(size_t first, size_t count)
{
    return count - first < BLOCK ? count : first + BLOCK;
}

// Elements first to end of an update.
typedef void part(const pm_update_rule *rule, const pm_update *u, size_t first, size_t end);

static inline __attribute__((always_inline)) void in_blocks(part *run, size_t moments,
                                                            const pm_update_rule *rule, const pm_update *u)
{
    for (size_t first = 0; first < u->count; first += BLOCK) {
        ask(u->gradient, first, u->count);
        ask(u->from, first, u->count);
        ask(u->to, first, u->count);
        for (size_t m = 0; m < moments; m++)
            ask(u->moments[m], first, u->count);
        run(rule, u, first, end_of(first, u->count));
    }
}

#define RULE(name, moments)                                                                                  \
    static void name(const pm_update_rule *rule, const pm_update *u)                                         \
    {                                                                                                        \
        in_blocks(name##_part, moments, rule, u);                                                            \
    }

static inline void sgd_part(const pm_update_rule *rule, const pm_update *u, size_t first, size_t end)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to;
    const float rate = rule->rate, decay = rule->decay;
    for (size_t i = first; i < end; i++)
        to[i] = from[i] - rate * (g[i] + decay * from[i]);
}
RULE(sgd, 0)

static inline void momentum_part(const pm_update_rule *rule, const pm_update *u, size_t first, size_t end)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict m = u->moments[0];
    const float rate = rule->rate, decay = rule->decay, keep = rule->momentum;
    for (size_t i = first; i < end; i++) {
        float v = keep * m[i] + (g[i] + decay * from[i]);
        m[i] = v;
        to[i] = from[i] - rate * v;
    }
}
RULE(momentum, 1)

static inline void adagrad_part(const pm_update_rule *rule, const pm_update *u, size_t first, size_t end)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict s = u->moments[0];
    const float rate = rule->rate, decay = rule->decay, epsilon = rule->epsilon;
    for (size_t i = first; i < end; i++) {
        float slope = g[i] + decay * from[i];
        float square = s[i] + slope * slope;
        s[i] = square;
        to[i] = from[i] - rate * (slope / (sqrtf(square) + epsilon));
    }
}
RULE(adagrad, 1)

static inline void adam_part(const pm_update_rule *rule, const pm_update *u, size_t first, size_t end)
{
    const pm_update_rule c = *rule;
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict m = u->moments[0], *restrict v = u->moments[1];
    for (size_t i = first; i < end; i++) {
        float slope = g[i] + c.decay * from[i];
        float mean = c.beta1 * m[i] + c.rest1 * slope;
        float square = c.beta2 * v[i] + c.rest2 * (slope * slope);
        m[i] = mean;
        v[i] = square;
        to[i] = c.scale * from[i] - c.rate * (mean / (sqrtf(square) / c.root + c.epsilon));
    }
}
RULE(adam, 2)

static void sum(const float *x, const float *y, float *to, size_t n)
{
    const float *restrict left = x, *restrict right = y;
    float *restrict out = to;
    for (size_t first = 0; first < n; first += BLOCK) {
        ask(x, first, n);
        ask(y, first, n);
        const size_t end = end_of(first, n);
        for (size_t i = first; i < end; i++)
            out[i] = left[i] + right[i];
    }
}

static void copy(const float *x, float *to, size_t n)
{
    for (size_t first = 0; first < n; first += BLOCK) {
        ask(x, first, n);
        ask(to, first, n);
        memcpy(to + first, x + first, (end_of(first, n) - first) * sizeof *x);
    }
}

void PM_KERNEL(fill_update)(pm_kernels *table)
{
    table->sgd = sgd;
    table->momentum = momentum;
    table->adagrad = adagrad;
    table->adam = adam;
    table->sum = sum;
    table->copy = copy;
}
