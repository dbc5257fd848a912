#include "worker/dataset.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PLACES = 3, CHARACTERS = 40 };

static char path[64];

// Character i is 'a' + i % 7.
static void setup(void)
{
    snprintf(path, sizeof path, "/tmp/pm-text-%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < CHARACTERS; i++)
        fputc('a' + i % 7, f);
    fclose(f);
}

static void teardown(void)
{
    unlink(path);
}

TestSuite(rows_text, .init = setup, .fini = teardown);

static pm_job text_job(void)
{
    return (pm_job){
        .seed = 3, .data = PM_DATA_TEXT, .text_path = path, .context = PLACES, .validation_split = 0.25};
}

static const pm_row_shape SHAPE = {true, PLACES, PLACES, 7};

static void check_row(const pm_dataset *d, uint64_t row, int first)
{
    int64_t x[3 * PLACES];
    int32_t y[3 * PLACES];
    pm_dataset_read(d, row, 2, x, y);
    for (int i = 0; i < PLACES; i++) {
        cr_assert_eq(x[2 * PLACES + i], (first + i) % 7);
        cr_assert_eq(y[2 * PLACES + i], (first + i + 1) % 7);
    }
}

Test(rows_text, training_windows_begin_everywhere_and_those_of_validation_follow_each_other)
{
    const pm_job job = text_job();
    pm_dataset *train, *validation;
    cr_assert_eq(pm_dataset_load(&train, &validation, &job, &SHAPE).code, PM_OK);
    cr_assert_eq(pm_dataset_rows(train), 30 - PLACES, "the last character of a side is a target");
    cr_assert_eq(pm_dataset_rows(validation), 3);
    cr_assert_str_eq(pm_dataset_vocabulary(train), "abcdefg");
    for (int r = 0; r < 27; r++)
        check_row(train, (uint64_t)r, r);
    pm_dataset_destroy(&train); // the other goes on
    for (int r = 0; r < 3; r++)
        check_row(validation, (uint64_t)r, 30 + PLACES * r);
    pm_dataset_destroy(&validation);
}

static void check_refused(const pm_job *job, const pm_row_shape *shape, const char *says)
{
    pm_dataset *train, *validation;
    pm_status status = pm_dataset_load(&train, &validation, job, shape);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, says) && strstr(status.message, path), "%s", status.message);
    cr_assert_null(train);
    cr_assert_null(validation);
}

Test(rows_text, what_does_not_fit_the_model_is_refused)
{
    pm_job job = text_job();
    check_refused(&job, &(pm_row_shape){true, PLACES, PLACES, 6}, "7 different characters; the model has 6");
    check_refused(&job, &(pm_row_shape){true, 4, 4, 7}, "context is 3; the model's input has 4 places");
    check_refused(&job, &(pm_row_shape){false, PLACES, PLACES, 7}, "whole numbers");
    check_refused(&job, &(pm_row_shape){true, PLACES, 1, 7}, "(N, T, characters)");
    job.validation_split = 0.05;
    check_refused(&job, &SHAPE, "2 characters are no window of 3");
}
