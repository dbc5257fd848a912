#include "cli/progress.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { TERMINAL_MS = 200, LINE_MS = 2000 };

static void line_over(pm_progress_view *view)
{
    if (view->open)
        fputs("\r\033[K", stdout);
    view->open = false;
}

static void on_phase(void *context, const char *text)
{
    pm_progress_view *view = context;
    line_over(view);
    printf("%s\n", text);
    fflush(stdout);
}

// Nothing where the loss does not judge.
static void print_accuracy(double accuracy)
{
    if (!isnan(accuracy))
        printf("  accuracy %.4f", accuracy);
}

static void on_step(void *context, const pm_progress *p)
{
    pm_progress_view *view = context;
    int64_t now = pm_now_ms(&view->clock);
    if (now - view->shown_ms < (view->terminal ? TERMINAL_MS : LINE_MS) && p->step != p->total_steps)
        return;
    view->shown_ms = now;
    line_over(view);
    printf("epoch %u/%u  step %llu/%llu  loss %.4f", p->epoch, p->epochs, (unsigned long long)p->step,
           (unsigned long long)p->total_steps, p->loss);
    print_accuracy(p->accuracy);
    if (p->images_per_second > 0) // not before there is something to measure
        printf("  %.0f rows/s  %.0f s left", p->images_per_second, p->seconds_left);
    if (!view->terminal)
        putchar('\n');
    view->open = view->terminal;
    fflush(stdout);
}

static void on_validation(void *context, uint64_t clock, double loss, double accuracy, uint64_t rows)
{
    pm_progress_view *view = context;
    line_over(view);
    printf("validation at step %llu: loss %.4f", (unsigned long long)clock, loss);
    print_accuracy(accuracy);
    printf(" on %llu rows\n", (unsigned long long)rows);
    fflush(stdout);
}

static void on_metric(void *context, uint64_t clock, const char *name, double value)
{
    pm_progress_view *view = context;
    line_over(view);
    printf("validation at step %llu: %s %.6f\n", (unsigned long long)clock, name, value);
    fflush(stdout);
}

static void on_version(void *context, uint64_t version, uint64_t step)
{
    pm_progress_view *view = context;
    line_over(view);
    printf("published version %llu of step %llu\n", (unsigned long long)version, (unsigned long long)step);
    fflush(stdout);
}

pm_coordinator_events pm_progress_events(pm_progress_view *view)
{
    *view = (pm_progress_view){.terminal = isatty(STDOUT_FILENO), .clock = pm_clock_monotonic()};
    return (pm_coordinator_events){view, on_phase, on_step, on_validation, on_metric, on_version, NULL};
}

void pm_progress_end(pm_progress_view *view)
{
    line_over(view);
    fflush(stdout);
}
