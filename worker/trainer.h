#pragma once
// What a worker computes with: the job's graph, its plans, its data. No sockets.
#include "cluster/lanes.h"
#include "core/job.h"
#include "model/plan.h"
#include "worker/augment.h"
#include "worker/dataset.h"
#include "worker/evaluate.h"
#include "worker/targets.h"

typedef struct pm_trainer {
    pm_job *job;
    pm_graph *graph;
    pm_threads *threads;            // that both plans run on
    pm_plan *training, *inference;  // the inference plan reads the training plan's parameters
    pm_dataset *train, *validation; // validation is NULL when the job has none
    pm_augment *augment;            // NULL when the job has none
    pm_targets *targets;            // NULL when classes stay as they are
    pm_evaluator *evaluator;
    pm_sampler sampler;
    pm_row_shape shape;
    bool has_read; // the rows of
    uint64_t read_clock;
    pm_block read_block;
    uint64_t *counts; // floats of each table
    bool *frozen;     // of each table
    uint32_t *widths; // floats of a row of each sparse table, 0 of a dense one
    float **whole;    // of each sparse table, all rows, for validation; NULL of a dense one, or without
    uint32_t tables;
} pm_trainer;

// Makes all of it from the text of a job and the digest that its model file must have (empty: any); zeroes
// *trainer first. On failure nothing is left.
pm_status pm_trainer_open(pm_trainer *trainer, const char *job_text, const char *model_digest) PM_CHECKED;
void pm_trainer_close(pm_trainer *trainer);

// Reads the rows of (step, block) into the training plan's input, unless they are there: ahead of a step,
// while its parameters are on their way.
void pm_trainer_read(pm_trainer *trainer, uint64_t clock, pm_block block);

// Reads the rows of (step, block) and runs the training plan; fills in step->loss and correct.
pm_status pm_trainer_step(pm_trainer *trainer, uint64_t clock, pm_block block, const pm_step_hooks *hooks,
                          pm_step *step) PM_CHECKED;
