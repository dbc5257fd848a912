#include "net/socket.h"

#include "core/clock.h"
#include "net/lines.h"
#include "net/share.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    LINGER_MS = 1000,
    HIGH_WATER = 100000,     // messages; the protocols bound what is in flight far below
    ZERO_COPY_MIN = 8 << 10, // below, copying is cheaper than counting
    KEEPALIVE_MS = 2000,
    PEER_GONE_MS = 10000,
    RECONNECT_MS = 20,
    RECONNECT_MAX_MS = 1000,
    ENDPOINT_MAX = 256,
    ZEROMQ_FIRST = 16 // of so many messages, one is looked for in ZeroMQ before the lines
};

// What one thread wrote before it sent is seen by the thread that received: ZeroMQ sees to that, but is not
// built with the thread sanitizer, which must be told.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HAPPENS_BEFORE(where) __tsan_release(where)
#define HAPPENS_AFTER(where) __tsan_acquire(where)
#else
#define HAPPENS_BEFORE(where) (void)(where)
#define HAPPENS_AFTER(where) (void)(where)
#endif

struct pm_net {
    void *context;
    pm_shm *shm;   // NULL: frames travel as bytes
    pm_pool *pool; // of it, for lines
};

struct pm_socket {
    pm_net *net;
    void *handle;
    pm_socket_kind kind;
    // Of a DEALER: the nonce of its peer's shared memory; 0: none, or not known before its first answer.
    uint64_t arena;
    // Not of a ROUTER: what is sent names no shared memory, since the peer cannot read this process's.
    bool apart;
    pm_lines *lines;   // NULL before a process of this host was met
    uint32_t received; // messages that were looked for, while there are lines
    char endpoint[ENDPOINT_MAX];
};

pm_status pm_net_create(pm_net **net)
{
    pm_net *n = calloc(1, sizeof *n);
    if (n)
        n->context = zmq_ctx_new();
    if (!n || !n->context) {
        free(n);
        return pm_fail(PM_NO_MEMORY, "a ZeroMQ context");
    }
    zmq_ctx_set(n->context, ZMQ_MAX_SOCKETS, 4096);
    *net = n;
    return pm_ok();
}

void pm_net_destroy(pm_net **net)
{
    if (!net || !*net)
        return;
    while (zmq_ctx_term((*net)->context) && errno == EINTR)
        ;
    pm_pool_destroy(&(*net)->pool);
    pm_shm_destroy(&(*net)->shm);
    free(*net);
    *net = NULL;
}

pm_status pm_net_share(pm_net *net)
{
    signal(SIGPIPE, SIG_IGN);
    pm_status status = net->shm ? pm_ok() : pm_shm_create(&net->shm);
    if (status.code == PM_OK && !net->pool)
        status = pm_pool_create(&net->pool, net->shm);
    return status;
}

pm_shm *pm_net_shm(const pm_net *net)
{
    return net->shm;
}

static void set_int(void *handle, int option, int value)
{
    zmq_setsockopt(handle, option, &value, sizeof value);
}

