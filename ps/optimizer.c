#include "ps/optimizer.h"

#include <math.h>

uint32_t pm_optimizer_moments(pm_optimizer_kind kind)
{
    static const uint32_t moments[] = {0, 1, 2, 2};
    return moments[kind];
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

void pm_optimizer_apply(const pm_job_optimizer *optimizer, double rate, uint64_t step,
                        const pm_update *update)
{
    const double decay = update->decays ? optimizer->weight_decay : 0;
    switch (optimizer->kind) {
    case PM_OPTIMIZER_SGD:
        sgd(update, (float)rate, (float)decay);
        break;
    case PM_OPTIMIZER_MOMENTUM:
        momentum(update, (float)rate, (float)decay, (float)optimizer->momentum);
        break;
    case PM_OPTIMIZER_ADAM:
    case PM_OPTIMIZER_ADAMW: {
        adam_constants constants = adam_prepare(optimizer, decay, rate, step);
        adam(update, &constants);
        break;
    }
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
