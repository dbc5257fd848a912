#include "model/onnx_external.h"

#include "model/plan.h"
#include "tests/unit/nets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OFFSET = 64 }; // of the first parameter

typedef struct folder {
    char path[64];
} folder;

static folder make_folder(void)
{
    folder f = {"/tmp/paramill-external-XXXXXX"};
    cr_assert_neq(mkdtemp(f.path), NULL);
    return f;
}

static void path_in(const folder *f, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", f->path, name);
}

// A net's weights one after another from OFFSET on, all but the last cut bytes.
static void write_weights(const folder *f, const char *name, const pm_graph *graph, size_t cut)
{
    char path[256];
    size_t size = OFFSET;
    for (size_t i = 0; i < pm_graph_param_count(graph); i++)
        size += pm_graph_param(graph, i)->count * sizeof(float);
    unsigned char *bytes = calloc(1, size), *at = bytes + OFFSET;
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        const pm_param *param = pm_graph_param(graph, i);
        memcpy(at, param->initial, param->count * sizeof(float));
        at += param->count * sizeof(float);
    }
    path_in(f, name, path);
    FILE *file = fopen(path, "wb");
    cr_assert_neq(file, NULL);
    cr_assert_eq(fwrite(bytes, 1, size - cut, file), size - cut);
    fclose(file);
    free(bytes);
}

// The net with its weights at a location, as read with the folder.
static pm_status read_net(const folder *f, const pm_graph *graph, const char *location, pm_graph **back)
{
    uint64_t offsets[32], at = OFFSET;
    pm_buffer *onnx = NULL;
    cr_assert_leq(pm_graph_param_count(graph), 32);
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        offsets[i] = at;
        at += pm_graph_param(graph, i)->count * sizeof(float);
    }
    NETS_OK(pm_graph_write_onnx(graph, location, offsets, &onnx));
    pm_status status = pm_graph_read_onnx_in(back, onnx->data, onnx->size, f->path, NULL);
    pm_buffer_unref(&onnx);
    return status;
}

static void check_same_weights(const pm_graph *a, const pm_graph *b)
{
    cr_assert_eq(pm_graph_param_count(a), pm_graph_param_count(b));
    for (size_t i = 0; i < pm_graph_param_count(a); i++) {
        const pm_param *p = pm_graph_param(a, i), *q = pm_graph_param(b, i);
        cr_assert_str_eq(p->name, q->name);
        cr_assert_neq(q->initial, NULL);
        cr_assert_eq(memcmp(p->initial, q->initial, p->count * sizeof(float)), 0, "%s", p->name);
    }
}

Test(onnx_external, weights_come_from_a_file_beside_or_below_the_model)
{
    folder f = make_folder();
    char path[256];
    pm_graph *graph = nets_cnn(), *back = NULL;
    path_in(&f, "sub", path);
    cr_assert_eq(mkdir(path, 0700), 0);
    const char *const locations[] = {"weights.bin", "sub/weights.bin"};
    for (size_t i = 0; i < 2; i++) {
        write_weights(&f, locations[i], graph, 0);
        NETS_OK(read_net(&f, graph, locations[i], &back));
        check_same_weights(graph, back);
        pm_graph_destroy(&back);
        path_in(&f, locations[i], path);
        unlink(path);
    }
    path_in(&f, "sub", path);
    rmdir(path);
    rmdir(f.path);
    pm_graph_destroy(&graph);
}

static void check_refused(const folder *f, const pm_graph *graph, const char *location, pm_code code,
                          const char *wanted)
{
    pm_graph *back = NULL;
    const pm_status status = read_net(f, graph, location, &back);
    cr_assert_eq(status.code, code, "%s: %s", location, status.message);
    cr_assert(strstr(status.message, wanted), "%s: %s", location, status.message);
    cr_assert(strstr(status.message, "gemm1.weight"), "%s: %s", location, status.message);
    cr_assert_eq(back, NULL);
}

