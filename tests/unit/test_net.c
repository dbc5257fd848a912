#include "net/actor.h"
#include "net/http.h"
#include "net/loop.h"
#include "tests/unit/two_nets.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

static void exchange(const char *endpoint)
{
    pm_net *net = NULL;
    pm_socket *router = NULL, *dealer = NULL;
    must(pm_net_create(&net));
    must(pm_socket_create(&router, net, PM_SOCKET_ROUTER));
    must(pm_socket_create(&dealer, net, PM_SOCKET_DEALER));
    must(pm_socket_bind(router, endpoint));
    must(pm_socket_connect(dealer, pm_socket_endpoint(router)));
    for (size_t size = 1; size <= 1 << 20; size *= 32) {
        pm_message out = push_of((uint32_t)size, size, 0x5A), in = {0}, back = {0};
        pm_peer from;
        must(pm_socket_send(dealer, NULL, &out));
        must(pm_socket_receive(router, &from, &in, 5000));
        cr_assert_eq(in.header->push->table, size);
        cr_assert_eq(in.frame_count, 1);
        cr_assert_eq(in.frames[0]->size, size);
        cr_assert_eq(((unsigned char *)in.frames[0]->data)[size - 1], 0x5A);
        cr_assert_eq((uintptr_t)in.frames[0]->data % 8, 0);
        must(pm_socket_send(router, &from, &in));
        must(pm_socket_receive(dealer, NULL, &back, 5000));
        cr_assert_eq(back.frames[0]->size, size);
        pm_message_clear(&back);
    }
    pm_socket_destroy(&dealer);
    pm_socket_destroy(&router);
    pm_net_destroy(&net);
}

Test(net, messages_cross_tcp_and_inproc_whole, .timeout = 30)
{
    exchange("tcp://127.0.0.1:*");
    exchange("inproc://exchange");
}

Test(net, large_frames_stay_where_they_lie_once_both_have_met, .timeout = 30)
{
    two_nets t = make_two(true);
    round_trip(&t, 1 << 20, false, true);
    for (int i = 0; i < 3; i++)
        round_trip(&t, 1 << 20, true, true);
    round_trip(&t, 1000, false, false);
    unmake_two(&t);
}

Test(net, who_does_not_share_memory_gets_bytes, .timeout = 30)
{
    two_nets t = make_two(false);
    for (int i = 0; i < 2; i++)
        round_trip(&t, 1 << 20, false, false);
    unmake_two(&t);
}

Test(net, what_was_not_read_is_given_back_when_the_socket_closes, .timeout = 30)
{
    two_nets t = make_two(true);
    round_trip(&t, 1 << 20, false, true);
    pm_message out = message_from(t.pools[1], 1 << 20, 1);
    pm_buffer *kept = pm_buffer_ref(out.frames[1]);
    must(pm_socket_send(t.dealer, NULL, &out));
    cr_assert(pm_buffer_is_shared(kept));
    zmq_pollitem_t arrived = {pm_socket_handle(t.router), 0, ZMQ_POLLIN, 0};
    cr_assert_eq(zmq_poll(&arrived, 1, 5000), 1);
    pm_socket_destroy(&t.router);
    cr_assert_not(pm_buffer_is_shared(kept));
    pm_buffer_unref(&kept);
    unmake_two(&t);
}

