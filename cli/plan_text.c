// A plan as two tables: tasks in order, buffers; and totals.
#include "cli/plan_print.h"

#include <inttypes.h>

typedef struct totals {
    uint64_t flops, moved, constants, bound, shared_sum;
    int64_t nanoseconds;
} totals;

const char *pm_plan_print_name(const pm_plan *plan, uint32_t value, char text[64])
{
    const char *name = pm_plan_value(plan, value).name;
    if (name && name[0])
        snprintf(text, 64, "%s", name);
    else
        snprintf(text, 64, "%%%u", value);
    return text;
}

const char *pm_plan_print_shape(const pm_value_view *value, char text[64])
{
    size_t at = (size_t)snprintf(text, 64, "(");
    for (uint32_t d = 0; d < value->rank && at < 64; d++)
        at += (size_t)snprintf(text + at, 64 - at, d ? ", %" PRId64 : "%" PRId64, value->shape[d]);
    if (at < 64)
        snprintf(text + at, 64 - at, ")");
    return text;
}

const char *pm_plan_print_bytes(uint64_t bytes, char text[16])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double amount = (double)bytes;
    size_t unit = 0;
    for (; amount >= 1000 && unit + 1 < sizeof units / sizeof units[0]; unit++)
        amount /= 1000;
    snprintf(text, 16, unit && amount < 100 ? "%.1f %s" : "%.0f %s", amount, units[unit]);
    return text;
}

static totals sum_up(const pm_plan_report *r)
{
    totals t = {0};
    for (size_t i = 0; i < pm_plan_tasks(r->plan); i++) {
        const pm_task_view task = pm_plan_task(r->plan, i);
        t.flops += task.flops;
        t.moved += task.moved;
        t.nanoseconds += r->median_ns ? r->median_ns[i] : 0;
    }
    for (size_t i = 0; i < pm_plan_values(r->plan); i++) {
        const pm_value_view v = pm_plan_value(r->plan, i);
        t.constants += v.place == PM_VALUE_CONSTANT ? v.bytes : 0;
        t.bound += v.place == PM_VALUE_BOUND && v.root == i ? v.bytes : 0;
    }
    return t;
}

static void print_values(const pm_plan *plan, const uint32_t *values, uint32_t count, FILE *stream)
{
    char name[64], shape[64];
    bool first = true;
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] == UINT32_MAX)
            continue;
        const pm_value_view v = pm_plan_value(plan, values[i]);
        fprintf(stream, "%s%s %s%s", first ? "" : ", ", pm_plan_print_name(plan, values[i], name), v.type,
                pm_plan_print_shape(&v, shape));
        first = false;
    }
}

static void print_tasks(const pm_plan_report *r, const totals *sum, FILE *stream)
{
    fprintf(stream, "\ntasks: node (operator), MFLOP, bytes moved%s; shapes are of one lane\n",
            r->median_ns ? ", microseconds, share, GFLOP/s" : "");
    for (size_t i = 0; i < pm_plan_tasks(r->plan); i++) {
        const pm_task_view task = pm_plan_task(r->plan, i);
        char bytes[16];
        fprintf(stream, "%4zu %c %s (%s)  %.3f  %s", i, task.backward ? 'b' : 'f', task.node, task.op,
                (double)task.flops / 1e6, pm_plan_print_bytes(task.moved, bytes));
        if (task.view)
            fputs("  alias", stream);
        if (task.once)
            fputs("  once", stream);
        if (task.pairs)
            fputs("  bf16", stream);
        if (r->median_ns && !task.view) {
            const double ns = (double)r->median_ns[i];
            fprintf(stream, "  %.1f us  %.1f %%", ns / 1e3,
                    sum->nanoseconds > 0 ? 100 * ns / (double)sum->nanoseconds : 0);
            if (ns > 0 && task.flops > 0)
                fprintf(stream, "  %.1f", (double)task.flops / ns);
        }
        fputs("\n         ", stream);
        print_values(r->plan, task.inputs, task.input_count, stream);
        fputs(" -> ", stream);
        print_values(r->plan, task.outputs, task.output_count, stream);
        fputc('\n', stream);
    }
}

static void print_piece(FILE *stream, const char *name, const char *place, size_t offset, size_t bytes,
                        uint32_t first, uint32_t last)
{
    fprintf(stream, "%12zu %12zu  %4u - %-4u  %-6s  %s", offset, bytes, first, last, place, name);
}

static void print_buffers(const pm_plan *plan, FILE *stream)
{
    fputs("\nbuffers: offset, bytes for the lanes there at once, first - last task, place, value\n", stream);
    for (size_t i = 0; i < pm_plan_values(plan); i++) {
        const pm_value_view v = pm_plan_value(plan, i);
        char name[64], root[64];
        if ((v.place != PM_VALUE_KEPT && v.place != PM_VALUE_SHARED) || v.first > v.last)
            continue;
        pm_plan_print_name(plan, (uint32_t)i, name);
        print_piece(stream, name, v.place == PM_VALUE_KEPT ? "kept" : "shared", v.offset, v.bytes, v.first,
                    v.last);
        if (v.root != i)
            fprintf(stream, " in the place of %s", pm_plan_print_name(plan, v.root, root));
        fputc('\n', stream);
    }
    for (size_t i = 0; i < pm_plan_tasks(plan); i++) {
        const pm_task_view task = pm_plan_task(plan, i);
        if (task.scratch_bytes) {
            print_piece(stream, task.node, "scratch", task.scratch_offset, task.scratch_bytes, (uint32_t)i,
                        (uint32_t)i);
            fputc('\n', stream);
        }
        if (task.packed_bytes) {
            print_piece(stream, task.node, "packed", task.packed_offset, task.packed_bytes, 0,
                        (uint32_t)pm_plan_tasks(plan));
            fputc('\n', stream);
        }
    }
}

void pm_plan_print_text(const pm_plan_report *r, FILE *stream)
{
    const totals sum = sum_up(r);
    char a[16], b[16], c[16];
    fprintf(stream, "%s: %zu tasks\n", r->title, pm_plan_tasks(r->plan));
    print_tasks(r, &sum, stream);
    print_buffers(r->plan, stream);
    fprintf(stream, "\ntotal  %.3f MFLOP, %s moved, constants %s, bound %s\n", (double)sum.flops / 1e6,
            pm_plan_print_bytes(sum.moved, a), pm_plan_print_bytes(sum.constants, b),
            pm_plan_print_bytes(sum.bound, c));
    if (r->median_ns && sum.nanoseconds > 0)
        fprintf(stream, "time   %.1f us a run (sum of medians of %u), %.1f GFLOP/s\n",
                (double)sum.nanoseconds / 1e3, r->repetitions, (double)sum.flops / (double)sum.nanoseconds);
    fprintf(stream, "peak   %zu bytes (%s); reserved %zu; without sharing %zu\n", pm_plan_peak(r->plan),
            pm_plan_print_bytes(pm_plan_peak(r->plan), a), pm_plan_bytes(r->plan),
            pm_plan_bytes_unshared(r->plan));
    if (pm_plan_segments(r->plan) > 1)
        fprintf(stream,
                "the forward pass is made in %u segments, all but the last again for the backward pass\n",
                pm_plan_segments(r->plan));
}
