#pragma once
// The tables of a job: what shards and the checkpoint service make of the job's text.
#include "model/graph.h"
#include "ps/shard.h"

typedef struct pm_tables {
    pm_job *job;
    pm_graph *graph;
    pm_table_spec *specs; // one a parameter of the graph; initial arrays are the graph's
    uint32_t count;
} pm_tables;

// Parses the job's text and builds its graph, from a model file of model_digest if it names one (both of a
// directive). Released by pm_tables_free also on failure.
pm_status pm_tables_make(pm_tables *tables, const char *job_text, const char *model_digest) PM_CHECKED;
void pm_tables_free(pm_tables *tables);
