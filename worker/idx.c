#include "worker/idx.h"

#include "core/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const size_t FILE_MAX = (size_t)4 << 30;

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

pm_status pm_idx_parse(pm_idx *idx, const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    memset(idx, 0, sizeof *idx);
    if (size < 4 || p[0] || p[1])
        return pm_fail(PM_CORRUPT, "no IDX file: it does not begin with two zero bytes, a type and a rank");
    if (p[2] != PM_IDX_U8 && p[2] != PM_IDX_F32)
        return pm_fail(PM_UNSUPPORTED, "IDX type 0x%02X; 0x08 (bytes) and 0x0D (float32) are read", p[2]);
    idx->type = (pm_idx_type)p[2];
    idx->rank = p[3];
    if (idx->rank < 1 || idx->rank > PM_IDX_RANK_MAX)
        return pm_fail(PM_UNSUPPORTED, "IDX rank %u; 1 to %d are read", idx->rank, PM_IDX_RANK_MAX);
    size_t header = 4 + 4 * (size_t)idx->rank, need = idx->type == PM_IDX_U8 ? 1 : 4;
    if (size < header)
        return pm_fail(PM_CORRUPT, "truncated: %zu bytes, the header alone has %zu", size, header);
    idx->row_count = 1;
    for (uint32_t i = 0; i < idx->rank; i++) {
        idx->shape[i] = big_endian(p + 4 + 4 * i);
        if (idx->shape[i] == 0)
            return pm_fail(PM_CORRUPT, "IDX dimension %u is 0", i);
        if (need > FILE_MAX / idx->shape[i])
            return pm_fail(PM_CORRUPT, "the IDX dimensions ask for more than %zu bytes", FILE_MAX);
        need *= idx->shape[i];
        if (i > 0)
            idx->row_count *= idx->shape[i];
    }
    if (size - header != need)
        return pm_fail(PM_CORRUPT, "%s: %zu bytes of values where the header says %zu",
                       size - header < need ? "truncated" : "too long", size - header, need);
    idx->values = p + header;
    return pm_ok();
}

static pm_status inflate_file(const char *path, pm_text *text)
{
    errno = 0;
    gzFile file = gzopen(path, "rb");
    if (!file)
        return errno ? pm_fail_errno("%s", path) : pm_fail(PM_NO_MEMORY, "%s: no memory to read it", path);
    gzbuffer(file, 1 << 17);
    pm_status status = pm_ok();
    char piece[1 << 16];
    while (status.code == PM_OK) {
        int got = gzread(file, piece, sizeof piece), error = Z_OK;
        if (got < 0 || (got == 0 && (gzerror(file, &error), error == Z_BUF_ERROR)))
            status = pm_fail(PM_CORRUPT, "%s: truncated or damaged: %s", path, gzerror(file, &error));
        else if (got > 0 && text->size + (size_t)got > FILE_MAX)
            status = pm_fail(PM_INVALID, "%s: larger than %zu bytes", path, FILE_MAX);
        else if (got > 0)
            pm_text_add_bytes(text, piece, (size_t)got);
        if (got <= 0)
            break;
    }
    gzclose(file);
    if (status.code == PM_OK && text->failed)
        status = pm_fail(PM_NO_MEMORY, "%s: no memory to read it", path);
    return status;
}

pm_status pm_idx_load(pm_idx *idx, const char *path)
{
    pm_text text = {0};
    memset(idx, 0, sizeof *idx);
    pm_status status = inflate_file(path, &text);
    if (status.code == PM_OK)
        status = pm_wrap(pm_idx_parse(idx, text.data ? text.data : "", text.size), "%s", path);
    if (status.code == PM_OK)
        idx->bytes = text.data;
    else
        pm_text_free(&text);
    return status;
}

void pm_idx_free(pm_idx *idx)
{
    free(idx->bytes);
    memset(idx, 0, sizeof *idx);
}
