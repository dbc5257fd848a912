// The twins of the update rules: each element alone, in float, as all tables must have its bits.
#include "model/reference.h"

#include <math.h>
#include <string.h>

void pm_reference_sgd(const pm_update_rule *c, const pm_update *u)
{
    for (size_t i = 0; i < u->count; i++)
        u->to[i] = u->from[i] - c->rate * (u->gradient[i] + c->decay * u->from[i]);
}

void pm_reference_momentum(const pm_update_rule *c, const pm_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        float *m = &u->moments[0][i];
        *m = c->momentum * *m + (u->gradient[i] + c->decay * u->from[i]);
        u->to[i] = u->from[i] - c->rate * *m;
    }
}

void pm_reference_adagrad(const pm_update_rule *c, const pm_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        const float slope = u->gradient[i] + c->decay * u->from[i];
        float *s = &u->moments[0][i];
        *s += slope * slope;
        u->to[i] = u->from[i] - c->rate * (slope / (sqrtf(*s) + c->epsilon));
    }
}

void pm_reference_adam(const pm_update_rule *c, const pm_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        const float slope = u->gradient[i] + c->decay * u->from[i];
        float *m = &u->moments[0][i], *v = &u->moments[1][i];
        *m = c->beta1 * *m + c->rest1 * slope;
        *v = c->beta2 * *v + c->rest2 * (slope * slope);
        u->to[i] = c->scale * u->from[i] - c->rate * (*m / (sqrtf(*v) / c->root + c->epsilon));
    }
}

void pm_reference_copy(const float *x, float *to, size_t n)
{
    memcpy(to, x, n * sizeof *x);
}

void pm_reference_sum(const float *x, const float *y, float *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = x[i] + y[i];
}
