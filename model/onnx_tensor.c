#include "model/onnx_tensor.h"

#include "model/onnx.h"

#include <stdlib.h>
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

typedef struct tensor_header {
    int64_t shape[PM_MAX_RANK];
    uint32_t rank;
    int64_t data_type;
    bool external, raw, too_many;
    pm_onnx_text raw_data;
    size_t float_count; // in float_data
} tensor_header;

static void add_extent(tensor_header *h, uint64_t extent)
{
    if (h->rank == PM_MAX_RANK)
        h->too_many = true;
    else
        h->shape[h->rank++] = (int64_t)extent;
}

// repeated int64 may be packed or one by one.
static bool read_dims(tensor_header *h, const pm_wire_field *field)
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

static bool read_header(pm_wire wire, tensor_header *h)
{
    pm_wire_field field;
    bool good = true;
    *h = (tensor_header){0};
    while (good && pm_wire_next(&wire, &field)) {
        switch (field.number) {
        case ONNX_TENSOR_DIMS:
            good = read_dims(h, &field);
            break;
        case ONNX_TENSOR_DATA_TYPE:
            h->data_type = (int64_t)field.value;
            break;
        case ONNX_TENSOR_FLOAT_DATA:
            good =
                field.type == PM_WIRE_32 || (field.type == PM_WIRE_BYTES && field.size % sizeof(float) == 0);
            h->float_count += field.type == PM_WIRE_32 ? 1 : field.size / sizeof(float);
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

// The float_data fields, in order; their total is known to fit.
static void copy_float_data(pm_wire wire, float *out)
{
    pm_wire_field field;
    unsigned char *at = (unsigned char *)out;
    while (pm_wire_next(&wire, &field)) {
        if (field.number != ONNX_TENSOR_FLOAT_DATA)
            continue;
        if (field.type == PM_WIRE_32) {
            uint32_t bits = (uint32_t)field.value;
            memcpy(at, &bits, sizeof bits);
            at += sizeof bits;
        } else if (field.size > 0) {
            memcpy(at, field.bytes, field.size);
            at += field.size;
        }
    }
}

pm_status pm_onnx_add_param(pm_graph *graph, const pm_onnx_tensor *tensor, uint32_t *value)
{
    char name[PM_MAX_NAME];
    pm_status status = pm_onnx_name(tensor->name, "an initializer", name);
    if (status.code != PM_OK)
        return status;
    tensor_header h;
    size_t count = 0;
    if (!read_header(tensor->message, &h))
        return pm_fail(PM_CORRUPT, "initializer %.64s is malformed", name);
    if (h.data_type != ONNX_FLOAT)
        return pm_fail(PM_UNSUPPORTED, "initializer %.64s has data type %lld, built for float32 (1)", name,
                       (long long)h.data_type);
    if (h.too_many || !pm_shape_count(h.shape, h.rank, PM_MAX_PARAM_COUNT, &count))
        return pm_fail(PM_INVALID, "initializer %.64s: its shape is empty, too large or of too high a rank",
                       name);
    if (h.external)
        return pm_graph_add_param(graph, name, h.shape, h.rank, NULL, value);
    size_t bytes = h.raw ? h.raw_data.size : h.float_count * sizeof(float);
    if (bytes != count * sizeof(float) || bytes == 0)
        return pm_fail(PM_INVALID, "initializer %.64s: %zu bytes of data for %zu values", name, bytes, count);
    float *values = malloc(bytes);
    if (!values)
        return pm_fail(PM_NO_MEMORY, "initializer %.64s", name);
    if (h.raw)
        memcpy(values, h.raw_data.bytes, bytes);
    else
        copy_float_data(tensor->message, values);
    return pm_graph_add_param(graph, name, h.shape, h.rank, values, value);
}
