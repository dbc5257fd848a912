#pragma once
// A plan makes a graph run: an ordered list of tasks over buffers that are placed ahead of time, so that a
// step allocates nothing. A plan belongs to one caller at a time; several plans of one graph may run side by
// side.
//
// A graph is planned for one lane, with every shape concrete, and mapped over the lanes of a step: each lane
// is a minibatch of rows_per_lane rows, and what the graph does along its batch it does inside a lane. In
// inference each row is a lane of its own.
//
// Bits: a row's forward values and input gradients do not depend on the other rows of the batch. Sums over
// the batch (gradients of parameters, batch statistics, the loss) are made for each lane in a fixed order and
// added along the aligned binary tree over the lanes, so that sum[0,4) == sum[0,2) + sum[2,4) bit for bit.
// They are the bits of one kernel set (pm_kernel_set).
#include "model/graph.h"

#include "model/threads.h"

typedef struct pm_plan pm_plan;

// What either kind of plan may have; zeros are the defaults.
typedef struct pm_plan_options {
    size_t most_bytes; // of memory for buffers; 0: what the machine has
    uint32_t threads;  // that it may run on at most (pm_plan_set_threads); 0: 1
    // Of training. In bf16 Gemm and Conv, and what their gradients are made of, round their operands
    // (model/kernels.h) and sum in float32; everything else is float32. PM_INVALID where the graph has
    // neither.
    pm_precision precision;
} pm_plan_options;

// "avx512+blis-zen3.4": the kernels of this process in training of that precision; a job records it and
// refuses a mix. "avx512bf16+blis-zen3.4" of one in bf16 where the CPU has the instruction for it, which
// differs from the others where sums are subnormal.
const char *pm_kernel_set(pm_precision precision);

// A plan that needs more memory than the machine has is refused before anything is reserved: PM_NO_MEMORY
// names the node that needs the most.

// From now on the plan runs on these threads, no more than its options say (PM_INVALID); NULL: on the
// caller's alone, as at first. Plans of one caller may share threads, which must outlive their use. A step's
// lanes or a request's rows are shared among them; that changes no bit.
pm_status pm_plan_set_threads(pm_plan *plan, pm_threads *threads) PM_CHECKED;

// --- training

// Called on the calling thread; any may be NULL. A failure ends the step with its status.
typedef struct pm_step_hooks {
    // The forward pass is about to read param: its values must be current on return and stay so until the
    // step returns. Not called for statistics that are not frozen, which training does not read.
    pm_status (*before_param)(void *ctx, size_t param);
    // pm_plan_gradient(param) is complete: the block's tree sum of gradients, or of per-lane batch
    // statistics. Called once for each parameter that is not frozen, last layer first.
    pm_status (*after_gradient)(void *ctx, size_t param);
    void *ctx;
    // Which rows of sparse parameters the step reads is known: pm_plan_rows. Called once, before any
    // before_param, of graphs that have such parameters.
    pm_status (*rows_known)(void *ctx);
} pm_step_hooks;

typedef struct pm_step {
    uint64_t seed; // with step and lane: the dropout masks
    uint64_t step;
    uint32_t first_lane;        // the aligned block [first_lane, first_lane + lane_count)
    uint32_t lane_count;        // power of two, at most max_lanes
    const pm_step_hooks *hooks; // may be NULL
    double loss;                // out: sum over the block of losses, along the tree
    uint64_t correct;           // out: how often an output is right (0 where the loss does not judge)
} pm_step;

// How many losses a row has: 1, or T for the cross-entropy of an output (T, classes), one at each place.
size_t pm_loss_places(const pm_graph *graph, pm_loss loss);

// A plan of lane blocks of at most max_lanes (a power of two) lanes of rows_per_lane rows. Gradients are of
// the mean loss over total_rows, the batch of the whole step, and their places. Row losses (model/losses.h)
// are of the graph's first output. PM_INVALID when no differentiable path leads from the loss to any
// parameter. The graph must outlive the plan. The caller owns *plan.
pm_status pm_plan_create_training(pm_plan **plan, const pm_graph *graph, pm_loss loss, uint32_t rows_per_lane,
                                  uint32_t max_lanes, uint32_t total_rows) PM_CHECKED;

// The same with options. Where keeping every activation needs more than most_bytes, some are made again by
// the backward pass, as many as it takes (pm_plan_segments); the bits stay the same.
pm_status pm_plan_create_training_with(pm_plan **plan, const pm_graph *graph, pm_loss loss,
                                       uint32_t rows_per_lane, uint32_t max_lanes, uint32_t total_rows,
                                       const pm_plan_options *options) PM_CHECKED;

