#pragma once
// Gradients of a whole graph against central differences of its loss.
#include "tests/unit/nets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GRADIENTS_ROWS = 3 }; // of a lane

// The loss at the parameters moved by factor along direction.
static inline double gradients_loss_along(pm_plan *plan, const pm_graph *graph, size_t param,
                                          const float *direction, double factor)
{
    float *values = pm_plan_param(plan, param);
    const float *initial = pm_graph_param(graph, param)->initial;
    size_t count = pm_graph_param(graph, param)->count;
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((double)initial[i] + factor * (double)direction[i]);
    pm_step step = {.seed = 5, .step = 2, .lane_count = 2};
    NETS_OK(pm_plan_step(plan, &step));
    memcpy(values, initial, count * sizeof *values);
    return step.loss / (2 * GRADIENTS_ROWS);
}

// Compares the slope of the loss along (gradient + noise), normalized, with central differences.
static inline void gradients_check_param(pm_plan *plan, const pm_graph *graph, size_t param,
                                         const float *gradient)
{
    const pm_param *p = pm_graph_param(graph, param);
    float *direction = malloc(p->count * sizeof *direction);
    double norm = 0, slope = 0, length = 0;
    for (size_t i = 0; i < p->count; i++)
        norm += (double)gradient[i] * (double)gradient[i];
    norm = sqrt(norm);
    for (size_t i = 0; i < p->count; i++) {
        direction[i] = (float)((double)gradient[i] / (norm + 1e-12) +
                               (double)nets_number(77 + param, i) / sqrt((double)p->count));
        length += (double)direction[i] * (double)direction[i];
    }
    for (size_t i = 0; i < p->count; i++) {
        direction[i] = (float)((double)direction[i] / sqrt(length));
        slope += (double)direction[i] * (double)gradient[i];
    }
    const double h = 2e-3;
    double measured = (gradients_loss_along(plan, graph, param, direction, h) -
                       gradients_loss_along(plan, graph, param, direction, -h)) /
                      (2 * h);
    cr_expect(fabs(measured - slope) <= 1e-4 + 1e-2 * fabs(slope), "%s: slope %g, measured %g", p->name,
              slope, measured);
    free(direction);
}

// Checks every trained parameter over two lanes; takes over the graph.
static inline void gradients_check(pm_graph *graph, pm_loss loss)
{
    pm_plan *plan = NULL;
    NETS_OK(pm_plan_create_training(&plan, graph, loss, GRADIENTS_ROWS, 2, 2 * GRADIENTS_ROWS));
    nets_fill(plan, graph, loss, GRADIENTS_ROWS, 0, 2);
    pm_step step = {.seed = 5, .step = 2, .lane_count = 2};
    NETS_OK(pm_plan_step(plan, &step));
    size_t count = pm_graph_param_count(graph);
    float **gradients = calloc(count + 1, sizeof *gradients);
    for (size_t i = 0; i < count; i++) {
        gradients[i] = malloc(pm_graph_param(graph, i)->count * sizeof(float));
        if (!pm_graph_param(graph, i)->frozen)
            memcpy(gradients[i], pm_plan_gradient(plan, i), pm_graph_param(graph, i)->count * sizeof(float));
    }
    for (size_t i = 0; i < count; i++) {
        if (pm_graph_param(graph, i)->kind == PM_PARAM_TRAINED && !pm_graph_param(graph, i)->frozen)
            gradients_check_param(plan, graph, i, gradients[i]);
        free(gradients[i]);
    }
    free(gradients);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
}
