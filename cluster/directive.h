#pragma once
// Reading a directive's member list. Directives come from the coordinator but are checked like any message: a
// list that makes no sense gives zero shards or no member.
#include "proto/message.h"

#include <stdint.h>

enum { PM_SHARDS_MAX = 1024 };

// All endpoints of all servers, numbered in rank order: shard 0 is the first of rank 0. 0 when the servers'
// ranks are not 0, 1, 2, … or there are more than PM_SHARDS_MAX.
uint32_t pm_directive_shards(const Paramill__Directive *directive);

// The server that holds a shard, and which of its endpoints it is; NULL when there is none.
const Paramill__Member *pm_directive_server(const Paramill__Directive *directive, uint32_t shard,
                                            uint32_t *endpoint);

// The number of the first shard of the server of a rank.
uint32_t pm_directive_first_shard(const Paramill__Directive *directive, uint32_t rank);

// The checkpoint service with at least one endpoint, or NULL.
const Paramill__Member *pm_directive_checkpoint(const Paramill__Directive *directive);

// The outcome that a STOP directive tells: PM_OK when it has no reason.
pm_status pm_directive_result(const Paramill__Directive *directive);
