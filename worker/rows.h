#pragma once
// What a data set is to those who make one of a kind of files (rows_idx.c, rows_text.c): it begins with this.
#include "worker/dataset.h"

typedef struct pm_rows_kind {
    void (*read)(const pm_dataset *dataset, uint64_t row, size_t at, void *features, void *targets);
    void (*fetch)(const pm_dataset *dataset, uint64_t row); // NULL: not worth it
    void (*close)(pm_dataset *dataset);                     // frees it
} pm_rows_kind;

struct pm_dataset {
    const pm_rows_kind *kind;
    uint64_t rows;
    const char *vocabulary;
};

// As pm_dataset_load; what is made stays there on failure.
pm_status pm_rows_load_idx(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                           const pm_row_shape *shape) PM_CHECKED;
pm_status pm_rows_load_text(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                            const pm_row_shape *shape) PM_CHECKED;
