#include "snapshot/manifest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *sample(void)
{
    pm_manifest m = {.model = "fashion",
                     .version = 7,
                     .created = "2026-11-21T07:00:00Z",
                     .step = 938,
                     .lanes = 8,
                     .batch = 128,
                     .kernel_set = "plain",
                     .job = strdup("name: fashion\n"),
                     .data_count = 1,
                     .file_count = 2};
    m.files = calloc(2, sizeof *m.files);
    strcpy(m.data[0].path, "train.gz");
    strcpy(m.files[0].name, "model.onnx");
    strcpy(m.files[1].name, "model.safetensors");
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pm_digest_bytes("x", (size_t)i, m.files[i].sha256).code, PM_OK);
    pm_manifest_set_metric(&m, "train_loss", 0.25);
    cr_assert_eq(pm_manifest_seal(&m).code, PM_OK);
    char *json = NULL;
    cr_assert_eq(pm_manifest_encode(&m, &json).code, PM_OK);
    pm_manifest_free(&m);
    return json;
}

Test(manifest, what_is_written_is_read)
{
    char *json = sample();
    pm_manifest m;
    pm_status status = pm_manifest_decode(&m, json, strlen(json));
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
    cr_assert_eq(m.version, 7);
    cr_assert_eq(m.lanes, 8);
    cr_assert_str_eq(m.job, "name: fashion\n");
    cr_assert_float_eq(m.metrics[0].value, 0.25, 0);
    pm_manifest_free(&m);
    free(json);
}

static void refused(const char *from, const char *to, const char *word)
{
    char *json = sample(), *at = strstr(json, from), *changed = malloc(strlen(json) + strlen(to) + 1);
    cr_assert_not_null(at, "%s", from);
    sprintf(changed, "%.*s%s%s", (int)(at - json), json, to, at + strlen(from));
    pm_manifest m;
    pm_status status = pm_manifest_decode(&m, changed, strlen(changed));
    cr_assert_neq(status.code, PM_OK, "accepted %s", to);
    cr_assert(strstr(status.message, word), "%s", status.message);
    free(json);
    free(changed);
}

Test(manifest, lies_are_refused)
{
    refused("\"format\": 1", "\"format\": 2", "format 2");
    refused("\"version\": 7", "\"version\": -7", "version");
    refused("\"name\": \"model.onnx\"", "\"name\": \"../model.onnx\"", "unsafe");
    refused("\"name\": \"model.onnx\"", "\"name\": \"model.safetensors\"", "twice");
    refused("\"lanes\": 8", "\"lanes\": \"8\"", "lanes");
    refused("\"digest\": \"", "\"digest\": \"0", "digest");
    refused("\"name\": \"model.onnx\"", "\"name\": \"other\"", "model.onnx");
}

Test(manifest, a_hundred_thousand_mutations_are_read_or_refused, .timeout = 240)
{
    char *json = sample();
    size_t size = strlen(json);
    uint64_t state = 42;
    for (int round = 0; round < 100000; round++) {
        char *bytes = malloc(size);
        memcpy(bytes, json, size);
        for (int change = 0; change < 2; change++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            bytes[(state >> 20) % size] = (char)(state >> 56);
        }
        pm_manifest m;
        if (pm_manifest_decode(&m, bytes, size - (state >> 60) / 15).code == PM_OK)
            pm_manifest_free(&m);
        free(bytes);
    }
    free(json);
}
