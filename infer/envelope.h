#pragma once
// Messages of inference.proto inside the envelope that the header carries.
#include "proto/inference.pb-c.h"
#include "proto/message.h"

// A header with the serialized body, which stays the caller's. NULL when out of memory.
Paramill__Header *pm_envelope_seal(uint64_t request, uint32_t deadline_ms, Paramill__InferEnvelope__Kind kind,
                                   const ProtobufCMessage *body);

// The body of a message whose header carries an envelope, to be freed with
// protobuf_c_message_free_unpacked(body, NULL); NULL when it is not one of the descriptor.
void *pm_envelope_open(const pm_message *message, const ProtobufCMessageDescriptor *descriptor);

// The kind of a message; NONE when it carries no envelope.
Paramill__InferEnvelope__Kind pm_envelope_kind(const pm_message *message);
