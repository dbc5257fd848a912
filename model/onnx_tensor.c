// Tensors and names of an ONNX model.
#include "model/onnx_tensor.h"

#include "model/onnx.h"

#include <string.h>

pm_status pm_onnx_name(pm_onnx_text text, const char *what, char *out)
{
    if (text.size == 0 || text.size >= PM_MAX_NAME)
        return pm_fail(PM_INVALID, "%s has a name of %zu bytes, wanted 1 to %d", what, text.size,
                       PM_MAX_NAME - 1);
    for (size_t i = 0; i < text.size; i++)
        if (text.bytes[i] < 0x20 || text.bytes[i] == 0x7F)
            return pm_fail(PM_INVALID, "%s has a control character in its name", what);
    memcpy(out, text.bytes, text.size);
    out[text.size] = '\0';
    return pm_ok();
}

int pm_onnx_text_compare(pm_onnx_text a, pm_onnx_text b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.bytes, b.bytes, common) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

bool pm_onnx_text_is(pm_onnx_text text, const char *word)
{
    return text.size == strlen(word) && (text.size == 0 || memcmp(text.bytes, word, text.size) == 0);
}

typedef struct header {
    pm_tensor tensor; // count is not set
    int64_t data_type;
    bool external, raw, too_many;
    pm_onnx_text raw_data;
} header;

static void add_extent(header *h, uint64_t extent)
{
    if (h->tensor.rank == PM_MAX_RANK)
        h->too_many = true;
    else
        h->tensor.shape[h->tensor.rank++] = (int64_t)extent;
}

// repeated int64 may be packed or one by one.
static bool read_dims(header *h, const pm_wire_field *field)
{
    if (field->type == PM_WIRE_VARINT) {
        add_extent(h, field->value);
        return true;
    }
    pm_wire packed = pm_wire_inner(field);
    for (uint64_t extent = 0; !h->too_many && pm_wire_varint(&packed, &extent);)
        add_extent(h, extent);
    return !packed.bad;
}

static bool read_header(pm_wire wire, header *h)
{
    pm_wire_field field;
    bool good = true;
    *h = (header){0};
    while (good && pm_wire_next(&wire, &field)) {
        switch (field.number) {
        case ONNX_TENSOR_DIMS:
            good = read_dims(h, &field);
            break;
        case ONNX_TENSOR_DATA_TYPE:
            h->data_type = (int64_t)field.value;
            break;
        case ONNX_TENSOR_RAW_DATA:
            good = field.type == PM_WIRE_BYTES;
            h->raw = true;
            h->raw_data = (pm_onnx_text){field.bytes, field.size};
            break;
        case ONNX_TENSOR_DATA_LOCATION:
            h->external = field.value == ONNX_LOCATION_EXTERNAL;
            break;
        default:
            break;
        }
    }
    return good && !wire.bad;
}

// Walks the elements of a typed data field, packed or one by one, over all its occurrences.
typedef struct elements {
    pm_wire wire, packed;
    uint32_t number;   // of the field
    pm_wire_type type; // of an element
    bool inside, bad;
} elements;

static elements open_elements(pm_wire message, pm_type type)
{
    elements e = {.wire = message, .number = ONNX_TENSOR_INT32_DATA, .type = PM_WIRE_VARINT};
    switch (type) {
    case PM_TYPE_F32:
        e.number = ONNX_TENSOR_FLOAT_DATA;
        e.type = PM_WIRE_32;
        break;
    case PM_TYPE_F64:
        e.number = ONNX_TENSOR_DOUBLE_DATA;
        e.type = PM_WIRE_64;
        break;
    case PM_TYPE_I64:
        e.number = ONNX_TENSOR_INT64_DATA;
        break;
    case PM_TYPE_U32:
    case PM_TYPE_U64:
        e.number = ONNX_TENSOR_UINT64_DATA;
        break;
    default:
        break;
    }
    return e;
}

