#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

static pm_status check_version(const Paramill__Header *header)
{
    if (header->protocol == PM_PROTOCOL_VERSION)
        return pm_ok();
    return pm_fail(PM_PROTOCOL, "a message of protocol version %u; this build speaks %d", header->protocol,
                   PM_PROTOCOL_VERSION);
}

pm_status pm_message_decode(pm_message *message, const void *bytes, size_t size)
{
    if (size == 0 || size > PM_HEADER_MAX)
        return pm_fail(PM_PROTOCOL, "a header frame of %zu bytes; 1 to %d are allowed", size, PM_HEADER_MAX);
    Paramill__Header *header = paramill__header__unpack(NULL, size, bytes);
    if (!header)
        return pm_fail(PM_PROTOCOL, "a header frame of %zu bytes that is no paramill header", size);
    pm_status status = check_version(header);
    if (status.code == PM_OK && header->body_case == PARAMILL__HEADER__BODY__NOT_SET)
        status = pm_fail(PM_PROTOCOL, "a header without a body this build knows");
    if (status.code != PM_OK) {
        paramill__header__free_unpacked(header, NULL);
        return status;
    }
    message->header = header;
    return pm_ok();
}

pm_buffer *pm_message_encode(const Paramill__Header *header)
{
    pm_buffer *buffer = pm_buffer_create(paramill__header__get_packed_size(header));
    if (buffer)
        paramill__header__pack(header, buffer->data);
    return buffer;
}

pm_status pm_message_add(pm_message *message, pm_buffer *frame)
{
    if (!frame)
        return pm_fail(PM_NO_MEMORY, "a frame");
    if (message->frame_count == PM_FRAMES_MAX) {
        pm_buffer_unref(&frame);
        return pm_fail(PM_NO_MEMORY, "a message has at most %d frames", PM_FRAMES_MAX);
    }
    message->frames[message->frame_count++] = frame;
    return pm_ok();
}

void pm_message_clear(pm_message *message)
{
    if (message->header)
        paramill__header__free_unpacked(message->header, NULL);
    message->header = NULL;
    for (uint32_t i = 0; i < message->frame_count; i++)
        pm_buffer_unref(&message->frames[i]);
    message->frame_count = 0;
}

void pm_message_move(pm_message *to, pm_message *from)
{
    *to = *from;
    memset(from, 0, sizeof *from);
}

pm_status pm_message_copy(pm_message *to, const pm_message *from)
{
    pm_buffer *bytes = pm_message_encode(from->header);
    if (!bytes)
        return pm_fail(PM_NO_MEMORY, "a copy of a message");
    memset(to, 0, sizeof *to);
    to->header = paramill__header__unpack(NULL, bytes->size, bytes->data);
    pm_buffer_unref(&bytes);
    if (!to->header)
        return pm_fail(PM_NO_MEMORY, "a copy of a message");
    for (uint32_t i = 0; i < from->frame_count; i++)
        to->frames[to->frame_count++] = pm_buffer_ref(from->frames[i]);
    return pm_ok();
}

void *pm_proto_new(const ProtobufCMessageDescriptor *descriptor)
{
    // malloc, because free_unpacked of the default allocator calls free.
    ProtobufCMessage *message = calloc(1, descriptor->sizeof_message);
    if (message)
        protobuf_c_message_init(descriptor, message);
    return message;
}

char *pm_proto_string(const char *text)
{
    return strdup(text);
}

void pm_proto_list(uint64_t **list, size_t *count, const uint64_t *from, size_t from_count)
{
    *list = from_count ? malloc(from_count * sizeof *from) : NULL;
    *count = *list ? from_count : 0;
    if (*list)
        memcpy(*list, from, from_count * sizeof *from);
}

Paramill__Header *pm_header_create(uint64_t request, uint64_t epoch, Paramill__Header__BodyCase kind,
                                   void *body)
{
    Paramill__Header *header = body ? pm_proto_new(&paramill__header__descriptor) : NULL;
    if (!header) {
        if (body)
            protobuf_c_message_free_unpacked(body, NULL);
        return NULL;
    }
    header->protocol = PM_PROTOCOL_VERSION;
    header->request = request;
    header->epoch = epoch;
    header->body_case = kind;
    header->error = body; // all members of the body union are pointers
    return header;
}

Paramill__Header *pm_header_error(uint64_t request, uint64_t epoch, pm_status status, uint32_t retry_after_ms)
{
    Paramill__Error *error = pm_proto_new(&paramill__error__descriptor);
    if (!error)
        return NULL;
    error->code = status.code;
    error->text = pm_proto_string(status.message);
    error->retry_after_ms = retry_after_ms;
    return pm_header_create(request, epoch, PARAMILL__HEADER__BODY_ERROR, error);
}

pm_status pm_error_status(const Paramill__Error *error)
{
    pm_code code = error->code > PM_OK && error->code <= PM_INTERNAL ? (pm_code)error->code : PM_PROTOCOL;
    return pm_fail(code, "%s", error->text ? error->text : "");
}
