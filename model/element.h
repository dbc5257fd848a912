#pragma once
// Element-wise operators of any type: inputs are broadcast to the output a block at a time, converted to the
// class they are computed in, and a plain loop over the block does the rest. An operator is a line in a table
// of such loops.
#include "model/broadcast.h"
#include "model/convert.h"

// PM_ELEMENT_BOOLS: the loop for bools, which it reads and writes as bytes, follows those of the classes.
enum { PM_ELEMENT_BLOCK = 256, PM_ELEMENT_NUMBERS = 3, PM_ELEMENT_BOOLS = PM_CLASSES, PM_ELEMENT_LOOPS };

// out[i] from in[k][i] for i < n, all in the class; numbers are the operator's settings.
typedef void (*pm_element_loop)(const void *const *in, void *out, size_t n, const double *numbers);

typedef struct pm_element_setting {
    const char *name; // attribute; NULL ends
    double otherwise;
} pm_element_setting;

typedef struct pm_element {
    const char *name;
    pm_element_loop loops[PM_ELEMENT_LOOPS]; // NULL: not built for the class, or for bools
    pm_element_setting settings[PM_ELEMENT_NUMBERS];
} pm_element;

typedef struct pm_element_plan {
    pm_broadcast broadcast;
    const pm_element *element;
    pm_type type;       // of the inputs from first_typed on
    uint32_t raw_bools; // bit i: input i is of bools, which loops read as bytes
    double numbers[PM_ELEMENT_NUMBERS];
} pm_element_plan;

// The element of the table that has the name; NULL when there is none. A NULL name ends a table.
const pm_element *pm_element_find(const pm_element *table, const char *name);

// The element's loop for inputs of the type; NULL when it has none, or there is no element.
pm_element_loop pm_element_loop_for(const pm_element *element, pm_type type);

// Plans the task as an element of inputs inputs computed in type's class; whole.
pm_status pm_element_plan_task(pm_task *task, const pm_element *element, uint32_t inputs,
                               pm_type type) PM_CHECKED;

// The operators' run.
void pm_element_run(const pm_task *task, const pm_call *call);
