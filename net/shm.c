#include "net/shm.h"

#include "core/arena.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    COLUMNS = 64, // borrowers at a time
    PAGE = 4096,
    SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL // who maps it is never left without its pages
};

#define FILE_NAME "paramill"

// In front of a block's bytes.
typedef struct loans {
    atomic_ushort of[COLUMNS];
} loans;

_Static_assert(sizeof(loans) % PM_ALIGN == 0, "bytes behind the counters keep their alignment");

// A process whose arena is mapped here; its index is the column of what is lent to it.
typedef struct peer {
    pm_shm_name name; // nonce 0: the place is free
    int process;      // pidfd: readable once it is gone
    unsigned char *base;
    size_t size;
    uint32_t borrowed; // buffers
    bool gone;
} peer;

struct pm_shm {
    pm_shm_name name;
    unsigned char *base; // (size): a page with the nonce, then blocks
    size_t size;
    pthread_mutex_t lock; // of all below
    size_t used;
    loans **blocks; // (block_count), capacity a power of two
    size_t block_count;
    peer peers[COLUMNS];
};

typedef struct borrowed {
    pm_buffer buffer;
    pm_shm *shm;
    peer *from;
    atomic_ushort *count;
} borrowed;

// ---- the arena

// As much as the machine has memory: pages that are never written cost nothing.
static size_t arena_size(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / PAGE * PAGE;
}

static pm_status make_file(pm_shm *s)
{
    const int file = memfd_create(FILE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0)
        return pm_fail_errno("memory to share");
    s->name.file = (uint32_t)file;
    s->name.pid = (uint32_t)getpid();
    if (getrandom(&s->name.nonce, sizeof s->name.nonce, 0) != sizeof s->name.nonce || s->name.nonce == 0)
        return pm_fail_errno("random numbers for a name");
    s->size = arena_size();
    if (ftruncate(file, (off_t)s->size) || fcntl(file, F_ADD_SEALS, SEALS))
        return pm_fail_errno("memory to share");
    s->base = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (s->base == MAP_FAILED) {
        s->base = NULL;
        return pm_fail_errno("memory to share");
    }
    memcpy(s->base, &s->name.nonce, sizeof s->name.nonce);
    s->used = PAGE;
    return pm_ok();
}

pm_status pm_shm_create(pm_shm **shm)
{
    pm_shm *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "memory to share");
    pthread_mutex_init(&s->lock, NULL);
    s->name.file = UINT32_MAX;
    const pm_status status = make_file(s);
    if (status.code == PM_OK)
        *shm = s;
    else
        pm_shm_destroy(&s);
    return status;
}

static void forget(peer *p)
{
    munmap(p->base, p->size);
    close(p->process);
    *p = (peer){0};
}

void pm_shm_destroy(pm_shm **shm)
{
    if (!shm || !*shm)
        return;
    pm_shm *s = *shm;
    for (int i = 0; i < COLUMNS; i++)
        if (s->peers[i].name.nonce)
            forget(&s->peers[i]);
    if (s->base)
        munmap(s->base, s->size);
    if (s->name.file != UINT32_MAX)
        close((int)s->name.file);
    pthread_mutex_destroy(&s->lock);
    free(s->blocks);
    free(s);
    *shm = NULL;
}

pm_shm_name pm_shm_name_of(const pm_shm *shm)
{
    return shm->name;
}

static bool remember(pm_shm *s, loans *block)
{
    if ((s->block_count & (s->block_count - 1)) == 0) {
        const size_t capacity = s->block_count ? 2 * s->block_count : 1;
        loans **more = realloc(s->blocks, capacity * sizeof(loans *));
        if (!more)
            return false;
        s->blocks = more;
    }
    s->blocks[s->block_count++] = block;
    return true;
}

void *pm_shm_block(pm_shm *shm, size_t size)
{
    const size_t total = sizeof(loans) + pm_align(size);
    loans *block = NULL;
    pthread_mutex_lock(&shm->lock);
    if (total > size && total <= shm->size - shm->used &&
        remember(shm, (loans *)(void *)(shm->base + shm->used))) {
        block = shm->blocks[shm->block_count - 1];
        shm->used += total;
    }
    pthread_mutex_unlock(&shm->lock);
    return block ? block + 1 : NULL;
}

bool pm_shm_is_lent(const void *block)
{
    const loans *counts = (const loans *)block - 1;
    for (int i = 0; i < COLUMNS; i++)
        if (atomic_load_explicit(&counts->of[i], memory_order_acquire))
            return true;
    return false;
}

// ---- processes that were met; the lock is held

static peer *find(pm_shm *s, uint64_t nonce)
{
    for (int i = 0; i < COLUMNS && nonce; i++)
        if (s->peers[i].name.nonce == nonce)
            return &s->peers[i];
    return NULL;
}

static bool is_gone(const peer *p)
{
    struct pollfd of = {.fd = p->process, .events = POLLIN};
    return poll(&of, 1, 0) == 1;
}

static void reap(pm_shm *s)
{
    for (int i = 0; i < COLUMNS; i++) {
        peer *p = &s->peers[i];
        if (!p->name.nonce || p->gone || !is_gone(p))
            continue;
        p->gone = true;
        for (size_t b = 0; b < s->block_count; b++)
            atomic_store_explicit(&s->blocks[b]->of[i], 0, memory_order_release);
        if (p->borrowed == 0)
            forget(p);
    }
}