// A loan that is none costs its sender an error, as all that is no message.
Test(net, an_impossible_loan_is_refused, .timeout = 30)
{
    two_nets t = make_two(true);
    round_trip(&t, 1 << 20, false, true);
    const pm_shm_name name = pm_shm_name_of(pm_net_shm(t.nets[1]));
    pm_socket *raw = NULL; // of a net that shares nothing: what the header says of loans goes out as it is
    pm_net *net = NULL;
    must(pm_net_create(&net));
    must(pm_socket_create(&raw, net, PM_SOCKET_DEALER));
    must(pm_socket_connect(raw, pm_socket_endpoint(t.router)));
    const uint64_t own = pm_shm_name_of(pm_net_shm(t.nets[0])).nonce;
    const struct {
        uint64_t borrower, offset;
        uint32_t frame;
    } bad[] = {{own, 0, 0}, {own, UINT64_MAX - 63, 0}, {own, 4096 + 128, 1}, {name.nonce, 4096 + 128, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pm_message out = push_of(1, 0, 0), in = {0};
        Paramill__Loan *loan = pm_proto_new(&paramill__loan__descriptor);
        loan->frame = bad[i].frame;
        loan->offset = bad[i].offset;
        loan->size = 64;
        Paramill__Shared *shared = out.header->shared = pm_proto_new(&paramill__shared__descriptor);
        shared->pid = name.pid;
        shared->file = name.file;
        shared->nonce = name.nonce;
        shared->borrower = bad[i].borrower;
        shared->loans = calloc(1, sizeof(Paramill__Loan *));
        shared->loans[shared->n_loans++] = loan;
        pm_peer from;
        must(pm_socket_send(raw, NULL, &out));
        cr_assert_eq(pm_socket_receive(t.router, &from, &in, 5000).code, PM_PROTOCOL);
        cr_assert_null(in.header);
    }
    pm_socket_destroy(&raw);
    pm_net_destroy(&net);
    unmake_two(&t);
}

Test(net, a_port_in_use_is_named, .timeout = 30)
{
    pm_net *net = NULL;
    pm_socket *a = NULL, *b = NULL;
    must(pm_net_create(&net));
    must(pm_socket_create(&a, net, PM_SOCKET_ROUTER));
    must(pm_socket_create(&b, net, PM_SOCKET_ROUTER));
    must(pm_socket_bind(a, "tcp://127.0.0.1:*"));
    pm_status status = pm_socket_bind(b, pm_socket_endpoint(a));
    cr_assert_eq(status.code, PM_EXISTS);
    cr_assert(strstr(status.message, pm_socket_endpoint(a)), "%s", status.message);
    pm_socket_destroy(&a);
    pm_socket_destroy(&b);
    pm_net_destroy(&net);
}

typedef struct server {
    pm_loop *loop;
    int good;
} server;

static void on_push(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    server *s = context;
    s->good++;
    must(pm_socket_send(socket, from, message));
    pm_loop_end(s->loop);
}

// What is no message at all, and a message of another protocol version.
static void send_garbage(const char *endpoint)
{
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    zmq_connect(raw, endpoint);
    zmq_send(raw, "\xff\xff\xff", 3, 0);
    const unsigned char version9[] = {0x08, 9, 0xba, 0x02, 0};
    zmq_send(raw, version9, sizeof version9, 0);
    zmq_close(raw);
    zmq_ctx_term(context);
}

Test(net, garbage_costs_its_sender_an_error_and_nobody_else_anything, .timeout = 30)
{
    pm_net *net = NULL;
    pm_socket *router = NULL, *dealer = NULL;
    server s = {0};
    must(pm_net_create(&net));
    must(pm_socket_create(&router, net, PM_SOCKET_ROUTER));
    must(pm_socket_create(&dealer, net, PM_SOCKET_DEALER));
    must(pm_socket_bind(router, "tcp://127.0.0.1:*"));
    must(pm_loop_create(&s.loop, pm_clock_monotonic(), NULL));
    must(pm_loop_add(s.loop, router, on_push, &s));
    send_garbage(pm_socket_endpoint(router));
    must(pm_socket_connect(dealer, pm_socket_endpoint(router)));
    pm_message out = push_of(3, 10, 1), back = {0};
    must(pm_socket_send(dealer, NULL, &out));
    must(pm_loop_run(s.loop));
    cr_assert_eq(s.good, 1);
    must(pm_socket_receive(dealer, NULL, &back, 5000));
    cr_assert_eq(back.header->push->table, 3);
    pm_message_clear(&back);
    pm_loop_destroy(&s.loop);
    pm_socket_destroy(&dealer);
    pm_socket_destroy(&router);
    pm_net_destroy(&net);
}

Test(net, an_unknown_protocol_version_is_refused_with_both_numbers)
{
    const unsigned char version9[] = {0x08, 9, 0xba, 0x02, 0};
    pm_message m = {0};
    pm_status status = pm_message_decode(&m, version9, sizeof version9);
    cr_assert_eq(status.code, PM_PROTOCOL);
    cr_assert(strstr(status.message, "version 9"), "%s", status.message);
    cr_assert(strstr(status.message, "speaks 1"), "%s", status.message);
}

static pm_status echo_twice(void *argument, pm_socket *pipe)
{
    (void)argument;
    pm_message m = {0};
    pm_status status = pm_socket_receive(pipe, NULL, &m, 5000);
    if (status.code == PM_OK)
        status = pm_socket_send(pipe, NULL, &m);
    return status.code == PM_OK ? pm_fail(PM_CANCELLED, "as planned") : status;
}

Test(net, an_actor_speaks_through_its_pipe_and_returns_its_status, .timeout = 30)
{
    pm_net *net = NULL;
    pm_actor *actor = NULL;
    must(pm_net_create(&net));
    must(pm_actor_start(&actor, net, "echo", echo_twice, NULL));
    pm_message out = push_of(9, 100, 7), back = {0};
    must(pm_socket_send(pm_actor_pipe(actor), NULL, &out));
    must(pm_socket_receive(pm_actor_pipe(actor), NULL, &back, 5000));
    cr_assert_eq(back.header->push->table, 9);
    pm_message_clear(&back);
    pm_status status = pm_actor_join(&actor);
    cr_assert_str_eq(status.message, "as planned");
    pm_net_destroy(&net);
}

static void get(uint16_t port, const char *path, char *answer, size_t size)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    char request[128];
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
    cr_assert_eq(write(fd, request, (size_t)n), n);
    size_t used = 0;
    for (ssize_t got; used + 1 < size && (got = read(fd, answer + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    answer[used] = '\0';
    close(fd);
}

Test(net, http_shows_metrics_health_and_readiness, .timeout = 30)
{
    pm_metrics *metrics = NULL;
    pm_http *http = NULL;
    atomic_bool ready = false;
    char answer[8192];
    must(pm_metrics_create(&metrics));
    pm_metric_add(pm_counter(metrics, "paramill_steps_total", "Steps done.", "role=\"worker\""), 3);
    pm_metric_observe_us(pm_histogram(metrics, "paramill_step_seconds", "Time of a step.", ""), 250);
    must(pm_http_create(&http, "127.0.0.1:0", metrics, &ready));
    get(pm_http_port(http), "/metrics", answer, sizeof answer);
    cr_assert(strstr(answer, "paramill_steps_total{role=\"worker\"} 3\n"), "%s", answer);
    cr_assert(strstr(answer, "paramill_step_seconds_bucket{le=\"0.0004\"} 1\n"), "%s", answer);
    cr_assert(strstr(answer, "paramill_step_seconds_bucket{le=\"0.0002\"} 0\n"), "%s", answer);
    cr_assert(strstr(answer, "paramill_step_seconds_count 1\n"), "%s", answer);
    get(pm_http_port(http), "/healthz", answer, sizeof answer);
    cr_assert(strstr(answer, " 200 "));
    get(pm_http_port(http), "/readyz", answer, sizeof answer);
    cr_assert(strstr(answer, " 503 "));
    atomic_store(&ready, true);
    get(pm_http_port(http), "/readyz", answer, sizeof answer);
    cr_assert(strstr(answer, " 200 "));
    pm_http_destroy(&http);
    pm_metrics_destroy(&metrics);
}
