#pragma once
// A cut as a version of the store, and back.
//
//   model.safetensors       the values, one tensor a parameter, in the graph's order and with its shapes
//   model.onnx              the inference graph, whose weights are those tensors
//   state-NNNN.safetensors  one a shard NNNN: "clock" (U64, 1 element), and for each of its slices that has
//   moments
//                           "NAME/SLICE/MOMENT" (F32, the slice's count): parameter name, number, 0 or 1
// A version restores to any number of shards: which shard a state file came from does not matter.
#include "ps/gather.h"
#include "ps/tables.h"
#include "snapshot/store.h"

typedef struct pm_archive_source {
    const pm_tables *tables;
    const char *code_version; // may be NULL
    uint64_t train_rows;
    char *vocabulary;         // of a text's characters; NULL or empty: none. Owned by whoever made this
    pm_manifest_data data[2]; // what the first save finds of the job's data: reading all of it takes long
    uint32_t data_count;
} pm_archive_source;

// Publishes the cut as the next version, then removes what the job does not keep.
pm_status pm_archive_save(pm_store *store, pm_archive_source *source, const pm_cut *cut,
                          uint64_t *version) PM_CHECKED;

// Verifies the version's digests and reads it; values and moments of all slices, copied. The caller owns
// *cut.
pm_status pm_archive_load(pm_store *store, const pm_tables *tables, uint64_t version,
                          pm_cut **cut) PM_CHECKED;
