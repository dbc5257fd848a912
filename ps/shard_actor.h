#pragma once
// One shard as a thread: its ROUTER for workers and the restore, a DEALER to the checkpoint service, and a
// pipe to the server. Through the pipe come directives and, to end it, a Goodbye; through it go Heartbeats
// (phase, epoch, clock, queue) when these change, and an Error when the shard cannot go on.
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/actor.h"
#include "ps/shard.h"

typedef struct pm_shard_actor {
    pm_net *net;
    pm_clock clock;
    pm_log log;
    pm_metrics *metrics;
    pm_socket *socket; // ROUTER, bound; the actor destroys it
    pm_shard *shard;   // the actor destroys it
    uint32_t index;
} pm_shard_actor;

// For pm_actor_start; argument: a pm_shard_actor that outlives the actor.
pm_status pm_shard_actor_main(void *argument, pm_socket *pipe) PM_CHECKED;
