#pragma once
// The losses that a training plan knows: their names in a job, what a row's target is, and the operator.
//
//   softmax_cross_entropy   -log softmax(x)[class]; x (classes)
//   soft_cross_entropy      the same against a weight for each class
//   mean_squared_error      mean of (x - t)^2
//   l1                      mean of |x - t|
//   binary_cross_entropy    mean of log(1 + exp(x)) - x t, t in [0, 1]: x are logits
//   bpr                     mean over the other outputs j of log(1 + exp(x_j - x_class)): the class is the
//   item
//                           that was chosen (Rendle et al. 2009, Bayesian personalized ranking)
//
// Each is the row's; a step's is the mean over its rows.
#include "core/job.h"

#include <stdbool.h>

typedef enum pm_target {
    PM_TARGET_CLASS, // int32: one of the outputs
    PM_TARGET_VALUES // float32, as many as outputs
} pm_target;

typedef struct pm_loss_kind {
    const char *name, *op; // op: of the domain "paramill"
    pm_target target;
    bool judges; // it says of each row whether the output is right
} pm_loss_kind;

const pm_loss_kind *pm_loss_kind_of(pm_loss loss);

// By name; false when there is none.
bool pm_loss_find(const char *name, pm_loss *loss);