// In how many segments the forward pass is cut, of which all but the last are made again; 1: nothing is.
uint32_t pm_plan_segments(const pm_plan *plan);

// (max_lanes * rows_per_lane, row elements): the caller fills the first lane_count * rows_per_lane rows
// before a step, lanes in order. Owned by the plan; as are the following. The second form is of any of the
// graph's inputs, in its own type.
float *pm_plan_input(pm_plan *plan);
void *pm_plan_input_at(pm_plan *plan, size_t index);

// int32_t classes (rows, places) or float (rows, outputs) by the loss's pm_target: see model/losses.h.
void *pm_plan_target(pm_plan *plan);

// The rows of a sparse parameter that the step reads, ascending, from the hook rows_known to the end of the
// step: *count of at most pm_plan_most_rows. Such a parameter's pm_plan_param and pm_plan_gradient are those
// rows alone, side by side in this order; the caller fills the former in each step. NULL, *count 0, of what
// is not sparse.
const uint32_t *pm_plan_rows(const pm_plan *plan, size_t param, size_t *count);
size_t pm_plan_most_rows(const pm_plan *plan, size_t param);

// Where the caller writes the parameter's current values; filled with the graph's initial values at first,
// unless it is sparse.
float *pm_plan_param(pm_plan *plan, size_t param);

// The block's sum after the last step: of the gradient, or, for a statistic, of the lanes' batch means or
// population variances (divide by the number of lanes). NULL of what is frozen.
const float *pm_plan_gradient(const pm_plan *plan, size_t param);

// From the next step on a parameter's gradient is made at memory (count floats, PM_ALIGN-aligned, the
// caller's, used until the next call), where pm_plan_gradient finds it. NULL: in the plan's own memory, as at
// first; there it stays where the parameter is sparse, or has no influence on the loss.
void pm_plan_bind_gradient(pm_plan *plan, size_t param, float *memory);

// Forward, loss, backward. PM_NOT_FINITE when the loss is not finite: the message names the step and the
// first node whose output holds NaN or infinity, and no after_gradient hook is called. PM_INVALID on a class
// out of range or a block that does not fit the plan.
pm_status pm_plan_step(pm_plan *plan, pm_step *step) PM_CHECKED;

// --- inference: the one evaluation path, of the trainer's validation and of serving alike

// A plan for at most max_rows rows. PM_UNSUPPORTED names a node whose output's shape depends on data.
// Parameters are bound to the graph's initial values where it has them.
pm_status pm_plan_create_inference(pm_plan **plan, const pm_graph *graph, uint32_t max_rows) PM_CHECKED;

// The same with options.
pm_status pm_plan_create_inference_with(pm_plan **plan, const pm_graph *graph, uint32_t max_rows,
                                        const pm_plan_options *options) PM_CHECKED;

// Reads the parameter from values (count floats, 4-byte aligned) from now on, without copying: memory-mapped
// weights or another plan's pm_plan_param. values must outlive the plan or the next bind.
pm_status pm_plan_bind(pm_plan *plan, size_t param, const float *values) PM_CHECKED;

// Copies what is bound into the kernels' own layouts: inference is faster from here on and gives the same
// bits. Call it again when bound values have changed (until then the old values are used); a bind undoes it
// for its parameter.
pm_status pm_plan_prepare(pm_plan *plan) PM_CHECKED;

// output (rows, outputs) = the graph at input (rows, row elements), 1 <= rows <= max_rows; Dropout is
// ignored. PM_INVALID when a parameter is unbound.
pm_status pm_plan_infer(pm_plan *plan, const float *input, uint32_t rows, float *output) PM_CHECKED;

// The same for a graph of any number of inputs and outputs, each in its type: inputs[i] (rows, row elements
// of input i), outputs[i] likewise.
pm_status pm_plan_run(pm_plan *plan, const void *const *inputs, uint32_t rows,
                      void *const *outputs) PM_CHECKED;

// Bytes reserved at creation.
size_t pm_plan_bytes(const pm_plan *plan);

// The same without any sharing of memory between buffers: what planning saves.
size_t pm_plan_bytes_unshared(const pm_plan *plan);

// Frees the plan and sets *plan to NULL; NULL is allowed.
void pm_plan_destroy(pm_plan **plan);
