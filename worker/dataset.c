#include "worker/dataset.h"

#include "core/rng.h"
#include "worker/idx.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// A pair of files.
typedef struct source {
    int users; // data sets that read it, of one thread
    pm_idx features, targets;
    size_t outputs;
    pm_loss loss;
    float byte_value[256]; // byte -> value / 255
} source;

struct pm_dataset {
    source *source;
    uint64_t first, rows; // of the source's order
    bool permuted;        // that order is a permutation of the files' rows
    pm_rng_key order;
};

static float big_endian_float(const unsigned char *p)
{
    uint32_t bits = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static pm_status check_classes(const source *d, const char *path)
{
    if (d->targets.type != PM_IDX_U8 || d->targets.row_count != 1)
        return pm_fail(PM_INVALID, "%s: softmax_cross_entropy takes one unsigned byte a row", path);
    for (uint32_t i = 0; i < d->targets.shape[0]; i++)
        if (d->targets.values[i] >= d->outputs)
            return pm_fail(PM_INVALID, "%s: row %u has class %u; the model has %zu outputs", path, i,
                           d->targets.values[i], d->outputs);
    return pm_ok();
}

static pm_status check(const source *d, const pm_job_dataset *files, size_t features)
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

static void release(source **s)
{
    if (*s && --(*s)->users == 0) {
        pm_idx_free(&(*s)->features);
        pm_idx_free(&(*s)->targets);
        free(*s);
    }
    *s = NULL;
}

static pm_status load_source(source **out, const pm_job_dataset *files, pm_loss loss, size_t features,
                             size_t outputs)
{
    source *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a data set");
    s->users = 1;
    s->loss = loss;
    s->outputs = outputs;
    for (int i = 0; i < 256; i++)
        s->byte_value[i] = (float)i / 255.0f;
    pm_status status = pm_idx_load(&s->features, files->features);
    if (status.code == PM_OK)
        status = pm_idx_load(&s->targets, files->targets);
    if (status.code == PM_OK)
        status = check(s, files, features);
    if (status.code != PM_OK)
        release(&s);
    *out = s;
    return status;
}

// The rows [first, first + rows) of s.
static pm_status make(pm_dataset **dataset, source *s, uint64_t first, uint64_t rows)
{
    pm_dataset *d = calloc(1, sizeof *d);
    if (!d)
        return pm_fail(PM_NO_MEMORY, "a data set");
    *d = (pm_dataset){.source = s, .first = first, .rows = rows};
    s->users++;
    *dataset = d;
    return pm_ok();
}

static pm_status split(pm_dataset **train, pm_dataset **validation, source *s, const pm_job *job)
{
    uint64_t all = s->features.shape[0], held = (uint64_t)((double)all * job->validation_split);
    if (held == 0 || held == all)
        return pm_fail(PM_INVALID, "data: validation_split %g of %lu rows leaves one side empty",
                       job->validation_split, (unsigned long)all);
    pm_status status = make(train, s, 0, all - held);
    if (status.code == PM_OK)
        status = make(validation, s, all - held, held);
    if (status.code == PM_OK) {
        (*train)->permuted = (*validation)->permuted = true;
        (*train)->order = (*validation)->order = pm_rng_key_make(job->seed, "validation split");
    }
    return status;
}

pm_status pm_dataset_load(pm_dataset **train, pm_dataset **validation, const pm_job *job, size_t features,
                          size_t outputs)
{
    source *s = NULL;
    *train = *validation = NULL;
    pm_status status = load_source(&s, &job->train, job->loss, features, outputs);
    if (status.code == PM_OK && job->validation_split > 0)
        status = split(train, validation, s, job);
    else if (status.code == PM_OK)
        status = make(train, s, 0, s->features.shape[0]);
    release(&s);
    if (status.code == PM_OK && job->validation) {
        status = load_source(&s, job->validation, job->loss, features, outputs);
        if (status.code == PM_OK)
            status = make(validation, s, 0, s->features.shape[0]);
        release(&s);
    }
    if (status.code != PM_OK) {
        pm_dataset_destroy(train);
        pm_dataset_destroy(validation);
    }
    return status;
}

void pm_dataset_destroy(pm_dataset **dataset)
{
    if (!dataset || !*dataset)
        return;
    release(&(*dataset)->source);
    free(*dataset);
    *dataset = NULL;
}

uint64_t pm_dataset_rows(const pm_dataset *dataset)
{
    return dataset->rows;
}

static void read_floats(const pm_idx *idx, uint64_t row, const float *byte_value, float *out)
{
    const unsigned char *from = idx->values + row * idx->row_count * (idx->type == PM_IDX_U8 ? 1 : 4);
    for (size_t i = 0; i < idx->row_count; i++)
        out[i] = idx->type == PM_IDX_U8 ? byte_value[from[i]] : big_endian_float(from + 4 * i);
}

void pm_dataset_read(const pm_dataset *dataset, uint64_t row, size_t at, float *features, void *targets)
{
    const source *s = dataset->source;
    row += dataset->first;
    if (dataset->permuted)
        row = pm_rng_permute(dataset->order, 0, row, s->features.shape[0]);
    read_floats(&s->features, row, s->byte_value, features + at * s->features.row_count);
    if (s->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        ((int32_t *)targets)[at] = s->targets.values[row];
    else
        read_floats(&s->targets, row, s->byte_value, (float *)targets + at * s->outputs);
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
