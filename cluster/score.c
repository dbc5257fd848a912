// Reports: the loss of each step, evaluations, the quality that a version's manifest records, progress.
#include "cluster/roster_impl.h"
#include "core/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_MS = 300 };

pm_status pm_roster_score_create(pm_roster *roster)
{
    pm_status status = pm_tally_create(&roster->train, roster->job->lanes, TRAIN_WINDOW);
    if (status.code == PM_OK)
        status = pm_tally_create(&roster->evaluation, roster->job->lanes, EVALUATION_WINDOW);
    return status;
}

void pm_roster_score_destroy(pm_roster *roster)
{
    pm_tally_destroy(&roster->train);
    pm_tally_destroy(&roster->evaluation);
}

void pm_roster_score_reset(pm_roster *roster)
{
    pm_tally_reset(roster->train);
    pm_tally_reset(roster->evaluation);
    memset(roster->cuts, 0, sizeof roster->cuts);
    memset(&roster->since_cut, 0, sizeof roster->since_cut);
    roster->sample_count = 0;
    roster->last_step = roster->start_clock;
}

// The entry of a cut; the oldest makes room.
static cut_score *cut_at(pm_roster *roster, uint64_t clock)
{
    cut_score *oldest = &roster->cuts[0];
    for (int i = 0; i < CUT_SCORES; i++) {
        if (roster->cuts[i].clock == clock)
            return &roster->cuts[i];
        if (roster->cuts[i].clock < oldest->clock)
            oldest = &roster->cuts[i];
    }
    *oldest = (cut_score){.clock = clock};
    return oldest;
}

static double mean(double sum, uint64_t rows)
{
    return rows ? sum / (double)rows : NAN;
}

double pm_roster_accuracy(const pm_roster *roster, const pm_score *score)
{
    return pm_job_judges(roster->job) ? mean((double)score->correct, score->rows) : NAN;
}

static void sample(pm_roster *roster, int64_t now_ms)
{
    rate_sample *s = roster->samples;
    uint32_t n = roster->sample_count;
    if (n > 0 && now_ms - s[n - 1].ms < SAMPLE_MS)
        return;
    if (n == RATE_SAMPLES) {
        memmove(s, s + 1, (RATE_SAMPLES - 1) * sizeof *s);
        n--;
    }
    s[n] = (rate_sample){now_ms, roster->last_step};
    roster->sample_count = n + 1;
}

void pm_roster_progress(const pm_roster *roster, pm_progress *progress)
{
    const pm_steps *steps = &roster->steps;
    uint64_t step = roster->last_step;
    double rate = 0;
    if (roster->sample_count > 1) {
        const rate_sample *first = &roster->samples[0], *last = &roster->samples[roster->sample_count - 1];
        rate = (double)(last->step - first->step) * 1000.0 / (double)(last->ms - first->ms);
    }
    *progress = (pm_progress){
        .step = step,
        .total_steps = roster->end,
        .epoch = (uint32_t)(step ? (step - 1) / steps->per_epoch + 1 : 1),
        .epochs = roster->job->epochs,
        .loss = mean(roster->last.loss_sum, roster->last.rows),
        .accuracy = pm_roster_accuracy(roster, &roster->last),
        .images_per_second = rate * roster->job->batch,
        .seconds_left = rate > 0 ? (double)(roster->end - step) / rate : NAN,
    };
}

static void step_complete(pm_roster *roster, uint64_t clock, pm_score total)
{
    roster->since_cut.loss_sum += total.loss_sum;
    roster->since_cut.correct += total.correct;
    roster->since_cut.rows += total.rows;
    if (pm_steps_is_cut(&roster->steps, clock + 1)) {
        cut_score *cut = cut_at(roster, clock + 1);
        cut->train = roster->since_cut;
        cut->trained = true;
        memset(&roster->since_cut, 0, sizeof roster->since_cut);
        pm_roster_publish_scores(roster);
    }
    if (clock + 1 <= roster->last_step)
        return;
    roster->last = total;
    roster->last_step = clock + 1;
}

static void measure(const pm_roster *roster, pm_score total, double metrics[PM_QUALITIES_MAX])
{
    const pm_quality_sums sums = {.loss = mean(total.loss_sum, total.rows),
                                  .correct = total.correct,
                                  .rows = total.rows,
                                  .counters = total.counters,
                                  .counter_count = total.counter_count};
    for (uint32_t i = 0; i < roster->job->metric_count; i++)
        metrics[i] = pm_quality_value(roster->job, roster->job->metrics[i], &sums);
}

