#include "snapshot/serve.h"
#include "snapshot/store.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];

static void must(pm_status status)
{
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
}

static void setup(void)
{
    snprintf(root, sizeof root, "/tmp/pm-store-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 60);

static const pm_tensor_spec SPECS[] = {{"a.weight", PM_DTYPE_F32, 2, {2, 3}},
                                       {"a.bias", PM_DTYPE_F32, 1, {2}}};

static pm_status write_weights(const pm_version_writer *w, float base)
{
    char path[PM_PATH_MAX];
    pm_safetensors_writer *file = NULL;
    float weight[6], bias[2] = {base, -base};
    for (int i = 0; i < 6; i++)
        weight[i] = base + (float)i;
    pm_version_path(w, "model.safetensors", path);
    pm_status status = pm_safetensors_begin(&file, path, SPECS, 2, NULL, NULL, 0);
    if (status.code != PM_OK)
        return status;
    must(pm_safetensors_write_at(file, 1, 0, bias, sizeof bias)); // pieces in any order
    must(pm_safetensors_write_at(file, 0, 12, weight + 3, 12));
    must(pm_safetensors_write_at(file, 0, 0, weight, 12));
    return pm_safetensors_finish(&file);
}

static uint64_t publish(pm_store *store, float base)
{
    pm_version_writer *w = NULL;
    pm_manifest m = {.step = 100, .job = strdup("name: x\n"), .seed = UINT64_MAX};
    must(pm_store_begin(store, &w));
    must(write_weights(w, base));
    must(pm_version_write(w, "model.onnx", "onnx", 4));
    must(pm_version_write(w, "state-0000.safetensors", "state", 5));
    pm_manifest_set_metric(&m, "validation_accuracy", 0.5);
    must(pm_version_publish(&w, &m));
    uint64_t version = m.version;
    pm_manifest_free(&m);
    return version;
}

static pm_store *open_store(bool write)
{
    pm_store *store = NULL;
    must(pm_store_open(&store, root, "fashion", write));
    return store;
}

static size_t count_versions(pm_store *store)
{
    uint64_t *versions;
    size_t count;
    must(pm_store_list(store, &versions, &count));
    free(versions);
    return count;
}

Test(store, a_version_is_read_back_as_it_was_written)
{
    pm_store *store = open_store(true);
    cr_assert_eq(publish(store, 1), 1);
    cr_assert_eq(publish(store, 2), 2);
    must(pm_store_verify(store, 2));
    pm_manifest m;
    must(pm_store_manifest(store, 2, &m));
    cr_assert_eq(m.step, 100);
    cr_assert_eq(m.seed, UINT64_MAX);
    cr_assert_str_eq(m.job, "name: x\n");
    cr_assert_eq(m.file_count, 3);
    cr_assert_float_eq(m.metrics[0].value, 0.5, 1e-12);
    pm_manifest_free(&m);
    char path[PM_PATH_MAX];
    pm_safetensors *file = NULL;
    pm_store_path(store, 2, "model.safetensors", path);
    must(pm_safetensors_open(&file, path));
    cr_assert_float_eq(((const float *)pm_safetensors_find(file, "a.weight")->data)[5], 7, 0);
    cr_assert_eq((uintptr_t)pm_safetensors_get(file, 0)->data % 64, 0);
    pm_safetensors_close(&file);
    pm_store_close(&store);
}

Test(store, equal_models_have_equal_digests_and_others_not)
{
    pm_store *store = open_store(true);
    pm_manifest a, b, c;
    publish(store, 1);
    publish(store, 1);
    publish(store, 2);
    must(pm_store_manifest(store, 1, &a));
    must(pm_store_manifest(store, 2, &b));
    must(pm_store_manifest(store, 3, &c));
    cr_assert_str_eq(a.digest, b.digest);
    cr_assert_str_neq(a.digest, c.digest);
    pm_manifest_free(&a);
    pm_manifest_free(&b);
    pm_manifest_free(&c);
    pm_store_close(&store);
}

Test(store, a_changed_byte_is_found)
{
    pm_store *store = open_store(true);
    publish(store, 1);
    char path[PM_PATH_MAX];
    pm_store_path(store, 1, "model.safetensors", path);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "\x7f", 1, 200), 1);
    close(fd);
    pm_status status = pm_store_verify(store, 1);
    cr_assert_eq(status.code, PM_CORRUPT);
    cr_assert(strstr(status.message, path), "%s", status.message);
    pm_store_close(&store);
}

