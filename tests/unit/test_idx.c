#include "worker/idx.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

// 3 rows of 2 x 2 bytes.
static const unsigned char GOOD[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2,  0,  0,
                                     0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void write_gz(const char *path, const void *bytes, unsigned size)
{
    gzFile file = gzopen(path, "wb");
    cr_assert_eq(gzwrite(file, bytes, size), (int)size);
    gzclose(file);
}

Test(idx, layout_is_read_from_a_gzipped_file)
{
    char path[] = "/tmp/pm-idx-XXXXXX";
    close(mkstemp(path));
    write_gz(path, GOOD, sizeof GOOD);
    pm_idx idx;
    pm_status status = pm_idx_load(&idx, path);
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
    cr_assert_eq(idx.rank, 3);
    cr_assert_eq(idx.shape[0], 3);
    cr_assert_eq(idx.row_count, 4);
    cr_assert_eq(idx.values[11], 12);
    pm_idx_free(&idx);
    unlink(path);
}

Test(idx, a_truncated_gzip_file_is_refused_by_name)
{
    char path[] = "/tmp/pm-idx-XXXXXX";
    close(mkstemp(path));
    unsigned char noise[20000] = {0, 0, 8, 1, 0, 0, 0x4e, 0x18};
    for (int i = 8; i < 20000; i++)
        noise[i] = (unsigned char)(rand() >> 7);
    write_gz(path, noise, sizeof noise);
    cr_assert_eq(truncate(path, 9000), 0);
    pm_idx idx;
    pm_status status = pm_idx_load(&idx, path);
    cr_assert_eq(status.code, PM_CORRUPT, "%s", status.message);
    cr_assert(strstr(status.message, path));
    unlink(path);
}

Test(idx, wrong_magic_type_rank_and_sizes_are_refused)
{
    unsigned char bytes[sizeof GOOD + 1];
    const struct {
        int at, value;
        const char *word;
    } changes[] = {{0, 1, "no IDX"},   {2, 0x0B, "type 0x0B"}, {3, 9, "rank 9"},     {7, 4, "truncated"},
                   {7, 2, "too long"}, {4, 255, "more than"},  {7, 0, "dimension 0"}};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        memcpy(bytes, GOOD, sizeof GOOD);
        bytes[changes[i].at] = (unsigned char)changes[i].value;
        pm_idx idx;
        pm_status status = pm_idx_parse(&idx, bytes, sizeof GOOD);
        cr_assert_neq(status.code, PM_OK);
        cr_assert(strstr(status.message, changes[i].word), "%s", status.message);
    }
}

Test(idx, a_hundred_thousand_mutations_are_read_or_refused)
{
    uint64_t state = 1;
    for (int round = 0; round < 100000; round++) {
        unsigned char *bytes = malloc(sizeof GOOD); // exact, so that a sanitizer sees one byte too far
        memcpy(bytes, GOOD, sizeof GOOD);
        for (int change = 0; change < 2; change++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            bytes[(state >> 33) % 16] = (unsigned char)(state >> 40);
        }
        pm_idx idx;
        pm_status status = pm_idx_parse(&idx, bytes, sizeof GOOD - (state >> 60) % 4);
        if (status.code == PM_OK)
            cr_assert_leq((size_t)(idx.values - bytes) + idx.row_count * idx.shape[0], sizeof GOOD);
        free(bytes);
    }
}
