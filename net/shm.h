#pragma once
// Memory that processes of one host read in each other: a message between them carries where a frame lies
// instead of its bytes, so that it is copied nowhere.
//
// A process has one arena: a file without a name (memfd) that others map by way of /proc, which the kernel
// allows the same user in the same PID namespace. A block of it is lent: what is lent is not written until
// the borrower gives it back. Loans are counted in front of the block, a counter for each borrower, so that
// those of a process that was killed can be told from the rest and end with it. When the owner dies, what was
// borrowed from it stays readable.
//
// Safe from any thread.
#include "core/buffer.h"
#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pm_shm pm_shm;

// How others find an arena.
typedef struct pm_shm_name {
    uint32_t pid, file; // /proc/PID/fd/FILE
    uint64_t nonce;     // stands in the file too: it is the one that was meant; never 0
} pm_shm_name;

// Where lent bytes lie in the lender's arena.
typedef struct pm_shm_loan {
    uint32_t column;              // of the counter that the borrower gives back by
    uint64_t block, offset, size; // block: of the counters
} pm_shm_loan;

// Fails with PM_IO where the system does not allow it: everything works without, by copies.
pm_status pm_shm_create(pm_shm **shm) PM_CHECKED;

// Blocks and borrowed buffers must be gone. Sets *shm to NULL; NULL is allowed.
void pm_shm_destroy(pm_shm **shm);

pm_shm_name pm_shm_name_of(const pm_shm *shm);

// size bytes, PM_ALIGN-aligned, not zeroed, for the life of the arena; NULL when it is used up.
void *pm_shm_block(pm_shm *shm, size_t size);

// Whether somebody borrows the block.
bool pm_shm_is_lent(const void *block);

// Maps the arena of that name if it is not mapped yet; false where it cannot be. A new one is also the time
// when the loans of processes that are gone end.
bool pm_shm_meet(pm_shm *shm, const pm_shm_name *name);

// Whether the process with the nonce was met and is not gone.
bool pm_shm_lives(pm_shm *shm, uint64_t nonce);

// Lends the buffer's bytes to the process with the nonce; false where they are no block of this arena (of
// which is_lent tells), nor part of one, or the process was never met: then they have to be sent.
bool pm_shm_lend(pm_shm *shm, uint64_t nonce, const pm_buffer *buffer, pm_shm_loan *loan);

// Takes back a loan that could not be sent.
void pm_shm_unlend(pm_shm *shm, uint64_t nonce, const pm_shm_loan *loan);

// What the process with the nonce lends; gives it back with the last reference. NULL where there is no such
// process, no such place in its arena, or no memory.
pm_buffer *pm_shm_borrow(pm_shm *shm, uint64_t nonce, const pm_shm_loan *loan);
