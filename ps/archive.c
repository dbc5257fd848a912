#include "ps/archive.h"

#include "model/graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS "model.safetensors"

enum { STATE_NAME_MAX = 512 };

static pm_status make_placement(const pm_tables *tables, uint32_t shards, pm_placement **placement)
{
    uint64_t *counts = calloc(tables->count, sizeof *counts);
    uint32_t *widths = calloc(tables->count, sizeof *widths);
    pm_status status = pm_fail(PM_NO_MEMORY, "a placement");
    for (uint32_t t = 0; counts && widths && t < tables->count; t++) {
        counts[t] = tables->specs[t].count;
        widths[t] = tables->specs[t].width;
    }
    if (counts && widths)
        status = pm_placement_create(placement, counts, widths, tables->count, shards);
    free(counts);
    free(widths);
    return status;
}

static void state_name(char name[STATE_NAME_MAX], const pm_tables *tables, const pm_slice *slice, int moment)
{
    snprintf(name, STATE_NAME_MAX, "%s/%u/%d", pm_graph_param(tables->graph, slice->table)->name,
             slice->slice, moment);
}

// ---- saving ----

static pm_status begin_weights(pm_version_writer *version, const pm_tables *tables,
                               pm_safetensors_writer **writer)
{
    char path[PM_PATH_MAX];
    pm_version_path(version, WEIGHTS, path);
    pm_tensor_spec *specs = calloc(tables->count, sizeof *specs);
    if (!specs)
        return pm_fail(PM_NO_MEMORY, "%u tensors", tables->count);
    for (uint32_t t = 0; t < tables->count; t++) {
        const pm_param *p = pm_graph_param(tables->graph, t);
        specs[t] = (pm_tensor_spec){.name = p->name, .dtype = PM_DTYPE_F32, .rank = p->rank};
        for (uint32_t d = 0; d < p->rank; d++)
            specs[t].shape[d] = (uint64_t)p->shape[d];
    }
    static const char *const keys[] = {"format"}, *const values[] = {
                                                      "pt"}; // what readers of the format ask for
    pm_status status = pm_safetensors_begin(writer, path, specs, tables->count, keys, values, 1);
    free(specs);
    return status;
}

static pm_status write_graph(pm_version_writer *version, const pm_tables *tables,
                             const pm_safetensors_writer *weights)
{
    uint64_t *offsets = calloc(tables->count, sizeof *offsets);
    if (!offsets)
        return pm_fail(PM_NO_MEMORY, "%u offsets", tables->count);
    for (uint32_t t = 0; t < tables->count; t++)
        offsets[t] = pm_safetensors_offset(weights, t);
    pm_buffer *onnx = NULL;
    pm_status status = pm_graph_write_onnx(tables->graph, WEIGHTS, offsets, &onnx);
    if (status.code == PM_OK)
        status = pm_version_write(version, "model.onnx", onnx->data, onnx->size);
    pm_buffer_unref(&onnx);
    free(offsets);
    return status;
}

static pm_status save_model(pm_version_writer *version, const pm_tables *tables,
                            const pm_placement *placement, const pm_cut *cut)
{
    pm_safetensors_writer *writer = NULL;
    pm_status status = begin_weights(version, tables, &writer);
    for (uint32_t i = 0; i < cut->size && status.code == PM_OK; i++) {
        const pm_slice *slice = pm_placement_slice(placement, i);
        status = pm_safetensors_write_at(writer, slice->table, slice->offset * sizeof(float),
                                         cut->values[i]->data, cut->values[i]->size);
    }
    if (status.code == PM_OK)
        status = write_graph(version, tables, writer);
    if (status.code == PM_OK)
        status = pm_safetensors_finish(&writer);
    pm_safetensors_abandon(&writer);
    return status;
}

// One moment of one slice, as a tensor of a state file.
typedef struct moment {
    uint32_t slice;
    int index;
    char name[STATE_NAME_MAX];
} moment;

