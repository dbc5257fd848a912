#pragma once
// The inside of a pm_plan, for the files of this room only.
#include "core/arena.h"
#include "model/blas.h"
#include "model/buffers.h"
#include "model/kernels.h"
#include "model/plan.h"

enum { PM_MAX_TREE = 9 }; // levels of a tree over PM_MAX_LANES lanes, and one

typedef struct pm_task pm_task;

// What the tasks of an operator do; one table entry an operator (model/tasks.h).
typedef struct pm_task_kind {
    // Bytes of scratch for either pass, of state kept from forward to backward, and of prepared weights.
    void (*size)(const pm_plan *plan, pm_task *task);
    void (*forward)(pm_plan *plan, pm_task *task);
    // Parameters' gradients, calling pm_plan_gradient_done for each; then the input's gradient if task->dx.
    pm_status (*backward)(pm_plan *plan, pm_task *task);
    void (*prepare)(pm_plan *plan, pm_task *task); // may be NULL
} pm_task_kind;

// One node as it runs. Pointers to activations are set when the buffers are placed.
struct pm_task {
    const pm_node *node;
    const pm_task_kind *kind;
    pm_window window; // Conv, pools
    const float *x;
    float *y;
    const float *dy;
    float *dx;               // NULL: nobody needs it
    size_t x_count, y_count; // elements of one row
    size_t scratch_bytes, backward_scratch_bytes, state_bytes, packed_bytes;
    void *scratch;          // valid while the task runs forward
    void *backward_scratch; // valid while it runs backward
    void *state;            // from forward to backward
    float *packed;          // prepared weights
    bool prepared;
    size_t tree_count; // floats of its largest tree sum
};

struct pm_plan {
    const pm_graph *graph;
    const pm_kernels *kernels;
    bool training;
    pm_loss loss;
    uint32_t rows_per_lane, max_lanes, max_rows;
    float loss_scale; // 1 / total rows
    pm_task *tasks;
    size_t task_count;
    const float **params; // current values; NULL: unbound
    float **gradients;    // training
    float *input;         // training: (max_rows, inputs)
    void *target;
    float *output_gradient;
    double *row_loss;  // (max_rows)
    uint8_t *correct;  // (max_rows)
    float *tree;       // partial sums of the tree's upper levels
    size_t tree_count; // floats of one level
    pm_arena *arena;
    unsigned char *activations; // the placed buffers
    size_t bytes_unshared;
    // The step or request that runs.
    uint32_t rows, lanes;
    pm_step *step;
};

static inline const float *pm_task_param(const pm_plan *plan, const pm_task *task, uint32_t input)
{
    return plan->params[plan->graph->values[task->node->inputs[input]].param];
}

static inline float *pm_task_gradient(const pm_plan *plan, const pm_task *task, uint32_t input)
{
    return plan->gradients[plan->graph->values[task->node->inputs[input]].param];
}

// Tells the hook that the gradient of the task's parameter is complete.
pm_status pm_plan_gradient_done(pm_plan *plan, const pm_task *task, uint32_t input);

// Leaves in sum (count floats) the tree sum over the running block's lanes of what produce writes for each
// lane.
void pm_plan_tree_sum(pm_plan *plan, float *sum, size_t count,
                      void (*produce)(const void *ctx, uint32_t lane, float *partial), const void *ctx);

// The tasks of an operator.
const pm_task_kind *pm_task_kind_get(pm_operator_id id);