Test(store, a_full_disk_leaves_what_was_published_and_nothing_else)
{
    pm_store *store = open_store(true);
    publish(store, 1);
    signal(SIGXFSZ, SIG_IGN);
    pm_version_writer *w = NULL;
    must(pm_store_begin(store, &w));
    const struct rlimit small = {100, RLIM_INFINITY};
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    setrlimit(RLIMIT_FSIZE, &small);
    pm_status status = write_weights(w, 3);
    setrlimit(RLIMIT_FSIZE, &before);
    cr_assert_eq(status.code, PM_IO);
    cr_assert(strstr(status.message, "model.safetensors"), "%s", status.message);
    pm_version_abandon(&w);
    must(pm_store_verify(store, 1));
    cr_assert_eq(count_versions(store), 1);
    char command[160];
    snprintf(command, sizeof command, "test -z \"$(ls -A %s/fashion/versions | grep tmp)\"", root);
    cr_assert_eq(system(command), 0);
    pm_store_close(&store);
}

// Until another process has published one.
static void wait_for_a_version(int limit_ms)
{
    for (int ms = 0; ms < limit_ms; ms++) {
        pm_store *store = open_store(false);
        int count = (int)count_versions(store);
        pm_store_close(&store);
        if (count > 0)
            return;
        usleep(1000);
    }
}

Test(store, a_writer_killed_anywhere_leaves_complete_versions_only)
{
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            pm_store *store = open_store(true);
            for (;;)
                publish(store, (float)round);
        }
        wait_for_a_version(round == 0 ? 20000 : 0);
        usleep((useconds_t)(2000 + 1700 * round));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        pm_store *store = open_store(false);
        uint64_t *versions;
        size_t count;
        must(pm_store_list(store, &versions, &count));
        for (size_t i = 0; i < count; i++)
            must(pm_store_verify(store, versions[i]));
        free(versions);
        pm_store_close(&store);
    }
    pm_store *store = open_store(true); // clears what the dead left
    cr_assert_gt(count_versions(store), 0);
    char command[160];
    snprintf(command, sizeof command, "test -z \"$(ls -A %s/fashion/versions | grep tmp)\"", root);
    cr_assert_eq(system(command), 0);
    pm_store_close(&store);
}

Test(store, names_resolve_to_numbers_labels_and_the_newest)
{
    pm_store *store = open_store(true);
    uint64_t version;
    cr_assert_eq(pm_store_resolve(store, "newest", &version).code, PM_NOT_FOUND);
    publish(store, 1);
    publish(store, 2);
    must(pm_store_label(store, "stable", 1));
    must(pm_store_resolve(store, "stable", &version));
    cr_assert_eq(version, 1);
    must(pm_store_resolve(store, "newest", &version));
    cr_assert_eq(version, 2);
    must(pm_store_resolve(store, "2", &version));
    cr_assert_eq(pm_store_resolve(store, "3", &version).code, PM_NOT_FOUND);
    cr_assert_eq(pm_store_resolve(store, "canary", &version).code, PM_NOT_FOUND);
    cr_assert_eq(pm_store_label(store, "canary", 9).code, PM_NOT_FOUND);
    cr_assert_eq(pm_store_label(store, "../x", 1).code, PM_INVALID);
    must(pm_store_label(store, "stable", 0));
    cr_assert_eq(pm_store_resolve(store, "stable", &version).code, PM_NOT_FOUND);
    pm_store_close(&store);
}

