// A plan as a picture: each task a box on the left, with lines to the tasks that read what it makes; on the
// right the reservation, bytes across and tasks downward, so that a row shows what is there while its task
// runs.
#include "cli/plan_print.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW = 22,
    TOP = 64,
    BOX = 300,
    BOX_LEFT = 150,
    MAP_LEFT = 500,
    MAP = 700,
    RIGHT = 20,
    MOST_ROWS = 20000
};

typedef struct picture {
    FILE *file;
    const pm_plan_report *report;
    size_t rows;
    double per_byte;
    uint32_t *makers; // (values): the task, or UINT32_MAX
} picture;

static void put_text(FILE *file, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", file);
            break;
        case '>':
            fputs("&gt;", file);
            break;
        case '&':
            fputs("&amp;", file);
            break;
        case '"':
            fputs("&quot;", file);
            break;
        default:
            fputc((unsigned char)*text < ' ' ? '?' : *text, file);
        }
}

static double row_top(size_t task)
{
    return TOP + (double)task * ROW;
}

// A line on the left of the boxes, the further out the longer it is.
static void draw_edge(const picture *p, uint32_t from, uint32_t to)
{
    const double y0 = row_top(from) + ROW - 6, y1 = row_top(to) + 4;
    const uint32_t span = to - from;
    const double out = span == 1 ? 0 : 14 + 124.0 * span / (span + 12.0);
    if (span == 1)
        fprintf(p->file, "<path d='M%d %.1fV%.1f' class='edge'/>\n", BOX_LEFT + 12, y0, y1);
    else
        fprintf(p->file, "<path d='M%d %.1fC%.1f %.1f %.1f %.1f %d %.1f' class='edge'/>\n", BOX_LEFT, y0,
                BOX_LEFT - out, y0, BOX_LEFT - out, y1, BOX_LEFT, y1);
}

static void draw_task(const picture *p, size_t index)
{
    const pm_plan *plan = p->report->plan;
    const pm_task_view task = pm_plan_task(plan, index);
    char shape[64] = "";
    for (uint32_t i = 0; i < task.output_count; i++)
        if (task.outputs[i] != UINT32_MAX) {
            const pm_value_view v = pm_plan_value(plan, task.outputs[i]);
            pm_plan_print_shape(&v, shape);
            break;
        }
    for (uint32_t i = 0; i < task.input_count; i++)
        if (task.inputs[i] != UINT32_MAX && p->makers[task.inputs[i]] < index)
            draw_edge(p, p->makers[task.inputs[i]], (uint32_t)index);
    fprintf(p->file, "<rect x='%d' y='%.1f' width='%d' height='%d' rx='3' class='%s'><title>", BOX_LEFT,
            row_top(index) + 2, BOX, ROW - 4,
            task.view       ? "alias"
            : task.backward ? "backward"
                            : "forward");
    put_text(p->file, task.node);
    fprintf(p->file, ": %.3f MFLOP, %llu bytes moved", (double)task.flops / 1e6,
            (unsigned long long)task.moved);
    if (p->report->median_ns)
        fprintf(p->file, ", %.1f us", (double)p->report->median_ns[index] / 1e3);
    fprintf(p->file, "</title></rect>\n<text x='%d' y='%.1f'>%zu ", BOX_LEFT + 6, row_top(index) + 15, index);
    put_text(p->file, task.op);
    fputc(' ', p->file);
    put_text(p->file, shape);
    if (p->report->median_ns && !task.view)
        fprintf(p->file, "<tspan class='time'> %.1f us</tspan>", (double)p->report->median_ns[index] / 1e3);
    fputs("</text>\n", p->file);
}

static void draw_piece(const picture *p, const char *label, const char *kind, size_t offset, size_t bytes,
                       uint32_t first, uint32_t last)
{
    const double x = MAP_LEFT + (double)offset * p->per_byte, width = (double)bytes * p->per_byte;
    const size_t end = last < p->rows ? last + 1 : p->rows;
    fprintf(p->file, "<rect x='%.2f' y='%.1f' width='%.2f' height='%.1f' class='%s'><title>", x,
            row_top(first), width, row_top(end) - row_top(first), kind);
    put_text(p->file, label);
    fprintf(p->file, ": %zu bytes at %zu, tasks %u to %u</title></rect>\n", bytes, offset, first, last);
    const int letters = (int)((width - 6) / 6.5);
    if (letters < 3)
        return;
    char text[65];
    snprintf(text, sizeof text, "%.*s", letters < 64 ? letters : 64, label);
    fprintf(p->file, "<text x='%.2f' y='%.1f'>", x + 3, row_top(first) + 15);
    put_text(p->file, text);
    fputs("</text>\n", p->file);
}

