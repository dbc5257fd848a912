#pragma once
// A queue of messages in memory that two processes see. One writes, one reads, neither waits for the other,
// and neither believes the other: a message is copied out before it is looked at, counters and sizes are
// checked.
//
// A reader that is about to sleep says so, looks once more, and is then woken by whoever writes (net/lines.h
// has the means); while it is awake, nobody makes a system call.
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PM_RING_BYTES = 24 << 10, PM_RING_MESSAGE_MAX = 8 << 10, PM_RING_PARTS_MAX = 65 };

// The shared part; zeroed before its first use.
typedef struct pm_ring {
    _Alignas(64) _Atomic uint64_t written; // bytes so far
    _Alignas(64) _Atomic uint64_t read;
    _Atomic uint32_t asleep; // the reader is, or will be soon
    _Alignas(64) unsigned char bytes[PM_RING_BYTES];
} pm_ring;

// One side of it, with a counter of its own.
typedef struct pm_ring_end {
    pm_ring *ring;
    uint64_t at; // bytes that this side has written, or read
} pm_ring_end;

typedef struct pm_ring_part {
    const void *data;
    size_t size;
} pm_ring_part;

typedef struct pm_ring_message {
    uint32_t count;
    pm_ring_part parts[PM_RING_PARTS_MAX];
    unsigned char bytes[PM_RING_MESSAGE_MAX]; // that the parts are in
} pm_ring_message;

typedef enum pm_ring_found { PM_RING_EMPTY, PM_RING_MESSAGE, PM_RING_BROKEN } pm_ring_found;

// Appends a message of 1 to PM_RING_PARTS_MAX parts. False where it is too large or there is no room.
// *asleep: the reader is, and is to be woken. *unread: bytes that it had left before.
bool pm_ring_put(pm_ring_end *end, const pm_ring_part *parts, uint32_t count, bool *asleep, uint64_t *unread);

// Takes the next message; broken: what is there cannot come from pm_ring_put.
pm_ring_found pm_ring_take(pm_ring_end *end, pm_ring_message *message);

// Whether there is something to take.
bool pm_ring_has(const pm_ring_end *end);

// The reader is about to sleep, and has to look again before it does; or is awake.
void pm_ring_doze(pm_ring_end *end, bool asleep);
