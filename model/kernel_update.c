// Kernels of the update rules; see model/kernels.h and ps/optimizer.h.
#include "model/kernels_variant.h"

#include <math.h>

static void sgd(const pm_update_rule *rule, const pm_update *u)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to;
    const float rate = rule->rate, decay = rule->decay;
    for (size_t i = 0; i < u->count; i++)
        to[i] = from[i] - rate * (g[i] + decay * from[i]);
}

static void momentum(const pm_update_rule *rule, const pm_update *u)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict m = u->moments[0];
    const float rate = rule->rate, decay = rule->decay, keep = rule->momentum;
    for (size_t i = 0; i < u->count; i++) {
        float v = keep * m[i] + (g[i] + decay * from[i]);
        m[i] = v;
        to[i] = from[i] - rate * v;
    }
}

static void adagrad(const pm_update_rule *rule, const pm_update *u)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict s = u->moments[0];
    const float rate = rule->rate, decay = rule->decay, epsilon = rule->epsilon;
    for (size_t i = 0; i < u->count; i++) {
        float slope = g[i] + decay * from[i];
        float square = s[i] + slope * slope;
        s[i] = square;
        to[i] = from[i] - rate * (slope / (sqrtf(square) + epsilon));
    }
}

static void adam(const pm_update_rule *rule, const pm_update *u)
{
    const pm_update_rule c = *rule;
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict m = u->moments[0], *restrict v = u->moments[1];
    for (size_t i = 0; i < u->count; i++) {
        float slope = g[i] + c.decay * from[i];
        float mean = c.beta1 * m[i] + c.rest1 * slope;
        float square = c.beta2 * v[i] + c.rest2 * (slope * slope);
        m[i] = mean;
        v[i] = square;
        to[i] = c.scale * from[i] - c.rate * (mean / (sqrtf(square) / c.root + c.epsilon));
    }
}

static void sum(const float *x, const float *y, float *to, size_t n)
{
    const float *restrict left = x, *restrict right = y;
    float *restrict out = to;
    for (size_t i = 0; i < n; i++)
        out[i] = left[i] + right[i];
}

void PM_KERNEL(fill_update)(pm_kernels *table)
{
    table->sgd = sgd;
    table->momentum = momentum;
    table->adagrad = adagrad;
    table->adam = adam;
    table->sum = sum;
}
