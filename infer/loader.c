#include "infer/loader.h"

#include "core/text.h"
#include "infer/metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ONNX_MAX = 64 << 20 };

// The bytes that are served are the ones that are digested.
static pm_status check_digest(const pm_manifest *manifest, const char *name, const void *bytes, size_t size)
{
    char hex[PM_DIGEST_HEX];
    const pm_manifest_file *file = pm_manifest_find(manifest, name);
    if (!file || file->bytes != size)
        return pm_fail(PM_CORRUPT, "%s does not have the size that the manifest says", name);
    pm_status status = pm_digest_bytes(bytes, size, hex);
    if (status.code == PM_OK && strcmp(hex, file->sha256) != 0)
        return pm_fail(PM_CORRUPT, "%s does not have the digest that the manifest says", name);
    return status;
}

static pm_status check_port(const pm_port *port, size_t *row_bytes)
{
    if (!pm_datatype_name(port->type))
        return pm_fail(PM_UNSUPPORTED, "%s is %s; float32 and int64 are served", port->name,
                       pm_type_name(port->type));
    *row_bytes = port->count * pm_type_size(port->type);
    return pm_ok();
}

// One input and one output, of types that the protocol's frames are built for.
static pm_status check_ports(pm_model *m)
{
    if (pm_graph_inputs(m->graph) != 1 || pm_graph_outputs(m->graph) != 1)
        return pm_fail(PM_UNSUPPORTED, "%zu inputs and %zu outputs; one of each is served",
                       pm_graph_inputs(m->graph), pm_graph_outputs(m->graph));
    pm_status status = check_port(pm_graph_input(m->graph, 0), &m->input_row_bytes);
    return status.code == PM_OK ? check_port(pm_graph_output(m->graph, 0), &m->output_row_bytes) : status;
}

static pm_status read_graph(pm_model *m, const pm_store *store, const pm_manifest *manifest)
{
    char path[PM_PATH_MAX], *bytes = NULL;
    size_t size = 0;
    pm_store_path(store, m->version, "model.onnx", path);
    pm_status status = pm_read_file(path, ONNX_MAX, &bytes, &size);
    if (status.code == PM_OK)
        status = check_digest(manifest, "model.onnx", bytes, size);
    if (status.code == PM_OK)
        status = pm_graph_read_onnx(&m->graph, bytes, size);
    free(bytes);
    return status.code == PM_OK ? check_ports(m) : status;
}

static pm_status map_weights(pm_model *m, const pm_store *store, const pm_manifest *manifest)
{
    char path[PM_PATH_MAX];
    pm_store_path(store, m->version, "model.safetensors", path);
    pm_status status = pm_safetensors_open(&m->weights, path);
    if (status.code != PM_OK)
        return status;
    size_t size;
    const void *bytes = pm_safetensors_bytes(m->weights, &size);
    return check_digest(manifest, "model.safetensors", bytes, size);
}

static pm_status bind_param(pm_model *m, size_t index)
{
    const pm_param *param = pm_graph_param(m->graph, index);
    const pm_tensor_view *view = pm_safetensors_find(m->weights, param->name);
    if (!view)
        return param->initial ? pm_ok()
                              : pm_fail(PM_INVALID, "model.safetensors has no tensor %s", param->name);
    if (view->dtype != PM_DTYPE_F32 || view->size != param->count * sizeof(float))
        return pm_fail(PM_INVALID, "%s is %zu bytes of %s; the graph needs %zu of F32", param->name,
                       view->size, pm_dtype_name(view->dtype), param->count * sizeof(float));
    const void *data = view->data;
    if ((uintptr_t)data % sizeof(float) != 0) {
        m->copies[index] = pm_buffer_copy(data, view->size);
        if (!m->copies[index])
            return pm_fail(PM_NO_MEMORY, "a copy of %s", param->name);
        data = m->copies[index]->data;
    }
    return pm_plan_bind(m->plan, index, data);
}

static pm_status make_plan(pm_model *m, uint32_t threads)
{
    size_t count = pm_graph_param_count(m->graph);
    m->copies = calloc(count ? count : 1, sizeof *m->copies);
    if (!m->copies)
        return pm_fail(PM_NO_MEMORY, "a list of %zu parameters", count);
    const pm_plan_options options = {.threads = threads};
    pm_status status = pm_plan_create_inference_with(&m->plan, m->graph, m->max_rows, &options);
    for (size_t i = 0; i < count && status.code == PM_OK; i++)
        status = bind_param(m, i);
    if (status.code == PM_OK)
        status = pm_plan_prepare(m->plan);
    return status;
}

// The first pass touches every buffer, so that the first request does not pay for it.
static pm_status warm_up(pm_model *m)
{
    void *input = calloc(m->max_rows, m->input_row_bytes);
    void *output = calloc(m->max_rows, m->output_row_bytes);
    pm_status status = pm_fail(PM_NO_MEMORY, "a batch of %u rows", m->max_rows);
    if (input && output)
        status = pm_plan_run(m->plan, (const void *const[]){input}, m->max_rows, (void *const[]){output});
    free(input);
    free(output);
    return status;
}

pm_status pm_model_load(pm_model **model, pm_store *store, uint64_t version, uint32_t max_rows,
                        uint32_t threads)
{
    pm_manifest manifest = {0};
    pm_model *m = calloc(1, sizeof *m);
    if (!m)
        return pm_fail(PM_NO_MEMORY, "a model");
    m->version = version;
    m->max_rows = max_rows;
    pm_status status = pm_store_manifest(store, version, &manifest);
    if (status.code == PM_OK)
        status = read_graph(m, store, &manifest);
    if (status.code == PM_OK)
        status = map_weights(m, store, &manifest);
    if (status.code == PM_OK)
        status = make_plan(m, threads);
    if (status.code == PM_OK)
        status = warm_up(m);
    snprintf(m->digest, sizeof m->digest, "%s", manifest.digest);
    pm_manifest_free(&manifest);
    if (status.code == PM_OK)
        *model = m;
    else
        pm_model_destroy(&m);
    return pm_wrap(status, "version %llu of %s", (unsigned long long)version, pm_store_model(store));
}

void pm_model_destroy(pm_model **model)
{
    if (!model || !*model)
        return;
    pm_model *m = *model;
    size_t count = m->copies ? pm_graph_param_count(m->graph) : 0;
    pm_plan_destroy(&m->plan);
    for (size_t i = 0; i < count; i++)
        pm_buffer_unref(&m->copies[i]);
    free(m->copies);
    pm_safetensors_close(&m->weights);
    pm_graph_destroy(&m->graph);
    free(m);
    *model = NULL;
}