Test(store, retention_keeps_the_newest_and_the_labelled)
{
    pm_store *store = open_store(true);
    for (int i = 1; i <= 6; i++)
        publish(store, (float)i);
    must(pm_store_label(store, "stable", 2));
    must(pm_store_retain(store, 2));
    uint64_t *versions;
    size_t count;
    must(pm_store_list(store, &versions, &count));
    cr_assert_eq(count, 3);
    cr_assert(versions[0] == 2 && versions[1] == 5 && versions[2] == 6);
    free(versions);
    pm_store_close(&store);
}

// One store answers, another pulls; flip: whether to damage the chunk of that number.
static pm_status pull_version(pm_store *from, pm_store *to, uint64_t version, int flip)
{
    pm_pull *pull = NULL;
    must(pm_pull_create(&pull, to, version));
    pm_status status = pm_ok();
    for (int i = 0; status.code == PM_OK && !pm_pull_is_done(pull) && i < 100; i++) {
        pm_message ask = {0}, answer = {0};
        must(pm_pull_next(pull, (uint64_t)i + 1, &ask));
        must(pm_snapshot_answer(from, &ask, &answer));
        cr_assert_eq(answer.header->request, (uint64_t)i + 1);
        if (i == flip)
            ((char *)answer.frames[0]->data)[answer.frames[0]->size / 2] ^= 1;
        status = pm_pull_take(pull, &answer);
        pm_message_clear(&ask);
        pm_message_clear(&answer);
    }
    pm_pull_destroy(&pull);
    return status;
}

Test(store, a_pulled_version_is_the_same_without_the_training_state)
{
    pm_store *from = open_store(true), *to = NULL;
    char elsewhere[96], path[PM_PATH_MAX];
    publish(from, 5);
    snprintf(elsewhere, sizeof elsewhere, "%s/cache", root);
    must(pm_store_open(&to, elsewhere, "fashion", true));
    must(pull_version(from, to, 1, -1));
    pm_manifest a, b;
    must(pm_store_manifest(from, 1, &a));
    must(pm_store_manifest(to, 1, &b));
    cr_assert_str_eq(a.digest, b.digest);
    pm_store_path(to, 1, "state-0000.safetensors", path);
    cr_assert_neq(access(path, F_OK), 0);
    pm_manifest_free(&a);
    pm_manifest_free(&b);
    pm_store_close(&from);
    pm_store_close(&to);
}

Test(store, a_damaged_pull_publishes_nothing)
{
    pm_store *from = open_store(true), *to = NULL;
    char elsewhere[96];
    publish(from, 5);
    snprintf(elsewhere, sizeof elsewhere, "%s/cache", root);
    must(pm_store_open(&to, elsewhere, "fashion", true));
    for (int i = 1; i < 3; i++) {
        pm_status status = pull_version(from, to, 1, i);
        cr_assert_eq(status.code, PM_CORRUPT, "%s", status.message);
        cr_assert_eq(count_versions(to), 0);
    }
    pm_store_close(&from);
    pm_store_close(&to);
}

Test(store, requests_for_files_outside_are_refused)
{
    pm_store *store = open_store(true);
    publish(store, 1);
    Paramill__SnapshotChunkRequest *ask = pm_proto_new(&paramill__snapshot_chunk_request__descriptor);
    ask->model = strdup("fashion");
    ask->version = 1;
    ask->file = strdup("../../labels.json");
    ask->size = 10;
    pm_message request = {.header =
                              pm_header_create(1, 0, PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REQUEST, ask)};
    pm_message answer = {0};
    must(pm_snapshot_answer(store, &request, &answer));
    cr_assert_eq(answer.header->body_case, PARAMILL__HEADER__BODY_ERROR);
    pm_message_clear(&request);
    pm_message_clear(&answer);
    pm_store_close(&store);
}