static void draw_memory(const picture *p)
{
    const pm_plan *plan = p->report->plan;
    char bytes[16], name[64];
    fprintf(p->file, "<text x='%d' y='%d'>memory over time: %s across, tasks downward</text>\n", MAP_LEFT,
            TOP - 10, pm_plan_print_bytes(pm_plan_peak(plan), bytes));
    fprintf(p->file, "<rect x='%d' y='%d' width='%d' height='%zu' class='ground'/>\n", MAP_LEFT, TOP, MAP,
            p->rows * ROW);
    for (size_t i = 0; i < pm_plan_values(plan); i++) {
        const pm_value_view v = pm_plan_value(plan, i);
        if (v.root == i && v.first <= v.last && (v.place == PM_VALUE_KEPT || v.place == PM_VALUE_SHARED))
            draw_piece(p, pm_plan_print_name(plan, (uint32_t)i, name),
                       v.place == PM_VALUE_KEPT ? "kept" : "shared", v.offset, v.bytes, v.first, v.last);
    }
    for (size_t i = 0; i < p->rows; i++) {
        const pm_task_view task = pm_plan_task(plan, i);
        if (task.scratch_bytes)
            draw_piece(p, task.node, "scratch", task.scratch_offset, task.scratch_bytes, (uint32_t)i,
                       (uint32_t)i);
        if (task.packed_bytes)
            draw_piece(p, task.node, "packed", task.packed_offset, task.packed_bytes, 0, (uint32_t)p->rows);
    }
}

static void draw(const picture *p)
{
    fprintf(p->file,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%zu' font-family='sans-serif' "
            "font-size='11'>\n<style>\n"
            ".forward{fill:#d6e6f7;stroke:#4a78a8}.backward{fill:#f7e3cf;stroke:#b3742c}"
            ".alias{fill:#fff;stroke:#999;stroke-dasharray:3 2}.edge{fill:none;stroke:#889}"
            ".ground{fill:#f4f4f4;stroke:#bbb}.kept{fill:#c9c4e4;stroke:#665d9c}"
            ".shared{fill:#bfe0c0;stroke:#3f8044}.scratch{fill:#f5d76e;stroke:#a88a1d}"
            ".packed{fill:#e4c4d8;stroke:#93527a}.time{fill:#a33}\n</style>\n"
            "<rect width='100%%' height='100%%' fill='#fff'/>\n<text x='%d' y='24' font-size='15'>",
            MAP_LEFT + MAP + RIGHT, TOP + p->rows * ROW + RIGHT, BOX_LEFT);
    put_text(p->file, p->report->title);
    fprintf(p->file,
            "</text>\n<text x='%d' y='%d'>blue forward, orange backward, dashed alias; memory: violet kept, "
            "green shared over time, yellow scratch, pink packed</text>\n",
            BOX_LEFT, 42);
    for (size_t i = 0; i < p->rows; i++)
        draw_task(p, i);
    draw_memory(p);
    fputs("</svg>\n", p->file);
}

pm_status pm_plan_print_svg(const pm_plan_report *report, const char *path)
{
    const pm_plan *plan = report->plan;
    const size_t values = pm_plan_values(plan), peak = pm_plan_peak(plan);
    picture p = {.report = report,
                 .rows = pm_plan_tasks(plan),
                 .per_byte = peak ? MAP / (double)peak : 0,
                 .makers = malloc((values + 1) * sizeof(uint32_t))};
    if (!p.makers || p.rows > MOST_ROWS) {
        free(p.makers);
        return pm_fail(p.makers ? PM_UNSUPPORTED : PM_NO_MEMORY, "a picture of %zu tasks", p.rows);
    }
    memset(p.makers, 0xff, values * sizeof *p.makers);
    for (size_t i = 0; i < p.rows; i++) {
        const pm_task_view task = pm_plan_task(plan, i);
        for (uint32_t k = 0; k < task.output_count; k++)
            if (task.outputs[k] != UINT32_MAX)
                p.makers[task.outputs[k]] = (uint32_t)i;
    }
    pm_status status = pm_ok();
    p.file = fopen(path, "w");
    if (!p.file) {
        status = pm_fail_errno("%s", path);
    } else {
        draw(&p);
        const bool failed = ferror(p.file);
        if (fclose(p.file) != 0 || failed)
            status = pm_fail(PM_IO, "%s: %s", path, strerror(errno));
    }
    free(p.makers);
    return status;
}
