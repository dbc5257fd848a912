// Attributes of an ONNX model's nodes.
#include "model/onnx.h"
#include "model/onnx_tensor.h"

#include <string.h>

// An AttributeProto as found: which spec it is, and where its values are.
typedef struct found {
    const pm_attribute_spec *spec;
    pm_wire message;
    pm_attribute *attribute; // being filled
    pm_region *region;
    uint32_t capacity; // of its list
} found;

static const int64_t TYPES[] = {
    [PM_ATTRIBUTE_INT] = ONNX_ATTRIBUTE_TYPE_INT,        [PM_ATTRIBUTE_FLOAT] = ONNX_ATTRIBUTE_TYPE_FLOAT,
    [PM_ATTRIBUTE_STRING] = ONNX_ATTRIBUTE_TYPE_STRING,  [PM_ATTRIBUTE_TENSOR] = ONNX_ATTRIBUTE_TYPE_TENSOR,
    [PM_ATTRIBUTE_INTS] = ONNX_ATTRIBUTE_TYPE_INTS,      [PM_ATTRIBUTE_FLOATS] = ONNX_ATTRIBUTE_TYPE_FLOATS,
    [PM_ATTRIBUTE_STRINGS] = ONNX_ATTRIBUTE_TYPE_STRINGS};

static float float_of(uint64_t bits)
{
    const uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return f;
}

// Room for one more element of size bytes in a list; its place, or NULL.
static void *push(found *f, const void **list, size_t size)
{
    if (f->attribute->count == f->capacity) {
        const uint32_t capacity = f->capacity ? 2 * f->capacity : 8;
        void *grown = pm_region_alloc(f->region, capacity * size);
        if (!grown)
            return NULL;
        if (*list)
            memcpy(grown, *list, f->attribute->count * size);
        *list = grown;
        f->capacity = capacity;
    }
    return (unsigned char *)(uintptr_t)*list + f->attribute->count++ * size;
}

static bool push_int(found *f, uint64_t value)
{
    const void *list = f->attribute->ints;
    int64_t *at = push(f, &list, sizeof *at);
    f->attribute->ints = list;
    if (at)
        *at = (int64_t)value;
    return at != NULL;
}

static bool push_float(found *f, uint64_t bits)
{
    const void *list = f->attribute->floats;
    float *at = push(f, &list, sizeof *at);
    f->attribute->floats = list;
    if (at)
        *at = float_of(bits);
    return at != NULL;
}

static bool read_ints(found *f, const pm_wire_field *field)
{
    if (field->type == PM_WIRE_VARINT)
        return push_int(f, field->value);
    pm_wire packed = pm_wire_inner(field);
    bool good = true;
    for (uint64_t value = 0; good && pm_wire_varint(&packed, &value);)
        good = push_int(f, value);
    return good && !packed.bad;
}

static bool read_floats(found *f, const pm_wire_field *field)
{
    if (field->type == PM_WIRE_32)
        return push_float(f, field->value);
    bool good = field->type == PM_WIRE_BYTES && field->size % sizeof(float) == 0;
    for (size_t at = 0; good && at < field->size; at += sizeof(float)) {
        uint32_t bits;
        memcpy(&bits, field->bytes + at, sizeof bits);
        good = push_float(f, bits);
    }
    return good;
}

static bool read_string(found *f, const pm_wire_field *field)
{
    if (field->type != PM_WIRE_BYTES || field->size >= PM_MAX_NAME ||
        (field->size > 0 && memchr(field->bytes, 0, field->size)))
        return false;
    char *text = pm_region_alloc(f->region, field->size + 1);
    if (text && field->size > 0)
        memcpy(text, field->bytes, field->size);
    f->attribute->s = text;
    return text != NULL;
}

