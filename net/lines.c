#include "net/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A reader that leaves so many messages lie without being asleep may be dead: its bell tells.
enum { LINES_MAX = 1024, PATIENCE = 8 };

// What both ends see.
typedef struct shared {
    _Atomic uint32_t taken, closed;
    pm_ring to_router, to_dealer;
} shared;

_Static_assert(sizeof(shared) == PM_LINE_BYTES, "what is offered is what is taken");

typedef struct line {
    pm_peer peer;      // of a ROUTER
    uint64_t arena;    // nonce of the other's memory
    pm_buffer *memory; // a DEALER's own, or what a ROUTER has borrowed
    shared *shared;
    pm_ring_end in, out;
    int bell;         // the other's
    uint32_t ignored; // messages put in a row while others lay unread
} line;

struct pm_lines {
    pm_shm *shm;
    pm_pool *pool;
    int bell[2]; // its ends: a writer of one's own keeps it from hanging up when others go
    bool dozes, offered;
    line *list;
    uint32_t count, capacity, next; // next: to be read
};

pm_status pm_lines_create(pm_lines **lines, pm_shm *shm, pm_pool *pool)
{
    pm_lines *l = calloc(1, sizeof *l);
    if (!l)
        return pm_fail(PM_NO_MEMORY, "lines of a socket");
    *l = (pm_lines){.shm = shm, .pool = pool};
    if (pipe2(l->bell, O_CLOEXEC | O_NONBLOCK)) {
        free(l);
        return pm_fail_errno("a pipe to be woken by");
    }
    *lines = l;
    return pm_ok();
}

// False when its owner is gone. A full pipe rings already.
static bool ring(int bell)
{
    return write(bell, "", 1) == 1 || errno == EAGAIN;
}

static void close_line(line *l)
{
    atomic_store(&l->shared->closed, 1);
    ring(l->bell);
    close(l->bell);
    pm_buffer_unref(&l->memory);
}

static void drop(pm_lines *lines, line *l)
{
    close_line(l);
    *l = lines->list[--lines->count];
}

void pm_lines_destroy(pm_lines **lines)
{
    if (!lines || !*lines)
        return;
    pm_lines *l = *lines;
    for (uint32_t i = 0; i < l->count; i++)
        close_line(&l->list[i]);
    close(l->bell[0]);
    close(l->bell[1]);
    free(l->list);
    free(l);
    *lines = NULL;
}

uint32_t pm_lines_bell(const pm_lines *lines)
{
    return (uint32_t)lines->bell[0];
}

// A pipe of the process, to write to.
static int open_bell(const pm_shm_name *of, uint32_t file)
{
    char path[64];
    struct stat about;
    snprintf(path, sizeof path, "/proc/%u/fd/%u", of->pid, file);
    const int bell = stat(path, &about) == 0 && S_ISFIFO(about.st_mode)
                         ? open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
                         : -1;
    if (bell >= 0 && fstat(bell, &about) == 0 && S_ISFIFO(about.st_mode))
        return bell;
    if (bell >= 0)
        close(bell);
    return -1;
}

// Takes memory over. NULL: it cannot be.
static line *add(pm_lines *lines, const pm_shm_name *other, uint32_t bell, pm_buffer *memory)
{
    if (lines->count == lines->capacity) {
        const uint32_t capacity = lines->capacity ? 2 * lines->capacity : 1;
        line *more = capacity <= LINES_MAX ? realloc(lines->list, capacity * sizeof *more) : NULL;
        lines->list = more ? more : lines->list;
        lines->capacity = more ? capacity : lines->capacity;
    }
    line *l = lines->count < lines->capacity ? &lines->list[lines->count] : NULL;
    if (l)
        *l = (line){
            .arena = other->nonce, .memory = memory, .shared = memory->data, .bell = open_bell(other, bell)};
    // That lived all the while is the process that was meant.
    if (!l || l->bell < 0 || !pm_shm_lives(lines->shm, other->nonce)) {
        if (l && l->bell >= 0)
            close(l->bell);
        pm_buffer_unref(&memory);
        return NULL;
    }
    lines->count++;
    return l;
}

void pm_lines_prepare(pm_lines *lines, const pm_shm_name *to, uint32_t bell)
{
    if (lines->count > 0 && lines->list[0].arena == to->nonce)
        return;
    if (lines->count > 0)
        drop(lines, &lines->list[0]);
    lines->offered = false;
    pm_buffer *memory = pm_pool_take(lines->pool, PM_LINE_BYTES);
    if (!memory || !memory->is_lent) { // in memory of its own only: no room is left in what is shared
        pm_buffer_unref(&memory);
        return;
    }
    memset(memory->data, 0, PM_LINE_BYTES);
    line *l = add(lines, to, bell, memory);
    if (!l)
        return;
    l->in = (pm_ring_end){&l->shared->to_dealer, 0};
    l->out = (pm_ring_end){&l->shared->to_router, 0};
}

