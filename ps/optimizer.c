#include "ps/optimizer.h"

#include <math.h>
#include <string.h>

enum { AHEAD = 20 }; // rows that are fetched before they are needed

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

static void adam_prepare(const pm_job_optimizer *o, double decay, double rate, uint64_t step,
                         pm_update_rule *rule)
{
    double t = (double)(step + 1), bias1 = 1.0 - pow(o->beta1, t), bias2 = 1.0 - pow(o->beta2, t);
    bool decoupled = o->kind == PM_OPTIMIZER_ADAMW;
    rule->beta1 = (float)o->beta1;
    rule->rest1 = (float)(1.0 - o->beta1);
    rule->beta2 = (float)o->beta2;
    rule->rest2 = (float)(1.0 - o->beta2);
    rule->rate = (float)(rate / bias1);
    rule->root = (float)sqrt(bias2);
    rule->decay = decoupled ? 0.0f : (float)decay;
    rule->scale = decoupled ? (float)(1.0 - rate * decay) : 1.0f;
}

static pm_update_rule prepare(const pm_job_optimizer *o, double rate, uint64_t step, bool decays)
{
    const double decay = decays ? o->weight_decay : 0;
    pm_update_rule rule = {.rate = (float)rate,
                           .decay = (float)decay,
                           .momentum = (float)o->momentum,
                           .epsilon = (float)o->epsilon};
    if (o->kind == PM_OPTIMIZER_ADAM || o->kind == PM_OPTIMIZER_ADAMW)
        adam_prepare(o, decay, rate, step, &rule);
    return rule;
}

typedef void (*kernel)(const pm_update_rule *rule, const pm_update *update);

static kernel kernel_of(pm_optimizer_kind kind)
{
    const pm_kernels *k = pm_kernels_get();
    const kernel kernels[] = {[PM_OPTIMIZER_SGD] = k->sgd,
                              [PM_OPTIMIZER_MOMENTUM] = k->momentum,
                              [PM_OPTIMIZER_ADAM] = k->adam,
                              [PM_OPTIMIZER_ADAMW] = k->adam,
                              [PM_OPTIMIZER_ADAGRAD] = k->adagrad};
    return kernels[kind];
}

void pm_optimizer_apply(const pm_job_optimizer *optimizer, double rate, uint64_t step,
                        const pm_update *update)
{
    const pm_update_rule rule = prepare(optimizer, rate, step, update->decays);
    kernel_of(optimizer->kind)(&rule, update);
}

void pm_optimizer_apply_rows(const pm_job_optimizer *optimizer, double rate, uint64_t step, const pm_rows *r)
{
    const pm_update_rule rule = prepare(optimizer, rate, step, r->decays);
    const kernel apply = kernel_of(optimizer->kind);
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
        apply(&rule, &u);
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