static uint32_t list_moments(const pm_tables *tables, const pm_placement *placement, const pm_cut *cut,
                             uint32_t shard, moment *list)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cut->size; i++)
        for (int m = 0; m < PM_MOMENTS_MAX && pm_placement_slice(placement, i)->shard == shard; m++) {
            if (!cut->moments[m][i])
                continue;
            list[count].slice = i;
            list[count].index = m;
            state_name(list[count++].name, tables, pm_placement_slice(placement, i), m);
        }
    return count;
}

static pm_status write_state(const char *path, const pm_cut *cut, const moment *list, uint32_t count)
{
    pm_tensor_spec *specs = calloc((size_t)count + 1, sizeof *specs);
    if (!specs)
        return pm_fail(PM_NO_MEMORY, "%u tensors", count);
    specs[0] = (pm_tensor_spec){.name = "clock", .dtype = PM_DTYPE_U64, .rank = 1, .shape = {1}};
    for (uint32_t i = 0; i < count; i++)
        specs[1 + i] = (pm_tensor_spec){.name = list[i].name,
                                        .dtype = PM_DTYPE_F32,
                                        .rank = 1,
                                        .shape = {cut->values[list[i].slice]->size / sizeof(float)}};
    pm_safetensors_writer *writer = NULL;
    pm_status status = pm_safetensors_begin(&writer, path, specs, (size_t)count + 1, NULL, NULL, 0);
    if (status.code == PM_OK)
        status = pm_safetensors_write_at(writer, 0, 0, &cut->clock, sizeof cut->clock);
    for (uint32_t i = 0; i < count && status.code == PM_OK; i++) {
        const pm_buffer *buffer = cut->moments[list[i].index][list[i].slice];
        status = pm_safetensors_write_at(writer, 1 + i, 0, buffer->data, buffer->size);
    }
    if (status.code == PM_OK)
        status = pm_safetensors_finish(&writer);
    pm_safetensors_abandon(&writer);
    free(specs);
    return status;
}

static pm_status save_state(pm_version_writer *version, const pm_tables *tables,
                            const pm_placement *placement, const pm_cut *cut)
{
    moment *list = calloc((size_t)cut->size * PM_MOMENTS_MAX, sizeof *list);
    if (!list)
        return pm_fail(PM_NO_MEMORY, "the state of %u slices", cut->size);
    pm_status status = pm_ok();
    for (uint32_t shard = 0; shard < cut->shards && status.code == PM_OK; shard++) {
        char name[64], path[PM_PATH_MAX];
        snprintf(name, sizeof name, "state-%04u.safetensors", shard);
        pm_version_path(version, name, path);
        status = write_state(path, cut, list, list_moments(tables, placement, cut, shard, list));
    }
    free(list);
    return status;
}

static void add_data(pm_archive_source *source, const char *path)
{
    pm_manifest_data *data = &source->data[source->data_count++];
    snprintf(data->path, sizeof data->path, "%s", path);
    data->rows = source->train_rows;
    pm_status status = pm_digest_file(path, data->sha256, NULL);
    if (status.code != PM_OK)
        data->sha256[0] = '\0'; // the data need not be on this machine
}

static void find_data(pm_archive_source *source)
{
    const pm_job *job = source->tables->job;
    if (source->data_count > 0)
        return;
    add_data(source, pm_job_data_path(job));
    if (job->train.targets)
        add_data(source, job->train.targets);
}

