#include "worker/augment.h"

#include "core/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Input coordinates of an output pixel, both from the image's centre: x' = a x + b y + c, y' = d x + e y + f.
typedef struct affine {
    double a, b, c, d, e, f;
} affine;

struct pm_augment {
    const pm_job_augment *list; // the job's
    uint32_t count, rows_per_lane;
    pm_rng_key *keys; // (count)
    size_t channels, height, width;
    float *copy; // of a row
};

// What one row draws from.
typedef struct draws {
    pm_rng_key key;
    uint64_t step, row, used;
} draws;

static double uniform(draws *d, double from, double to)
{
    return from + (to - from) * pm_rng_uniform(d->key, d->step, d->row << 32 | d->used++);
}

static int64_t whole(draws *d, int64_t from, int64_t to)
{
    return from + (int64_t)pm_rng_below(d->key, d->step, d->row << 32 | d->used++, (uint64_t)(to - from) + 1);
}

// The map that does second to the image that first has made.
static affine then(affine first, affine second)
{
    return (affine){
        first.a * second.a + first.b * second.d,           first.a * second.b + first.b * second.e,
        first.a * second.c + first.b * second.f + first.c, first.d * second.a + first.e * second.d,
        first.d * second.b + first.e * second.e,           first.d * second.c + first.e * second.f + first.f};
}

static affine draw_map(const pm_augment *g, const pm_job_augment *o, draws *d)
{
    affine m = {1, 0, 0, 0, 1, 0};
    double angle, size;
    switch (o->op) {
    case PM_AUGMENT_SHIFT:
        m.c = (double)whole(d, -(int64_t)o->pixels, o->pixels);
        m.f = (double)whole(d, -(int64_t)o->pixels, o->pixels);
        break;
    case PM_AUGMENT_FLIP:
        m.a = uniform(d, 0, 1) < o->probability ? -1 : 1;
        break;
    case PM_AUGMENT_ROTATE:
        angle = uniform(d, -o->degrees, o->degrees) * 3.14159265358979323846 / 180;
        m = (affine){cos(angle), -sin(angle), 0, sin(angle), cos(angle), 0};
        break;
    case PM_AUGMENT_SCALE:
        size = uniform(d, 1 - o->factor, 1 + o->factor);
        m.a = m.e = 1 / size;
        break;
    case PM_AUGMENT_CROP:
        m.a = m.e = uniform(d, 1 - o->factor, 1);
        m.c = uniform(d, -0.5, 0.5) * (1 - m.a) * (double)(g->width - 1);
        m.f = uniform(d, -0.5, 0.5) * (1 - m.e) * (double)(g->height - 1);
        break;
    default:
        break;
    }
    return m;
}

// Bilinear, zero outside.
static float at(const float *plane, int64_t height, int64_t width, double y, double x)
{
    double floor_y = floor(y), floor_x = floor(x);
    int64_t top = (int64_t)floor_y, left = (int64_t)floor_x;
    float down = (float)(y - floor_y), right = (float)(x - floor_x), corner[4];
    for (int i = 0; i < 4; i++) {
        int64_t r = top + i / 2, c = left + i % 2;
        corner[i] = r >= 0 && r < height && c >= 0 && c < width ? plane[r * width + c] : 0;
    }
    float upper = corner[0] * (1 - right) + corner[1] * right;
    float lower = corner[2] * (1 - right) + corner[3] * right;
    return upper * (1 - down) + lower * down;
}

static void move(const pm_augment *g, affine m, float *row)
{
    static const affine identity = {1, 0, 0, 0, 1, 0};
    size_t area = g->height * g->width;
    double middle_y = (double)(g->height - 1) / 2, middle_x = (double)(g->width - 1) / 2;
    if (memcmp(&m, &identity, sizeof m) == 0)
        return;
    memcpy(g->copy, row, g->channels * area * sizeof *row);
    for (size_t y = 0; y < g->height; y++)
        for (size_t x = 0; x < g->width; x++) {
            double from_x = (double)x - middle_x, from_y = (double)y - middle_y;
            double in_x = m.a * from_x + m.b * from_y + m.c + middle_x;
            double in_y = m.d * from_x + m.e * from_y + m.f + middle_y;
            for (size_t c = 0; c < g->channels; c++)
                row[c * area + y * g->width + x] =
                    at(g->copy + c * area, (int64_t)g->height, (int64_t)g->width, in_y, in_x);
        }
}

