#include "worker/characters.h"

#include "core/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CODE_POINTS = 0x110000 };

#define TEXT_MAX_BYTES ((size_t)1 << 30)

// The code point at the start of bytes and its length; 0 when it is none (RFC 3629).
static size_t decode(const unsigned char *bytes, size_t left, uint32_t *point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char first = bytes[0];
    const size_t length = first < 0x80       ? 1
                          : first >> 5 == 6  ? 2
                          : first >> 4 == 14 ? 3
                          : first >> 3 == 30 ? 4
                                             : 0;
    if (length == 0 || length > left)
        return 0;
    *point = length == 1 ? first : first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (bytes[i] >> 6 != 2)
            return 0;
        *point = *point << 6 | (bytes[i] & 0x3fu);
    }
    const bool surrogate = *point >= 0xd800 && *point < 0xe000;
    return *point < least[length] || *point >= CODE_POINTS || surrogate || *point == 0 ? 0 : length;
}

// How many characters there are; seen[point] becomes 1 for each.
static pm_status survey(const unsigned char *bytes, size_t size, uint32_t *seen, size_t *count)
{
    *count = 0;
    for (size_t at = 0; at < size; ++*count) {
        uint32_t point;
        const size_t length = decode(bytes + at, size - at, &point);
        if (length == 0)
            return pm_fail(PM_INVALID, "byte %zu is not UTF-8 text", at);
        seen[point] = 1;
        at += length;
    }
    return *count ? pm_ok() : pm_fail(PM_INVALID, "the text is empty");
}

static void encode(pm_text *text, uint32_t point)
{
    const unsigned char bytes[] = {(unsigned char)(point >> 18), (unsigned char)(point >> 12 & 0x3f),
                                   (unsigned char)(point >> 6 & 0x3f), (unsigned char)(point & 0x3f)};
    const int length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    unsigned char out[4] = {(unsigned char)point};
    for (int i = 0; length > 1 && i < length; i++)
        out[i] = (unsigned char)(bytes[4 - length + i] | (i ? 0x80 : 0xf00 >> length));
    pm_text_add_bytes(text, out, (size_t)length);
}

// Numbers what was seen: seen[point] becomes its number.
static pm_status number(pm_characters *c, uint32_t *seen)
{
    pm_text vocabulary = {0};
    for (uint32_t point = 0; point < CODE_POINTS; point++) {
        if (!seen[point])
            continue;
        encode(&vocabulary, point);
        seen[point] = c->size++;
    }
    c->vocabulary = vocabulary.data;
    if (vocabulary.failed)
        return pm_fail(PM_NO_MEMORY, "a vocabulary");
    return c->size <= PM_CHARACTERS_MAX
               ? pm_ok()
               : pm_fail(PM_UNSUPPORTED, "%u different characters; at most %d are built", c->size,
                         PM_CHARACTERS_MAX);
}

pm_status pm_characters_parse(pm_characters *characters, const void *bytes, size_t size)
{
    const unsigned char *from = bytes;
    uint32_t *seen = calloc(CODE_POINTS, sizeof *seen);
    memset(characters, 0, sizeof *characters);
    pm_status status = seen ? survey(from, size, seen, &characters->count) : pm_fail(PM_NO_MEMORY, "a text");
    if (status.code == PM_OK)
        status = number(characters, seen);
    if (status.code == PM_OK) {
        characters->numbers = malloc(characters->count * sizeof *characters->numbers);
        status = characters->numbers ? pm_ok() : pm_fail(PM_NO_MEMORY, "a text");
    }
    for (size_t i = 0, at = 0; status.code == PM_OK && i < characters->count; i++) {
        uint32_t point;
        at += decode(from + at, size - at, &point);
        characters->numbers[i] = (uint16_t)seen[point];
    }
    free(seen);
    if (status.code != PM_OK)
        pm_characters_free(characters);
    return status;
}

pm_status pm_characters_load(pm_characters *characters, const char *path)
{
    char *bytes = NULL;
    size_t size = 0;
    memset(characters, 0, sizeof *characters);
    pm_status status = pm_read_file(path, TEXT_MAX_BYTES, &bytes, &size);
    if (status.code != PM_OK)
        return status;
    status = pm_wrap(pm_characters_parse(characters, bytes, size), "%s", path);
    free(bytes);
    return status;
}

void pm_characters_free(pm_characters *characters)
{
    free(characters->numbers);
    free(characters->vocabulary);
    memset(characters, 0, sizeof *characters);
}
