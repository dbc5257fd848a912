#pragma once
// Frames that lie in shared memory, on the way into and out of a message's header.
#include "net/shm.h"
#include "proto/message.h"

// Names this process's arena in the header and, for each frame that can be lent to the process with the
// nonce (0: none), puts a loan there and an empty frame in its place.
pm_status pm_share_out(pm_shm *shm, uint64_t nonce, pm_message *message) PM_CHECKED;

// Takes back the loans of a message that was not sent.
void pm_share_undo(pm_shm *shm, uint64_t nonce, const pm_message *message);

// Takes the transport's part out of the header and borrows the frames that were lent. *nonce: of the sender's
// arena, 0 where it names none that can be mapped here. PM_PROTOCOL where a loan is none.
pm_status pm_share_in(pm_shm *shm, pm_message *message, uint64_t *nonce) PM_CHECKED;
