#pragma once
// A version of a model in memory, ready to answer.
#include "core/digest.h"
#include "model/plan.h"
#include "snapshot/store.h"

typedef struct pm_model {
    struct pm_model *next; // for lists of whoever holds it
    uint64_t version;
    char digest[PM_DIGEST_HEX];
    uint32_t max_rows;
    size_t input_row_bytes, output_row_bytes;
    pm_graph *graph;
    pm_plan *plan; // for one thread at a time
    // Mapped weights, and copies of those that lie at odd addresses; the plan reads them.
    pm_safetensors *weights;
    pm_buffer **copies;
} pm_model;

// Loads a version: reads the graph, maps the weights, holds the bytes of both against the manifest's digests
// (which also brings them into memory), plans for batches of up to max_rows and runs one batch of zeros.
// PM_CORRUPT names the file that differs, PM_INVALID the parameter that does not fit. threads: that the plan
// may run on. The caller owns *model.
pm_status pm_model_load(pm_model **model, pm_store *store, uint64_t version, uint32_t max_rows,
                        uint32_t threads) PM_CHECKED;

void pm_model_destroy(pm_model **model);