pm_status pm_socket_create(pm_socket **socket, pm_net *net, pm_socket_kind kind)
{
    static const int types[] = {ZMQ_ROUTER, ZMQ_DEALER, ZMQ_PAIR};
    pm_socket *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a socket");
    s->net = net;
    s->kind = kind;
    s->apart = kind == PM_SOCKET_PAIR;
    s->handle = zmq_socket(net->context, types[kind]);
    if (!s->handle) {
        pm_status status = pm_fail(PM_IO, "a socket: %s", zmq_strerror(errno));
        free(s);
        return status;
    }
    int64_t max = PM_FRAME_MAX;
    zmq_setsockopt(s->handle, ZMQ_MAXMSGSIZE, &max, sizeof max);
    set_int(s->handle, ZMQ_LINGER, LINGER_MS);
    set_int(s->handle, ZMQ_SNDHWM, HIGH_WATER);
    set_int(s->handle, ZMQ_RCVHWM, HIGH_WATER);
    set_int(s->handle, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(s->handle, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    if (kind != PM_SOCKET_PAIR) {
        set_int(s->handle, ZMQ_HEARTBEAT_IVL, KEEPALIVE_MS);
        set_int(s->handle, ZMQ_HEARTBEAT_TIMEOUT, PEER_GONE_MS);
    }
    if (kind == PM_SOCKET_ROUTER)
        set_int(s->handle, ZMQ_ROUTER_MANDATORY, 1);
    *socket = s;
    return pm_ok();
}

// What arrived and is not read is borrowed all the same.
static void give_back_unread(pm_socket *socket)
{
    pm_status status = pm_ok();
    for (int i = 0; i < HIGH_WATER && socket->net->shm && status.code != PM_TIMEOUT; i++) {
        pm_peer from;
        pm_message message = {0};
        status = pm_socket_receive(socket, &from, &message, 0);
        pm_message_clear(&message);
    }
}

void pm_socket_destroy(pm_socket **socket)
{
    if (!socket || !*socket)
        return;
    give_back_unread(*socket);
    pm_lines_destroy(&(*socket)->lines);
    zmq_close((*socket)->handle);
    free(*socket);
    *socket = NULL;
}

static pm_status endpoint_failure(const char *verb, const char *endpoint)
{
    int error = errno;
    pm_code code = error == EADDRINUSE                                              ? PM_EXISTS
                   : error == EINVAL || error == EPROTONOSUPPORT || error == ENODEV ? PM_INVALID
                                                                                    : PM_IO;
    return pm_fail(code, "cannot %s %s: %s", verb, endpoint, zmq_strerror(error));
}

pm_status pm_socket_bind(pm_socket *socket, const char *endpoint)
{
    if (zmq_bind(socket->handle, endpoint))
        return endpoint_failure("bind", endpoint);
    size_t size = sizeof socket->endpoint;
    if (zmq_getsockopt(socket->handle, ZMQ_LAST_ENDPOINT, socket->endpoint, &size))
        return endpoint_failure("read the address of", endpoint);
    return pm_ok();
}

const char *pm_socket_endpoint(const pm_socket *socket)
{
    return socket->endpoint;
}

pm_status pm_socket_connect(pm_socket *socket, const char *endpoint)
{
    if (zmq_connect(socket->handle, endpoint))
        return endpoint_failure("connect to", endpoint);
    return pm_ok();
}

pm_status pm_socket_disconnect(pm_socket *socket, const char *endpoint)
{
    if (zmq_disconnect(socket->handle, endpoint))
        return endpoint_failure("disconnect from", endpoint);
    return pm_ok();
}

static void release_reference(void *data, void *hint)
{
    (void)data;
    pm_buffer *buffer = hint;
    pm_buffer_unref(&buffer);
}

// Consumes the reference.
static int send_buffer(void *handle, pm_buffer *buffer, int flags)
{
    zmq_msg_t part;
    if (buffer->size < ZERO_COPY_MIN) {
        int sent = zmq_send(handle, buffer->data, buffer->size, flags);
        int error = errno;
        pm_buffer_unref(&buffer);
        errno = error;
        return sent;
    }
    if (zmq_msg_init_data(&part, buffer->data, buffer->size, release_reference, buffer)) {
        pm_buffer_unref(&buffer);
        errno = ENOMEM;
        return -1;
    }
    int sent = zmq_msg_send(&part, handle, flags);
    if (sent < 0) {
        int error = errno;
        zmq_msg_close(&part);
        errno = error;
    }
    return sent;
}

// Consumes the header's reference and the frames.
static int send_parts(pm_socket *socket, const pm_peer *to, pm_message *message, pm_buffer *header)
{
    int flags = ZMQ_DONTWAIT | ZMQ_SNDMORE;
    if (socket->kind == PM_SOCKET_ROUTER && zmq_send(socket->handle, to->id, to->size, flags) < 0) {
        pm_buffer_unref(&header);
        return -1;
    }
    uint32_t count = message->frame_count;
    if (send_buffer(socket->handle, header, count ? flags : ZMQ_DONTWAIT) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        pm_buffer *frame = message->frames[i];
        message->frames[i] = NULL; // the reference goes with the frame
        if (send_buffer(socket->handle, frame, i + 1 < count ? flags : ZMQ_DONTWAIT) < 0)
            return -1;
    }
    return 0;
}

static pm_status send(pm_socket *socket, const pm_peer *to, pm_message *message)
{
    pm_buffer *header = pm_message_encode(message->header);
    if (!header)
        return pm_fail(PM_NO_MEMORY, "a header to send");
    if (socket->lines &&
        pm_lines_send(socket->lines, socket->kind == PM_SOCKET_ROUTER ? to : NULL, header, message)) {
        pm_buffer_unref(&header);
        return pm_ok();
    }
    HAPPENS_BEFORE(socket->net);
    if (!send_parts(socket, to, message, header))
        return pm_ok();
    const int error = errno;
    if (error == EHOSTUNREACH || error == EAGAIN)
        return pm_fail(PM_UNAVAILABLE, "the peer is gone or does not read");
    return pm_fail(PM_IO, "cannot send: %s", zmq_strerror(error));
}

// Whether messages to the peer name this process's arena. A DEALER asks by it, a ROUTER answers by it.
static bool shares(const pm_socket *socket, const pm_peer *to)
{
    return socket->net->shm && (socket->kind == PM_SOCKET_ROUTER ? to->arena != 0 : !socket->apart);
}

static void tell_of_lines(pm_socket *socket, const pm_message *message)
{
    pm_shm_loan line;
    const bool offers = socket->kind == PM_SOCKET_DEALER && pm_lines_offer(socket->lines, &line);
    pm_share_tell(message, pm_lines_bell(socket->lines), offers ? &line : NULL);
}

pm_status pm_socket_send(pm_socket *socket, const pm_peer *to, pm_message *message)
{
    pm_shm *shm = shares(socket, to) ? socket->net->shm : NULL;
    const uint64_t arena = socket->kind == PM_SOCKET_ROUTER ? to->arena : socket->arena;
    pm_status status = shm ? pm_share_out(shm, arena, message) : pm_ok();
    if (status.code == PM_OK && shm && socket->lines)
        tell_of_lines(socket, message);
    if (status.code == PM_OK)
        status = send(socket, to, message);
    if (status.code != PM_OK && shm)
        pm_share_undo(shm, arena, message);
    pm_message_clear(message);
    return status;
}

static void close_part(void *data, void *hint)
{
    (void)data;
    zmq_msg_close(hint);
    free(hint);
}

// Takes the content of part over into a buffer; part stays to be closed by the caller.
static pm_buffer *buffer_from_part(zmq_msg_t *part)
{
    void *data = zmq_msg_data(part);
    size_t size = zmq_msg_size(part);
    if (size < ZERO_COPY_MIN || (uintptr_t)data % 8 != 0)
        return pm_buffer_copy(data, size);
    zmq_msg_t *kept = malloc(sizeof *kept);
    if (!kept)
        return NULL;
    zmq_msg_init(kept);
    zmq_msg_move(kept, part);
    pm_buffer *buffer = pm_buffer_wrap(zmq_msg_data(kept), size, close_part, kept);
    if (!buffer)
        close_part(NULL, kept);
    return buffer;
}

static pm_status receive_failure(void)
{
    return pm_fail(errno == EAGAIN ? PM_TIMEOUT : PM_IO, "cannot receive: %s", zmq_strerror(errno));
}

// Reads the parts that are left of a multipart message; the first of them is the header. Always consumes the
// whole.
static pm_status receive_parts(pm_socket *socket, pm_message *message)
{
    pm_status status = pm_ok();
    int more = 1;
    for (int index = 0; more; index++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket->handle, ZMQ_DONTWAIT) < 0) {
            status = receive_failure();
            zmq_msg_close(&part);
            break;
        }
        HAPPENS_AFTER(socket->net); // the part may be the sender's own memory
        more = zmq_msg_more(&part);
        if (status.code == PM_OK && index == 0)
            status = pm_message_decode(message, zmq_msg_data(&part), zmq_msg_size(&part));
        else if (status.code == PM_OK)
            status = pm_message_add(message, buffer_from_part(&part));
        zmq_msg_close(&part);
    }
    if (status.code != PM_OK)
        pm_message_clear(message);
    return status;
}

