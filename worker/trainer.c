#include "worker/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATION_ROWS = 256, AHEAD = 4 };

// Validation reads all rows of a sparse table.
static pm_status open_whole(pm_trainer *t, uint32_t table)
{
    t->whole[table] = calloc(t->counts[table], sizeof(float));
    if (!t->whole[table])
        return pm_fail(PM_NO_MEMORY, "parameter %.64s", pm_graph_param(t->graph, table)->name);
    return pm_plan_bind(t->inference, table, t->whole[table]);
}

static pm_status open_plans(pm_trainer *t)
{
    const pm_job *job = t->job;
    pm_loss loss = pm_job_softens(job) ? PM_LOSS_SOFT_CROSS_ENTROPY : job->loss;
    pm_status status = pm_threads_create(&t->threads, job->cluster.worker_threads);
    pm_plan_options options = {.threads = job->cluster.worker_threads,
                               .precision = job->precision,
                               .most_bytes = (size_t)job->cluster.worker_memory_mib << 20};
    if (status.code == PM_OK)
        status = pm_plan_create_training_with(&t->training, t->graph, loss, job->batch / job->lanes,
                                              job->lanes, job->batch, &options);
    if (status.code == PM_OK)
        status = pm_plan_set_threads(t->training, t->threads);
    options.most_bytes = 0;
    if (status.code == PM_OK)
        status = pm_plan_create_inference_with(&t->inference, t->graph, EVALUATION_ROWS, &options);
    if (status.code == PM_OK)
        status = pm_plan_set_threads(t->inference, t->threads);
    for (uint32_t i = 0; i < t->tables && status.code == PM_OK; i++)
        if (!t->widths[i])
            status = pm_plan_bind(t->inference, i, pm_plan_param(t->training, i));
        else if (pm_job_validates(job))
            status = open_whole(t, i);
    return status;
}

static pm_status open_augment(pm_trainer *t)
{
    uint32_t rank;
    const int64_t *shape = pm_graph_input_shape(t->graph, &rank);
    return pm_augment_create(&t->augment, t->job, shape, rank);
}

static pm_status open_data(pm_trainer *t)
{
    const pm_job *job = t->job;
    t->shape = pm_row_shape_of(t->graph, job->loss);
    pm_status status = pm_dataset_load(&t->train, &t->validation, job, &t->shape);
    if (status.code == PM_OK)
        status = pm_sampler_make(&t->sampler, job, pm_dataset_rows(t->train));
    if (status.code == PM_OK)
        status = open_augment(t);
    if (status.code == PM_OK)
        status = pm_targets_create(&t->targets, job, &t->shape);
    if (status.code == PM_OK && t->validation)
        status =
            pm_evaluator_create(&t->evaluator, t->inference, EVALUATION_ROWS, t->validation, job, &t->shape);
    return status;
}

pm_status pm_trainer_open(pm_trainer *trainer, const char *job_text, const char *model_digest)
{
    memset(trainer, 0, sizeof *trainer);
    pm_status status = pm_job_parse(&trainer->job, job_text, "the job");
    if (status.code == PM_OK)
        snprintf(trainer->job->model.digest, sizeof trainer->job->model.digest, "%s", model_digest);
    if (status.code == PM_OK)
        status = pm_graph_from_job(&trainer->graph, trainer->job);
    if (status.code == PM_OK) {
        trainer->tables = (uint32_t)pm_graph_param_count(trainer->graph);
        trainer->counts = calloc(trainer->tables + 1, sizeof *trainer->counts);
        trainer->frozen = calloc(trainer->tables + 1, sizeof *trainer->frozen);
        trainer->widths = calloc(trainer->tables + 1, sizeof *trainer->widths);
        trainer->whole = calloc(trainer->tables + 1, sizeof *trainer->whole);
        if (!trainer->counts || !trainer->frozen || !trainer->widths || !trainer->whole)
            status = pm_fail(PM_NO_MEMORY, "a list of tables");
    }
    for (uint32_t i = 0; i < trainer->tables && status.code == PM_OK; i++) {
        const pm_param *p = pm_graph_param(trainer->graph, i);
        trainer->counts[i] = p->count;
        trainer->frozen[i] = p->frozen;
        trainer->widths[i] = p->sparse ? (uint32_t)(p->count / (size_t)p->shape[0]) : 0;
    }
    if (status.code == PM_OK)
        status = open_plans(trainer);
    if (status.code == PM_OK)
        status = open_data(trainer);
    if (status.code != PM_OK)
        pm_trainer_close(trainer);
    return status;
}

