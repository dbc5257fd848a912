#include "net/ring.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    pm_ring *ring;
    pm_ring_end writer, reader;
    pm_ring_message *message;
    bool asleep;
    uint64_t unread;
} kit;

static kit make(void)
{
    kit k = {.ring = aligned_alloc(64, sizeof(pm_ring)), .message = malloc(sizeof(pm_ring_message))};
    memset(k.ring, 0, sizeof *k.ring);
    k.writer.ring = k.reader.ring = k.ring;
    return k;
}

static void drop(kit *k)
{
    free(k->ring);
    free(k->message);
}

static bool put(kit *k, const void *data, size_t size)
{
    return pm_ring_put(&k->writer, &(pm_ring_part){data, size}, 1, &k->asleep, &k->unread);
}

static pm_ring_found take(kit *k)
{
    return pm_ring_take(&k->reader, k->message);
}

// Sizes that do not divide the ring: each place of it is an edge once.
Test(ring, messages_come_out_as_they_went_in_over_every_edge)
{
    kit k = make();
    unsigned char bytes[3000];
    for (size_t i = 0; i < 5000; i++) {
        const size_t first = i * 7 % 2999, second = i * 13 % 800;
        memset(bytes, (int)(i % 251), sizeof bytes);
        const pm_ring_part parts[] = {{bytes, first}, {NULL, 0}, {bytes, second}};
        cr_assert(pm_ring_put(&k.writer, parts, 3, &k.asleep, &k.unread));
        cr_assert(pm_ring_has(&k.reader));
        cr_assert_eq(take(&k), PM_RING_MESSAGE);
        cr_assert_eq(k.message->count, 3);
        cr_assert_eq(k.message->parts[0].size, first);
        cr_assert_eq(k.message->parts[1].size, 0);
        cr_assert_eq(k.message->parts[2].size, second);
        cr_assert_eq(memcmp(k.message->parts[0].data, bytes, first), 0);
        cr_assert_eq(memcmp(k.message->parts[2].data, bytes, second), 0);
        cr_assert_not(pm_ring_has(&k.reader));
        cr_assert_eq(take(&k), PM_RING_EMPTY);
    }
    drop(&k);
}

Test(ring, what_has_no_room_is_refused_and_leaves_nothing)
{
    kit k = make();
    static unsigned char bytes[PM_RING_MESSAGE_MAX + 1];
    cr_assert_not(put(&k, bytes, sizeof bytes));
    const pm_ring_part halves[] = {{bytes, 5000}, {bytes, 5000}};
    cr_assert_not(pm_ring_put(&k.writer, halves, 2, &k.asleep, &k.unread));
    cr_assert_eq(take(&k), PM_RING_EMPTY);
    size_t count = 0;
    while (put(&k, bytes, 1000)) {
        cr_assert_eq(k.unread, count * 1016);
        count++;
    }
    cr_assert_eq(count, PM_RING_BYTES / 1016);
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(take(&k), PM_RING_MESSAGE);
    cr_assert_eq(take(&k), PM_RING_EMPTY);
    cr_assert(put(&k, bytes, PM_RING_MESSAGE_MAX));
    cr_assert_eq(take(&k), PM_RING_MESSAGE);
    drop(&k);
}

Test(ring, a_reader_that_sleeps_is_to_be_woken_once)
{
    kit k = make();
    put(&k, "a", 1);
    cr_assert_not(k.asleep);
    pm_ring_doze(&k.reader, true);
    cr_assert(pm_ring_has(&k.reader));
    put(&k, "b", 1);
    cr_assert(k.asleep);
    put(&k, "c", 1);
    cr_assert_not(k.asleep);
    pm_ring_doze(&k.reader, true);
    pm_ring_doze(&k.reader, false);
    put(&k, "d", 1);
    cr_assert_not(k.asleep);
    drop(&k);
}

// Whatever the other side writes costs this one no more than an error.
Test(ring, what_no_writer_writes_is_broken)
{
    static const uint32_t heads[][4] = {{0, 0, 0, 0},           {16, 0, 0, 0},         {12, 1, 8, 0},
                                        {24, 1, 8, 0},          {16, 2, 8, 8},         {4096, 1, 1, 0},
                                        {16, UINT32_MAX, 0, 0}, {UINT32_MAX, 1, 1, 0}, {16, 1, UINT32_MAX, 0},
                                        {16, 66, 0, 0}};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        kit k = make();
        memcpy(k.ring->bytes, heads[i], sizeof heads[i]);
        atomic_store(&k.ring->written, 16);
        cr_assert_eq(take(&k), PM_RING_BROKEN, "%zu", i);
        drop(&k);
    }
    kit k = make();
    static const uint64_t counters[] = {1, 4, PM_RING_BYTES + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        atomic_store(&k.ring->written, counters[i]);
        cr_assert_eq(take(&k), PM_RING_BROKEN, "%zu", i);
    }
    atomic_store(&k.ring->read, 8); // more than was ever written
    cr_assert_not(put(&k, "a", 1));
    drop(&k);
}
