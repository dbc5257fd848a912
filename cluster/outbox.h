#pragma once
// What a protocol core wants sent: cores have no sockets, they append messages here, and an actor (or the
// simulator) carries them out.
#include "net/socket.h"

typedef struct pm_post {
    uint32_t port; // which of the core's lines it leaves by; the core's header names them
    pm_peer to;    // for lines with many peers (ROUTER)
    pm_message message;
} pm_post;

typedef struct pm_outbox {
    pm_post *posts; // in sending order
    size_t count, capacity;
} pm_outbox;

// Takes the message over. PM_NO_MEMORY clears it.
pm_status pm_outbox_add(pm_outbox *outbox, uint32_t port, const pm_peer *to, pm_message *message) PM_CHECKED;

// Takes the header over, with up to count frames, of which it takes new references. A message that cannot be
// made for lack of memory is lost, as on a bad line; the protocols retry.
void pm_outbox_post(pm_outbox *outbox, uint32_t port, const pm_peer *to, Paramill__Header *header,
                    pm_buffer *const *frames, uint32_t count);

// An Error answer.
void pm_outbox_refuse(pm_outbox *outbox, uint32_t port, const pm_peer *to, const Paramill__Header *request,
                      pm_status why, uint32_t retry_after_ms);

// Drops what is left; the memory of the list stays.
void pm_outbox_clear(pm_outbox *outbox);
void pm_outbox_free(pm_outbox *outbox);

// Sends everything by one socket per port; failures of a peer that is gone are dropped, the protocols retry.
void pm_outbox_send(pm_outbox *outbox, pm_socket *const *sockets, uint32_t ports);
