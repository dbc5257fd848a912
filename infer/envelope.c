#include "infer/envelope.h"

#include <stdlib.h>

Paramill__Header *pm_envelope_seal(uint64_t request, uint32_t deadline_ms, Paramill__InferEnvelope__Kind kind,
                                   const ProtobufCMessage *body)
{
    Paramill__InferEnvelope *envelope = pm_proto_new(&paramill__infer_envelope__descriptor);
    if (!envelope)
        return NULL;
    size_t size = protobuf_c_message_get_packed_size(body);
    envelope->kind = kind;
    envelope->payload.data = malloc(size ? size : 1);
    if (!envelope->payload.data) {
        protobuf_c_message_free_unpacked(&envelope->base, NULL);
        return NULL;
    }
    envelope->payload.len = protobuf_c_message_pack(body, envelope->payload.data);
    Paramill__Header *header = pm_header_create(request, 0, PARAMILL__HEADER__BODY_INFER, envelope);
    if (header)
        header->deadline_ms = deadline_ms;
    return header;
}

void *pm_envelope_open(const pm_message *message, const ProtobufCMessageDescriptor *descriptor)
{
    const ProtobufCBinaryData *payload = &message->header->infer->payload;
    return protobuf_c_message_unpack(descriptor, NULL, payload->len, payload->data);
}

Paramill__InferEnvelope__Kind pm_envelope_kind(const pm_message *message)
{
    return message->header->body_case == PARAMILL__HEADER__BODY_INFER ? message->header->infer->kind
                                                                      : PARAMILL__INFER_ENVELOPE__KIND__NONE;
}
