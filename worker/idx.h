#pragma once
// IDX files, the format of the MNIST family, gzipped or plain:
//   2 zero bytes, type byte (0x08 unsigned byte, 0x0D big-endian float32), rank byte, rank big-endian uint32
//   dimensions, then exactly product(dimensions) values. Specified on the MNIST page of LeCun, Cortes and
//   Burges.
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

enum { PM_IDX_RANK_MAX = 4 };

typedef enum pm_idx_type { PM_IDX_U8 = 0x08, PM_IDX_F32 = 0x0D } pm_idx_type;

typedef struct pm_idx {
    pm_idx_type type;
    uint32_t rank;
    uint32_t shape[PM_IDX_RANK_MAX]; // shape[0] is the number of rows
    size_t row_count;                // values of one row
    const unsigned char *values;     // inside bytes
    char *bytes;                     // the whole decompressed file when read by pm_idx_load, owned; else NULL
} pm_idx;

// Reads the layout of a decompressed file; idx->values points into bytes. PM_CORRUPT names what is wrong.
pm_status pm_idx_parse(pm_idx *idx, const void *bytes, size_t size) PM_CHECKED;

// Reads a whole file of at most 4 GiB. Failures name the path.
pm_status pm_idx_load(pm_idx *idx, const char *path) PM_CHECKED;

void pm_idx_free(pm_idx *idx);