// An empty message where the tensor is not given.
static pm_status read_tensor(found *f, pm_wire message)
{
    pm_tensor *tensor = pm_region_alloc(f->region, sizeof *tensor);
    bool external = false;
    if (!tensor)
        return pm_fail(PM_NO_MEMORY, "attribute %s", f->spec->name);
    pm_status status = pm_onnx_tensor_read(message, f->spec->name, f->region, tensor, &external);
    if (status.code == PM_OK && external)
        status = pm_fail(PM_UNSUPPORTED, "attribute %s has external data", f->spec->name);
    f->attribute->tensor = tensor;
    return status;
}

static pm_status read_values(found *f)
{
    pm_wire wire = f->message, tensor = pm_wire_open(NULL, 0);
    pm_wire_field field;
    pm_attribute *a = f->attribute;
    bool good = true;
    while (good && pm_wire_next(&wire, &field)) {
        switch (field.number) {
        case ONNX_ATTRIBUTE_I:
            a->i = (int64_t)field.value;
            break;
        case ONNX_ATTRIBUTE_F:
            a->f = float_of(field.value);
            break;
        case ONNX_ATTRIBUTE_S:
            good = a->type != PM_ATTRIBUTE_STRING || read_string(f, &field);
            break;
        case ONNX_ATTRIBUTE_T:
            tensor = pm_wire_inner(&field);
            break;
        case ONNX_ATTRIBUTE_INTS:
            good = a->type != PM_ATTRIBUTE_INTS || read_ints(f, &field);
            break;
        case ONNX_ATTRIBUTE_FLOATS:
            good = a->type != PM_ATTRIBUTE_FLOATS || read_floats(f, &field);
            break;
        case ONNX_ATTRIBUTE_STRINGS:
            a->count += a->type == PM_ATTRIBUTE_STRINGS;
            break;
        case ONNX_ATTRIBUTE_TYPE:
            good = (int64_t)field.value == TYPES[a->type];
            break;
        default:
            break;
        }
    }
    if (good && a->type == PM_ATTRIBUTE_STRING && !a->s)
        a->s = "";
    if (!good || wire.bad)
        return pm_fail(PM_INVALID, "attribute %s is malformed or of the wrong type", f->spec->name);
    return a->type == PM_ATTRIBUTE_TENSOR ? read_tensor(f, tensor) : pm_ok();
}

static pm_onnx_text text_field(pm_wire message, uint32_t number)
{
    pm_wire_field field;
    pm_onnx_text text = {0};
    while (pm_wire_next(&message, &field))
        if (field.number == number)
            text = (pm_onnx_text){field.bytes, field.size};
    return text;
}

// The attribute with the name among the message's fields of a number.
static bool find_attribute(pm_wire message, uint32_t number, pm_onnx_text name, pm_wire *attribute)
{
    pm_wire_field field;
    while (pm_wire_next(&message, &field)) {
        if (field.number != number)
            continue;
        *attribute = pm_wire_inner(&field);
        if (pm_onnx_text_compare(text_field(*attribute, ONNX_ATTRIBUTE_NAME), name) == 0)
            return true;
    }
    return false;
}

// Follows an attribute that refers to the call's, from call to call, to the one with the value; false when
// there is none.
static bool follow(const pm_onnx_call *call, pm_wire *attribute)
{
    for (pm_onnx_text name; (name = text_field(*attribute, ONNX_ATTRIBUTE_REFERENCE)).size > 0;
         call = call->outer) {
        if (!call)
            return false;
        if (!find_attribute(call->node, ONNX_NODE_ATTRIBUTE, name, attribute))
            return find_attribute(call->function, ONNX_FUNCTION_DEFAULT, name, attribute) &&
                   text_field(*attribute, ONNX_ATTRIBUTE_REFERENCE).size == 0;
    }
    return true;
}

static pm_status find_spec(pm_wire message, const pm_attribute_spec *specs, const pm_attribute_spec **spec)
{
    const pm_onnx_text name = text_field(message, ONNX_ATTRIBUTE_NAME);
    char printable[PM_MAX_NAME];
    pm_status status = pm_onnx_name(name, "an attribute", printable);
    if (status.code != PM_OK)
        return status;
    for (*spec = specs; (*spec)->name && !pm_onnx_text_is(name, (*spec)->name);)
        ++*spec;
    return (*spec)->name ? status : pm_fail(PM_UNSUPPORTED, "attribute %.64s", printable);
}

