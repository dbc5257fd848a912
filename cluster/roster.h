#pragma once
// The coordinator's protocol core: members, phases and directives, without I/O.
//
//   GATHER   until all servers and the checkpoint service are here (at the start of the job all workers too;
//   later
//            one is enough); directive WAIT
//   PREPARE  a new epoch: servers take initial values or those of a version; until all are READY
//   RUN      lanes are leased to the workers that are here; a worker that comes or goes changes the leases
//   only; a
//            server that goes means GATHER and a new epoch
//   STOP     done, or failed for a reason that names the member
//
// Every heartbeat is answered by the member's current directive, and a change sends it to all at once.
#include "cluster/coordinator.h"
#include "cluster/outbox.h"

typedef struct pm_roster pm_roster;

typedef struct pm_roster_options {
    const pm_job *job; // outlives the roster
    uint64_t train_rows;
    const char *vocabulary; // NULL: the data is no text
    bool resume;
    bool stay;            // done is no reason to stop
    uint32_t absent_ms;   // 0: 60000
    uint64_t first_epoch; // grows over restarts of the coordinator: members refuse what is older than what
                          // they know
    pm_coordinator_events events;
} pm_roster_options;

pm_status pm_roster_create(pm_roster **roster, const pm_roster_options *options, int64_t now_ms) PM_CHECKED;
void pm_roster_destroy(pm_roster **roster);

// The message is left for the caller to clear.
void pm_roster_handle(pm_roster *roster, const pm_peer *from, pm_message *message, int64_t now_ms);

// Leases that ended, limits that passed. Call it every 100 ms or so.
void pm_roster_tick(pm_roster *roster, int64_t now_ms);

// Ends the job for this reason.
void pm_roster_stop(pm_roster *roster, pm_status why, int64_t now_ms);

bool pm_roster_is_running(const pm_roster *roster);
uint64_t pm_roster_epoch(const pm_roster *roster);

// True when the job is stopped and the members have gone, or had time to.
bool pm_roster_is_over(const pm_roster *roster, int64_t now_ms);
pm_status pm_roster_result(const pm_roster *roster);

// Port 0 has all the members.
pm_outbox *pm_roster_outbox(pm_roster *roster);