// What a process of this host says of its lines. Without any, everything works by the old way.
static void keep_lines(pm_socket *socket, const pm_peer *from, const pm_share_news *news)
{
    pm_status status = pm_ok();
    if (!socket->lines)
        status = pm_lines_create(&socket->lines, socket->net->shm, socket->net->pool);
    if (status.code != PM_OK)
        return;
    if (socket->kind == PM_SOCKET_DEALER && news->bell)
        pm_lines_prepare(socket->lines, &news->name, news->bell);
    else if (socket->kind == PM_SOCKET_ROUTER && news->offers)
        pm_lines_take(socket->lines, from, &news->name, &news->line, news->bell);
}

// What a message says of shared memory.
static pm_status settle(pm_socket *socket, pm_peer *from, pm_message *message)
{
    pm_share_news news;
    const pm_status status = pm_share_in(socket->net->shm, message, &news);
    if (socket->kind == PM_SOCKET_ROUTER) {
        from->arena = news.name.nonce;
    } else {
        socket->arena = news.name.nonce;
        socket->apart = news.name.nonce == 0;
    }
    if (status.code == PM_OK && news.name.nonce)
        keep_lines(socket, from, &news);
    if (status.code != PM_OK)
        pm_message_clear(message);
    return status;
}

static pm_status receive_peer(pm_socket *socket, pm_peer *from)
{
    from->arena = 0;
    zmq_msg_t part;
    zmq_msg_init(&part);
    pm_status status = pm_ok();
    if (zmq_msg_recv(&part, socket->handle, ZMQ_DONTWAIT) < 0)
        status = receive_failure();
    size_t size = zmq_msg_size(&part);
    from->size = size <= sizeof from->id ? (uint8_t)size : 0; // our own peers have 5-byte addresses
    memcpy(from->id, zmq_msg_data(&part), from->size);
    if (status.code == PM_OK && !zmq_msg_more(&part))
        status = pm_fail(PM_PROTOCOL, "a message without a header frame");
    zmq_msg_close(&part);
    return status;
}