pm_status pm_onnx_attributes_read(pm_wire node, const pm_onnx_call *call, const pm_attribute_spec *specs,
                                  pm_region *region, pm_attribute **attributes, uint32_t *count)
{
    uint32_t known = 0;
    while (specs[known].name)
        known++;
    pm_attribute *list = pm_region_alloc(region, known * sizeof *list);
    pm_status status = list ? pm_ok() : pm_fail(PM_NO_MEMORY, "attributes");
    pm_wire_field field;
    *count = 0;
    *attributes = list;
    while (status.code == PM_OK && pm_wire_next(&node, &field)) {
        if (field.number != ONNX_NODE_ATTRIBUTE)
            continue;
        found f = {.message = pm_wire_inner(&field), .region = region};
        status = find_spec(f.message, specs, &f.spec);
        for (uint32_t i = 0; status.code == PM_OK && i < *count; i++)
            if (strcmp(list[i].name, f.spec->name) == 0)
                status = pm_fail(PM_INVALID, "attribute %s is given twice", f.spec->name);
        if (status.code != PM_OK)
            return status;
        if (!follow(call, &f.message))
            continue;
        f.attribute = &list[(*count)++];
        *f.attribute = (pm_attribute){.name = f.spec->name, .type = f.spec->type};
        status = read_values(&f);
    }
    return status;
}

bool pm_onnx_attribute_graph(pm_wire node, const char *name, pm_wire *graph)
{
    const pm_onnx_text text = {(const unsigned char *)name, strlen(name)};
    pm_wire attribute;
    pm_wire_field field;
    bool has = false;
    if (!find_attribute(node, ONNX_NODE_ATTRIBUTE, text, &attribute))
        return false;
    while (pm_wire_next(&attribute, &field))
        if (field.number == ONNX_ATTRIBUTE_G && field.type == PM_WIRE_BYTES) {
            *graph = pm_wire_inner(&field);
            has = true;
        }
    return has && !attribute.bad;
}

pm_status pm_onnx_constant_read(pm_wire node, const pm_onnx_call *call, pm_region *region, pm_tensor *tensor)
{
    static const pm_attribute_spec specs[] = {
        {"value", PM_ATTRIBUTE_TENSOR},    {"value_float", PM_ATTRIBUTE_FLOAT},
        {"value_int", PM_ATTRIBUTE_INT},   {"value_floats", PM_ATTRIBUTE_FLOATS},
        {"value_ints", PM_ATTRIBUTE_INTS}, {0}};
    pm_attribute *a = NULL;
    uint32_t count = 0;
    pm_status status = pm_onnx_attributes_read(node, call, specs, region, &a, &count);
    if (status.code == PM_OK && count != 1)
        status = pm_fail(PM_INVALID, "%u values, wanted 1", count);
    if (status.code != PM_OK)
        return status;
    const bool list = a->type == PM_ATTRIBUTE_INTS || a->type == PM_ATTRIBUTE_FLOATS;
    const bool whole = a->type == PM_ATTRIBUTE_INT || a->type == PM_ATTRIBUTE_INTS;
    if (a->type == PM_ATTRIBUTE_TENSOR) {
        *tensor = *a->tensor;
        return status;
    }
    *tensor =
        (pm_tensor){.type = whole ? PM_TYPE_I64 : PM_TYPE_F32, .rank = list, .count = list ? a->count : 1};
    tensor->shape[0] = list ? a->count : 0;
    const void *data = a->type == PM_ATTRIBUTE_INT     ? (const void *)&a->i
                       : a->type == PM_ATTRIBUTE_FLOAT ? (const void *)&a->f
                       : whole                         ? (const void *)a->ints
                                                       : (const void *)a->floats;
    tensor->data = pm_region_copy(region, data, pm_tensor_bytes(tensor));
    return tensor->data ? status : pm_fail(PM_NO_MEMORY, "a constant");
}
