// Data sets of a text: windows of its characters.
#include "worker/characters.h"
#include "worker/rows.h"

#include <stdlib.h>

typedef struct source {
    int users; // data sets that read it, of one thread
    pm_characters text;
} source;

typedef struct text_rows {
    pm_dataset base;
    source *source;
    uint64_t first, step; // row r begins at first + r * step
    size_t places;
} text_rows;

static void release(source **s)
{
    if (*s && --(*s)->users == 0) {
        pm_characters_free(&(*s)->text);
        free(*s);
    }
    *s = NULL;
}

static void read_row(const pm_dataset *dataset, uint64_t row, size_t at, void *features, void *targets)
{
    const text_rows *d = (const text_rows *)dataset;
    const uint16_t *from = d->source->text.numbers + d->first + row * d->step;
    int64_t *given = (int64_t *)features + at * d->places;
    int32_t *wanted = (int32_t *)targets + at * d->places;
    for (size_t i = 0; i < d->places; i++) {
        given[i] = from[i];
        wanted[i] = from[i + 1];
    }
}

static void close_rows(pm_dataset *dataset)
{
    text_rows *d = (text_rows *)dataset;
    release(&d->source);
    free(d);
}

static const pm_rows_kind TEXT = {read_row, NULL, close_rows};

// Windows of the characters [first, first + count), each step after the one before.
static pm_status make(pm_dataset **dataset, source *s, uint64_t first, uint64_t count, size_t places,
                      uint64_t step)
{
    if (count <= places)
        return pm_fail(PM_INVALID, "%lu characters are no window of %zu and what follows it",
                       (unsigned long)count, places);
    text_rows *d = calloc(1, sizeof *d);
    if (!d)
        return pm_fail(PM_NO_MEMORY, "a data set");
    *d = (text_rows){{&TEXT, (count - places - 1) / step + 1, s->text.vocabulary}, s, first, step, places};
    s->users++;
    *dataset = &d->base;
    return pm_ok();
}

static pm_status check(const pm_characters *text, const pm_job *job, const pm_row_shape *shape)
{
    if (!shape->whole || shape->places != shape->features || job->loss != PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        return pm_fail(PM_INVALID, "a text wants a model of whole numbers (N, T) to (N, T, characters) under "
                                   "softmax_cross_entropy");
    if (job->context != 0 && job->context != shape->places)
        return pm_fail(PM_INVALID, "context is %u; the model's input has %zu places", job->context,
                       shape->places);
    if (text->size > shape->outputs)
        return pm_fail(PM_INVALID, "the text has %u different characters; the model has %zu outputs",
                       text->size, shape->outputs);
    return pm_ok();
}

pm_status pm_rows_load_text(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                            const pm_row_shape *shape)
{
    source *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a data set");
    s->users = 1;
    pm_status status = pm_characters_load(&s->text, job->text_path);
    if (status.code != PM_OK) {
        release(&s);
        return status;
    }
    const uint64_t all = s->text.count, held = (uint64_t)((double)all * job->validation_split);
    status = check(&s->text, job, shape);
    if (status.code == PM_OK)
        status = make(train, s, 0, all - held, shape->places, 1);
    if (status.code == PM_OK)
        status = make(validation, s, all - held, held, shape->places, shape->places);
    release(&s);
    return pm_wrap(status, "%s", job->text_path);
}
