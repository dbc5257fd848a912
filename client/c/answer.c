#include "answer.h"

#include "proto/inference.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pm_status read_shape(const int64_t *shape, size_t rank, int64_t lowest, int64_t *out,
                            uint32_t *out_rank, size_t *count)
{
    if (rank > PM_CLIENT_RANK_MAX)
        return pm_fail(PM_PROTOCOL, "a tensor of rank %zu in the answer", rank);
    *count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] < lowest || shape[i] > INT32_MAX || *count > (size_t)PM_FRAME_MAX)
            return pm_fail(PM_PROTOCOL, "a dimension of %lld in the answer", (long long)shape[i]);
        out[i] = shape[i];
        *count *= shape[i] > 0 ? (size_t)shape[i] : 1;
    }
    *out_rank = (uint32_t)rank;
    return pm_ok();
}

static pm_status read_output(const Inference__ModelInferResponse *response, const pm_message *message,
                             pm_client_result *result)
{
    if (response->n_outputs != 1 || message->frame_count != 1)
        return pm_fail(PM_PROTOCOL, "%zu outputs in %u frames; one in one is understood", response->n_outputs,
                       message->frame_count);
    const Inference__ModelInferResponse__InferOutputTensor *output = response->outputs[0];
    const pm_buffer *frame = message->frames[0];
    if (!output->datatype || strcmp(output->datatype, "FP32") != 0)
        return pm_fail(PM_PROTOCOL, "an output of another type than FP32");
    pm_status status =
        read_shape(output->shape, output->n_shape, 1, result->shape, &result->rank, &result->count);
    if (status.code != PM_OK)
        return status;
    if (frame->size != result->count * sizeof(float))
        return pm_fail(PM_PROTOCOL, "%zu bytes for an output of %zu floats", frame->size, result->count);
    result->data = malloc(frame->size);
    if (!result->data)
        return pm_fail(PM_NO_MEMORY, "%zu bytes of output", frame->size);
    memcpy(result->data, frame->data, frame->size);
    return pm_ok();
}

pm_status pm_client_read_response(const pm_message *message, pm_client_result *result)
{
    const Paramill__InferEnvelope *envelope = message->header->infer;
    Inference__ModelInferResponse *response =
        inference__model_infer_response__unpack(NULL, envelope->payload.len, envelope->payload.data);
    if (!response)
        return pm_fail(PM_PROTOCOL, "the router's answer is no ModelInferResponse");
    result->version = strtoull(response->model_version ? response->model_version : "", NULL, 10);
    for (size_t i = 0; i < response->n_parameters; i++) {
        const Inference__ParameterEntry *p = response->parameters[i];
        if (p->key && !strcmp(p->key, "digest") && p->value &&
            p->value->parameter_choice_case == INFERENCE__INFER_PARAMETER__PARAMETER_CHOICE_STRING_PARAM)
            snprintf(result->digest, sizeof result->digest, "%s", p->value->string_param);
    }
    pm_status status = read_output(response, message, result);
    inference__model_infer_response__free_unpacked(response, NULL);
    return status;
}

pm_status pm_client_read_metadata(const pm_message *message, pm_client_metadata *metadata)
{
    const Paramill__InferEnvelope *envelope = message->header->infer;
    Inference__ModelMetadataResponse *response =
        inference__model_metadata_response__unpack(NULL, envelope->payload.len, envelope->payload.data);
    if (!response)
        return pm_fail(PM_PROTOCOL, "the router's answer is no ModelMetadataResponse");
    pm_status status =
        pm_fail(PM_PROTOCOL, "the model has %zu inputs and %zu outputs; one each is understood",
                response->n_inputs, response->n_outputs);
    if (response->n_inputs == 1 && response->n_outputs == 1) {
        const Inference__ModelMetadataResponse__TensorMetadata *in = response->inputs[0],
                                                               *out = response->outputs[0];
        size_t count;
        snprintf(metadata->input_name, sizeof metadata->input_name, "%s", in->name);
        snprintf(metadata->output_name, sizeof metadata->output_name, "%s", out->name);
        snprintf(metadata->input_type, sizeof metadata->input_type, "%s", in->datatype);
        snprintf(metadata->output_type, sizeof metadata->output_type, "%s", out->datatype);
        status = read_shape(in->shape, in->n_shape, -1, metadata->input_shape, &metadata->input_rank, &count);
        if (status.code == PM_OK)
            status = read_shape(out->shape, out->n_shape, -1, metadata->output_shape, &metadata->output_rank,
                                &count);
    }
    inference__model_metadata_response__free_unpacked(response, NULL);
    return status;
}

pm_client_code pm_client_code_of(pm_code code)
{
    switch (code) {
    case PM_OK:
        return PM_CLIENT_OK;
    case PM_INVALID:
    case PM_UNSUPPORTED:
        return PM_CLIENT_INVALID;
    case PM_TIMEOUT:
        return PM_CLIENT_TIMEOUT;
    case PM_UNAVAILABLE:
        return PM_CLIENT_UNAVAILABLE;
    case PM_NOT_FOUND:
        return PM_CLIENT_NOT_FOUND;
    case PM_NO_MEMORY:
        return PM_CLIENT_NO_MEMORY;
    default:
        return PM_CLIENT_FAILED;
    }
}