// Normal deviates in pairs (Box and Muller 1958).
static void add_noise(const pm_augment *g, double deviation, draws *d, float *row)
{
    size_t count = g->channels * g->height * g->width;
    for (size_t i = 0; i < count; i += 2) {
        double radius = deviation * sqrt(-2 * log(1 - uniform(d, 0, 1)));
        double angle = uniform(d, 0, 2 * 3.14159265358979323846);
        row[i] += (float)(radius * cos(angle));
        if (i + 1 < count)
            row[i + 1] += (float)(radius * sin(angle));
    }
}

// A square of zeros around any pixel (DeVries and Taylor 2017).
static void cut_out(const pm_augment *g, uint32_t pixels, draws *d, float *row)
{
    int64_t height = (int64_t)g->height, width = (int64_t)g->width;
    int64_t top = whole(d, 0, height - 1) - pixels / 2, left = whole(d, 0, width - 1) - pixels / 2;
    for (int64_t y = top < 0 ? 0 : top; y < top + pixels && y < height; y++)
        for (int64_t x = left < 0 ? 0 : left; x < left + pixels && x < width; x++)
            for (size_t c = 0; c < g->channels; c++)
                row[((int64_t)c * height + y) * width + x] = 0;
}

void pm_augment_row(pm_augment *augment, uint64_t step, uint32_t lane, uint32_t i, float *row)
{
    affine map = {1, 0, 0, 0, 1, 0};
    for (uint32_t k = 0; k < augment->count; k++) {
        const pm_job_augment *o = &augment->list[k];
        draws d = {augment->keys[k], step, (uint64_t)lane * augment->rows_per_lane + i, 0};
        if (o->op != PM_AUGMENT_NOISE && o->op != PM_AUGMENT_CUTOUT) {
            map = then(map, draw_map(augment, o, &d));
            continue;
        }
        move(augment, map, row); // those so far, in one resampling
        map = (affine){1, 0, 0, 0, 1, 0};
        if (o->op == PM_AUGMENT_NOISE)
            add_noise(augment, o->deviation, &d, row);
        else
            cut_out(augment, o->pixels, &d, row);
    }
    move(augment, map, row);
}

static pm_status set_shape(pm_augment *g, const int64_t *shape, uint32_t rank)
{
    if (rank != 2 && rank != 3)
        return pm_fail(PM_INVALID,
                       "data: augment changes images; the model's input has %u dimensions, not (channels, "
                       "height, width)",
                       rank);
    g->channels = rank == 3 ? (size_t)shape[0] : 1;
    g->height = (size_t)shape[rank - 2];
    g->width = (size_t)shape[rank - 1];
    return pm_ok();
}

pm_status pm_augment_create(pm_augment **augment, const pm_job *job, const int64_t *shape, uint32_t rank)
{
    uint32_t own = 0; // operations that are not those of worker/targets.c
    *augment = NULL;
    for (uint32_t k = 0; k < job->augment_count; k++)
        own += job->augment[k].op != PM_AUGMENT_MIXUP;
    if (own == 0)
        return pm_ok();
    pm_augment *g = calloc(1, sizeof *g);
    pm_status status = g ? set_shape(g, shape, rank) : pm_fail(PM_NO_MEMORY, "data: augment");
    if (status.code != PM_OK) {
        free(g);
        return status;
    }
    g->list = job->augment;
    g->count = job->augment_count;
    g->rows_per_lane = job->batch / job->lanes;
    g->keys = calloc(g->count, sizeof *g->keys);
    g->copy = calloc(g->channels * g->height * g->width, sizeof *g->copy);
    if (!g->keys || !g->copy) {
        pm_augment_destroy(&g);
        return pm_fail(PM_NO_MEMORY, "data: augment");
    }
    for (uint32_t k = 0; k < g->count; k++) {
        char purpose[32];
        snprintf(purpose, sizeof purpose, "augment:%u", k);
        g->keys[k] = pm_rng_key_make(job->seed, purpose);
    }
    *augment = g;
    return pm_ok();
}

void pm_augment_destroy(pm_augment **augment)
{
    if (!augment || !*augment)
        return;
    free((*augment)->keys);
    free((*augment)->copy);
    free(*augment);
    *augment = NULL;
}
