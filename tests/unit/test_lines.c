// Messages between two nets that share memory, by lines and, where those cannot carry them, by the old way.
#include "net/lines.h"
#include "net/loop.h"

#include "tests/unit/two_nets.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

// The first message meets, the answer names the bell, the second offers the line.
static two_nets make(void)
{
    two_nets t = make_two(true);
    round_trip(&t, 100, false, false);
    round_trip(&t, 100, false, false);
    return t;
}

static bool is_in_zeromq(const pm_socket *socket, int wait_ms)
{
    zmq_pollitem_t item = {pm_socket_handle(socket), 0, ZMQ_POLLIN, 0};
    return zmq_poll(&item, 1, wait_ms) == 1;
}

// Without a line, a message is in ZeroMQ soon; on one it never is.
static bool comes_by_line(pm_socket *from, const pm_peer *to, pm_socket *at, pm_message *message,
                          pm_peer *sender)
{
    pm_message in = {0};
    must(pm_socket_send(from, to, message));
    const bool by_line = pm_socket_wake(at) && !is_in_zeromq(at, 0);
    must(pm_socket_receive(at, sender, &in, 5000));
    cr_assert_null(in.header->shared);
    pm_message_clear(&in);
    return by_line;
}

Test(lines, small_messages_and_loans_go_by_them_both_ways, .timeout = 60)
{
    two_nets t = make();
    pm_peer peer, nobody;
    for (size_t size = 1; size <= 1 << 20; size = size < 4096 ? size * 16 : size * 256) {
        pm_message there = message_from(t.pools[1], size, 1), back = message_from(t.pools[0], size, 2);
        cr_assert(comes_by_line(t.dealer, NULL, t.router, &there, &peer), "%zu bytes there", size);
        cr_assert(comes_by_line(t.router, &peer, t.dealer, &back, &nobody), "%zu bytes back", size);
    }
    for (int i = 0; i < 20; i++)
        round_trip(&t, 1 << 20, true, true);
    unmake_two(&t);
}

Test(lines, what_is_large_and_not_lent_takes_the_old_way, .timeout = 60)
{
    two_nets t = make();
    pm_peer peer;
    pm_message large = push_of(1, 100000, 3), small = push_of(2, 10, 3);
    cr_assert_not(comes_by_line(t.dealer, NULL, t.router, &large, &peer));
    cr_assert(comes_by_line(t.dealer, NULL, t.router, &small, &peer));
    unmake_two(&t);
}

// More than a line holds: all arrive, if not in their order.
Test(lines, a_reader_that_does_not_read_loses_nothing, .timeout = 60)
{
    enum { COUNT = 1000 };
    two_nets t = make();
    bool seen[COUNT] = {false};
    for (uint32_t i = 0; i < COUNT; i++) {
        pm_message out = push_of(i, 200, 4);
        must(pm_socket_send(t.dealer, NULL, &out));
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        pm_message in = {0};
        pm_peer from;
        must(pm_socket_receive(t.router, &from, &in, 5000));
        cr_assert_lt(in.header->push->table, COUNT);
        cr_assert_not(seen[in.header->push->table]);
        seen[in.header->push->table] = true;
        pm_message_clear(&in);
    }
    unmake_two(&t);
}

// What is to be sent once the other sleeps; asserts nothing, as only a test's own thread may.
typedef struct late {
    const two_nets *nets;
    pm_message message;
    pm_status status;
} late;

static void *send_late(void *context)
{
    late *l = context;
    usleep(50000);
    l->status = pm_socket_send(l->nets->dealer, NULL, &l->message);
    return NULL;
}

Test(lines, who_waits_in_a_receive_is_woken, .timeout = 60)
{
    two_nets t = make();
    late l = {.nets = &t, .message = push_of(7, 10, 5)};
    pthread_t sender;
    pm_message in = {0};
    pm_peer from;
    cr_assert_eq(pm_socket_receive(t.router, &from, &in, 20).code, PM_TIMEOUT);
    cr_assert_eq(pthread_create(&sender, NULL, send_late, &l), 0);
    must(pm_socket_receive(t.router, &from, &in, 20000));
    cr_assert_eq(in.header->push->table, 7);
    pthread_join(sender, NULL);
    must(l.status);
    pm_message_clear(&in);
    unmake_two(&t);
}

