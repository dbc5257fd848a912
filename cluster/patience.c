// Early stopping: when validation has not become better for a number of epochs, the job ends at a step that
// follows from the losses alone, whatever the workers' speed. A worker may run one epoch ahead of the last
// validation that is known, never two, so the end is the end of the epoch after the one that used up the
// patience.
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
    uint64_t per_epoch = roster->steps.per_epoch;
    roster->end = roster->steps.total;
    roster->limit = roster->job->patience
                        ? at_most((roster->start_clock / per_epoch + 2) * per_epoch, roster->steps.total)
                        : roster->steps.total;
    roster->best_loss = INFINITY;
    roster->best_clock = roster->judged_clock = roster->start_clock;
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
    if (clock - roster->best_clock < patience * per_epoch) {
        roster->limit = at_most(clock + 2 * per_epoch, roster->steps.total);
    } else {
        roster->end = roster->limit;
        char text[200];
        snprintf(text, sizeof text,
                 "validation was best at step %" PRIu64 " and not since: the job ends at step %" PRIu64,
                 roster->best_clock, roster->end);
        if (roster->events.on_phase)
            roster->events.on_phase(roster->events.context, text);
    }
    pm_roster_changed(roster);
}