void pm_trainer_close(pm_trainer *trainer)
{
    pm_evaluator_destroy(&trainer->evaluator);
    pm_augment_destroy(&trainer->augment);
    pm_targets_destroy(&trainer->targets);
    pm_dataset_destroy(&trainer->validation);
    pm_dataset_destroy(&trainer->train);
    pm_plan_destroy(&trainer->inference);
    pm_plan_destroy(&trainer->training);
    pm_threads_destroy(&trainer->threads);
    free(trainer->counts);
    free(trainer->frozen);
    for (uint32_t i = 0; trainer->whole && i < trainer->tables; i++)
        free(trainer->whole[i]);
    free(trainer->whole);
    free(trainer->widths);
    pm_graph_destroy(&trainer->graph);
    pm_job_destroy(&trainer->job);
    memset(trainer, 0, sizeof *trainer);
}

// The number of a lane's row at a step; the row is brought into cache.
static uint64_t find_row(const pm_trainer *t, uint64_t clock, uint32_t lane, uint32_t i)
{
    if (i >= t->sampler.rows_per_lane)
        return 0;
    const uint64_t row = pm_sampler_row(&t->sampler, clock, lane, i);
    pm_dataset_fetch(t->train, row);
    return row;
}

// The rows of a lane at a step, to the plan's rows from first on. Rows that are changed are float32.
static void read_lane(pm_trainer *t, uint64_t clock, uint32_t lane, size_t first)
{
    const size_t row_count = t->shape.features;
    float *rows = t->shape.whole ? NULL : pm_plan_input(t->training) + first * row_count;
    void *input = pm_plan_input_at(t->training, 0), *targets = pm_plan_target(t->training);
    uint64_t found[AHEAD];
    for (uint32_t i = 0; i < AHEAD; i++)
        found[i] = find_row(t, clock, lane, i);
    for (uint32_t i = 0; i < t->sampler.rows_per_lane; i++) {
        const uint64_t row = found[i % AHEAD];
        found[i % AHEAD] = find_row(t, clock, lane, i + AHEAD);
        if (t->targets)
            pm_dataset_read(t->train, row, i, rows, pm_targets_classes(t->targets));
        else
            pm_dataset_read(t->train, row, first + i, input, targets);
        if (t->augment)
            pm_augment_row(t->augment, clock, lane, i, rows + i * row_count);
    }
    if (t->targets)
        pm_targets_soften(t->targets, clock, lane, rows, (float *)targets + first * t->shape.outputs);
}

void pm_trainer_read(pm_trainer *trainer, uint64_t clock, pm_block block)
{
    const uint32_t lane_rows = trainer->sampler.rows_per_lane;
    const pm_block there = trainer->read_block;
    if (trainer->has_read && trainer->read_clock == clock && there.first == block.first &&
        there.count == block.count)
        return;
    for (uint32_t i = 0; i < block.count; i++)
        read_lane(trainer, clock, block.first + i, i * lane_rows);
    trainer->has_read = true;
    trainer->read_clock = clock;
    trainer->read_block = block;
}

pm_status pm_trainer_step(pm_trainer *trainer, uint64_t clock, pm_block block, const pm_step_hooks *hooks,
                          pm_step *step)
{
    pm_trainer_read(trainer, clock, block);
    *step = (pm_step){.seed = trainer->job->seed,
                      .step = clock,
                      .first_lane = block.first,
                      .lane_count = block.count,
                      .hooks = hooks};
    return pm_plan_step(trainer->training, step);
}
