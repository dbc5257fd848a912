#pragma once
// The member's side of the line to the coordinator, without I/O: hello until welcomed, heartbeats, reports
// until they are acknowledged, and the newest directive.
#include "cluster/member.h"
#include "cluster/outbox.h"

typedef struct pm_membership pm_membership;

typedef struct pm_membership_options {
    const pm_member_options *member; // strings are copied
    const char *name;                // unique for the life of the member
    const char *host;
    uint32_t pid;
} pm_membership_options;

pm_status pm_membership_create(pm_membership **membership, const pm_membership_options *options,
                               int64_t now_ms) PM_CHECKED;
void pm_membership_destroy(pm_membership **membership);

// From the coordinator; the message is left for the caller to clear.
void pm_membership_handle(pm_membership *membership, pm_message *message, int64_t now_ms);

// From the role: the state of the next heartbeats, and a report without a name, which is handed over.
void pm_membership_tell(pm_membership *membership, const pm_member_state *state, int64_t now_ms);
void pm_membership_report(pm_membership *membership, Paramill__Report *report, int64_t now_ms);

// Sends what is due. A failure is for good: the coordinator refused this member or has been silent too long.
pm_status pm_membership_tick(pm_membership *membership, int64_t now_ms) PM_CHECKED;

void pm_membership_goodbye(pm_membership *membership);

// Moves the newest directive that was not taken yet to the empty *message; false when there is none.
bool pm_membership_take(pm_membership *membership, pm_message *message);

// Only a member's first directives carry the job and its vocabulary. Moves both to newer where older, which
// it replaces before anybody has read them, has them and newer has not.
void pm_directive_inherit(Paramill__Directive *newer, Paramill__Directive *older);

// Port 0 is the coordinator.
pm_outbox *pm_membership_outbox(pm_membership *membership);
