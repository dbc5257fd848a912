// What the router says to clients about their requests.
#include "infer/router_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARE_MIN = 8 << 10 }; // bytes from which an answer refers to the batch's outputs instead of copying

void pm_router_refuse(pm_router *router, const pm_peer *to, uint64_t request, pm_status why,
                      uint32_t retry_ms, pm_mailbox *out)
{
    (void)router;
    pm_mailbox_post(out, PM_ROUTER_FRONT, to, pm_header_error(request, 0, why, retry_ms), NULL);
}

static void release(pm_router *router, pm_query *query)
{
    pm_buffer_unref(&query->frame);
    query->next = router->spare;
    router->spare = query;
    router->held--;
}

void pm_router_fail(pm_router *router, pm_routed_model *model, pm_query *query, pm_status why,
                    uint32_t retry_ms, pm_mailbox *out)
{
    model->failed++;
    pm_metric_add(router->outcomes[why.code], 1);
    pm_router_refuse(router, &query->peer, query->request, why, retry_ms, out);
    release(router, query);
}

static Paramill__Header *response_header(const pm_routed_worker *worker, pm_query *query)
{
    Inference__InferParameter value = INFERENCE__INFER_PARAMETER__INIT;
    Inference__ParameterEntry digest = INFERENCE__PARAMETER_ENTRY__INIT, *parameters[1] = {&digest};
    Inference__ModelInferResponse__InferOutputTensor tensor =
        INFERENCE__MODEL_INFER_RESPONSE__INFER_OUTPUT_TENSOR__INIT;
    Inference__ModelInferResponse__InferOutputTensor *outputs[1] = {&tensor};
    Inference__ModelInferResponse response = INFERENCE__MODEL_INFER_RESPONSE__INIT;
    const pm_tensor_info *output = &worker->signature.output;
    int64_t shape[PM_MAX_RANK + 1] = {query->rows};
    char version[24];
    memcpy(shape + 1, output->shape, output->rank * sizeof *shape);
    snprintf(version, sizeof version, "%llu", (unsigned long long)worker->version);
    value.parameter_choice_case = INFERENCE__INFER_PARAMETER__PARAMETER_CHOICE_STRING_PARAM;
    value.string_param = (char *)(uintptr_t)worker->digest;
    digest.key = (char *)(uintptr_t) "digest";
    digest.value = &value;
    tensor.name = (char *)(uintptr_t)output->name;
    tensor.datatype = (char *)(uintptr_t)pm_datatype_name(output->type);
    tensor.shape = shape;
    tensor.n_shape = output->rank + 1;
    response.model_name = worker->model->name;
    response.model_version = version;
    response.id = query->id;
    response.parameters = parameters;
    response.n_parameters = 1;
    response.outputs = outputs;
    response.n_outputs = 1;
    return pm_envelope_seal(query->request, 0, PARAMILL__INFER_ENVELOPE__KIND__INFER_RESPONSE,
                            &response.base);
}

static void drop_parent(void *data, void *hint)
{
    (void)data;
    pm_buffer *parent = hint;
    pm_buffer_unref(&parent);
}

// The part of the outputs that is a query's; NULL when out of memory.
static pm_buffer *cut(pm_buffer *outputs, size_t offset, size_t size)
{
    if (size == outputs->size)
        return pm_buffer_ref(outputs);
    char *data = (char *)outputs->data + offset;
    if (size < SHARE_MIN)
        return pm_buffer_copy(data, size);
    pm_buffer *part = pm_buffer_wrap(data, size, drop_parent, outputs);
    if (part)
        pm_buffer_ref(outputs);
    return part;
}

void pm_router_deliver(pm_router *router, pm_routed_worker *worker, pm_batch *batch, pm_buffer *outputs,
                       int64_t now_us, pm_mailbox *out)
{
    size_t offset = 0, row_bytes = worker->signature.output.row_bytes;
    for (pm_query *q; (q = batch->queries.first);) {
        size_t size = q->rows * row_bytes;
        pm_query_remove(&batch->queries, q);
        pm_buffer *part = cut(outputs, offset, size);
        offset += size;
        if (!part) {
            pm_router_fail(router, worker->model, q, pm_fail(PM_NO_MEMORY, "an answer"), PM_RETRY_MS, out);
            continue;
        }
        pm_mailbox_post(out, PM_ROUTER_FRONT, &q->peer, response_header(worker, q), part);
        pm_metric_observe_us(router->seconds, now_us - q->arrived_us);
        pm_metric_add(router->outcomes[PM_OK], 1);
        worker->model->answered++;
        release(router, q);
    }
}
