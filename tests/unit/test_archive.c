#include "ps/archive.h"

#include "tests/unit/cluster_kit.h"

#include <ftw.h>
#include <math.h>
#include <unistd.h>

// A model whose first table (500, 600) has two slices, with statistics among its tables.
static const char JOB[] = "name: archived\n"
                          "seed: 3\n"
                          "model:\n"
                          "  input: {name: x, shape: [600]}\n"
                          "  layers:\n"
                          "    - {op: Gemm, units: 500}\n"
                          "    - {op: BatchNormalization}\n"
                          "    - {op: Relu}\n"
                          "    - {op: Gemm, units: 10}\n"
                          "data:\n"
                          "  train: {features: /nonexistent/x, targets: /nonexistent/y}\n"
                          "loss: softmax_cross_entropy\n"
                          "optimizer: {kind: adam, learning_rate: 0.001}\n"
                          "batch: 8\n"
                          "lanes: 4\n"
                          "epochs: 1\n"
                          "checkpoint: {store: unused, keep: 2}\n";

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

typedef struct kit {
    char root[64];
    pm_tables tables;
    pm_placement *placement; // two shards
    pm_store *store;
} kit;

static void make(kit *k)
{
    snprintf(k->root, sizeof k->root, "/tmp/paramill-archive-XXXXXX");
    cr_assert_not_null(mkdtemp(k->root));
    ok(pm_tables_make(&k->tables, JOB, ""));
    uint64_t counts[16];
    for (uint32_t t = 0; t < k->tables.count; t++)
        counts[t] = k->tables.specs[t].count;
    k->placement = NULL;
    ok(pm_placement_create(&k->placement, counts, NULL, k->tables.count, 2));
    ok(pm_store_open(&k->store, k->root, "archived", true));
}

