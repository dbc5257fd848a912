#pragma once
// The inside of a pm_plan, for the files of this room only.
#include "core/arena.h"
#include "model/buffers.h"
#include "model/plan.h"
#include "model/program_sparse.h"
#include "model/task.h"

enum { PM_MAX_TREE = 9 }; // levels of a tree over PM_MAX_LANES lanes, and one

// Where a root's memory is.
typedef enum pm_place {
    PM_PLACE_ACTIVATION, // shares the arena with what lives at other times
    PM_PLACE_KEPT,       // has a place of its own in the arena
    PM_PLACE_BOUND       // somebody else's: constants, bound parameters, a request's inputs and outputs
} pm_place;

// A hook's call before or after a task.
typedef struct pm_event {
    uint32_t task, param;
} pm_event;

// Tasks that run together over block lanes at a time (plan_groups.c).
typedef struct pm_group {
    uint32_t first, count; // tasks
    uint32_t block;
} pm_group;

struct pm_plan {
    const pm_graph *graph; // the source
    pm_graph *program;
    pm_region *region; // lists and the tasks' details
    const pm_kernels *kernels;
    const pm_tensor *given; // of an evaluation: its inputs, while the plan is made
    bool training;
    pm_loss loss;
    pm_precision precision; // of training
    uint32_t rows_per_lane, max_lanes;
    uint32_t row_losses; // 1, or one for each place
    uint32_t most_threads;
    pm_threads *threads; // to run on; NULL: the caller's
    size_t most_bytes;   // that may be reserved
    size_t *least;       // the least that refused plans needed, noted for who tries several; NULL
    uint32_t segments;   // of the forward pass; see model/program_recompute.h
    float loss_scale;    // 1 / losses of the step
    pm_task *tasks;
    size_t task_count, forward_count; // the rest is backward
    pm_group *groups;
    size_t group_count;
    uint32_t *group_of;        // (tasks)
    bool *local;               // (program values), of roots: lives inside a group
    uint32_t *block_lanes;     // (program values), of local roots: their group's block for each thread
    uint32_t *roots;           // (program values): the value in whose memory it lies
    pm_place *places;          // (program values), of roots
    void **memory;             // (program values), of roots; NULL while not bound
    bool *direct;              // (outputs): made in the caller's memory, not copied there
    uint32_t *gradient_values; // (params), or PM_NO_VALUE
    float **gradients;         // (params); training
    float **own_gradients;     // (params): the plan's memory of those that can be bound elsewhere, or NULL
    bool rebound;              // gradients were, since tasks were connected
    pm_sparse_values *sparse;  // (params); training
    uint32_t rows_known;       // tasks after which the rows of sparse parameters are known; 0: there are none
    pm_event *before, *after;  // by task
    size_t before_count, after_count;
    uint32_t target, row_loss, correct; // values; training
    float *tree;                        // (threads, slots, count): partial sums
    uint32_t tree_slots;                // a thread's: the tree's upper levels, and one for its share
    size_t tree_count;                  // floats of one
    bool frozen;                        // inference: what follows from parameters alone is there
    pm_lifetime *lifetimes;             // (program values, then tasks' scratch): first, last; of roots
    pm_arena *arena;
    unsigned char *base, *shared; // of the reservation, of its part that is shared over time
    size_t bytes_unshared;
    // The step or request that runs.
    uint32_t lanes;
    pm_step *step;
    // Timing, where it is asked for.
    int64_t (*now_ns)(void);
    int64_t *nanoseconds; // (tasks)
};

static inline void *pm_plan_memory(const pm_plan *plan, uint32_t value)
{
    return plan->memory[plan->roots[value]];
}

// How many lanes of the value are there at once.
static inline uint32_t pm_plan_lanes_of(const pm_plan *plan, uint32_t value)
{
    const uint32_t root = plan->roots[value];
    return plan->program->values[value].shared ? 1
           : plan->local[root]                 ? plan->block_lanes[root]
                                               : plan->max_lanes;
}

// Reads roots and memory into the tasks' pointers.
void pm_plan_connect(pm_plan *plan);

// Runs one task over the plan's lanes.
void pm_plan_run_task(pm_plan *plan, pm_task *task);

// Runs the tasks of a group over the plan's lanes.
void pm_plan_run_group(pm_plan *plan, const pm_group *group);

// --- making a plan

// Finds the groups of the tasks (plan_groups.c).
pm_status pm_plan_group(pm_plan *plan) PM_CHECKED;

// A plan of one lane for a graph on the given inputs (graph inputs); those with data are known already.
pm_status pm_plan_create_evaluation(pm_plan **plan, const pm_graph *graph, const pm_tensor *given) PM_CHECKED;

// Places every buffer and connects the tasks (plan_memory.c).
pm_status pm_plan_place(pm_plan *plan) PM_CHECKED;

// Rewrites the program for the graph's sparse parameters (plan_training.c).
pm_status pm_plan_find_sparse(pm_plan *plan) PM_CHECKED;

// Appends loss and gradient to the plan's program (plan_training.c).
pm_status pm_plan_add_training(pm_plan *plan) PM_CHECKED;

// Finds before which tasks parameters are needed and after which gradients are complete.
pm_status pm_plan_find_events(pm_plan *plan) PM_CHECKED;
