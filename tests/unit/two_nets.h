#pragma once
// Two nets of one process stand for those of two, with a DEALER of the second connected to a ROUTER of the
// first.
#include "net/pool.h"
#include "net/socket.h"

#include <criterion/criterion.h>
#include <string.h>

static inline void must(pm_status status)
{
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
}

static inline pm_message push_of(uint32_t table, size_t size, unsigned char fill)
{
    Paramill__Push *push = pm_proto_new(&paramill__push__descriptor);
    push->table = table;
    pm_message m = {.header = pm_header_create(1, 2, PARAMILL__HEADER__BODY_PUSH, push)};
    pm_buffer *frame = pm_buffer_create(size);
    memset(frame->data, fill, size);
    must(pm_message_add(&m, frame));
    return m;
}

// Two nets, as in two processes; the second shares if asked to.
typedef struct two_nets {
    pm_net *nets[2];
    pm_socket *router, *dealer; // of the first, of the second
    pm_pool *pools[2];
} two_nets;

static inline two_nets make_two(bool both_share)
{
    two_nets t = {0};
    for (int i = 0; i < 2; i++) {
        must(pm_net_create(&t.nets[i]));
        if (i == 0 || both_share)
            must(pm_net_share(t.nets[i]));
        must(pm_pool_create(&t.pools[i], pm_net_shm(t.nets[i])));
    }
    must(pm_socket_create(&t.router, t.nets[0], PM_SOCKET_ROUTER));
    must(pm_socket_create(&t.dealer, t.nets[1], PM_SOCKET_DEALER));
    must(pm_socket_bind(t.router, "tcp://127.0.0.1:*"));
    must(pm_socket_connect(t.dealer, pm_socket_endpoint(t.router)));
    return t;
}

static inline void unmake_two(two_nets *t)
{
    pm_socket_destroy(&t->dealer);
    pm_socket_destroy(&t->router);
    for (int i = 0; i < 2; i++) {
        pm_pool_destroy(&t->pools[i]);
        pm_net_destroy(&t->nets[i]);
    }
}

// A message with a frame of size bytes from a pool, and one of three bytes.
static inline pm_message message_from(pm_pool *pool, size_t size, unsigned char fill)
{
    pm_message m = push_of((uint32_t)size, 3, fill);
    pm_buffer *frame = pm_pool_take(pool, size);
    memset(frame->data, fill, size);
    must(pm_message_add(&m, frame));
    return m;
}

static inline bool is_borrowed(const pm_buffer *frame)
{
    return frame->is_lent && frame->is_lent(frame);
}

static inline void check(const pm_message *m, size_t size, unsigned char fill, bool borrowed)
{
    cr_assert_null(m->header->shared);
    cr_assert_eq(m->frame_count, 2);
    cr_assert_eq(m->frames[0]->size, 3);
    cr_assert_eq(m->frames[1]->size, size);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(((unsigned char *)m->frames[1]->data)[i], fill);
    cr_assert_eq(is_borrowed(m->frames[1]), borrowed);
}

// One message there and one back.
static inline void round_trip(const two_nets *t, size_t size, bool borrowed_there, bool borrowed_back)
{
    pm_peer from;
    pm_message out = message_from(t->pools[1], size, 0xA5), in = {0};
    must(pm_socket_send(t->dealer, NULL, &out));
    must(pm_socket_receive(t->router, &from, &in, 5000));
    check(&in, size, 0xA5, borrowed_there);
    pm_message_clear(&in);
    out = message_from(t->pools[0], size, 0x5A);
    must(pm_socket_send(t->router, &from, &out));
    must(pm_socket_receive(t->dealer, NULL, &in, 5000));
    check(&in, size, 0x5A, borrowed_back);
    pm_message_clear(&in);
}