static void drop(kit *k)
{
    pm_store_close(&k->store);
    pm_placement_destroy(&k->placement);
    pm_tables_free(&k->tables);
    nftw(k->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static pm_buffer *numbers(uint32_t count, uint32_t seed)
{
    pm_buffer *b = pm_buffer_create(count * sizeof(float));
    for (uint32_t i = 0; i < count; i++)
        ((float *)b->data)[i] = (float)(seed * 31 + i % 1009) * 0.25f;
    return b;
}

static pm_cut *cut_of(const kit *k, uint64_t clock)
{
    pm_cut *cut = NULL;
    ok(pm_cut_create(&cut, pm_placement_size(k->placement)));
    cut->clock = clock;
    cut->epoch = 11;
    cut->parent = 4;
    cut->shards = 2;
    cut->scored = cut->validated = true;
    cut->train_loss = 0.5;
    cut->validation_accuracy = 0.75;
    for (uint32_t i = 0; i < cut->size; i++) {
        const pm_slice *s = pm_placement_slice(k->placement, i);
        cut->values[i] = numbers(s->count, i);
        for (uint32_t m = 0; m < 2 && !k->tables.specs[s->table].statistic; m++)
            cut->moments[m][i] = numbers(s->count, 100 * (m + 1) + i);
    }
    return cut;
}

static void same(const pm_buffer *a, const pm_buffer *b)
{
    cr_assert_eq(a == NULL, b == NULL);
    cr_assert(!a || (a->size == b->size && !memcmp(a->data, b->data, a->size)));
}

Test(archive, a_cut_comes_back_bit_for_bit)
{
    kit k;
    make(&k);
    pm_cut *cut = cut_of(&k, 9), *back = NULL;
    uint64_t version = 0;
    pm_archive_source source = {.tables = &k.tables, .code_version = "test", .train_rows = 100};
    ok(pm_archive_save(k.store, &source, cut, &version));
    ok(pm_archive_load(k.store, &k.tables, version, &back));
    cr_assert_eq(back->clock, 9);
    cr_assert_eq(back->size, cut->size);
    cr_assert_gt(cut->size, k.tables.count, "a table has several slices");
    for (uint32_t i = 0; i < cut->size; i++) {
        same(cut->values[i], back->values[i]);
        same(cut->moments[0][i], back->moments[0][i]);
        same(cut->moments[1][i], back->moments[1][i]);
    }
    pm_cut_destroy(&cut);
    pm_cut_destroy(&back);
    drop(&k);
}

Test(archive, the_manifest_says_what_it_is_and_whence_it_came)
{
    kit k;
    make(&k);
    pm_cut *cut = cut_of(&k, 9);
    uint64_t version = 0;
    pm_archive_source source = {.tables = &k.tables, .code_version = "test", .train_rows = 100};
    ok(pm_archive_save(k.store, &source, cut, &version));
    pm_manifest m = {0};
    ok(pm_store_manifest(k.store, version, &m));
    cr_assert_eq(m.step, 9);
    cr_assert_eq(m.epoch, 11);
    cr_assert_eq(m.parent, 4);
    cr_assert_eq(m.seed, 3);
    cr_assert_eq(m.lanes, 4);
    cr_assert_str_eq(m.code_version, "test");
    cr_assert_str_eq(m.job, JOB);
    cr_assert_eq(m.data[0].rows, 100);
    cr_assert_not_null(pm_manifest_find(&m, "model.onnx"));
    cr_assert_not_null(pm_manifest_find(&m, "state-0001.safetensors"));
    bool found = false;
    for (uint32_t i = 0; i < m.metric_count; i++)
        found = found || (!strcmp(m.metrics[i].name, "validation_accuracy") && m.metrics[i].value == 0.75);
    cr_assert(found);
    pm_manifest_free(&m);
    pm_cut_destroy(&cut);
    drop(&k);
}

Test(archive, best_goes_to_the_least_validation_loss_and_is_kept)
{
    kit k;
    make(&k);
    pm_archive_source source = {.tables = &k.tables, .train_rows = 100};
    const double losses[] = {0.5, 0.3, NAN, 0.4, 0.3, 0.6, 0.7};
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        pm_cut *cut = cut_of(&k, i + 1);
        uint64_t version = 0, best = 0;
        cut->validated = !isnan(losses[i]);
        cut->validation_loss = losses[i];
        ok(pm_archive_save(k.store, &source, cut, &version));
        ok(pm_store_resolve(k.store, "best", &best));
        cr_assert_eq(best, i == 0 ? 1 : 2, "after version %zu", i + 1);
        pm_cut_destroy(&cut);
    }
    drop(&k);
}

Test(archive, only_the_newest_versions_are_kept)
{
    kit k;
    make(&k);
    pm_archive_source source = {.tables = &k.tables, .train_rows = 100};
    for (uint64_t c = 1; c <= 3; c++) {
        uint64_t version = 0, *versions = NULL;
        size_t count = 0;
        pm_cut *cut = cut_of(&k, c);
        ok(pm_archive_save(k.store, &source, cut, &version));
        pm_cut_destroy(&cut);
        ok(pm_store_list(k.store, &versions, &count));
        cr_assert_eq(count, c < 2 ? c : 2);
        cr_assert_eq(versions[count - 1], version);
        free(versions);
    }
    drop(&k);
}

Test(archive, a_damaged_version_is_not_loaded)
{
    kit k;
    make(&k);
    pm_cut *cut = cut_of(&k, 9), *back = NULL;
    uint64_t version = 0;
    pm_archive_source source = {.tables = &k.tables, .train_rows = 100};
    ok(pm_archive_save(k.store, &source, cut, &version));
    char path[PM_PATH_MAX];
    pm_store_path(k.store, version, "state-0000.safetensors", path);
    FILE *f = fopen(path, "r+b");
    cr_assert_not_null(f);
    fseek(f, -3, SEEK_END);
    fputc(0x5a, f);
    fclose(f);
    pm_status status = pm_archive_load(k.store, &k.tables, version, &back);
    cr_assert_eq(status.code, PM_CORRUPT);
    cr_assert_not_null(strstr(status.message, "state-0000.safetensors"), "%s", status.message);
    cr_assert_null(back);
    pm_cut_destroy(&cut);
    drop(&k);
}

Test(archive, a_version_of_another_model_is_refused)
{
    kit k;
    make(&k);
    pm_cut *cut = cut_of(&k, 9), *back = NULL;
    uint64_t version = 0;
    pm_archive_source source = {.tables = &k.tables, .train_rows = 100};
    ok(pm_archive_save(k.store, &source, cut, &version));
    char other[sizeof JOB];
    snprintf(other, sizeof other, "%s", JOB);
    memcpy(strstr(other, "units: 500"), "units: 400", 10);
    pm_tables_free(&k.tables);
    ok(pm_tables_make(&k.tables, other, ""));
    cr_assert_eq(pm_archive_load(k.store, &k.tables, version, &back).code, PM_INVALID);
    pm_cut_destroy(&cut);
    drop(&k);
}
