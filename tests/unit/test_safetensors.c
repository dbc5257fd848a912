#include "snapshot/safetensors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// 8 bytes of length, the header, the data.
static unsigned char *file_of(const char *header, const void *data, size_t data_size, size_t *size)
{
    size_t length = strlen(header);
    *size = 8 + length + data_size;
    unsigned char *bytes = calloc(1, *size);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(length >> (8 * i));
    memcpy(bytes + 8, header, length);
    if (data_size)
        memcpy(bytes + 8 + length, data, data_size);
    return bytes;
}

static pm_status parse(const char *header, size_t data_size)
{
    static const unsigned char zeros[256];
    size_t size;
    unsigned char *bytes = file_of(header, zeros, data_size, &size);
    pm_safetensors *file = NULL;
    pm_status status = pm_safetensors_parse(&file, bytes, size);
    pm_safetensors_close(&file);
    free(bytes);
    return status;
}

Test(safetensors, a_well_formed_file_is_read)
{
    const float data[3] = {1, 2, 3};
    size_t size;
    unsigned char *bytes = file_of("{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
                                   "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                                   "\"__metadata__\":{\"k\":\"v\"}}",
                                   data, sizeof data, &size);
    pm_safetensors *file = NULL;
    pm_status status = pm_safetensors_parse(&file, bytes, size);
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
    cr_assert_eq(pm_safetensors_count(file), 2);
    cr_assert_str_eq(pm_safetensors_get(file, 0)->name, "a");
    cr_assert_eq(pm_safetensors_find(file, "b")->shape[0], 2);
    cr_assert_str_eq(pm_safetensors_metadata(file, "k"), "v");
    cr_assert_null(pm_safetensors_find(file, "c"));
    pm_safetensors_close(&file);
    free(bytes);
}

Test(safetensors, the_rules_of_the_format_are_enforced)
{
    const struct {
        const char *header;
        size_t data;
        const char *word;
    } bad[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12, "behind"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "extent"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}", 8, "beyond"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "duplicate"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "string"},
        {" {}", 0, "begin"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pm_status status = parse(bad[i].header, bad[i].data);
        cr_assert_eq(status.code, PM_CORRUPT, "accepted %s", bad[i].header);
        cr_assert(strstr(status.message, bad[i].word), "%s", status.message);
    }
}

Test(safetensors, equal_input_gives_equal_bytes_and_aligned_data)
{
    const pm_tensor_spec specs[] = {{"w", PM_DTYPE_F32, 1, {5}}, {"n", PM_DTYPE_U64, 0, {0}}};
    char *bytes[2];
    for (int round = 0; round < 2; round++) {
        char path[] = "/tmp/pm-st-XXXXXX";
        close(mkstemp(path));
        unlink(path);
        pm_safetensors_writer *w = NULL;
        const char *const key = "k", *const value = "v";
        cr_assert_eq(pm_safetensors_begin(&w, path, specs, 2, &key, &value, 1).code, PM_OK);
        cr_assert_eq(pm_safetensors_offset(w, 0) % 64, 0);
        cr_assert_eq(pm_safetensors_write_at(w, 0, 0, (float[5]){1, 2, 3, 4, 5}, 20).code, PM_OK);
        cr_assert_eq(pm_safetensors_write_at(w, 1, 4, "1234567", 7).code, PM_INVALID, "beyond the tensor");
        cr_assert_eq(pm_safetensors_write_at(w, 1, 0, "12345678", 8).code, PM_OK);
        cr_assert_eq(pm_safetensors_finish(&w).code, PM_OK);
        FILE *f = fopen(path, "rb");
        bytes[round] = calloc(1, 4096);
        cr_assert_gt(fread(bytes[round], 1, 4096, f), 0);
        fclose(f);
        unlink(path);
    }
    cr_assert_eq(memcmp(bytes[0], bytes[1], 4096), 0);
    free(bytes[0]);
    free(bytes[1]);
}

Test(safetensors, an_incomplete_file_is_not_finished)
{
    const pm_tensor_spec specs[] = {{"w", PM_DTYPE_F32, 1, {5}}};
    char path[] = "/tmp/pm-st-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    pm_safetensors_writer *w = NULL;
    cr_assert_eq(pm_safetensors_begin(&w, path, specs, 1, NULL, NULL, 0).code, PM_OK);
    cr_assert_eq(pm_safetensors_write_at(w, 0, 0, "1234", 4).code, PM_OK);
    pm_status status = pm_safetensors_finish(&w);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "4 of its 20"), "%s", status.message);
    cr_assert_neq(access(path, F_OK), 0);
}

Test(safetensors, a_hundred_thousand_mutations_are_read_or_refused, .timeout = 240)
{
    const char header[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[4,12]},"
                          "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
    uint64_t state = 9;
    for (int round = 0; round < 100000; round++) {
        size_t size;
        unsigned char *bytes = file_of(header, "123456789012", 12, &size);
        for (int change = 0; change < 2; change++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            bytes[(state >> 20) % size] = (unsigned char)(state >> 56);
        }
        pm_safetensors *file = NULL;
        if (pm_safetensors_parse(&file, bytes, size).code == PM_OK)
            for (size_t i = 0; i < pm_safetensors_count(file); i++) {
                const pm_tensor_view *v = pm_safetensors_get(file, i);
                cr_assert((const unsigned char *)v->data >= bytes &&
                          (const unsigned char *)v->data + v->size <= bytes + size);
            }
        pm_safetensors_close(&file);
        free(bytes);
    }
}