static pm_status describe(pm_manifest *manifest, const pm_archive_source *source, const pm_cut *cut)
{
    const pm_job *job = source->tables->job;
    manifest->step = cut->clock;
    manifest->epoch = cut->epoch;
    manifest->parent = cut->parent;
    manifest->seed = job->seed;
    manifest->lanes = job->lanes;
    manifest->batch = job->batch;
    snprintf(manifest->kernel_set, sizeof manifest->kernel_set, "%s", cut->kernel_set);
    snprintf(manifest->code_version, sizeof manifest->code_version, "%s",
             source->code_version ? source->code_version : "");
    manifest->data_count = source->data_count;
    memcpy(manifest->data, source->data, sizeof source->data);
    if (cut->scored) { // means over no rows are not finite and left out
        pm_manifest_set_metric(manifest, "train_loss", cut->train_loss);
        pm_manifest_set_metric(manifest, "train_accuracy", cut->train_accuracy);
    }
    if (cut->scored && cut->validated) {
        pm_manifest_set_metric(manifest, "validation_loss", cut->validation_loss);
        pm_manifest_set_metric(manifest, "validation_accuracy", cut->validation_accuracy);
        for (uint32_t i = 0; i < job->metric_count; i++) {
            char name[32];
            snprintf(name, sizeof name, "validation_%s", pm_quality_name(job->metrics[i]));
            pm_manifest_set_metric(manifest, name, cut->metrics[i]);
        }
    }
    const bool text = source->vocabulary && source->vocabulary[0];
    manifest->job = strdup(job->text);
    manifest->vocabulary = text ? strdup(source->vocabulary) : NULL;
    if (!manifest->job || (text && !manifest->vocabulary))
        return pm_fail(PM_NO_MEMORY, "a manifest");
    return pm_digest_bytes(job->text, strlen(job->text), manifest->job_digest);
}

static double validation_loss(const pm_manifest *manifest)
{
    for (uint32_t i = 0; i < manifest->metric_count; i++)
        if (!strcmp(manifest->metrics[i].name, "validation_loss"))
            return manifest->metrics[i].value;
    return INFINITY;
}

// The label "best" goes to the version with the least validation loss, the older of equals.
static pm_status mark_best(pm_store *store, uint64_t version, double loss)
{
    uint64_t best;
    double best_loss = INFINITY;
    if (pm_store_resolve(store, "best", &best).code == PM_OK) {
        pm_manifest *manifest = calloc(1, sizeof *manifest);
        pm_status status =
            manifest ? pm_store_manifest(store, best, manifest) : pm_fail(PM_NO_MEMORY, "a manifest");
        if (status.code == PM_OK) {
            best_loss = validation_loss(manifest);
            pm_manifest_free(manifest);
        }
        free(manifest);
        if (status.code != PM_OK)
            return status;
    }
    return loss < best_loss ? pm_store_label(store, "best", version) : pm_ok();
}

pm_status pm_archive_save(pm_store *store, pm_archive_source *source, const pm_cut *cut, uint64_t *version)
{
    pm_placement *placement = NULL;
    pm_version_writer *writer = NULL;
    pm_manifest *manifest = calloc(1, sizeof *manifest);
    pm_status status = manifest ? make_placement(source->tables, cut->shards, &placement)
                                : pm_fail(PM_NO_MEMORY, "a manifest");
    if (status.code == PM_OK)
        status = pm_store_begin(store, &writer);
    if (status.code == PM_OK) {
        *version = pm_version_number(writer);
        status = save_model(writer, source->tables, placement, cut);
    }
    if (status.code == PM_OK)
        status = save_state(writer, source->tables, placement, cut);
    if (status.code == PM_OK) {
        find_data(source);
        status = describe(manifest, source, cut);
    }
    if (status.code == PM_OK)
        status = pm_version_publish(&writer, manifest);
    if (status.code == PM_OK)
        status = mark_best(store, *version, validation_loss(manifest));
    if (status.code == PM_OK)
        status = pm_store_retain(store, source->tables->job->checkpoint.keep);
    pm_version_abandon(&writer);
    pm_placement_destroy(&placement);
    if (manifest)
        pm_manifest_free(manifest);
    free(manifest);
    return pm_wrap(status, "publishing step %llu", (unsigned long long)cut->clock);
}

// ---- loading ----

typedef struct sources {
    pm_safetensors *model;
    pm_safetensors **states;
    size_t count;
} sources;

static void close_sources(sources *s)
{
    pm_safetensors_close(&s->model);
    for (size_t i = 0; i < s->count; i++)
        pm_safetensors_close(&s->states[i]);
    free(s->states);
}