static void evaluation_complete(pm_roster *roster, uint64_t clock, pm_score total)
{
    double metrics[PM_QUALITIES_MAX] = {0};
    measure(roster, total, metrics);
    total.counters = NULL; // the tally's
    total.counter_count = 0;
    roster->last_validation = total;
    roster->last_validation_clock = clock;
    if (roster->events.on_validation)
        roster->events.on_validation(roster->events.context, clock, mean(total.loss_sum, total.rows),
                                     pm_roster_accuracy(roster, &total), total.rows);
    for (uint32_t i = 0; roster->events.on_metric && i < roster->job->metric_count; i++)
        roster->events.on_metric(roster->events.context, clock, pm_quality_name(roster->job->metrics[i]),
                                 metrics[i]);
    pm_roster_patience(roster, clock, mean(total.loss_sum, total.rows));
    if (!pm_steps_is_cut(&roster->steps, clock))
        return;
    cut_score *cut = cut_at(roster, clock);
    cut->validation = total;
    memcpy(cut->metrics, metrics, sizeof metrics);
    cut->validated = true;
    pm_roster_publish_scores(roster);
}

static void add_score(pm_roster *roster, const Paramill__Score *told)
{
    pm_block block = {told->lane_first, told->lane_count};
    if (!pm_block_valid(block, roster->job->lanes) || told->clock < roster->start_clock ||
        told->clock > roster->steps.total)
        return;
    pm_score score = {told->loss_sum, told->correct, told->rows, told->counters, told->n_counters};
    pm_score total;
    if (told->evaluation) {
        if (pm_tally_add(roster->evaluation, told->clock, block, score, &total))
            evaluation_complete(roster, told->clock, total);
    } else if (pm_tally_add(roster->train, told->clock, block, score, &total)) {
        step_complete(roster, told->clock, total);
    }
}

void pm_roster_score(pm_roster *roster, const Paramill__Report *report, int64_t now_ms)
{
    const uint64_t before = roster->last_step;
    for (size_t i = 0; i < report->n_scores; i++)
        add_score(roster, report->scores[i]);
    if (roster->last_step == before)
        return;
    sample(roster, now_ms);
    pm_progress progress;
    pm_roster_progress(roster, &progress);
    if (roster->events.on_step)
        roster->events.on_step(roster->events.context, &progress);
}

static void publish(pm_roster *roster, const cut_score *cut)
{
    Paramill__Published *body = pm_proto_new(&paramill__published__descriptor);
    if (!body)
        return;
    body->clock = cut->clock;
    body->train_loss = mean(cut->train.loss_sum, cut->train.rows);
    body->train_accuracy = pm_roster_accuracy(roster, &cut->train);
    body->validated = cut->validated;
    body->validation_loss = mean(cut->validation.loss_sum, cut->validation.rows);
    body->validation_accuracy = pm_roster_accuracy(roster, &cut->validation);
    const uint32_t metrics = cut->validated ? roster->job->metric_count : 0;
    body->metrics = metrics ? malloc(metrics * sizeof *body->metrics) : NULL;
    body->n_metrics = body->metrics ? metrics : 0;
    if (body->metrics)
        memcpy(body->metrics, cut->metrics, metrics * sizeof *body->metrics);
    body->kernel_set = pm_proto_string(roster->kernel_set ? roster->kernel_set : "");
    pm_outbox_post(&roster->outbox, 0, &roster_checkpoint(roster)->peer,
                   pm_header_create(0, roster->epoch, PARAMILL__HEADER__BODY_PUBLISHED, body), NULL, 0);
}

void pm_roster_publish_scores(pm_roster *roster)
{
    if (roster->phase != RUN || !roster_checkpoint(roster)->here)
        return;
    for (int i = 0; i < CUT_SCORES; i++) {
        const cut_score *cut = &roster->cuts[i];
        bool evaluated = pm_job_validates(roster->job) && pm_steps_is_epoch_end(&roster->steps, cut->clock);
        uint64_t published = roster->version ? roster->version_step : 0;
        if (cut->clock > published && cut->trained && (cut->validated || !evaluated))
            publish(roster, cut);
    }
}
