#include "worker/augment.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { CHANNELS = 2, SIDE = 9, AREA = SIDE * SIDE, ROW = CHANNELS * AREA };

static const int64_t shape[] = {CHANNELS, SIDE, SIDE};

static pm_job job_with(pm_job_augment *list, uint32_t count)
{
    return (pm_job){.seed = 3, .batch = 64, .lanes = 8, .augment = list, .augment_count = count};
}

static void picture(float *row)
{
    for (int i = 0; i < ROW; i++)
        row[i] = (float)(i + 1);
}

static void change(pm_job_augment *list, uint32_t count, uint64_t step, uint32_t lane, uint32_t i, float *row)
{
    pm_job job = job_with(list, count);
    pm_augment *augment = NULL;
    cr_assert_eq(pm_augment_create(&augment, &job, shape, 3).code, PM_OK);
    picture(row);
    pm_augment_row(augment, step, lane, i, row);
    pm_augment_destroy(&augment);
    cr_assert_null(augment);
}

Test(augment, nothing_listed_is_nothing_done)
{
    pm_job job = job_with(NULL, 0);
    pm_augment *augment = NULL;
    cr_assert_eq(pm_augment_create(&augment, &job, shape, 3).code, PM_OK);
    cr_assert_null(augment);
}

Test(augment, a_row_is_changed_alike_whoever_does_it_and_otherwise_than_its_neighbours)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_SHIFT, .pixels = 2},
                             {.op = PM_AUGMENT_ROTATE, .degrees = 20},
                             {.op = PM_AUGMENT_NOISE, .deviation = 0.1}};
    float one[ROW], again[ROW], other[ROW];
    change(list, 3, 5, 2, 1, one);
    change(list, 3, 5, 2, 1, again);
    cr_assert_arr_eq(one, again, sizeof one);
    const struct {
        uint64_t step;
        uint32_t lane, i;
    } others[] = {{6, 2, 1}, {5, 3, 1}, {5, 2, 2}};
    for (int k = 0; k < 3; k++) {
        change(list, 3, others[k].step, others[k].lane, others[k].i, other);
        cr_assert_neq(memcmp(one, other, sizeof one), 0);
    }
}

Test(augment, a_shift_moves_whole_pixels_and_brings_in_zeros)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_SHIFT, .pixels = 2}};
    float before[ROW], after[ROW];
    bool seen[5][5] = {{false}};
    picture(before);
    for (uint64_t step = 0; step < 200; step++) {
        change(list, 1, step, 0, 0, after);
        int found = 0;
        for (int dy = -2; dy <= 2; dy++)
            for (int dx = -2; dx <= 2; dx++) {
                int wrong = 0;
                for (int i = 0; i < ROW; i++) {
                    int y = i % AREA / SIDE + dy, x = i % SIDE + dx;
                    bool inside = y >= 0 && y < SIDE && x >= 0 && x < SIDE;
                    wrong += after[i] != (inside ? before[i / AREA * AREA + y * SIDE + x] : 0);
                }
                found += wrong == 0;
                seen[dy + 2][dx + 2] |= wrong == 0;
            }
        cr_assert_eq(found, 1, "step %lu is no shift of at most 2 pixels", (unsigned long)step);
    }
    for (int i = 0; i < 25; i++)
        cr_assert(seen[i / 5][i % 5], "200 draws never shift by (%d, %d)", i / 5 - 2, i % 5 - 2);
}

Test(augment, a_flip_mirrors_about_half_of_the_rows)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_FLIP, .probability = 0.5}};
    float before[ROW], after[ROW];
    int flipped = 0;
    picture(before);
    for (uint64_t step = 0; step < 400; step++) {
        change(list, 1, step, 1, 3, after);
        bool mirror = after[0] != before[0];
        for (int i = 0; i < ROW; i++)
            cr_assert_eq(after[i], before[mirror ? i / SIDE * SIDE + SIDE - 1 - i % SIDE : i]);
        flipped += mirror;
    }
    cr_assert(flipped > 150 && flipped < 250, "%d of 400", flipped);
}

Test(augment, a_turn_about_the_centre_keeps_the_centre_and_a_half_turn_is_exact_enough)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_ROTATE, .degrees = 180},
                             {.op = PM_AUGMENT_SCALE, .factor = 0.5}};
    float before[ROW], after[ROW];
    picture(before);
    for (uint64_t step = 0; step < 50; step++) {
        change(list, 2, step, 0, 0, after);
        cr_assert_float_eq(after[AREA / 2], before[AREA / 2], 1e-3);
        for (int i = 0; i < ROW; i++)
            cr_assert(after[i] >= 0 && after[i] <= before[ROW - 1],
                      "bilinear values stay within the image's");
    }
}

Test(augment, a_crop_shows_only_what_is_inside)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_CROP, .factor = 0.4}};
    float after[ROW];
    for (uint64_t step = 0; step < 50; step++) {
        change(list, 1, step, 0, 0, after);
        for (int i = 0; i < ROW; i++)
            cr_assert(after[i] >= 1 - 1e-3f, "a border came in at %d: %g", i, (double)after[i]);
    }
}

Test(augment, noise_has_the_deviation_that_was_asked_for)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_NOISE, .deviation = 0.25}};
    float before[ROW], after[ROW];
    double sum = 0, squares = 0;
    int n = 0;
    picture(before);
    for (uint64_t step = 0; step < 200; step++) {
        change(list, 1, step, 0, 0, after);
        for (int i = 0; i < ROW; i++, n++) {
            sum += (double)after[i] - before[i];
            squares += ((double)after[i] - before[i]) * ((double)after[i] - before[i]);
        }
    }
    cr_assert_float_eq(sum / n, 0, 0.01);
    cr_assert_float_eq(sqrt(squares / n), 0.25, 0.01);
}

Test(augment, a_cut_out_square_is_zero_in_every_channel)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_CUTOUT, .pixels = 3}};
    float before[ROW], after[ROW];
    picture(before);
    for (uint64_t step = 0; step < 100; step++) {
        int zeros[CHANNELS] = {0};
        change(list, 1, step, 0, 0, after);
        for (int i = 0; i < ROW; i++) {
            cr_assert(after[i] == 0 || after[i] == before[i]);
            zeros[i / AREA] += after[i] == 0;
        }
        cr_assert(zeros[0] >= 4 && zeros[0] <= 9 && zeros[0] == zeros[1]);
    }
}

Test(augment, a_model_without_images_is_refused)
{
    pm_job_augment list[] = {{.op = PM_AUGMENT_FLIP, .probability = 0.5}};
    pm_job job = job_with(list, 1);
    pm_augment *augment = NULL;
    pm_status status = pm_augment_create(&augment, &job, shape, 1);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "augment"));
    cr_assert_null(augment);
}
