// The coordinator's phases: who is here, and what follows from it.
#include "cluster/roster_impl.h"

#include <stdio.h>

enum { LAST_REPORTS_MS = 5000 }; // after the last version is there, for the workers to finish their accounts

void pm_roster_count(const pm_roster *roster, Paramill__Role role, uint32_t *here, uint32_t *all)
{
    *here = *all = 0;
    for (uint32_t i = 0; i < roster->place_count; i++)
        if (roster->places[i].role == role) {
            ++*all;
            *here += roster->places[i].here;
        }
}

static void tell_phase(const pm_roster *roster, const char *text)
{
    if (roster->events.on_phase)
        roster->events.on_phase(roster->events.context, text);
}

void pm_roster_tell_missing(const pm_roster *roster)
{
    uint32_t servers, all_servers, workers, all_workers, services, all_services;
    pm_roster_count(roster, PARAMILL__ROLE__ROLE_SERVER, &servers, &all_servers);
    pm_roster_count(roster, PARAMILL__ROLE__ROLE_WORKER, &workers, &all_workers);
    pm_roster_count(roster, PARAMILL__ROLE__ROLE_CHECKPOINT, &services, &all_services);
    char text[160];
    snprintf(text, sizeof text, "here: %u of %u servers, %u of %u workers, %u of %u checkpoint services",
             servers, all_servers, workers, all_workers, services, all_services);
    tell_phase(roster, text);
}

static void enter(pm_roster *roster, roster_phase phase, int64_t now_ms)
{
    roster->phase = phase;
    roster->phase_ms = now_ms;
}

void pm_roster_leave(pm_roster *roster, place *p, int64_t now_ms)
{
    p->here = false;
    p->absent_ms = now_ms;
    char text[PM_MESSAGE_MAX];
    snprintf(text, sizeof text, "%s %u on %s is gone", pm_role_name(p->role), p->rank, p->host);
    if (roster->phase != STOP)
        tell_phase(roster, text);
    bool needed = p->role == PARAMILL__ROLE__ROLE_SERVER ||
                  (p->role == PARAMILL__ROLE__ROLE_CHECKPOINT && roster->phase == PREPARE);
    if (needed && (roster->phase == PREPARE || roster->phase == RUN))
        enter(roster, GATHER, now_ms);
    pm_roster_changed(roster);
}

// A place that has been empty for too long ends the job. Workers other than the last one are not needed once
// it runs.
static bool stop_for_absence(pm_roster *roster, int64_t now_ms)
{
    uint32_t workers, all;
    pm_roster_count(roster, PARAMILL__ROLE__ROLE_WORKER, &workers, &all);
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        bool spare = p->role == PARAMILL__ROLE__ROLE_WORKER && roster->began && workers > 0;
        if (p->here || spare || now_ms - p->absent_ms <= roster->absent_ms)
            continue;
        pm_roster_stop(roster,
                       pm_fail(PM_TIMEOUT, "%s %u has been missing for %u ms%s%s", pm_role_name(p->role),
                               p->rank, roster->absent_ms, p->host ? "; it was on " : "",
                               p->host ? p->host : ""),
                       now_ms);
        return true;
    }
    return false;
}

static bool advance_gather(pm_roster *roster, int64_t now_ms)
{
    uint32_t here, all;
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        bool optional = p->role == PARAMILL__ROLE__ROLE_WORKER && roster->began;
        if (!optional && (!p->here || !p->beats))
            return false;
    }
    pm_roster_count(roster, PARAMILL__ROLE__ROLE_WORKER, &here, &all);
    if (here == 0)
        return false;
    roster->epoch++;
    roster->restore_version = roster->version;
    roster->start_clock = roster->version ? roster->version_step : 0;
    roster->began = true;
    pm_roster_score_reset(roster);
    pm_roster_patience_reset(roster);
    enter(roster, PREPARE, now_ms);
    if (roster->restore_version) {
        char text[160];
        snprintf(text, sizeof text, "restoring version %llu (step %llu)",
                 (unsigned long long)roster->restore_version, (unsigned long long)roster->start_clock);
        tell_phase(roster, text);
    }
    return true;
}

static bool is_ready(const pm_roster *roster, const place *p)
{
    return p->epoch == roster->epoch &&
           (p->phase == PARAMILL__PHASE__PHASE_READY || p->phase == PARAMILL__PHASE__PHASE_RUNNING ||
            p->phase == PARAMILL__PHASE__PHASE_FINISHED);
}

static bool advance_prepare(pm_roster *roster, int64_t now_ms)
{
    uint32_t workers = 0;
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        bool worker = p->role == PARAMILL__ROLE__ROLE_WORKER;
        if (worker && !p->here)
            continue;
        if (!is_ready(roster, p))
            return false;
        workers += worker;
    }
    if (workers == 0)
        return false;
    enter(roster, RUN, now_ms);
    tell_phase(roster, "running");
    return true;
}

static bool advance_run(pm_roster *roster, int64_t now_ms)
{
    if (roster->version == 0 || roster->version_step < roster->end)
        return false;
    bool finished = true;
    for (uint32_t i = 0; i < roster->place_count; i++) {
        const place *p = &roster->places[i];
        pm_block blocks[PM_BLOCKS_MAX];
        if (p->here && p->role == PARAMILL__ROLE__ROLE_WORKER && pm_roster_lease(roster, p, blocks) > 0 &&
            (p->phase != PARAMILL__PHASE__PHASE_FINISHED || p->epoch != roster->epoch))
            finished = false;
    }
    if (!finished && roster->finish_ms == 0)
        roster->finish_ms = now_ms;
    if (!finished && now_ms - roster->finish_ms < LAST_REPORTS_MS)
        return false;
    if (!roster->stay) {
        pm_roster_stop(roster, pm_ok(), now_ms);
        return true;
    }
    if (!roster->done)
        tell_phase(roster, "done; the snapshots stay served");
    roster->done = true;
    return false;
}

bool pm_roster_advance(pm_roster *roster, int64_t now_ms)
{
    if (roster->phase == STOP)
        return false;
    if (stop_for_absence(roster, now_ms))
        return true;
    switch (roster->phase) {
    case GATHER:
        return advance_gather(roster, now_ms);
    case PREPARE:
        return advance_prepare(roster, now_ms);
    case RUN:
        return advance_run(roster, now_ms);
    case STOP:
        break;
    }
    return false;
}
