#include "ps/optimizer.h"

#include <math.h>
#include <string.h>

enum { AHEAD = 8 }; // rows that are fetched before they are needed

uint32_t pm_optimizer_moments(pm_optimizer_kind kind)
{
    static const uint32_t moments[] = {0, 1, 2, 2, 1};
    return moments[kind];
}

float pm_optimizer_moment_start(const pm_job_optimizer *optimizer)
{
    return optimizer->kind == PM_OPTIMIZER_ADAGRAD ? (float)optimizer->initial_accumulator : 0;
}

double pm_optimizer_rate(const pm_job_optimizer *optimizer, uint64_t step, uint64_t total)
{
    uint64_t warmup = optimizer->warmup_steps;
    if (step < warmup)
        return optimizer->learning_rate * (double)(step + 1) / (double)warmup;
    if (optimizer->schedule == PM_SCHEDULE_CONSTANT || total <= warmup)
        return optimizer->learning_rate;
    double part = (double)(step - warmup) / (double)(total - warmup);
    double least = optimizer->min_learning_rate;
    return least + (optimizer->learning_rate - least) * 0.5 * (1.0 + cos(M_PI * part));
}

static void sgd(const pm_update *u, float rate, float decay)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to;
    for (size_t i = 0; i < u->count; i++)
        to[i] = from[i] - rate * (g[i] + decay * from[i]);
}

static void momentum(const pm_update *u, float rate, float decay, float keep)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict m = u->moments[0];
    for (size_t i = 0; i < u->count; i++) {
        float v = keep * m[i] + (g[i] + decay * from[i]);
        m[i] = v;
        to[i] = from[i] - rate * v;
    }
}

static void adagrad(const pm_update *u, float rate, float decay, float epsilon)
{
    const float *restrict g = u->gradient, *restrict from = u->from;
    float *restrict to = u->to, *restrict s = u->moments[0];
    for (size_t i = 0; i < u->count; i++) {
        float slope = g[i] + decay * from[i];
        float square = s[i] + slope * slope;
        s[i] = square;
        to[i] = from[i] - rate * (slope / (sqrtf(square) + epsilon));
    }
}

typedef struct adam_constants {
    float beta1, rest1, beta2, rest2; // rest = 1 - beta
    float rate;                       // learning rate over the bias of the first moment
    float root;                       // square root of the bias of the second moment
    float epsilon;
    float decay; // added to the gradient
    float scale; // of the old value: 1, or 1 - rate * weight_decay
} adam_constants;

static void adam(const pm_update *u, const adam_constants *constants)
{
    const adam_constants c = *constants;
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

static adam_constants adam_prepare(const pm_job_optimizer *o, double decay, double rate, uint64_t step)
{
    double t = (double)(step + 1), bias1 = 1.0 - pow(o->beta1, t), bias2 = 1.0 - pow(o->beta2, t);
    bool decoupled = o->kind == PM_OPTIMIZER_ADAMW;
    return (adam_constants){
        .beta1 = (float)o->beta1,
        .rest1 = (float)(1.0 - o->beta1),
        .beta2 = (float)o->beta2,
        .rest2 = (float)(1.0 - o->beta2),
        .rate = (float)(rate / bias1),
        .root = (float)sqrt(bias2),
        .epsilon = (float)o->epsilon,
        .decay = decoupled ? 0.0f : (float)decay,
        .scale = decoupled ? (float)(1.0 - rate * decay) : 1.0f,
    };
}

// What is the same for all elements of a step.
typedef struct constants {
    pm_optimizer_kind kind;
    float rate, decay, momentum, epsilon;
    adam_constants adam;
} constants;

static constants prepare(const pm_job_optimizer *o, double rate, uint64_t step, bool decays)
{
    const double decay = decays ? o->weight_decay : 0;
    constants c = {.kind = o->kind,
                   .rate = (float)rate,
                   .decay = (float)decay,
                   .momentum = (float)o->momentum,
                   .epsilon = (float)o->epsilon};
    if (o->kind == PM_OPTIMIZER_ADAM || o->kind == PM_OPTIMIZER_ADAMW)
        c.adam = adam_prepare(o, decay, rate, step);
    return c;
}

static void apply(const constants *c, const pm_update *update)
{
    switch (c->kind) {
    case PM_OPTIMIZER_SGD:
        sgd(update, c->rate, c->decay);
        break;
    case PM_OPTIMIZER_MOMENTUM:
        momentum(update, c->rate, c->decay, c->momentum);
        break;
    case PM_OPTIMIZER_ADAM:
    case PM_OPTIMIZER_ADAMW:
        adam(update, &c->adam);
        break;
    case PM_OPTIMIZER_ADAGRAD:
        adagrad(update, c->rate, c->decay, c->epsilon);
        break;
    }
}

void pm_optimizer_apply(const pm_job_optimizer *optimizer, double rate, uint64_t step,
                        const pm_update *update)
{
    const constants c = prepare(optimizer, rate, step, update->decays);
    apply(&c, update);
}

void pm_optimizer_apply_rows(const pm_job_optimizer *optimizer, double rate, uint64_t step, const pm_rows *r)
{
    const constants c = prepare(optimizer, rate, step, r->decays);
    const uint32_t moments = pm_optimizer_moments(optimizer->kind);
    const size_t bytes = r->width * sizeof(float);
    for (size_t i = 0; i < r->count; i++) {
        const size_t at = r->ids[i] * r->width, own = i * r->width;
        if (i + AHEAD < r->count) {
            const size_t next = r->ids[i + AHEAD] * r->width;
            __builtin_prefetch(r->to + next, 1);
            for (uint32_t m = 0; m < moments; m++)
                __builtin_prefetch(r->moments[m] + next, 1);
        }
        memcpy(r->from + own, r->to + at, bytes);
        pm_update u = {
            .count = r->width, .gradient = r->gradient + own, .from = r->from + own, .to = r->to + at};
        for (uint32_t m = 0; m < moments; m++)
            u.moments[m] = r->moments[m] + at;
        apply(&c, &u);
    }
}

void pm_statistic_apply(double keep, uint32_t lanes, const pm_update *update)
{
    const float *restrict sum = update->gradient, *restrict from = update->from;
    float *restrict to = update->to;
    float old = (float)keep, share = (float)((1.0 - keep) / lanes);
    for (size_t i = 0; i < update->count; i++)
        to[i] = old * from[i] + share * sum[i];
}
