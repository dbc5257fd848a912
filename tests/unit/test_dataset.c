#include "worker/dataset.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 50, FEATURES = 2 };

static char features[64], targets[64];

// Row r holds (r, 2 r) and has class r % 10.
static void setup(void)
{
    snprintf(features, sizeof features, "/tmp/pm-dataset-%d-x", (int)getpid());
    snprintf(targets, sizeof targets, "/tmp/pm-dataset-%d-y", (int)getpid());
    FILE *x = fopen(features, "wb"), *y = fopen(targets, "wb");
    fwrite((char[]){0, 0, 8, 2, 0, 0, 0, ROWS, 0, 0, 0, FEATURES}, 1, 12, x);
    fwrite((char[]){0, 0, 8, 1, 0, 0, 0, ROWS}, 1, 8, y);
    for (int r = 0; r < ROWS; r++) {
        fputc(r, x);
        fputc(2 * r, x);
        fputc(r % 10, y);
    }
    fclose(x);
    fclose(y);
}

static void teardown(void)
{
    unlink(features);
    unlink(targets);
}

TestSuite(dataset, .init = setup, .fini = teardown);

static pm_job job_with(double validation_split)
{
    return (pm_job){.seed = 11, .train = {features, targets}, .validation_split = validation_split};
}

static pm_row_shape classes(size_t outputs)
{
    return (pm_row_shape){.features = FEATURES, .places = 1, .outputs = outputs};
}

// The file's row at a row of the data set; checks that features and class belong together.
static int file_row(const pm_dataset *d, uint64_t row)
{
    float x[FEATURES];
    int32_t y;
    pm_dataset_read(d, row, 0, x, &y);
    int r = (int)(x[0] * 255 + 0.5f);
    cr_assert_eq((int)(x[1] * 255 + 0.5f), 2 * r);
    cr_assert_eq(y, r % 10);
    return r;
}

Test(dataset, without_a_split_rows_are_the_files)
{
    pm_job job = job_with(0);
    pm_dataset *train, *validation;
    const pm_row_shape shape = classes(10);
    cr_assert_eq(pm_dataset_load(&train, &validation, &job, &shape).code, PM_OK);
    cr_assert_null(validation);
    cr_assert_eq(pm_dataset_rows(train), ROWS);
    for (int r = 0; r < ROWS; r++)
        cr_assert_eq(file_row(train, (uint64_t)r), r);
    pm_dataset_destroy(&train);
}

Test(dataset, a_split_gives_every_row_to_one_side_and_the_same_side_each_time)
{
    int side[ROWS] = {0};
    for (int time = 0; time < 2; time++) {
        pm_job job = job_with(0.2);
        pm_dataset *train, *validation;
        const pm_row_shape shape = classes(10);
        cr_assert_eq(pm_dataset_load(&train, &validation, &job, &shape).code, PM_OK);
        cr_assert_eq(pm_dataset_rows(train), 40);
        cr_assert_eq(pm_dataset_rows(validation), 10);
        for (uint64_t r = 0; r < 40; r++)
            side[file_row(train, r)] += 1;
        pm_dataset_destroy(&train); // the other goes on
        for (uint64_t r = 0; r < 10; r++)
            side[file_row(validation, r)] += 100;
        pm_dataset_destroy(&validation);
    }
    int held = 0, in_order = 0;
    for (int r = 0; r < ROWS; r++) {
        cr_assert(side[r] == 2 || side[r] == 200, "row %d was given %d", r, side[r]);
        held += side[r] == 200;
        in_order += side[r] == 200 && r >= 40;
    }
    cr_assert_eq(held, 10);
    cr_assert_lt(in_order, 10, "the split is drawn, not the end of the file");
}

Test(dataset, a_split_that_leaves_a_side_empty_is_refused)
{
    pm_job job = job_with(0.001);
    pm_dataset *train, *validation;
    const pm_row_shape shape = classes(10);
    pm_status status = pm_dataset_load(&train, &validation, &job, &shape);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "validation_split"), "%s", status.message);
    cr_assert_null(train);
    cr_assert_null(validation);
}

Test(dataset, a_class_beyond_the_model_is_named)
{
    pm_job job = job_with(0);
    pm_dataset *train, *validation;
    const pm_row_shape shape = classes(9);
    pm_status status = pm_dataset_load(&train, &validation, &job, &shape);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert(strstr(status.message, "row 9 has class 9"), "%s", status.message);
}