static void on_push(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    (void)socket, (void)from;
    cr_assert_eq(message->header->push->table, 7);
    pm_loop_end(context);
}

Test(lines, who_waits_in_a_loop_is_woken, .timeout = 60)
{
    two_nets t = make();
    late l = {.nets = &t, .message = push_of(7, 10, 5)};
    pm_loop *loop = NULL;
    pthread_t sender;
    must(pm_loop_create(&loop, pm_clock_monotonic(), NULL));
    must(pm_loop_add(loop, t.router, on_push, loop));
    cr_assert_eq(pthread_create(&sender, NULL, send_late, &l), 0);
    must(pm_loop_run(loop));
    pthread_join(sender, NULL);
    must(l.status);
    pm_loop_destroy(&loop);
    unmake_two(&t);
}

static void reopen_router(two_nets *t)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "%s", pm_socket_endpoint(t->router));
    pm_socket_destroy(&t->router);
    must(pm_socket_create(&t->router, t->nets[0], PM_SOCKET_ROUTER));
    while (pm_socket_bind(t->router, endpoint).code == PM_EXISTS)
        usleep(10000);
}

Test(lines, a_closed_line_is_left_and_a_new_one_opened, .timeout = 60)
{
    two_nets t = make();
    pm_peer peer;
    pm_message out, in = {0};
    reopen_router(&t);
    for (int tries = 0; !in.header; tries++) { // one may be lost with the connection
        cr_assert_lt(tries, 50);
        out = push_of(1, 10, 1);
        must(pm_socket_send(t.dealer, NULL, &out));
        pm_status status = pm_socket_receive(t.router, &peer, &in, 300);
        cr_assert(status.code == PM_OK || status.code == PM_TIMEOUT);
    }
    pm_message_clear(&in);
    for (int i = 0; i < 2; i++)
        round_trip(&t, 100, false, false);
    out = push_of(1, 10, 1);
    cr_assert(comes_by_line(t.dealer, NULL, t.router, &out, &peer));
    unmake_two(&t);
}

// A message that offers the place as a line and names the file as its bell.
static pm_message offer_of(const two_nets *t, uint64_t block, uint64_t offset, uint64_t size, uint32_t bell)
{
    const pm_shm_name name = pm_shm_name_of(pm_net_shm(t->nets[1]));
    pm_message out = push_of(1, 10, 1);
    Paramill__Shared *told = out.header->shared = pm_proto_new(&paramill__shared__descriptor);
    told->pid = name.pid;
    told->file = name.file;
    told->nonce = name.nonce;
    told->borrower = pm_shm_name_of(pm_net_shm(t->nets[0])).nonce;
    told->bell = bell;
    told->line = pm_proto_new(&paramill__loan__descriptor);
    told->line->block = block;
    told->line->offset = offset;
    told->line->size = size;
    return out;
}

