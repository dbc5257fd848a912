#pragma once
// A role's line to the coordinator: a thread with its own DEALER that says hello, sends heartbeats (also
// while the role computes for long) and hands the coordinator's directives to the role through a pipe.
//
// The role's thread owns the near end of the pipe (pm_member_pipe): it polls it in its loop or receives from
// it. What comes through it is one of
//   Directive  each new one once, newest last; several may wait: only the last counts
//   Published  (checkpoint service) the scores of a cut
//   Error      the line is lost for good: the coordinator refused this member, or has been silent for
//   absent_ms
//              (PM_TIMEOUT, naming its endpoint); nothing follows, the role ends with pm_error_status
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/actor.h"

#include <stdint.h>

typedef struct pm_member pm_member;

// Strings are copied by pm_member_start.
typedef struct pm_member_options {
    Paramill__Role role;
    const char *coordinator; // endpoint
    const char *host;        // NULL: the machine's name
    const char *const
        *endpoints; // where others reach this member: server: one a shard; checkpoint: one; worker: none
    uint32_t endpoint_count;
    const char *kernel_set, *kernel_set_bf16; // by the job's precision; NULL unless a worker
    const char *code_version;                 // NULL: left empty
    uint32_t heartbeat_ms;                    // until a directive says otherwise; 0: 200
    uint32_t absent_ms;                       // 0: 60000
    pm_clock clock;
    pm_log log;
} pm_member_options;

// What a heartbeat tells.
typedef struct pm_member_state {
    Paramill__Phase phase;
    uint64_t epoch;        // of the directive that the phase is about
    uint64_t clock;        // worker: steps done by its lanes; server: oldest slice clock
    uint64_t queue;        // messages waiting
    uint64_t version;      // checkpoint: newest complete version
    uint64_t version_step; // and its step
} pm_member_state;

pm_status pm_member_start(pm_member **member, pm_net *net, const pm_member_options *options) PM_CHECKED;

// The role's end of the pipe; owned by the member.
pm_socket *pm_member_pipe(pm_member *member);

// "host:pid:random", unique for the life of the member.
const char *pm_member_name(const pm_member *member);

// From the role's thread: the state of the next heartbeats. Another phase, epoch or version is sent at once,
// with what was scored before it; clock and queue alone are passed on at most ten times a second, so that
// steps which take less do not wake two threads and the coordinator each.
pm_status pm_member_tell(pm_member *member, const pm_member_state *state) PM_CHECKED;

// From the role's thread: what a step or an evaluation of a block came to; copied. Evaluations are sent at
// once, and whatever waits with them; steps wait for that, for a flush, or until they are sixteen. What waits
// is lost with its process: the coordinator's means are then over the other steps.
pm_status pm_member_score(pm_member *member, const Paramill__Score *score) PM_CHECKED;

// From the role's thread: sends the scores that wait.
pm_status pm_member_flush(pm_member *member) PM_CHECKED;

// From the role's thread: the member cannot go on, and why; the coordinator ends the job with this reason.
pm_status pm_member_fail(pm_member *member, pm_status why) PM_CHECKED;

// Says goodbye, ends the thread and sets *member to NULL; NULL is allowed.
void pm_member_stop(pm_member **member);
