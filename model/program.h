#pragma once
// From a source graph to a program: concrete shapes of one lane for every value, training forms of operators,
// what follows from constants folded.
#include "model/graph_impl.h"

// Makes the program of source. Its params are source's, by the same indices; its inputs and outputs are those
// of source in order. source must outlive it. The caller owns *program.
pm_status pm_program_create(pm_graph **program, const pm_graph *source, const pm_tensor *inputs,
                            bool training) PM_CHECKED;

// The inputs of one lane of rows rows: the batched extent is rows. PM_UNSUPPORTED names an input with another
// extent that is not fixed. tensors: (source inputs).
pm_status pm_program_lane(const pm_graph *source, uint32_t rows, pm_tensor *tensors) PM_CHECKED;

// Infers node's outputs (node->output_count; node->outputs is not read) and appends it with them, unless all
// inputs are constants and little, when it is run at once.
pm_status pm_program_add(pm_graph *program, const pm_node *node, uint32_t *outputs) PM_CHECKED;

// Types and shapes of the outputs of node, whose inputs are values of graph; outputs is (node->output_count).
pm_status pm_program_infer(const pm_graph *graph, const pm_node *node, pm_tensor *outputs) PM_CHECKED;

// The same for a node of a source, of which other operators may be made.
pm_status pm_program_shapes(const pm_graph *source, const pm_node *node, pm_tensor *outputs) PM_CHECKED;

// Drops the nodes that neither the program's outputs nor keep (values) need, and the outputs nobody reads.
pm_status pm_program_prune(pm_graph *program, const uint32_t *keep, size_t keep_count) PM_CHECKED;

// Sets types and shapes of source's outputs from its programs of one row and of two. PM_UNSUPPORTED names an
// output that does not grow with the rows, as when the batch is written into a Reshape.
pm_status pm_program_check_rows(pm_graph *source) PM_CHECKED;