Test(lines, an_impossible_offer_is_not_taken_and_costs_nothing, .timeout = 60)
{
    two_nets t = make();
    const uint64_t place = 4096 + 128, far = UINT64_MAX - 63, size = PM_LINE_BYTES;
    const uint32_t arena = pm_shm_name_of(pm_net_shm(t.nets[1])).file,
                   bell = (uint32_t)pm_socket_bell(t.dealer);
    pm_message offers[] = {offer_of(&t, place, place, size - 1, bell),
                           offer_of(&t, place, far, size, bell),
                           offer_of(&t, 0, 0, size, bell),
                           offer_of(&t, place, place, size, arena),
                           offer_of(&t, place, place, size, 1 << 20),
                           offer_of(&t, place, place, 0, bell)};
    pm_socket *raw = NULL; // of a net that shares nothing: what the header says goes out as it is
    pm_net *net = NULL;
    pm_peer peer;
    must(pm_net_create(&net));
    must(pm_socket_create(&raw, net, PM_SOCKET_DEALER));
    must(pm_socket_connect(raw, pm_socket_endpoint(t.router)));
    for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++) {
        pm_message in = {0}, answer = push_of(2, 10, 1);
        must(pm_socket_send(raw, NULL, &offers[i]));
        must(pm_socket_receive(t.router, &peer, &in, 5000));
        pm_message_clear(&in);
        must(pm_socket_send(t.router, &peer, &answer));
        cr_assert(is_in_zeromq(raw, 5000), "offer %zu", i);
        must(pm_socket_receive(raw, NULL, &in, 5000));
        pm_message_clear(&in);
    }
    round_trip(&t, 100, false, false);
    pm_socket_destroy(&raw);
    pm_net_destroy(&net);
    unmake_two(&t);
}

typedef struct echo {
    pid_t process;
    int told; // its endpoint, once it is there
} echo;

// A process that echoes what it gets at the endpoint, as soon as that is free, until it is killed.
static echo start_echo(const char *endpoint)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        pm_net *net = NULL;
        pm_socket *router = NULL;
        must(pm_net_create(&net));
        must(pm_net_share(net));
        must(pm_socket_create(&router, net, PM_SOCKET_ROUTER));
        pm_status bound = pm_socket_bind(router, endpoint);
        for (; bound.code == PM_EXISTS; bound = pm_socket_bind(router, endpoint))
            usleep(10000);
        must(bound);
        if (write(ends[1], pm_socket_endpoint(router), strlen(pm_socket_endpoint(router)) + 1) < 0)
            _exit(1);
        for (;;) {
            pm_message m = {0};
            pm_peer from;
            if (pm_socket_receive(router, &from, &m, -1).code == PM_OK)
                bound = pm_socket_send(router, &from, &m);
        }
    }
    cr_assert_gt(child, 0);
    close(ends[1]);
    return (echo){child, ends[0]};
}

static void end_echo(const echo *e)
{
    kill(e->process, SIGKILL);
    cr_assert_eq(waitpid(e->process, NULL, 0), e->process);
    close(e->told);
}

static bool is_echoed(pm_socket *dealer, uint32_t number, int wait_ms)
{
    pm_message out = push_of(number, 10, 1), in = {0};
    must(pm_socket_send(dealer, NULL, &out));
    const pm_status status = pm_socket_receive(dealer, NULL, &in, wait_ms);
    const bool good = status.code == PM_OK && in.header->push->table == number;
    pm_message_clear(&in);
    return good;
}

// What was put on the line of the killed is lost, as on a broken connection; who asks again is heard.
Test(lines, the_line_of_a_killed_process_is_left_for_the_one_that_takes_its_place, .timeout = 60)
{
    char endpoint[64];
    const echo first = start_echo("tcp://127.0.0.1:*");
    cr_assert_gt(read(first.told, endpoint, sizeof endpoint), 0);
    const echo next = start_echo(endpoint);
    pm_net *net = NULL;
    pm_socket *dealer = NULL;
    must(pm_net_create(&net));
    must(pm_net_share(net));
    must(pm_socket_create(&dealer, net, PM_SOCKET_DEALER));
    must(pm_socket_connect(dealer, endpoint));
    for (uint32_t i = 0; i < 100; i++)
        cr_assert(is_echoed(dealer, i, 5000));
    cr_assert_geq(pm_socket_bell(dealer), 0);
    end_echo(&first);
    cr_assert_gt(read(next.told, endpoint, sizeof endpoint), 0);
    uint32_t tries = 0;
    while (!is_echoed(dealer, 200 + tries, 300))
        cr_assert_lt(++tries, 50);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert(is_echoed(dealer, 1000 + i, 5000) ||
                  i == 0); // the first may find an answer to one of the tries
    end_echo(&next);
    pm_socket_destroy(&dealer);
    pm_net_destroy(&net);
}
