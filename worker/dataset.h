#pragma once
// Rows of features with their targets, and the order in which a job visits them.
//
// IDX files: unsigned bytes become value / 255, floats stay; targets that are unsigned bytes are classes,
// floats regression targets. A text: a row is a window of characters as numbers, its targets the characters
// that follow each; training rows begin at every character, those of validation, which are of the text's
// end, one after another. The order of epoch e is a seeded permutation evaluated at any position, so the rows
// of (step, lane) are a pure function of (seed, step, lane): nothing to store, nothing to restore.
#include "core/job.h"
#include "core/rng.h"
#include "core/status.h"
#include "model/graph.h"

typedef struct pm_dataset pm_dataset;

// What a model takes of a row and is held against.
typedef struct pm_row_shape {
    bool whole;      // features are int64, else float32
    size_t features; // of a row
    size_t places;   // targets of a row: 1, or one for each place of an output (T, classes)
    size_t outputs;  // of a place: classes, or the floats wanted
} pm_row_shape;

pm_row_shape pm_row_shape_of(const pm_graph *graph, pm_loss loss);

// Loads the job's training rows and, when it has any, its validation rows (else *validation is NULL). Files
// are checked against each other and against the model: the values of a row must be features, classes must be
// below outputs (cross-entropy), or a target row must have outputs floats (mean squared error). With
// validation_split the rows held out are the end of a seeded permutation of all rows, or of a text. Both are
// to be destroyed; they may share memory.
pm_status pm_dataset_load(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                          const pm_row_shape *shape) PM_CHECKED;
void pm_dataset_destroy(pm_dataset **dataset);

uint64_t pm_dataset_rows(const pm_dataset *dataset);

// What the numbers of a text mean: character i of this UTF-8 string is number i. NULL where rows are no text.
const char *pm_dataset_vocabulary(const pm_dataset *dataset);

// Writes one row's features, and its targets (places int32 classes, or outputs floats), as row `at` of the
// arrays.
void pm_dataset_read(const pm_dataset *dataset, uint64_t row, size_t at, void *features, void *targets);

// The row is read soon: has it brought into cache.
void pm_dataset_fetch(const pm_dataset *dataset, uint64_t row);

// Rows of one lane at one step, in order.
typedef struct pm_sampler {
    pm_rng_key order;
    uint64_t rows;           // of the data set
    uint32_t batch;          // rows of a step
    uint32_t rows_per_lane;  // batch / lanes
    uint64_t steps_per_pass; // rows / batch, at least 1; the rest of a pass's order is left out
} pm_sampler;

// PM_INVALID when the data set has fewer rows than a batch.
pm_status pm_sampler_make(pm_sampler *sampler, const pm_job *job, uint64_t rows) PM_CHECKED;

// The data row of position i (below rows_per_lane) of a lane at a step.
uint64_t pm_sampler_row(const pm_sampler *sampler, uint64_t step, uint32_t lane, uint32_t i);
