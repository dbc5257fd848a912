// Data sets of a pair of IDX files.
#include "core/arena.h"
#include "core/rng.h"
#include "model/losses.h"
#include "worker/idx.h"
#include "worker/rows.h"

#include <stdlib.h>
#include <string.h>

// A pair of files.
typedef struct source {
    int users; // data sets that read it, of one thread
    pm_idx features, targets;
    size_t outputs;
    pm_loss loss;
} source;

typedef struct idx_rows {
    pm_dataset base;
    source *source;
    uint64_t first; // of the source's order
    bool permuted;  // that order is a permutation of the files' rows
    pm_rng_key order;
} idx_rows;

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
        return pm_fail(PM_INVALID, "%s: %s takes one unsigned byte a row", path,
                       pm_loss_kind_of(d->loss)->name);
    for (uint32_t i = 0; i < d->targets.shape[0]; i++)
        if (d->targets.values[i] >= d->outputs)
            return pm_fail(PM_INVALID, "%s: row %u has class %u; the model has %zu outputs", path, i,
                           d->targets.values[i], d->outputs);
    return pm_ok();
}

static pm_status check(const source *d, const pm_job_dataset *files, const pm_row_shape *shape)
{
    if (shape->whole || shape->places != 1)
        return pm_fail(PM_INVALID,
                       "%s: the model takes whole numbers or has many targets a row; IDX files have "
                       "floats and one",
                       files->features);
    if (d->features.row_count != shape->features)
        return pm_fail(PM_INVALID, "%s: a row has %zu values; the model's input takes %zu", files->features,
                       d->features.row_count, shape->features);
    if (d->features.shape[0] != d->targets.shape[0])
        return pm_fail(PM_INVALID, "%s has %u rows, %s has %u", files->features, d->features.shape[0],
                       files->targets, d->targets.shape[0]);
    const pm_loss_kind *kind = pm_loss_kind_of(d->loss);
    if (kind->target == PM_TARGET_CLASS)
        return check_classes(d, files->targets);
    if (d->targets.type != PM_IDX_F32 || d->targets.row_count != d->outputs)
        return pm_fail(PM_INVALID, "%s: %s takes %zu float32 values a row", files->targets, kind->name,
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

static pm_status load_source(source **out, const pm_job_dataset *files, pm_loss loss,
                             const pm_row_shape *shape)
{
    source *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a data set");
    s->users = 1;
    s->loss = loss;
    s->outputs = shape->outputs;
    pm_status status = pm_idx_load(&s->features, files->features);
    if (status.code == PM_OK)
        status = pm_idx_load(&s->targets, files->targets);
    if (status.code == PM_OK)
        status = check(s, files, shape);
    if (status.code != PM_OK)
        release(&s);
    *out = s;
    return status;
}

static void read_floats(const pm_idx *idx, uint64_t row, float *restrict out)
{
    const size_t count = idx->row_count;
    if (idx->type == PM_IDX_U8)
        for (size_t i = 0; i < count; i++)
            out[i] = (float)idx->values[row * count + i] / 255.0f;
    else
        for (size_t i = 0; i < count; i++)
            out[i] = big_endian_float(idx->values + 4 * (row * count + i));
}

// The row of the files.
static uint64_t place_of(const idx_rows *d, uint64_t row)
{
    row += d->first;
    return d->permuted ? pm_rng_permute(d->order, 0, row, d->source->features.shape[0]) : row;
}

static void fetch_row(const pm_dataset *dataset, uint64_t row)
{
    const idx_rows *d = (const idx_rows *)dataset;
    const pm_idx *idx = &d->source->features;
    const size_t size = idx->row_count * (idx->type == PM_IDX_U8 ? 1 : sizeof(float));
    const unsigned char *values = idx->values + place_of(d, row) * size;
    for (size_t i = 0; i < size; i += PM_ALIGN)
        __builtin_prefetch(values + i);
}

static void read_row(const pm_dataset *dataset, uint64_t row, size_t at, void *features, void *targets)
{
    const idx_rows *d = (const idx_rows *)dataset;
    const source *s = d->source;
    row = place_of(d, row);
    read_floats(&s->features, row, (float *)features + at * s->features.row_count);
    if (pm_loss_kind_of(s->loss)->target == PM_TARGET_CLASS)
        ((int32_t *)targets)[at] = s->targets.values[row];
    else
        read_floats(&s->targets, row, (float *)targets + at * s->outputs);
}

static void close_rows(pm_dataset *dataset)
{
    idx_rows *d = (idx_rows *)dataset;
    release(&d->source);
    free(d);
}

static const pm_rows_kind IDX = {read_row, fetch_row, close_rows};

// The rows [first, first + rows) of s, permuted by the seed where order is given.
static pm_status make(pm_dataset **dataset, source *s, uint64_t first, uint64_t rows, const pm_rng_key *order)
{
    idx_rows *d = calloc(1, sizeof *d);
    if (!d)
        return pm_fail(PM_NO_MEMORY, "a data set");
    *d = (idx_rows){.base = {&IDX, rows, NULL}, .source = s, .first = first, .permuted = order != NULL};
    if (order)
        d->order = *order;
    s->users++;
    *dataset = &d->base;
    return pm_ok();
}

static pm_status split(pm_dataset **train, pm_dataset **validation, source *s, const pm_job *job)
{
    uint64_t all = s->features.shape[0], held = (uint64_t)((double)all * job->validation_split);
    const pm_rng_key order = pm_rng_key_make(job->seed, "validation split");
    if (held == 0 || held == all)
        return pm_fail(PM_INVALID, "data: validation_split %g of %lu rows leaves one side empty",
                       job->validation_split, (unsigned long)all);
    pm_status status = make(train, s, 0, all - held, &order);
    return status.code == PM_OK ? make(validation, s, all - held, held, &order) : status;
}

pm_status pm_rows_load_idx(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                           const pm_row_shape *shape)
{
    source *s = NULL;
    pm_status status = load_source(&s, &job->train, job->loss, shape);
    if (status.code == PM_OK && job->validation_split > 0)
        status = split(train, validation, s, job);
    else if (status.code == PM_OK)
        status = make(train, s, 0, s->features.shape[0], NULL);
    release(&s);
    if (status.code == PM_OK && job->validation) {
        status = load_source(&s, job->validation, job->loss, shape);
        if (status.code == PM_OK)
            status = make(validation, s, 0, s->features.shape[0], NULL);
        release(&s);
    }
    return status;
}
