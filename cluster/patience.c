// Early stopping: when validation has not become better for a number of epochs, the job ends at a step that
// follows from the losses alone, whatever the speed of workers and disk. Workers may run one epoch ahead of
// the newest validation and version, never two; so every epoch's version is there when the best is chosen,
// and the end is the end of the epoch after the one that used up the patience.
#include "cluster/roster_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static uint64_t at_most(uint64_t clock, uint64_t limit)
{
    return clock < limit ? clock : limit;
}

void pm_roster_patience_reset(pm_roster *roster)
{
    roster->end = roster->steps.total;
    roster->best_loss = INFINITY;
    roster->best_clock = roster->judged_clock = roster->start_clock;
}

uint64_t pm_roster_limit(const pm_roster *roster)
{
    uint64_t known = roster->judged_clock, per_epoch = roster->steps.per_epoch;
    if (roster->job->patience == 0)
        return roster->end;
    if (roster->version_step < known)
        known = roster->version_step > roster->start_clock ? roster->version_step : roster->start_clock;
    return at_most((known / per_epoch + 2) * per_epoch, roster->end);
}

void pm_roster_patience(pm_roster *roster, uint64_t clock, double loss)
{
    uint64_t per_epoch = roster->steps.per_epoch, patience = roster->job->patience;
    if (patience == 0 || clock <= roster->judged_clock || roster->end < roster->steps.total)
        return;
    roster->judged_clock = clock;
    if (loss < roster->best_loss) {
        roster->best_loss = loss;
        roster->best_clock = clock;
    }
    if (clock - roster->best_clock >= patience * per_epoch && clock < roster->steps.total) {
        roster->end = at_most(clock + per_epoch, roster->steps.total);
        char text[200];
        snprintf(text, sizeof text,
                 "validation was best at step %" PRIu64 " and not since: the job ends at step %" PRIu64,
                 roster->best_clock, roster->end);
        if (roster->events.on_phase)
            roster->events.on_phase(roster->events.context, text);
    }
    pm_roster_changed(roster);
}
