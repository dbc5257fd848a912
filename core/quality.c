#include "core/quality.h"

#include <math.h>

enum { BINS = 4096, BINS_PER_UNIT = 128, BOUND = 16, PER_CLASS = 3 };

// Among how many outputs the class may be; 0: the measure is another.
static size_t top_of(pm_quality quality)
{
    switch (quality) {
    case PM_QUALITY_TOP_2:
        return 2;
    case PM_QUALITY_TOP_3:
        return 3;
    case PM_QUALITY_TOP_5:
        return 5;
    case PM_QUALITY_TOP_10:
        return 10;
    default:
        return 0;
    }
}

// Where the counters of a measure begin, in this order, the tops' in the order in which they are asked for;
// those that are not asked for take no place.
typedef struct layout {
    bool auc, f1;
    size_t auc_at, f1_at;
} layout;

static layout layout_of(const pm_job *job)
{
    layout l = {0};
    for (uint32_t i = 0; i < job->metric_count; i++) {
        l.auc_at += top_of(job->metrics[i]) > 0;
        l.auc = l.auc || job->metrics[i] == PM_QUALITY_AUC;
        l.f1 = l.f1 || job->metrics[i] == PM_QUALITY_F1;
    }
    l.f1_at = l.auc_at + (l.auc ? 2 * BINS : 0);
    return l;
}

pm_status pm_quality_check(const pm_job *job, size_t outputs)
{
    const bool one = job->loss == PM_LOSS_BINARY_CROSS_ENTROPY;
    if (layout_of(job).auc && outputs != (one ? 1 : 2))
        return pm_fail(PM_INVALID,
                       "metrics: auc is of two classes, or of one output under "
                       "binary_cross_entropy; the model has %zu outputs",
                       outputs);
    return pm_ok();
}

size_t pm_quality_counters(const pm_job *job, size_t outputs)
{
    const layout l = layout_of(job);
    return l.f1_at + (l.f1 ? PER_CLASS * outputs : 0);
}

static void count_score(double score, bool positive, uint64_t *bins)
{
    const double at = floor((score + BOUND) * BINS_PER_UNIT);
    const size_t bin = at >= BINS ? BINS - 1 : at > 0 ? (size_t)at : 0; // NaN is the least
    bins[2 * bin + positive]++;
}

static void count_tops(const pm_job *job, const float *outputs, size_t count, size_t class,
                       uint64_t *counters)
{
    size_t larger = 0;
    for (size_t i = 0; i < count; i++)
        larger += outputs[i] > outputs[class] || (outputs[i] == outputs[class] && i < class);
    for (uint32_t i = 0; i < job->metric_count; i++)
        if (top_of(job->metrics[i]) > 0)
            *counters++ += larger < top_of(job->metrics[i]);
}

// The counter of a top; NULL where the sums have none.
static const uint64_t *find_top(const pm_job *job, pm_quality quality, const pm_quality_sums *sums)
{
    size_t at = 0;
    for (uint32_t i = 0; i < job->metric_count && job->metrics[i] != quality; i++)
        at += top_of(job->metrics[i]) > 0;
    return at < sums->counter_count ? &sums->counters[at] : NULL;
}

// For each class: right answers, answers, occurrences.
static void count_answer(uint64_t *of_class, bool answered, bool wanted)
{
    of_class[0] += answered && wanted;
    of_class[1] += answered;
    of_class[2] += wanted;
}

void pm_quality_count_class(const pm_job *job, const float *outputs, size_t count, int32_t class,
                            uint64_t *counters)
{
    const layout l = layout_of(job);
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        best = outputs[i] > outputs[best] ? i : best;
    if (l.auc_at > 0)
        count_tops(job, outputs, count, (size_t) class, counters);
    if (l.auc)
        count_score((double)outputs[1] - (double)outputs[0], class == 1, counters + l.auc_at);
    if (l.f1) {
        count_answer(counters + l.f1_at + PER_CLASS * best, true, best == (size_t) class);
        if (best != (size_t) class)
            count_answer(counters + l.f1_at + PER_CLASS * (size_t) class, false, true);
    }
}

void pm_quality_count_values(const pm_job *job, const float *outputs, const float *wanted, size_t count,
                             uint64_t *counters)
{
    const layout l = layout_of(job);
    if (l.auc)
        count_score((double)outputs[0], wanted[0] > 0.5f, counters + l.auc_at);
    for (size_t i = 0; l.f1 && i < count; i++)
        count_answer(counters + l.f1_at + PER_CLASS * i, outputs[i] > 0, wanted[i] > 0.5f);
}

static double auc(const uint64_t *bins)
{
    double pairs = 0, below = 0, positives = 0;
    for (size_t b = 0; b < BINS; b++) {
        const double negative = (double)bins[2 * b], positive = (double)bins[2 * b + 1];
        pairs += positive * (below + negative / 2);
        below += negative;
        positives += positive;
    }
    return pairs / (positives * below); // NaN where one side is empty
}

static double f1(const uint64_t *counters, size_t classes)
{
    double sum = 0;
    for (size_t c = 0; c < classes; c++, counters += PER_CLASS) {
        const uint64_t all = counters[1] + counters[2]; // 2 tp + fp + fn
        sum += all ? 2 * (double)counters[0] / (double)all : 0;
    }
    return classes ? sum / (double)classes : NAN;
}

double pm_quality_value(const pm_job *job, pm_quality quality, const pm_quality_sums *sums)
{
    const layout l = layout_of(job);
    const double rows = (double)sums->rows;
    switch (quality) {
    case PM_QUALITY_ACCURACY:
        return (double)sums->correct / rows;
    case PM_QUALITY_LOG_LOSS:
        return sums->loss;
    case PM_QUALITY_RMSE:
        return sqrt(sums->loss);
    case PM_QUALITY_TOP_2:
    case PM_QUALITY_TOP_3:
    case PM_QUALITY_TOP_5:
    case PM_QUALITY_TOP_10: {
        const uint64_t *top = find_top(job, quality, sums);
        return top ? (double)*top / rows : NAN;
    }
    case PM_QUALITY_AUC:
        return sums->counter_count >= l.auc_at + 2 * BINS ? auc(sums->counters + l.auc_at) : NAN;
    case PM_QUALITY_F1:
        return sums->counter_count > l.f1_at
                   ? f1(sums->counters + l.f1_at, (sums->counter_count - l.f1_at) / PER_CLASS)
                   : NAN;
    }
    return NAN;
}
