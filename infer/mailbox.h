#pragma once
// What the router's core wants sent: the core has no sockets, it appends letters here, and the actor (or a
// test) carries them out.
#include "net/socket.h"

typedef struct pm_letter {
    uint32_t line; // PM_ROUTER_FRONT or PM_ROUTER_BACK
    pm_peer to;
    pm_message message;
} pm_letter;

// Zero-initialised is empty. The list keeps its memory over clears.
typedef struct pm_mailbox {
    pm_letter *letters; // in sending order
    size_t count, capacity;
} pm_mailbox;

// Takes header (NULL: nothing is sent) and frame (NULL: none) over. A letter that cannot be made for lack of
// memory is lost, as on a bad line; the asker's timeout and the worker's silence cover that.
void pm_mailbox_post(pm_mailbox *mailbox, uint32_t line, const pm_peer *to, Paramill__Header *header,
                     pm_buffer *frame);

// Drops what is in it.
void pm_mailbox_clear(pm_mailbox *mailbox);

// The same, and gives the memory back.
void pm_mailbox_free(pm_mailbox *mailbox);
