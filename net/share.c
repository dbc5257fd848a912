#include "net/share.h"

#include <stdlib.h>

static void name_loan(Paramill__Loan *told, const pm_shm_loan *loan)
{
    told->column = loan->column;
    told->block = loan->block;
    told->offset = loan->offset;
    told->size = loan->size;
}

static pm_shm_loan loan_of(const Paramill__Loan *told)
{
    return (pm_shm_loan){told->column, told->block, told->offset, told->size};
}

static pm_status lend(pm_shm *shm, uint64_t nonce, pm_message *message, uint32_t frame)
{
    Paramill__Shared *shared = message->header->shared;
    pm_shm_loan loan;
    if (!pm_shm_lend(shm, nonce, message->frames[frame], &loan))
        return pm_ok();
    Paramill__Loan *told = pm_proto_new(&paramill__loan__descriptor);
    pm_buffer *empty = pm_buffer_create(0);
    if (!told || !empty) {
        pm_shm_unlend(shm, nonce, &loan);
        free(told);
        pm_buffer_unref(&empty);
        return pm_fail(PM_NO_MEMORY, "a loan");
    }
    told->frame = frame;
    name_loan(told, &loan);
    shared->loans[shared->n_loans++] = told;
    pm_buffer_unref(&message->frames[frame]);
    message->frames[frame] = empty;
    return pm_ok();
}

pm_status pm_share_out(pm_shm *shm, uint64_t nonce, pm_message *message)
{
    const pm_shm_name own = pm_shm_name_of(shm);
    Paramill__Shared *shared = pm_proto_new(&paramill__shared__descriptor);
    if (!shared)
        return pm_fail(PM_NO_MEMORY, "a message");
    shared->pid = own.pid;
    shared->file = own.file;
    shared->nonce = own.nonce;
    shared->borrower = nonce;
    message->header->shared = shared;
    if (!nonce || message->frame_count == 0)
        return pm_ok();
    shared->loans = calloc(message->frame_count, sizeof *shared->loans);
    pm_status status = shared->loans ? pm_ok() : pm_fail(PM_NO_MEMORY, "loans of a message");
    for (uint32_t i = 0; i < message->frame_count && status.code == PM_OK; i++)
        status = lend(shm, nonce, message, i);
    return status;
}

void pm_share_undo(pm_shm *shm, uint64_t nonce, const pm_message *message)
{
    const Paramill__Shared *shared = message->header->shared;
    for (size_t i = 0; shared && i < shared->n_loans; i++) {
        const pm_shm_loan loan = loan_of(shared->loans[i]);
        pm_shm_unlend(shm, nonce, &loan);
    }
}

// A frame is lent once: the empty one that stands for it is then gone.
static pm_status borrow(pm_shm *shm, uint64_t nonce, const Paramill__Loan *told, pm_message *message)
{
    if (told->frame >= message->frame_count || message->frames[told->frame]->size != 0)
        return pm_fail(PM_PROTOCOL, "a loan of frame %u, which is none that lies in shared memory",
                       told->frame);
    const pm_shm_loan loan = loan_of(told);
    pm_buffer *buffer = pm_shm_borrow(shm, nonce, &loan);
    if (!buffer)
        return pm_fail(PM_PROTOCOL, "a loan of %lu bytes at %lu, which cannot be read here",
                       (unsigned long)told->size, (unsigned long)told->offset);
    pm_buffer_unref(&message->frames[told->frame]);
    message->frames[told->frame] = buffer;
    return pm_ok();
}

pm_status pm_share_in(pm_shm *shm, pm_message *message, pm_share_news *news)
{
    Paramill__Shared *shared = message->header->shared;
    *news = (pm_share_news){0};
    if (!shared)
        return pm_ok();
    message->header->shared = NULL;
    const pm_shm_name name = {shared->pid, shared->file, shared->nonce};
    pm_status status = pm_ok();
    if (shm && pm_shm_meet(shm, &name))
        *news = (pm_share_news){.name = name, .bell = shared->bell};
    // What waited for a process at this address that is gone is not for the one that took its place.
    const bool mine = news->name.nonce && shared->borrower == pm_shm_name_of(shm).nonce;
    for (size_t i = 0; i < shared->n_loans && status.code == PM_OK; i++)
        status = mine ? borrow(shm, name.nonce, shared->loans[i], message)
                      : pm_fail(PM_PROTOCOL, "a frame in memory that is not lent to this process");
    news->offers = mine && shared->line;
    if (news->offers)
        news->line = loan_of(shared->line);
    paramill__shared__free_unpacked(shared, NULL);
    return status;
}

void pm_share_tell(const pm_message *message, uint32_t bell, const pm_shm_loan *line)
{
    Paramill__Shared *shared = message->header->shared;
    shared->bell = bell;
    shared->line = line ? pm_proto_new(&paramill__loan__descriptor) : NULL;
    if (shared->line)
        name_loan(shared->line, line);
}
