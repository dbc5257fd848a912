#include "model/wire.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 5 }; // room kept for a nested message's length: a varint padded to 35 bits

pm_wire pm_wire_open(const void *bytes, size_t size)
{
    const unsigned char *first = bytes;
    return (pm_wire){.at = first, .end = size ? first + size : first};
}

pm_wire pm_wire_inner(const pm_wire_field *field)
{
    if (field->type != PM_WIRE_BYTES)
        return (pm_wire){.bad = true};
    return pm_wire_open(field->bytes, field->size);
}

bool pm_wire_varint(pm_wire *wire, uint64_t *value)
{
    uint64_t result = 0;
    if (wire->bad || wire->at == wire->end)
        return false;
    for (unsigned shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
        unsigned char byte = *wire->at++;
        result |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            *value = result;
            return true;
        }
    }
    wire->bad = true;
    return false;
}

static bool read_fixed(pm_wire *wire, size_t size, uint64_t *value)
{
    if ((size_t)(wire->end - wire->at) < size)
        return false;
    *value = 0;
    for (size_t i = 0; i < size; i++)
        *value |= (uint64_t)wire->at[i] << (8 * i);
    wire->at += size;
    return true;
}

static bool read_value(pm_wire *wire, pm_wire_field *field)
{
    switch (field->type) {
    case PM_WIRE_VARINT:
        return pm_wire_varint(wire, &field->value);
    case PM_WIRE_64:
        return read_fixed(wire, 8, &field->value);
    case PM_WIRE_32:
        return read_fixed(wire, 4, &field->value);
    case PM_WIRE_BYTES: {
        uint64_t size = 0;
        if (!pm_wire_varint(wire, &size) || size > (uint64_t)(wire->end - wire->at))
            return false;
        field->bytes = wire->at;
        field->size = (size_t)size;
        wire->at += size;
        return true;
    }
    }
    return false; // groups are of proto2 and not in ONNX
}

bool pm_wire_next(pm_wire *wire, pm_wire_field *field)
{
    uint64_t key = 0;
    *field = (pm_wire_field){0};
    if (!pm_wire_varint(wire, &key))
        return false;
    field->number = (uint32_t)(key >> 3);
    field->type = (pm_wire_type)(key & 7);
    if (key >> 32 || field->number == 0 || !read_value(wire, field)) {
        wire->bad = true;
        return false;
    }
    return true;
}

static bool reserve(pm_wire_out *out, size_t more)
{
    if (out->failed)
        return false;
    if (more <= out->capacity - out->size)
        return true;
    size_t capacity = out->capacity ? out->capacity : 1024;
    while (capacity - out->size < more)
        capacity *= 2;
    unsigned char *grown = realloc(out->data, capacity);
    out->failed = !grown;
    if (grown) {
        out->data = grown;
        out->capacity = capacity;
    }
    return grown != NULL;
}

static void put_varint(pm_wire_out *out, uint64_t value)
{
    if (!reserve(out, 10))
        return;
    for (; value >= 0x80; value >>= 7)
        out->data[out->size++] = (unsigned char)(value | 0x80);
    out->data[out->size++] = (unsigned char)value;
}

void pm_wire_put_int(pm_wire_out *out, uint32_t number, int64_t value)
{
    put_varint(out, (uint64_t)number << 3 | PM_WIRE_VARINT);
    put_varint(out, (uint64_t)value);
}

void pm_wire_put_float(pm_wire_out *out, uint32_t number, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(out, (uint64_t)number << 3 | PM_WIRE_32);
    if (!reserve(out, sizeof bits))
        return;
    for (size_t i = 0; i < sizeof bits; i++)
        out->data[out->size++] = (unsigned char)(bits >> (8 * i));
}

void pm_wire_put_bytes(pm_wire_out *out, uint32_t number, const void *bytes, size_t size)
{
    put_varint(out, (uint64_t)number << 3 | PM_WIRE_BYTES);
    put_varint(out, size);
    if (size == 0 || !reserve(out, size))
        return;
    memcpy(out->data + out->size, bytes, size);
    out->size += size;
}

void pm_wire_put_text(pm_wire_out *out, uint32_t number, const char *text)
{
    pm_wire_put_bytes(out, number, text, strlen(text));
}

size_t pm_wire_begin(pm_wire_out *out, uint32_t number)
{
    put_varint(out, (uint64_t)number << 3 | PM_WIRE_BYTES);
    size_t mark = out->size;
    if (reserve(out, LENGTH_BYTES))
        out->size += LENGTH_BYTES;
    return mark;
}

void pm_wire_end(pm_wire_out *out, size_t mark)
{
    if (out->failed)
        return;
    uint64_t length = out->size - mark - LENGTH_BYTES;
    unsigned char bytes[LENGTH_BYTES + 5];
    size_t count = 0;
    for (uint64_t rest = length; count == 0 || rest; rest >>= 7)
        bytes[count++] = (unsigned char)(rest & 0x7F) | (rest >> 7 ? 0x80 : 0);
    if (count > LENGTH_BYTES) {
        out->failed = true; // no model of ours has 32 GiB of structure
        return;
    }
    memcpy(out->data + mark, bytes, count);
    memmove(out->data + mark + count, out->data + mark + LENGTH_BYTES, (size_t)length);
    out->size = mark + count + (size_t)length;
}
