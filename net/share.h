#pragma once
// Frames that lie in shared memory, on the way into and out of a message's header.
#include "net/shm.h"
#include "proto/message.h"

// Names this process's arena in the header and, for each frame that can be lent to the process with the
// nonce (0: none), puts a loan there and an empty frame in its place.
pm_status pm_share_out(pm_shm *shm, uint64_t nonce, pm_message *message) PM_CHECKED;

// Takes back the loans of a message that was not sent.
void pm_share_undo(pm_shm *shm, uint64_t nonce, const pm_message *message);

// What the sender says of itself.
typedef struct pm_share_news {
    pm_shm_name name; // of its arena; nonce 0: it names none that can be mapped here
    uint32_t bell;    // 0: none
    bool offers;      // a line
    pm_shm_loan line;
} pm_share_news;

// Takes the transport's part out of the header and borrows the frames that were lent. PM_PROTOCOL where a
// loan is none.
pm_status pm_share_in(pm_shm *shm, pm_message *message, pm_share_news *news) PM_CHECKED;

// Names the bell and, where there is one, the line in a message that pm_share_out has been through. Without
// memory for it, it stays unsaid.
void pm_share_tell(const pm_message *message, uint32_t bell, const pm_shm_loan *line);
