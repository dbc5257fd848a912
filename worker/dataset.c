#include "worker/dataset.h"

#include "core/rng.h"
#include "worker/idx.h"

#include <stdlib.h>
#include <string.h>

struct pm_dataset {
    pm_idx features, targets;
    pm_loss loss;
    size_t outputs;
    float byte_value[256]; // byte -> value / 255
};

static float big_endian_float(const unsigned char *p)
{
    uint32_t bits = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static pm_status check_classes(const pm_dataset *d, const char *path)
{
    if (d->targets.type != PM_IDX_U8 || d->targets.row_count != 1)
        return pm_fail(PM_INVALID, "%s: softmax_cross_entropy takes one unsigned byte a row", path);
    for (uint32_t i = 0; i < d->targets.shape[0]; i++)
        if (d->targets.values[i] >= d->outputs)
            return pm_fail(PM_INVALID, "%s: row %u has class %u; the model has %zu outputs", path, i,
                           d->targets.values[i], d->outputs);
    return pm_ok();
}

static pm_status check(const pm_dataset *d, const pm_job_dataset *files, size_t features)
{
    if (d->features.row_count != features)
        return pm_fail(PM_INVALID, "%s: a row has %zu values; the model's input takes %zu", files->features,
                       d->features.row_count, features);
    if (d->features.shape[0] != d->targets.shape[0])
        return pm_fail(PM_INVALID, "%s has %u rows, %s has %u", files->features, d->features.shape[0],
                       files->targets, d->targets.shape[0]);
    if (d->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        return check_classes(d, files->targets);
    if (d->targets.type != PM_IDX_F32 || d->targets.row_count != d->outputs)
        return pm_fail(PM_INVALID, "%s: mean_squared_error takes %zu float32 values a row", files->targets,
                       d->outputs);
    return pm_ok();
}

pm_status pm_dataset_load(pm_dataset **dataset, const pm_job_dataset *files, pm_loss loss, size_t features,
                          size_t outputs)
{
    pm_dataset *d = calloc(1, sizeof *d);
    if (!d)
        return pm_fail(PM_NO_MEMORY, "a data set");
    d->loss = loss;
    d->outputs = outputs;
    for (int i = 0; i < 256; i++)
        d->byte_value[i] = (float)i / 255.0f;
    pm_status status = pm_idx_load(&d->features, files->features);
    if (status.code == PM_OK)
        status = pm_idx_load(&d->targets, files->targets);
    if (status.code == PM_OK)
        status = check(d, files, features);
    if (status.code != PM_OK)
        pm_dataset_destroy(&d);
    *dataset = d;
    return status;
}

void pm_dataset_destroy(pm_dataset **dataset)
{
    if (!dataset || !*dataset)
        return;
    pm_idx_free(&(*dataset)->features);
    pm_idx_free(&(*dataset)->targets);
    free(*dataset);
    *dataset = NULL;
}

uint64_t pm_dataset_rows(const pm_dataset *dataset)
{
    return dataset->features.shape[0];
}

static void read_floats(const pm_idx *idx, uint64_t row, const float *byte_value, float *out)
{
    const unsigned char *from = idx->values + row * idx->row_count * (idx->type == PM_IDX_U8 ? 1 : 4);
    for (size_t i = 0; i < idx->row_count; i++)
        out[i] = idx->type == PM_IDX_U8 ? byte_value[from[i]] : big_endian_float(from + 4 * i);
}

void pm_dataset_read(const pm_dataset *dataset, uint64_t row, size_t at, float *features, void *targets)
{
    read_floats(&dataset->features, row, dataset->byte_value, features + at * dataset->features.row_count);
    if (dataset->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        ((int32_t *)targets)[at] = dataset->targets.values[row];
    else
        read_floats(&dataset->targets, row, dataset->byte_value, (float *)targets + at * dataset->outputs);
}

pm_status pm_sampler_make(pm_sampler *sampler, const pm_job *job, uint64_t rows)
{
    if (rows < job->batch)
        return pm_fail(PM_INVALID, "%s: %lu rows are less than one batch of %u", job->train.features,
                       (unsigned long)rows, job->batch);
    *sampler = (pm_sampler){job->seed, rows, job->batch, job->batch / job->lanes, rows / job->batch};
    return pm_ok();
}

uint64_t pm_sampler_row(const pm_sampler *sampler, uint64_t step, uint32_t lane, uint32_t i)
{
    pm_rng_key key = pm_rng_key_make(sampler->seed, "sample order");
    uint64_t epoch = step / sampler->steps_per_epoch;
    uint64_t position =
        step % sampler->steps_per_epoch * sampler->batch + (uint64_t)lane * sampler->rows_per_lane + i;
    return pm_rng_permute(key, epoch, position, sampler->rows);
}