static bool next_packed(elements *e, uint64_t *bits)
{
    const size_t size = e->type == PM_WIRE_32 ? 4 : 8;
    if (e->type == PM_WIRE_VARINT)
        return pm_wire_varint(&e->packed, bits);
    if ((size_t)(e->packed.end - e->packed.at) < size)
        return false;
    *bits = 0;
    memcpy(bits, e->packed.at, size);
    e->packed.at += size;
    return true;
}

// The next element's bits; false at the end or when malformed (e->bad).
static bool next_element(elements *e, uint64_t *bits)
{
    pm_wire_field field;
    for (;;) {
        if (e->inside && next_packed(e, bits))
            return true;
        e->bad = e->bad || (e->inside && (e->packed.bad || e->packed.at != e->packed.end));
        e->inside = false;
        if (e->bad || !pm_wire_next(&e->wire, &field))
            return false;
        if (field.number != e->number)
            continue;
        if (field.type == e->type) {
            *bits = field.value;
            return true;
        }
        e->packed = pm_wire_inner(&field);
        e->bad = field.type != PM_WIRE_BYTES;
        e->inside = !e->bad;
    }
}

static bool count_elements(pm_wire message, pm_type type, size_t *count)
{
    elements e = open_elements(message, type);
    uint64_t bits = 0;
    *count = 0;
    while (next_element(&e, &bits))
        ++*count;
    return !e.bad;
}

static void copy_elements(pm_wire message, pm_type type, unsigned char *data)
{
    elements e = open_elements(message, type);
    const size_t size = pm_type_size(type);
    for (uint64_t bits = 0; next_element(&e, &bits); data += size) {
        bits = type == PM_TYPE_BOOL ? bits != 0 : bits;
        memcpy(data, &bits, size);
    }
}

static void copy_raw(pm_onnx_text raw, pm_type type, unsigned char *data)
{
    if (raw.size > 0)
        memcpy(data, raw.bytes, raw.size);
    for (size_t i = 0; type == PM_TYPE_BOOL && i < raw.size; i++)
        data[i] = data[i] != 0;
}

pm_status pm_onnx_tensor_read(pm_wire message, const char *name, pm_region *region, pm_tensor *tensor,
                              bool *external)
{
    header h;
    if (!read_header(message, &h))
        return pm_fail(PM_CORRUPT, "tensor %.64s is malformed", name);
    pm_tensor *t = &h.tensor;
    t->type = h.data_type > 0 && h.data_type <= PM_TYPE_BF16 ? (pm_type)h.data_type : PM_TYPE_NONE;
    const size_t size = pm_type_size(t->type);
    if (size == 0)
        return pm_fail(PM_UNSUPPORTED, "tensor %.64s has data type %lld, which is not built", name,
                       (long long)h.data_type);
    if (h.too_many || !pm_shape_count(t->shape, t->rank, PM_MAX_PARAM_COUNT, &t->count))
        return pm_fail(PM_INVALID, "tensor %.64s: its shape is too large or of too high a rank", name);
    *external = h.external;
    *tensor = *t;
    if (h.external)
        return pm_ok();
    size_t bytes = h.raw_data.size, given = 0;
    if (!h.raw && !count_elements(message, t->type, &given))
        return pm_fail(PM_CORRUPT, "tensor %.64s is malformed", name);
    bytes = h.raw ? bytes : given * size;
    if (bytes != t->count * size)
        return pm_fail(PM_INVALID, "tensor %.64s: %zu bytes of data for %zu values", name, bytes, t->count);
    unsigned char *data = pm_region_alloc(region, bytes);
    if (!data)
        return pm_fail(PM_NO_MEMORY, "tensor %.64s", name);
    if (h.raw)
        copy_raw(h.raw_data, t->type, data);
    else
        copy_elements(message, t->type, data);
    tensor->data = data;
    return pm_ok();
}
