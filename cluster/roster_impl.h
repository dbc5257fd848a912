#pragma once
// What the parts of the roster share: roster.c (messages), phase.c (who is here and what follows from it),
// instruct.c (directives), score.c (reports, metrics of versions, progress), page.c (the status page).
#include "cluster/roster.h"

#include "cluster/schedule.h"
#include "cluster/tally.h"

enum {
    NAME_MAX_BYTES = 200,
    ENDPOINTS_MAX = 64,
    TRAIN_WINDOW = 128,
    EVALUATION_WINDOW = 8,
    CUT_SCORES = 16,
    RATE_SAMPLES = 32
};

typedef enum roster_phase { GATHER, PREPARE, RUN, STOP } roster_phase;

// A place in the cluster: (role, rank), taken by one process at a time.
typedef struct place {
    Paramill__Role role;
    uint32_t rank;
    bool here;
    bool beats; // has sent a heartbeat since it came
    char *name, *host;
    char **endpoints;
    uint32_t endpoint_count;
    pm_peer peer;
    int64_t heard_ms;
    int64_t absent_ms; // when it went; while !here
    Paramill__Phase phase;
    uint64_t epoch, clock, queue, directive;
} place;

// The quality of the parameters at the clock of a cut.
typedef struct cut_score {
    uint64_t clock; // 0: none
    pm_score train; // of the steps since the cut before
    bool trained;   // the last step before the cut is in
    pm_score validation;
    bool validated;
    double metrics[PM_QUALITIES_MAX]; // of the validation
} cut_score;

typedef struct rate_sample {
    int64_t ms;
    uint64_t step;
} rate_sample;

struct pm_roster {
    const pm_job *job;
    pm_coordinator_events events;
    pm_steps steps;
    uint64_t train_rows;
    const char *vocabulary; // the caller's
    bool resume;
    bool stay, done; // done: told once that a job which stays has all its versions
    uint32_t absent_ms;
    pm_outbox outbox;
    place *places; // servers, workers, the checkpoint service
    uint32_t place_count;
    char *kernel_set; // of the workers; NULL: none has come

    roster_phase phase;
    int64_t phase_ms; // when it began
    bool began;       // an epoch has been prepared: from then on one worker is enough
    uint64_t number, epoch, start_clock, restore_version;
    bool floor_known;
    uint64_t floor_version;         // versions up to it are of other runs
    uint64_t version, version_step; // newest of this run
    int64_t finish_ms; // when the last version was seen with workers still at their accounts; 0: not yet
    pm_status result;

    uint64_t end;     // the job's last clock
    double best_loss; // of validation, in this epoch of the job
    uint64_t best_clock, judged_clock;

    pm_tally *train, *evaluation;
    pm_score since_cut; // training sums since the last cut
    cut_score cuts[CUT_SCORES];
    pm_score last; // of the newest complete step
    uint64_t last_step;
    pm_score last_validation;
    uint64_t last_validation_clock;
    rate_sample samples[RATE_SAMPLES];
    uint32_t sample_count;
};

static inline place *roster_checkpoint(pm_roster *roster)
{
    return &roster->places[roster->place_count - 1];
}

const char *pm_role_name(Paramill__Role role);

// phase.c
void pm_roster_leave(pm_roster *roster, place *p, int64_t now_ms);
bool pm_roster_advance(pm_roster *roster, int64_t now_ms); // one transition; true when something changed
void pm_roster_tell_missing(const pm_roster *roster);      // how many of each role are here, as an event
void pm_roster_count(const pm_roster *roster, Paramill__Role role, uint32_t *here, uint32_t *all);

// instruct.c
void pm_roster_instruct(pm_roster *roster, const place *p);
void pm_roster_changed(pm_roster *roster); // a new number, to all
uint64_t pm_roster_clock(const pm_roster *roster);
uint32_t pm_roster_lease(const pm_roster *roster, const place *p, pm_block blocks[PM_BLOCKS_MAX]);

// score.c
pm_status pm_roster_score_create(pm_roster *roster) PM_CHECKED;
void pm_roster_score_destroy(pm_roster *roster);
double pm_roster_accuracy(const pm_roster *roster,
                          const pm_score *score); // NAN where the loss does not judge
void pm_roster_score_reset(pm_roster *roster);
void pm_roster_score(pm_roster *roster, const Paramill__Report *report, int64_t now_ms);
void pm_roster_publish_scores(
    pm_roster *roster); // to the checkpoint service, for the cuts it has not published
void pm_roster_progress(const pm_roster *roster, pm_progress *progress);

// patience.c
void pm_roster_patience_reset(pm_roster *roster);
void pm_roster_patience(pm_roster *roster, uint64_t clock, double loss); // of a validation
uint64_t pm_roster_limit(const pm_roster *roster);                       // no worker begins this step yet

// page.c: JSON, owned by the caller; NULL when out of memory.
char *pm_roster_page(const pm_roster *roster, int64_t now_ms);
