#pragma once
// The frame codec: a message is a decoded header and the raw frames behind it. Frames are counted references,
// so a message goes to several receivers, or stays with a shard, without a copy of its arrays.
//
// Decoding treats its input as hostile: a header frame is at most PM_HEADER_MAX bytes, a message has at most
// PM_FRAMES_MAX frames, an unknown protocol version is PM_PROTOCOL with both versions named.
#include "core/buffer.h"
#include "core/status.h"

#include "proto/paramill.pb-c.h"

#include <stdint.h>

enum { PM_PROTOCOL_VERSION = 1, PM_FRAMES_MAX = 64, PM_HEADER_MAX = 1 << 20, PM_FRAME_MAX = 256 << 20 };

typedef struct pm_message {
    Paramill__Header *header;         // owned; NULL only before decoding
    pm_buffer *frames[PM_FRAMES_MAX]; // references owned by the message
    uint32_t frame_count;
} pm_message;

// Decodes a header frame into message->header. On failure the message owns nothing new.
pm_status pm_message_decode(pm_message *message, const void *bytes, size_t size) PM_CHECKED;

// Serializes a header for sending; one reference, to be released by the caller. NULL when out of memory.
pm_buffer *pm_message_encode(const Paramill__Header *header);

// Hands one reference over to the message. PM_NO_MEMORY past PM_FRAMES_MAX (the reference is released).
pm_status pm_message_add(pm_message *message, pm_buffer *frame) PM_CHECKED;

// Releases header and frames; the struct may be used again.
void pm_message_clear(pm_message *message);

// Moves everything from one message to another, which must be empty.
void pm_message_move(pm_message *to, pm_message *from);

// A deep copy of the header and new references to the frames (for the simulator's duplicates, for resends).
pm_status pm_message_copy(pm_message *to, const pm_message *from) PM_CHECKED;

// A header on the heap with protocol, request and epoch set and the given body attached: body must be made by
// pm_proto_new of the matching type; both are freed by pm_message_clear. NULL when out of memory.
Paramill__Header *pm_header_create(uint64_t request, uint64_t epoch, Paramill__Header__BodyCase kind,
                                   void *body);

// A zeroed, initialised protobuf-c message on the heap, e.g. pm_proto_new(&paramill__push__descriptor).
void *pm_proto_new(const ProtobufCMessageDescriptor *descriptor);

// A heap copy of a string for a string field of a heap message.
char *pm_proto_string(const char *text);

// A heap copy of a list for a repeated field of a heap message; empty when there is nothing, or no memory.
void pm_proto_list(uint64_t **list, size_t *count, const uint64_t *from, size_t from_count);

// The Error answer to a request.
Paramill__Header *pm_header_error(uint64_t request, uint64_t epoch, pm_status status,
                                  uint32_t retry_after_ms);

// An Error body as a status: "peer says: text".
pm_status pm_error_status(const Paramill__Error *error);
