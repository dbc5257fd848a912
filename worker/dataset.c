#include "worker/dataset.h"

#include "model/plan.h"
#include "worker/rows.h"

pm_row_shape pm_row_shape_of(const pm_graph *graph, pm_loss loss)
{
    const size_t places = pm_loss_places(graph, loss);
    return (pm_row_shape){.whole = pm_graph_input(graph, 0)->type == PM_TYPE_I64,
                          .features = pm_graph_input_count(graph),
                          .places = places,
                          .outputs = pm_graph_output_count(graph) / places};
}

pm_status pm_dataset_load(pm_dataset **train, pm_dataset **validation, const pm_job *job,
                          const pm_row_shape *shape)
{
    *train = *validation = NULL;
    pm_status status = job->data == PM_DATA_TEXT ? pm_rows_load_text(train, validation, job, shape)
                                                 : pm_rows_load_idx(train, validation, job, shape);
    if (status.code != PM_OK) {
        pm_dataset_destroy(train);
        pm_dataset_destroy(validation);
    }
    return status;
}

void pm_dataset_destroy(pm_dataset **dataset)
{
    if (!dataset || !*dataset)
        return;
    (*dataset)->kind->close(*dataset);
    *dataset = NULL;
}

uint64_t pm_dataset_rows(const pm_dataset *dataset)
{
    return dataset->rows;
}

const char *pm_dataset_vocabulary(const pm_dataset *dataset)
{
    return dataset->vocabulary;
}

void pm_dataset_read(const pm_dataset *dataset, uint64_t row, size_t at, void *features, void *targets)
{
    dataset->kind->read(dataset, row, at, features, targets);
}

void pm_dataset_fetch(const pm_dataset *dataset, uint64_t row)
{
    if (dataset->kind->fetch)
        dataset->kind->fetch(dataset, row);
}

pm_status pm_sampler_make(pm_sampler *sampler, const pm_job *job, uint64_t rows)
{
    if (rows < job->batch)
        return pm_fail(PM_INVALID, "%s: %lu rows are less than one batch of %u", pm_job_data_path(job),
                       (unsigned long)rows, job->batch);
    *sampler = (pm_sampler){pm_rng_key_make(job->seed, "sample order"), rows, job->batch,
                            job->batch / job->lanes, rows / job->batch};
    return pm_ok();
}

uint64_t pm_sampler_row(const pm_sampler *sampler, uint64_t step, uint32_t lane, uint32_t i)
{
    uint64_t pass = step / sampler->steps_per_pass;
    uint64_t position =
        step % sampler->steps_per_pass * sampler->batch + (uint64_t)lane * sampler->rows_per_lane + i;
    return pm_rng_permute(sampler->order, pass, position, sampler->rows);
}
