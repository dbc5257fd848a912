#include "cli/tensor_file.h"

#include "core/text.h"

#include <ctype.h>
#include <jansson.h>
#include <png.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 256 << 20, SIDE_MAX = 1 << 14 };

// ---- images ----

typedef struct grey {
    unsigned char *pixels; // (height, width)
    size_t height, width;
} grey;

static pm_status read_png(const char *bytes, size_t size, grey *out)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&image, bytes, size))
        return pm_fail(PM_CORRUPT, "no PNG that can be read: %s", image.message);
    image.format = PNG_FORMAT_GRAY;
    pm_status status = pm_ok();
    if (image.width > SIDE_MAX || image.height > SIDE_MAX)
        status = pm_fail(PM_INVALID, "an image of %u x %u; at most %d a side", image.width, image.height,
                         SIDE_MAX);
    else if (!(out->pixels = malloc(PNG_IMAGE_SIZE(image))))
        status = pm_fail(PM_NO_MEMORY, "an image");
    else if (!png_image_finish_read(&image, NULL, out->pixels, 0, NULL))
        status = pm_fail(PM_CORRUPT, "no PNG that can be read: %s", image.message);
    out->height = image.height;
    out->width = image.width;
    png_image_free(&image);
    return status;
}

// The next number of a PGM header, comments skipped; 0 when there is none.
static size_t pgm_number(const char *bytes, size_t size, size_t *at)
{
    while (*at < size && (isspace((unsigned char)bytes[*at]) || bytes[*at] == '#'))
        if (bytes[(*at)++] == '#')
            while (*at < size && bytes[*at] != '\n')
                ++*at;
    size_t number = 0;
    while (*at < size && isdigit((unsigned char)bytes[*at]) && number <= SIDE_MAX)
        number = number * 10 + (size_t)(bytes[(*at)++] - '0');
    return number;
}

static pm_status read_pgm(const char *bytes, size_t size, grey *out)
{
    size_t at = 2;
    out->width = pgm_number(bytes, size, &at);
    out->height = pgm_number(bytes, size, &at);
    size_t most = pgm_number(bytes, size, &at);
    at++; // one white space before the pixels
    if (out->width == 0 || out->height == 0 || out->width > SIDE_MAX || out->height > SIDE_MAX || most != 255)
        return pm_fail(PM_INVALID, "a PGM is read with 255 levels and at most %d pixels a side", SIDE_MAX);
    if (at > size || size - at != out->width * out->height)
        return pm_fail(PM_CORRUPT, "a PGM of %zu x %zu with another number of pixels", out->width,
                       out->height);
    out->pixels = malloc(out->width * out->height);
    if (!out->pixels)
        return pm_fail(PM_NO_MEMORY, "an image");
    memcpy(out->pixels, bytes + at, out->width * out->height);
    return pm_ok();
}

// The mean of the source pixels under each target pixel; at least one.
static void resample(const grey *image, float *values, size_t height, size_t width)
{
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            size_t top = y * image->height / height, bottom = (y + 1) * image->height / height;
            size_t left = x * image->width / width, right = (x + 1) * image->width / width;
            double sum = 0;
            bottom = bottom > top ? bottom : top + 1;
            right = right > left ? right : left + 1;
            for (size_t v = top; v < bottom; v++)
                for (size_t u = left; u < right; u++)
                    sum += image->pixels[v * image->width + u];
            values[y * width + x] = (float)(sum / (double)((bottom - top) * (right - left)) / 255.0);
        }
}

static pm_status read_image(const char *bytes, size_t size, float *values, size_t height, size_t width,
                            size_t count)
{
    grey image = {NULL, 0, 0};
    if (height * width != count)
        return pm_fail(PM_INVALID, "the model takes no grey image; send .npy or JSON");
    pm_status status = bytes[0] == 'P' ? read_pgm(bytes, size, &image) : read_png(bytes, size, &image);
    if (status.code == PM_OK)
        resample(&image, values, height, width);
    free(image.pixels);
    return status;
}

// ---- NumPy arrays: magic, version, header length, a Python dictionary as text, the data ----

enum { NPY_HEADER_MAX = 65536 };

// An array's element type as NumPy writes it.
typedef struct npy_type {
    const char *text;
    size_t size;
} npy_type;

// Finds the array's elements, which must be count of one of the types (the last has a NULL text).
static pm_status open_npy(const char *bytes, size_t size, size_t count, const npy_type *types,
                          const npy_type **type, const char **data)
{
    const unsigned char *b = (const unsigned char *)bytes;
    size_t length_bytes = size > 8 && b[6] >= 2 ? 4 : 2, length = 0;
    if (size < 12)
        return pm_fail(PM_CORRUPT, "a truncated .npy file");
    for (size_t i = 0; i < length_bytes; i++)
        length |= (size_t)b[8 + i] << (8 * i);
    size_t begin = 8 + length_bytes + length;
    if (length > NPY_HEADER_MAX || begin > size)
        return pm_fail(PM_CORRUPT, "a .npy header of %zu bytes in a file of %zu", length, size);
    char header[NPY_HEADER_MAX + 1];
    memcpy(header, bytes + 8 + length_bytes, length);
    header[length] = '\0';
    if (strstr(header, "'fortran_order': True"))
        return pm_fail(PM_UNSUPPORTED, "a .npy file in Fortran order; save it in C order");
    for (*type = types; (*type)->text && !strstr(header, (*type)->text);)
        ++*type;
    if (!(*type)->text)
        return pm_fail(PM_UNSUPPORTED, "a .npy file of a type that is not read here");
    if (size - begin != count * (*type)->size)
        return pm_fail(PM_INVALID, "%zu values; the model takes %zu", (size - begin) / (*type)->size, count);
    *data = bytes + begin;
    return pm_ok();
}