static pm_status open_sources(pm_store *store, uint64_t version, const pm_manifest *manifest, sources *s)
{
    char path[PM_PATH_MAX];
    s->states = calloc((size_t)manifest->file_count + 1, sizeof(pm_safetensors *));
    if (!s->states)
        return pm_fail(PM_NO_MEMORY, "the files of a version");
    pm_store_path(store, version, WEIGHTS, path);
    pm_status status = pm_safetensors_open(&s->model, path);
    for (uint32_t i = 0; i < manifest->file_count && status.code == PM_OK; i++) {
        if (strncmp(manifest->files[i].name, "state-", 6) != 0)
            continue;
        pm_store_path(store, version, manifest->files[i].name, path);
        status = pm_safetensors_open(&s->states[s->count], path);
        s->count += status.code == PM_OK;
    }
    return status;
}

static pm_status copy_piece(const pm_tensor_view *view, const char *name, size_t offset,
                            const pm_slice *slice, pm_buffer **buffer)
{
    size_t size = (size_t)slice->count * sizeof(float);
    if (!view)
        return pm_fail(PM_NOT_FOUND, "the version has no %s: it is of another model or optimizer", name);
    if (view->dtype != PM_DTYPE_F32 || offset > view->size || view->size - offset < size)
        return pm_fail(PM_INVALID, "%s is too short for this job's model", name);
    *buffer = pm_buffer_copy((const char *)view->data + offset, size);
    return *buffer ? pm_ok() : pm_fail(PM_NO_MEMORY, "%s", name);
}

static const pm_tensor_view *find_state(const sources *s, const char *name)
{
    const pm_tensor_view *view = NULL;
    for (size_t i = 0; i < s->count && !view; i++)
        view = pm_safetensors_find(s->states[i], name);
    return view;
}

static pm_status load_slice(const pm_tables *tables, const sources *s, const pm_slice *slice, uint32_t index,
                            pm_cut *cut)
{
    const pm_param *param = pm_graph_param(tables->graph, slice->table);
    const pm_tensor_view *view = pm_safetensors_find(s->model, param->name);
    if (view && view->size != param->count * sizeof(float))
        return pm_fail(PM_INVALID, "%s has %zu bytes in the version, %zu in this job's model", param->name,
                       view->size, param->count * sizeof(float));
    pm_status status =
        copy_piece(view, param->name, slice->offset * sizeof(float), slice, &cut->values[index]);
    int moments = (int)pm_table_moments(&tables->specs[slice->table], tables->job);
    for (int m = 0; m < moments && status.code == PM_OK; m++) {
        char name[STATE_NAME_MAX];
        state_name(name, tables, slice, m);
        status = copy_piece(find_state(s, name), name, 0, slice, &cut->moments[m][index]);
    }
    return status;
}

static pm_status load_slices(const pm_tables *tables, const sources *s, const pm_placement *placement,
                             pm_cut **cut)
{
    pm_status status = pm_cut_create(cut, pm_placement_size(placement));
    for (uint32_t i = 0; status.code == PM_OK && i < (*cut)->size; i++)
        status = load_slice(tables, s, pm_placement_slice(placement, i), i, *cut);
    return status;
}

pm_status pm_archive_load(pm_store *store, const pm_tables *tables, uint64_t version, pm_cut **cut)
{
    *cut = NULL;
    sources s = {0};
    pm_placement *placement = NULL;
    pm_manifest *manifest = calloc(1, sizeof *manifest);
    pm_status status = manifest ? make_placement(tables, 1, &placement) : pm_fail(PM_NO_MEMORY, "a manifest");
    if (status.code == PM_OK)
        status = pm_store_verify(store, version);
    if (status.code == PM_OK)
        status = pm_store_manifest(store, version, manifest);
    if (status.code == PM_OK)
        status = open_sources(store, version, manifest, &s);
    if (status.code == PM_OK)
        status = load_slices(tables, &s, placement, cut);
    if (status.code == PM_OK)
        (*cut)->clock = manifest->step;
    else
        pm_cut_destroy(cut);
    close_sources(&s);
    pm_placement_destroy(&placement);
    if (manifest)
        pm_manifest_free(manifest);
    free(manifest);
    return pm_wrap(status, "version %llu", (unsigned long long)version);
}