static pm_status receive(pm_socket *socket, pm_peer *from, pm_message *message)
{
    if (socket->kind == PM_SOCKET_ROUTER) {
        pm_status named = receive_peer(socket, from);
        if (named.code != PM_OK)
            return named;
    }
    return receive_parts(socket, message);
}

// Takes what is there.
static pm_status receive_now(pm_socket *socket, pm_peer *from, pm_message *message)
{
    // Lines go first, but not always.
    const bool lines_first = socket->lines && ++socket->received % ZEROMQ_FIRST != 0;
    pm_status status =
        lines_first ? pm_lines_receive(socket->lines, from, message) : receive(socket, from, message);
    if (status.code == PM_TIMEOUT && socket->lines)
        status =
            lines_first ? receive(socket, from, message) : pm_lines_receive(socket->lines, from, message);
    return status.code == PM_OK ? settle(socket, from, message) : status;
}

// Until there may be something to take; PM_CANCELLED where a signal came.
static pm_status wait_for_any(pm_socket *socket, int timeout_ms)
{
    zmq_pollitem_t items[] = {{socket->handle, 0, ZMQ_POLLIN, 0},
                              {NULL, pm_socket_bell(socket), ZMQ_POLLIN, 0}};
    const bool waits = pm_socket_doze(socket);
    const int ready = zmq_poll(items, items[1].fd < 0 ? 1 : 2, waits ? 0 : timeout_ms), error = errno;
    pm_socket_wake(socket);
    return ready >= 0
               ? pm_ok()
               : pm_fail(error == EINTR ? PM_CANCELLED : PM_IO, "cannot wait: %s", zmq_strerror(error));
}

pm_status pm_socket_receive(pm_socket *socket, pm_peer *from, pm_message *message, int timeout_ms)
{
    const pm_clock clock = pm_clock_monotonic();
    const int64_t end = timeout_ms > 0 ? pm_now_ms(&clock) + timeout_ms : 0;
    pm_status status = receive_now(socket, from, message);
    for (int64_t left = timeout_ms; status.code == PM_TIMEOUT && left != 0;) {
        const pm_status waited = wait_for_any(socket, (int)left);
        status = waited.code == PM_OK ? receive_now(socket, from, message) : waited;
        left = timeout_ms < 0 ? -1 : end > pm_now_ms(&clock) ? end - pm_now_ms(&clock) : 0;
    }
    return status.code == PM_TIMEOUT && timeout_ms
               ? pm_fail(PM_TIMEOUT, "nothing came within %d ms", timeout_ms)
               : status;
}

void *pm_socket_handle(const pm_socket *socket)
{
    return socket->handle;
}

int pm_socket_bell(const pm_socket *socket)
{
    return socket->lines ? (int)pm_lines_bell(socket->lines) : -1;
}

bool pm_socket_doze(pm_socket *socket)
{
    if (!socket->lines)
        return false;
    pm_lines_doze(socket->lines);
    return pm_lines_wait(socket->lines);
}

bool pm_socket_wake(pm_socket *socket)
{
    if (!socket->lines)
        return false;
    pm_lines_wake(socket->lines);
    return pm_lines_wait(socket->lines);
}

pm_socket_kind pm_socket_get_kind(const pm_socket *socket)
{
    return socket->kind;
}
