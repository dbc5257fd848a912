#pragma once
// How paramill plan shows a plan: as text and as a picture.
#include "model/plan_view.h"

#include <stdio.h>

// What is shown of a plan beside the plan itself.
typedef struct pm_plan_report {
    const pm_plan *plan;
    const char *title;        // "fashion-cnn: inference, 32 rows"
    const int64_t *median_ns; // (tasks); NULL: not timed
    uint32_t repetitions;
} pm_plan_report;

// The value's name, or "%12"; text holds 64 bytes.
const char *pm_plan_print_name(const pm_plan *plan, uint32_t value, char text[64]);

// "(8, 3)" of one lane; text holds 64 bytes.
const char *pm_plan_print_shape(const pm_value_view *value, char text[64]);

// "1.5 MB"; text holds 16 bytes.
const char *pm_plan_print_bytes(uint64_t bytes, char text[16]);

void pm_plan_print_text(const pm_plan_report *report, FILE *stream);

// The graph on the left, the memory over time on the right. A failure names the path.
pm_status pm_plan_print_svg(const pm_plan_report *report, const char *path) PM_CHECKED;