Test(onnx_external, paths_that_lead_out_of_the_folder_are_refused_with_the_tensors_name)
{
    folder f = make_folder();
    pm_graph *graph = nets_mlp();
    char path[256], link[256];
    write_weights(&f, "weights.bin", graph, 0);
    path_in(&f, "weights.bin", path);
    path_in(&f, "link", link);
    cr_assert_eq(symlink(path, link), 0);
    check_refused(&f, graph, "../weights.bin", PM_INVALID, "no path inside the model's folder");
    check_refused(&f, graph, "sub/../weights.bin", PM_IO, "sub/../weights.bin");
    check_refused(&f, graph, "./weights.bin", PM_INVALID, "no path inside the model's folder");
    check_refused(&f, graph, path, PM_INVALID, "no path inside the model's folder");
    check_refused(&f, graph, "link", PM_INVALID, "no path inside the model's folder");
    check_refused(&f, graph, "weights.bin/", PM_INVALID, "no path inside the model's folder");
    check_refused(&f, graph, "none.bin", PM_IO, "none.bin");
    unlink(link);
    unlink(path);
    rmdir(f.path);
    pm_graph_destroy(&graph);
}

Test(onnx_external, a_file_that_is_too_short_is_refused)
{
    folder f = make_folder();
    char path[256];
    pm_graph *graph = nets_mlp(), *back = NULL;
    write_weights(&f, "weights.bin", graph, 1);
    const pm_status status = read_net(&f, graph, "weights.bin", &back);
    cr_assert_eq(status.code, PM_CORRUPT, "%s", status.message);
    path_in(&f, "weights.bin", path);
    unlink(path);
    rmdir(f.path);
    pm_graph_destroy(&graph);
}

static void write_model(const char *path, const pm_graph *graph)
{
    uint64_t offsets[32], at = OFFSET;
    pm_buffer *onnx = NULL;
    for (size_t i = 0; i < pm_graph_param_count(graph); i++) {
        offsets[i] = at;
        at += pm_graph_param(graph, i)->count * sizeof(float);
    }
    NETS_OK(pm_graph_write_onnx(graph, "weights.bin", offsets, &onnx));
    FILE *file = fopen(path, "wb");
    cr_assert_neq(file, NULL);
    cr_assert_eq(fwrite(onnx->data, 1, onnx->size, file), onnx->size);
    fclose(file);
    pm_buffer_unref(&onnx);
}

Test(onnx_external, a_jobs_model_takes_its_data_from_beside_it_and_its_digest_covers_them)
{
    folder f = make_folder();
    char model[256], weights[256], first[PM_DIGEST_HEX], second[PM_DIGEST_HEX];
    pm_graph *graph = nets_mlp(), *back = NULL;
    pm_job job = {.model.onnx = model};
    path_in(&f, "model.onnx", model);
    path_in(&f, "weights.bin", weights);
    write_model(model, graph);
    write_weights(&f, "weights.bin", graph, 0);
    NETS_OK(pm_graph_from_job(&back, &job));
    check_same_weights(graph, back);
    NETS_OK(pm_graph_digest_onnx(back, model, first));
    memcpy(job.model.digest, first, sizeof first);
    pm_graph_destroy(&back);
    NETS_OK(pm_graph_from_job(&back, &job));
    pm_graph_destroy(&back);

    FILE *file = fopen(weights, "r+b");
    cr_assert(file && fseek(file, OFFSET, SEEK_SET) == 0 && fputc(1, file) == 1);
    fclose(file);
    const pm_status status = pm_graph_from_job(&back, &job);
    cr_assert_eq(status.code, PM_CORRUPT);
    cr_assert(strstr(status.message, "this copy has digest"), "%s", status.message);
    job.model.digest[0] = '\0';
    NETS_OK(pm_graph_from_job(&back, &job));
    NETS_OK(pm_graph_digest_onnx(back, model, second));
    cr_assert_str_neq(first, second);
    pm_graph_destroy(&back);
    unlink(model);
    unlink(weights);
    rmdir(f.path);
    pm_graph_destroy(&graph);
}
