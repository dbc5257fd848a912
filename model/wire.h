#pragma once
// The protobuf wire format, as much as ONNX needs: a reader over hostile bytes that allocates nothing, and a
// writer into a growing buffer. Encoding: https://protobuf.dev/programming-guides/encoding/
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// --- reading

typedef enum pm_wire_type {
    PM_WIRE_VARINT = 0,
    PM_WIRE_64 = 1,
    PM_WIRE_BYTES = 2,
    PM_WIRE_32 = 5
} pm_wire_type;

typedef struct pm_wire {
    const unsigned char *at, *end;
    bool bad; // malformed; stays so, and there are no further fields
} pm_wire;

typedef struct pm_wire_field {
    uint32_t number;
    pm_wire_type type;
    uint64_t value;             // VARINT, 64, 32
    const unsigned char *bytes; // BYTES: inside the message
    size_t size;
} pm_wire_field;

pm_wire pm_wire_open(const void *bytes, size_t size);

// The message inside a BYTES field (an empty, bad one for other types).
pm_wire pm_wire_inner(const pm_wire_field *field);

// Reads the next field; false at the end or when malformed (wire->bad).
bool pm_wire_next(pm_wire *wire, pm_wire_field *field);

// One varint from a packed field; false at the end or when malformed.
bool pm_wire_varint(pm_wire *wire, uint64_t *value);

// --- writing

typedef struct pm_wire_out {
    unsigned char *data; // malloc; the caller frees
    size_t size, capacity;
    bool failed; // out of memory; stays so
} pm_wire_out;

void pm_wire_put_int(pm_wire_out *out, uint32_t number, int64_t value);
void pm_wire_put_float(pm_wire_out *out, uint32_t number, float value);
void pm_wire_put_bytes(pm_wire_out *out, uint32_t number, const void *bytes, size_t size);
void pm_wire_put_text(pm_wire_out *out, uint32_t number, const char *text);

// Opens a nested message; the mark goes to pm_wire_end when its fields are written.
size_t pm_wire_begin(pm_wire_out *out, uint32_t number);
void pm_wire_end(pm_wire_out *out, size_t mark);