static pm_status read_npy(const char *bytes, size_t size, float *values, size_t count)
{
    static const npy_type types[] = {{"'<f4'", 4}, {"'<f8'", 8}, {"'|u1'", 1}, {NULL, 0}};
    const npy_type *type;
    const char *data;
    pm_status status = open_npy(bytes, size, count, types, &type, &data);
    for (size_t i = 0; status.code == PM_OK && i < count; i++) {
        double wide;
        if (type->size == 4)
            memcpy(&values[i], data + 4 * i, 4);
        else if (type->size == 8)
            memcpy(&wide, data + 8 * i, 8), values[i] = (float)wide;
        else
            values[i] = (float)(unsigned char)data[i] / 255.0f;
    }
    return status;
}

static pm_status read_npy_whole(const char *bytes, size_t size, int64_t *values, size_t count)
{
    static const npy_type types[] = {{"'<i8'", 8}, {"'<i4'", 4}, {"'|u1'", 1}, {NULL, 0}};
    const npy_type *type;
    const char *data;
    pm_status status = open_npy(bytes, size, count, types, &type, &data);
    for (size_t i = 0; status.code == PM_OK && i < count; i++) {
        int32_t narrow;
        if (type->size == 8)
            memcpy(&values[i], data + 8 * i, 8);
        else if (type->size == 4)
            memcpy(&narrow, data + 4 * i, 4), values[i] = narrow;
        else
            values[i] = (unsigned char)data[i];
    }
    return status;
}

// ---- JSON ----

// Where the numbers of a JSON file go: one of the two.
typedef struct numbers {
    float *real;
    int64_t *whole;
    size_t count, used;
} numbers;

static pm_status collect(const json_t *node, int depth, numbers *to)
{
    if (to->whole ? json_is_integer(node) : json_is_number(node)) {
        if (to->used < to->count && to->whole)
            to->whole[to->used] = json_integer_value(node);
        else if (to->used < to->count)
            to->real[to->used] = (float)json_number_value(node);
        to->used++;
        return pm_ok();
    }
    if (!json_is_array(node) || depth > 8)
        return pm_fail(PM_INVALID, "the JSON holds something else than %snumbers in nested arrays",
                       to->whole ? "whole " : "");
    pm_status status = pm_ok();
    for (size_t i = 0; i < json_array_size(node) && status.code == PM_OK; i++)
        status = collect(json_array_get(node, i), depth + 1, to);
    return status;
}

static pm_status read_json(const char *bytes, size_t size, numbers *to)
{
    json_error_t error;
    json_t *root = json_loadb(bytes, size, JSON_DECODE_ANY, &error);
    if (!root)
        return pm_fail(PM_INVALID, "no %s.npy or JSON (line %d: %s)", to->whole ? "" : "PNG, PGM, ",
                       error.line, error.text);
    pm_status status = collect(root, 0, to);
    json_decref(root);
    if (status.code == PM_OK && to->used != to->count)
        status = pm_fail(PM_INVALID, "%zu values; the model takes %zu", to->used, to->count);
    return status;
}

static bool is_npy(const char *bytes, size_t size)
{
    return size >= 8 && !memcmp(bytes, "\x93NUMPY", 6);
}

pm_status pm_tensor_file_read_whole(const char *path, int64_t *values, size_t count)
{
    char *bytes;
    size_t size;
    pm_status status = pm_read_file(path, FILE_MAX, &bytes, &size);
    if (status.code != PM_OK)
        return status;
    status = is_npy(bytes, size) ? read_npy_whole(bytes, size, values, count)
                                 : read_json(bytes, size, &(numbers){.whole = values, .count = count});
    free(bytes);
    return pm_wrap(status, "%s", path);
}

pm_status pm_tensor_file_read(const char *path, float *values, size_t height, size_t width, size_t count,
                              bool invert)
{
    char *bytes;
    size_t size;
    pm_status status = pm_read_file(path, FILE_MAX, &bytes, &size);
    if (status.code != PM_OK)
        return status;
    if (size >= 8 && (!memcmp(bytes, "\x89PNG", 4) || !memcmp(bytes, "P5", 2)))
        status = read_image(bytes, size, values, height, width, count);
    else if (is_npy(bytes, size))
        status = read_npy(bytes, size, values, count);
    else
        status = read_json(bytes, size, &(numbers){.real = values, .count = count});
    for (size_t i = 0; invert && status.code == PM_OK && i < count; i++)
        values[i] = 1.0f - values[i];
    free(bytes);
    return pm_wrap(status, "%s", path);
}
