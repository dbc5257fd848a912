#include "cluster/outbox.h"

#include <stdlib.h>
#include <string.h>

pm_status pm_outbox_add(pm_outbox *outbox, uint32_t port, const pm_peer *to, pm_message *message)
{
    if (outbox->count == outbox->capacity) {
        size_t capacity = outbox->capacity ? outbox->capacity * 2 : 16;
        pm_post *posts = realloc(outbox->posts, capacity * sizeof *posts);
        if (!posts) {
            pm_message_clear(message);
            return pm_fail(PM_NO_MEMORY, "an outbox of %zu messages", capacity);
        }
        outbox->posts = posts;
        outbox->capacity = capacity;
    }
    pm_post *post = &outbox->posts[outbox->count++];
    post->port = port;
    if (to)
        post->to = *to;
    else
        post->to.size = 0;
    pm_message_move(&post->message, message);
    return pm_ok();
}

void pm_outbox_post(pm_outbox *outbox, uint32_t port, const pm_peer *to, Paramill__Header *header,
                    pm_buffer *const *frames, uint32_t count)
{
    if (!header)
        return;
    pm_message message = {.header = header};
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < count && status.code == PM_OK; i++)
        status = pm_message_add(&message, pm_buffer_ref(frames[i]));
    if (status.code == PM_OK)
        status = pm_outbox_add(outbox, port, to, &message);
    pm_message_clear(&message);
}

void pm_outbox_refuse(pm_outbox *outbox, uint32_t port, const pm_peer *to, const Paramill__Header *request,
                      pm_status why, uint32_t retry_after_ms)
{
    pm_outbox_post(outbox, port, to, pm_header_error(request->request, request->epoch, why, retry_after_ms),
                   NULL, 0);
}

void pm_outbox_clear(pm_outbox *outbox)
{
    for (size_t i = 0; i < outbox->count; i++)
        pm_message_clear(&outbox->posts[i].message);
    outbox->count = 0;
}

void pm_outbox_free(pm_outbox *outbox)
{
    pm_outbox_clear(outbox);
    free(outbox->posts);
    *outbox = (pm_outbox){0};
}

void pm_outbox_send(pm_outbox *outbox, pm_socket *const *sockets, uint32_t ports)
{
    for (size_t i = 0; i < outbox->count; i++) {
        pm_post *post = &outbox->posts[i];
        if (post->port < ports && sockets[post->port]) {
            pm_status sent = pm_socket_send(sockets[post->port], &post->to, &post->message);
            (void)sent; // a peer that is gone misses an answer that it will ask for again
        }
    }
    pm_outbox_clear(outbox);
}
