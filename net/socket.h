#pragma once
// Sockets that carry pm_message. The only room that names ZeroMQ. A socket belongs to the thread that made it
// (or to the one it was handed to before first use); other threads reach that thread through an actor's pipe.
//
// Frames of 8 KiB and more are sent without a copy: the buffer's reference is held until the transport is
// done. Received frames are aligned to 8 bytes at least. Frames in shared memory (pm_net_share) do not travel
// at all; what was sent so stays lent, and is not to be written, until the receiver has released it.
#include "core/status.h"
#include "net/shm.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pm_net pm_net;
typedef struct pm_socket pm_socket;

typedef enum pm_socket_kind {
    PM_SOCKET_ROUTER, // many peers, each message comes with and goes to a pm_peer
    PM_SOCKET_DEALER, // towards one ROUTER; queues while the connection is away
    PM_SOCKET_PAIR    // thread to thread, inproc only
} pm_socket_kind;

// Who sent a message to a ROUTER: an opaque address, valid while that peer is connected.
typedef struct pm_peer {
    uint64_t arena; // nonce of the peer's shared memory; 0: it gets bytes
    uint8_t size;
    uint8_t id[39];
} pm_peer;

static inline bool pm_peer_equal(const pm_peer *a, const pm_peer *b)
{
    return a->size == b->size && !__builtin_memcmp(a->id, b->id, a->size);
}

// One transport context a process, with one I/O thread. Outlives its sockets.
pm_status pm_net_create(pm_net **net) PM_CHECKED;
// Waits at most about a second for unsent messages.
void pm_net_destroy(pm_net **net);

// Before the first socket: sockets to processes of this host, where both do this, carry what lies in
// pm_net_shm by reference, and small messages without ZeroMQ (net/lines.h). SIGPIPE is ignored from here on,
// for the whole process: a bell without an owner is an error like others. PM_IO where the system has no such
// memory; the net then works without.
pm_status pm_net_share(pm_net *net) PM_CHECKED;

// NULL without pm_net_share. Lives as long as the net.
pm_shm *pm_net_shm(const pm_net *net);

pm_status pm_socket_create(pm_socket **socket, pm_net *net, pm_socket_kind kind) PM_CHECKED;
void pm_socket_destroy(pm_socket **socket);

// endpoint: tcp://host:port (port * for any free one), ipc://path, inproc://name. A port in use is PM_EXISTS,
// an endpoint that is none PM_INVALID.
pm_status pm_socket_bind(pm_socket *socket, const char *endpoint) PM_CHECKED;

// The address bound last, with the port that was chosen; valid until the next bind.
const char *pm_socket_endpoint(const pm_socket *socket);

// Never waits for the peer.
pm_status pm_socket_connect(pm_socket *socket, const char *endpoint) PM_CHECKED;
pm_status pm_socket_disconnect(pm_socket *socket, const char *endpoint) PM_CHECKED;

// Sends and clears the message (also on failure). to: needed for ROUTER, ignored otherwise. A ROUTER's peer
// that is gone is PM_UNAVAILABLE.
pm_status pm_socket_send(pm_socket *socket, const pm_peer *to, pm_message *message) PM_CHECKED;

// Waits up to timeout_ms (0: not at all, -1: without limit) for a message into the empty *message; from may
// be NULL except for ROUTER. PM_TIMEOUT when none came, PM_CANCELLED when interrupted by a signal,
// PM_PROTOCOL when what came is no message (it is consumed; *from is set, so that an error can be sent back).
pm_status pm_socket_receive(pm_socket *socket, pm_peer *from, pm_message *message, int timeout_ms) PM_CHECKED;

// The poll items of the loop: ZeroMQ's, and a file that is readable when something comes from a process of
// this host without ZeroMQ (net/lines.h); -1 while there is none such.
void *pm_socket_handle(const pm_socket *socket);
int pm_socket_bell(const pm_socket *socket);

// Around polling: lets the bell ring, and no longer. True when something waits that no poll item tells of.
bool pm_socket_doze(pm_socket *socket);
bool pm_socket_wake(pm_socket *socket);

pm_socket_kind pm_socket_get_kind(const pm_socket *socket);
