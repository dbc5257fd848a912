#pragma once
// A socket's lines: between processes of one host that share memory (net/shm.h), messages whose frames are
// lent or small go through a pair of rings in the DEALER's memory instead of ZeroMQ's threads and the network
// stack; all others, and all where a line has no room, take the old way, so messages may overtake each other.
//
// Each end has a bell, a pipe that the other finds under /proc: whoever sleeps is woken by a byte, and a bell
// without an owner tells that its process is gone. Both are told in the Shared part of messages
// (proto/paramill.proto): a ROUTER's answer names its bell; the DEALER offers a line and names its own; once
// the ROUTER has taken the line both use it. Either end closes it at any time, and then messages take the old
// way again.
//
// Of the socket's thread, as the socket is.
#include "core/status.h"
#include "net/pool.h"
#include "net/ring.h"
#include "net/socket.h"

typedef struct pm_lines pm_lines;

enum { PM_LINE_BYTES = 64 + 2 * sizeof(pm_ring) }; // of shared memory that a line takes

// With a bell of its own; pool: of the net's shared memory. Both outlive it.
pm_status pm_lines_create(pm_lines **lines, pm_shm *shm, pm_pool *pool) PM_CHECKED;

// Closes all; sets *lines to NULL; NULL is allowed.
void pm_lines_destroy(pm_lines **lines);

// The bell as others find it under /proc/PID/fd, and as it is polled.
uint32_t pm_lines_bell(const pm_lines *lines);

// A DEALER's only line, to the process of that name whose bell is told: made ready where there is none to it.
void pm_lines_prepare(pm_lines *lines, const pm_shm_name *to, uint32_t bell);

// Lends it for an offer; false when that is done, or there is nothing to offer.
bool pm_lines_offer(pm_lines *lines, pm_shm_loan *loan);

// A ROUTER takes what is offered by the process of that name, for messages from and to the peer. Lines of
// processes that are gone go.
void pm_lines_take(pm_lines *lines, const pm_peer *peer, const pm_shm_name *from, const pm_shm_loan *offered,
                   uint32_t bell);

// Puts the encoded header and the message's frames on the line to the peer (a DEALER's: NULL). False where
// that cannot be: the message is still to be sent.
bool pm_lines_send(pm_lines *lines, const pm_peer *to, const pm_buffer *header, const pm_message *message);

// The next message of any line, *from its peer. PM_TIMEOUT: there is none; PM_PROTOCOL: it is no message.
pm_status pm_lines_receive(pm_lines *lines, pm_peer *from, pm_message *message) PM_CHECKED;

// Whether pm_lines_receive has something to do.
bool pm_lines_wait(const pm_lines *lines);

// The thread is about to wait for the bell, and looks once more before it does; or has waited.
void pm_lines_doze(pm_lines *lines);
void pm_lines_wake(pm_lines *lines);
