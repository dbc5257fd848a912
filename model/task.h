#pragma once
// One node of a program as it runs. A step or request runs lanes: each value is either shared (one for all
// lanes: parameters, constants, what follows from them alone) or stacked (lanes contiguous: (lanes, shape of
// one lane)). An operator always knows how to run one lane; one whose lanes are independent may say that it
// takes all of them in one call. Either way a lane's bits must not depend on how many lanes there are.
#include "model/kernels.h"
#include "model/operators.h"

typedef struct pm_step pm_step;

struct pm_task {
    const pm_node *node;
    const pm_kernels *kernels;
    pm_region *region; // for detail
    bool training;
    pm_precision precision; // of a training plan
    uint32_t max_lanes;
    const pm_tensor **in, **out; // of one lane; NULL where left out
    bool *shared;                // (inputs)

    // Set by the operator's plan:
    const void *detail; // its own, prepared
    size_t scratch_bytes;
    size_t packed_bytes; // of frozen inputs in a layout of their own; inference only
    bool whole;          // run takes all lanes at once; else one a call
    bool joins;          // and looks at all there are: what it makes is one for all
    bool alone;          // and wants all there are: each call reads much that is frozen
    bool pairs;          // rounds its operands to bfloat16
    size_t part;         // elements of output 0 that one call of a lane sum makes; 0: all
    size_t unit;         // not 0: a call may as well make any multiple of so many, with the same bits

    // The executor's:
    bool is_shared, sums_lanes, prepared;
    const void **inputs; // memory of lane 0
    void **outputs;
    size_t *input_stride, *output_stride; // bytes from lane to lane; 0 when shared
    const void **lane_inputs;             // (threads, inputs): where a thread's call reads
    void **lane_outputs;                  // (threads, outputs): and writes
    uint64_t lane_ns;                     // about what a lane takes
    void *scratch;                        // (threads, scratch_bytes, aligned)
    float *packed;
};

// One call of an operator's run.
struct pm_call {
    const void *const *in; // memory of the inputs; NULL where left out
    void *const *out;      // NULL where left out or not wanted
    size_t lanes;          // side by side in stacked inputs and in outputs
    void *scratch;
    const float *packed; // NULL: not packed
    size_t first,
        count; // elements of output 0 to be made (all unless the plan set part); out[0] is the first
    uint64_t seed, step; // for random numbers, with the lane's number
    uint32_t first_lane;
};

// The task of a program's node with everything set but what the operator's plan and the executor set; lists
// live in region. sums_lanes: its output 0 is the sum over lanes. threads: that may run it at once.
pm_status pm_task_make(pm_task *task, const pm_graph *program, const pm_node *node, bool sums_lanes,
                       bool training, uint32_t max_lanes, uint32_t threads, pm_region *region) PM_CHECKED;

// Whether every input that is there is stacked.
bool pm_task_is_stacked(const pm_task *task);

// A plan for operators whose lanes are independent and whose run counts on every input being stacked: whole
// where that is so.
pm_status pm_task_plan_whole(pm_task *task) PM_CHECKED;

// Lets the operator plan the task.
pm_status pm_task_plan(pm_task *task) PM_CHECKED;

// Runs a node of constants at once and leaves the output's elements in tensor->data (of region). For nodes of
// one output.
pm_status pm_task_fold(const pm_graph *program, const pm_node *node, pm_tensor *output,
                       pm_region *region) PM_CHECKED;