// Opens the file if it is an arena: nothing else of that process is touched.
static int open_arena(const pm_shm_name *name)
{
    char path[64], target[sizeof "/memfd:" FILE_NAME];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", name->pid, name->file);
    const ssize_t length = readlink(path, target, sizeof target);
    if (length != sizeof target || memcmp(target, "/memfd:" FILE_NAME, sizeof target - 1) != 0)
        return -1;
    return open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

static bool map(peer *p, int file)
{
    struct stat about;
    uint64_t nonce = 0;
    if (fcntl(file, F_GET_SEALS) != SEALS || fstat(file, &about) || about.st_size < PAGE ||
        pread(file, &nonce, sizeof nonce, 0) != sizeof nonce || nonce != p->name.nonce)
        return false;
    p->size = (size_t)about.st_size;
    p->base = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    return p->base != MAP_FAILED;
}

// The process is held before the file is looked at, so that both are the same process's.
static bool meet(pm_shm *s, const pm_shm_name *name)
{
    int at = 0;
    while (at < COLUMNS && s->peers[at].name.nonce)
        at++;
    if (at == COLUMNS || name->pid > INT32_MAX || !name->nonce)
        return false;
    peer p = {.name = *name, .process = pidfd_open((pid_t)name->pid, 0)};
    if (p.process < 0)
        return false;
    const int file = open_arena(name);
    const bool mapped = file >= 0 && map(&p, file);
    if (file >= 0)
        close(file);
    if (mapped)
        s->peers[at] = p;
    else
        close(p.process);
    return mapped;
}

bool pm_shm_meet(pm_shm *shm, const pm_shm_name *name)
{
    pthread_mutex_lock(&shm->lock);
    const peer *known = find(shm, name->nonce);
    if (!known)
        reap(shm);
    const bool met = known ? !known->gone : meet(shm, name);
    pthread_mutex_unlock(&shm->lock);
    return met;
}

bool pm_shm_lives(pm_shm *shm, uint64_t nonce)
{
    pthread_mutex_lock(&shm->lock);
    const peer *p = find(shm, nonce);
    const bool lives = p && !p->gone && !is_gone(p);
    pthread_mutex_unlock(&shm->lock);
    return lives;
}

// ---- loans

static atomic_ushort *counter(void *block, uint32_t column)
{
    return &((loans *)block - 1)->of[column];
}

static bool lend(pm_shm *s, const peer *to, const pm_buffer *buffer, pm_shm_loan *loan)
{
    const unsigned char *data = buffer->data;
    unsigned char *block = buffer->whole ? buffer->whole->data : buffer->data;
    if (!to || to->gone || !buffer->is_lent || block < s->base || block >= s->base + s->used)
        return false;
    const size_t column = (size_t)(to - s->peers);
    atomic_ushort *count = counter(block, (uint32_t)column);
    if (atomic_load_explicit(count, memory_order_relaxed) == UINT16_MAX)
        return false;
    atomic_fetch_add_explicit(count, 1, memory_order_release);
    *loan = (pm_shm_loan){(uint32_t)column, (uint64_t)(block - s->base), (uint64_t)(data - s->base),
                          buffer->size};
    return true;
}

bool pm_shm_lend(pm_shm *shm, uint64_t nonce, const pm_buffer *buffer, pm_shm_loan *loan)
{
    pthread_mutex_lock(&shm->lock);
    const bool lent = lend(shm, find(shm, nonce), buffer, loan);
    pthread_mutex_unlock(&shm->lock);
    return lent;
}

void pm_shm_unlend(pm_shm *shm, uint64_t nonce, const pm_shm_loan *loan)
{
    pthread_mutex_lock(&shm->lock);
    const peer *to = find(shm, nonce);
    if (to && !to->gone) // else the loan has ended with it
        atomic_fetch_sub_explicit(counter(shm->base + loan->block, loan->column), 1, memory_order_release);
    pthread_mutex_unlock(&shm->lock);
}

static void give_back(pm_buffer *buffer)
{
    borrowed *b = (borrowed *)buffer;
    pm_shm *s = b->shm;
    pthread_mutex_lock(&s->lock);
    atomic_fetch_sub_explicit(b->count, 1, memory_order_release);
    if (--b->from->borrowed == 0 && b->from->gone)
        forget(b->from);
    pthread_mutex_unlock(&s->lock);
    free(b);
}

static bool always(const pm_buffer *buffer)
{
    (void)buffer;
    return true;
}

static bool is_place(const peer *from, const pm_shm_loan *loan)
{
    return from && loan->column < COLUMNS && loan->block % PM_ALIGN == 0 && loan->offset % PM_ALIGN == 0 &&
           loan->block >= PAGE + sizeof(loans) && loan->block <= loan->offset && loan->offset <= from->size &&
           loan->size <= from->size - loan->offset;
}

pm_buffer *pm_shm_borrow(pm_shm *shm, uint64_t nonce, const pm_shm_loan *loan)
{
    borrowed *b = malloc(sizeof *b);
    if (!b)
        return NULL;
    pthread_mutex_lock(&shm->lock);
    peer *from = find(shm, nonce);
    const bool good = is_place(from, loan);
    if (good) {
        from->borrowed++;
        *b = (borrowed){.shm = shm, .from = from, .count = counter(from->base + loan->block, loan->column)};
        b->buffer.data = from->base + loan->offset;
        b->buffer.size = loan->size;
        b->buffer.release = give_back;
        b->buffer.is_lent = always;
        atomic_init(&b->buffer.references, 1);
    }
    pthread_mutex_unlock(&shm->lock);
    if (!good)
        free(b);
    return good ? &b->buffer : NULL;
}
