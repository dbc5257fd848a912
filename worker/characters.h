#pragma once
// A text as numbers: the characters (Unicode code points, UTF-8) that occur in it, in order of their code
// points, are numbered from 0.
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

enum { PM_CHARACTERS_MAX = 65536 }; // different ones

typedef struct pm_characters {
    uint16_t *numbers; // (count), of the text
    size_t count;
    char *vocabulary; // character i is number i; UTF-8
    uint32_t size;    // how many different ones
} pm_characters;

// Reads hostile bytes. PM_INVALID names the offset of what is no UTF-8 or is a NUL, and an empty text. To be
// freed.
pm_status pm_characters_parse(pm_characters *characters, const void *bytes, size_t size) PM_CHECKED;

// Reads a whole file of at most 1 GiB. Failures name the path.
pm_status pm_characters_load(pm_characters *characters, const char *path) PM_CHECKED;

void pm_characters_free(pm_characters *characters);
