#include "ps/tables.h"

#include <stdio.h>
#include <stdlib.h>

pm_status pm_tables_make(pm_tables *tables, const char *job_text, const char *model_digest)
{
    *tables = (pm_tables){0};
    pm_status status = pm_job_parse(&tables->job, job_text, "the coordinator's job");
    if (status.code == PM_OK)
        snprintf(tables->job->model.digest, sizeof tables->job->model.digest, "%s", model_digest);
    if (status.code == PM_OK)
        status = pm_graph_from_job(&tables->graph, tables->job);
    if (status.code != PM_OK)
        return status;
    tables->count = (uint32_t)pm_graph_param_count(tables->graph);
    tables->specs = calloc(tables->count ? tables->count : 1, sizeof *tables->specs);
    if (!tables->specs)
        return pm_fail(PM_NO_MEMORY, "%u tables", tables->count);
    for (uint32_t t = 0; t < tables->count; t++) {
        const pm_param *p = pm_graph_param(tables->graph, t);
        double rate = pm_job_rate_factor(&tables->job->optimizer, p->name);
        tables->specs[t] =
            (pm_table_spec){.count = p->count,
                            .statistic = p->kind == PM_PARAM_STATISTIC,
                            .momentum = p->momentum,
                            .frozen = p->frozen,
                            .rate = rate,
                            .decays = tables->job->optimizer.decay == PM_DECAY_ALL || p->rank > 1,
                            .initial = p->initial,
                            .width = p->sparse ? (uint32_t)(p->count / (size_t)p->shape[0]) : 0};
    }
    return pm_ok();
}

void pm_tables_free(pm_tables *tables)
{
    free(tables->specs);
    pm_graph_destroy(&tables->graph);
    pm_job_destroy(&tables->job);
    *tables = (pm_tables){0};
}