bool pm_lines_offer(pm_lines *lines, pm_shm_loan *loan)
{
    if (lines->offered || lines->count == 0)
        return false;
    lines->offered = true;
    return pm_shm_lend(lines->shm, lines->list[0].arena, lines->list[0].memory, loan);
}

static line *find(pm_lines *lines, const pm_peer *peer)
{
    for (uint32_t i = 0; i < lines->count; i++)
        if (!peer || pm_peer_equal(&lines->list[i].peer, peer))
            return &lines->list[i];
    return NULL;
}

void pm_lines_take(pm_lines *lines, const pm_peer *peer, const pm_shm_name *from, const pm_shm_loan *offered,
                   uint32_t bell)
{
    line *l = find(lines, peer);
    if (l)
        drop(lines, l);
    for (uint32_t i = lines->count; i-- > 0;)
        if (!pm_shm_lives(lines->shm, lines->list[i].arena))
            drop(lines, &lines->list[i]);
    pm_buffer *memory =
        offered->size == PM_LINE_BYTES ? pm_shm_borrow(lines->shm, from->nonce, offered) : NULL;
    l = memory ? add(lines, from, bell, memory) : NULL;
    if (!l)
        return;
    l->peer = *peer;
    l->in = (pm_ring_end){&l->shared->to_router, 0};
    l->out = (pm_ring_end){&l->shared->to_dealer, 0};
    atomic_store(&l->shared->taken, 1);
}

static bool is_open(const line *l)
{
    return atomic_load_explicit(&l->shared->taken, memory_order_acquire) &&
           !atomic_load_explicit(&l->shared->closed, memory_order_acquire);
}

bool pm_lines_send(pm_lines *lines, const pm_peer *to, const pm_buffer *header, const pm_message *message)
{
    line *l = find(lines, to);
    if (!l || !is_open(l))
        return false;
    pm_ring_part parts[PM_RING_PARTS_MAX] = {{header->data, header->size}};
    for (uint32_t i = 0; i < message->frame_count; i++)
        parts[1 + i] = (pm_ring_part){message->frames[i]->data, message->frames[i]->size};
    bool asleep;
    uint64_t unread;
    const bool put = pm_ring_put(&l->out, parts, 1 + message->frame_count, &asleep, &unread);
    l->ignored = unread ? l->ignored + 1 : 0;
    if ((asleep || l->ignored % PATIENCE == PATIENCE - 1) && !ring(l->bell)) {
        drop(lines, l); // with what was put: the process that takes its place gets it by the old way
        return false;
    }
    return put;
}

static pm_status read_message(const pm_ring_message *raw, pm_message *message)
{
    pm_status status = pm_message_decode(message, raw->parts[0].data, raw->parts[0].size);
    for (uint32_t i = 1; i < raw->count && status.code == PM_OK; i++)
        status = pm_message_add(message, pm_buffer_copy(raw->parts[i].data, raw->parts[i].size));
    if (status.code != PM_OK)
        pm_message_clear(message);
    return status;
}

pm_status pm_lines_receive(pm_lines *lines, pm_peer *from, pm_message *message)
{
    for (uint32_t left = lines->count; left > 0; left--) {
        if (lines->next >= lines->count)
            lines->next = 0;
        line *l = &lines->list[lines->next++];
        pm_ring_message raw;
        const pm_ring_found found = pm_ring_take(&l->in, &raw);
        if (found == PM_RING_MESSAGE) {
            if (from)
                *from = l->peer;
            return read_message(&raw, message);
        }
        if (found == PM_RING_BROKEN || atomic_load(&l->shared->closed))
            drop(lines, l);
    }
    return pm_fail(PM_TIMEOUT, "nothing came");
}

bool pm_lines_wait(const pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        if (pm_ring_has(&lines->list[i].in) || atomic_load(&lines->list[i].shared->closed))
            return true;
    return false;
}

void pm_lines_doze(pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        pm_ring_doze(&lines->list[i].in, true);
    lines->dozes = true;
}

void pm_lines_wake(pm_lines *lines)
{
    char bytes[64];
    if (!lines->dozes)
        return;
    for (uint32_t i = 0; i < lines->count; i++)
        pm_ring_doze(&lines->list[i].in, false);
    lines->dozes = false;
    while (read(lines->bell[0], bytes, sizeof bytes) == sizeof bytes)
        ;
}
