// paramill plan: what running a model will take, before it runs, and on demand what it took.
#include "cli/commands.h"
#include "cli/plan_print.h"
#include "cli/plan_profile.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: paramill plan MODEL.onnx|JOB.yaml [--rows N] [--training] [--memory MIB]\n"
    "                     [--threads N] [--profile] [--svg FILE]\n"
    "the tasks of a model in order, their shapes, operations and bytes, every buffer's place and lifetime,\n"
    "and the peak of memory\n"
    "  --rows N     rows of a request, or of a training step (the job's batch, else 32)\n"
    "  --training   a training step with loss and gradients: a job's loss and lanes, else one lane of\n"
    "               cross-entropy (outputs that are vectors) or mean squared error\n"
    "  --memory MIB the most a training step may take, in MiB: activations are made again rather than kept,\n"
    "               as many as that needs\n"
    "  --threads N  that share the work (the job's worker_threads, else 1)\n"
    "  --profile    runs it on random numbers and prints the median time of each task\n"
    "  --svg FILE   draws the graph and the memory over time\n";

enum { ROWS_MAX = 1 << 20, MEMORY_MAX = 1 << 24, REPETITIONS = 21 };

typedef struct arguments {
    const char *model, *svg;
    uint32_t rows;       // 0: not said
    uint32_t memory_mib; // 0: the job's
    uint32_t threads;    // 0: the job's
    bool training, profile;
} arguments;

typedef struct source {
    pm_job *job; // NULL: an ONNX file
    pm_graph *graph;
    pm_loss loss;
    pm_precision precision;
    uint32_t rows, lanes;
    uint32_t memory_mib; // of a training step; 0: what the machine has
    uint32_t threads;
} source;

static bool is_job(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

static pm_status read_onnx(source *s, const char *path)
{
    pm_status status = pm_graph_load_onnx(&s->graph, path, NULL);
    if (status.code != PM_OK)
        return status;
    uint32_t rank = 0;
    (void)pm_graph_output_shape(s->graph, &rank);
    s->loss = rank == 1 ? PM_LOSS_SOFTMAX_CROSS_ENTROPY : PM_LOSS_MEAN_SQUARED_ERROR;
    s->lanes = 1;
    s->rows = 32;
    return status;
}

static pm_status read_source(source *s, const arguments *a)
{
    if (!is_job(a->model))
        return read_onnx(s, a->model);
    pm_status status = pm_job_load(&s->job, a->model);
    if (status.code == PM_OK)
        status = pm_wrap(pm_graph_from_job(&s->graph, s->job), "%s", a->model);
    if (status.code != PM_OK)
        return status;
    s->loss = s->job->loss;
    s->precision = s->job->precision;
    s->lanes = a->training ? s->job->lanes : 1;
    s->rows = s->job->batch;
    s->memory_mib = s->job->cluster.worker_memory_mib;
    s->threads = s->job->cluster.worker_threads;
    return status;
}

static pm_status make_plan(pm_plan **plan, const source *s, bool training)
{
    const pm_plan_options options = {.most_bytes = training ? (size_t)s->memory_mib << 20 : 0,
                                     .threads = s->threads,
                                     .precision = s->precision};
    if (!training)
        return pm_plan_create_inference_with(plan, s->graph, s->rows, &options);
    if (s->rows % s->lanes != 0)
        return pm_fail(PM_INVALID, "%u rows are not divisible by the job's %u lanes", s->rows, s->lanes);
    const uint32_t rows = s->rows / s->lanes;
    return pm_plan_create_training_with(plan, s->graph, s->loss, rows, s->lanes, s->rows, &options);
}

static pm_status show(const arguments *a)
{
    source s = {0};
    pm_plan *plan = NULL;
    pm_threads *threads = NULL;
    int64_t *median_ns = NULL;
    char title[320];
    pm_status status = read_source(&s, a);
    s.rows = a->rows ? a->rows : s.rows;
    s.memory_mib = a->memory_mib ? a->memory_mib : s.memory_mib;
    s.threads = a->threads ? a->threads : s.threads ? s.threads : 1;
    if (status.code == PM_OK)
        status = make_plan(&plan, &s, a->training);
    if (status.code == PM_OK)
        status = pm_threads_create(&threads, s.threads);
    if (status.code == PM_OK)
        status = pm_plan_set_threads(plan, threads);
    if (status.code == PM_OK && a->profile)
        status = pm_plan_profile(
            plan, s.graph,
            (pm_plan_profile_options){
                .training = a->training, .rows = s.rows, .lanes = s.lanes, .repetitions = REPETITIONS},
            &median_ns);
    snprintf(title, sizeof title, "%s: %s, %u rows in %u %s, kernels %s", a->model,
             !a->training                       ? "inference"
             : s.precision == PM_PRECISION_BF16 ? "training step in bf16"
                                                : "training step in f32",
             s.rows, a->training ? s.lanes : s.rows, a->training && s.lanes == 1 ? "lane" : "lanes",
             pm_kernel_set(a->training ? s.precision : PM_PRECISION_F32));
    const pm_plan_report report = {
        .plan = plan, .title = title, .median_ns = median_ns, .repetitions = REPETITIONS};
    if (status.code == PM_OK)
        pm_plan_print_text(&report, stdout);
    if (status.code == PM_OK && a->svg)
        status = pm_plan_print_svg(&report, a->svg);
    free(median_ns);
    pm_plan_destroy(&plan);
    pm_threads_destroy(&threads);
    pm_graph_destroy(&s.graph);
    pm_job_destroy(&s.job);
    return status;
}

static bool parse_number(const char *text, uint32_t most, uint32_t *number)
{
    char *end = NULL;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    *number = (uint32_t)value;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && value > 0 && value <= most;
}

int pm_cli_plan(int argc, char **argv)
{
    static const struct option options[] = {
        {"rows", required_argument, NULL, 'r'},   {"training", no_argument, NULL, 't'},
        {"memory", required_argument, NULL, 'm'}, {"threads", required_argument, NULL, 'n'},
        {"profile", no_argument, NULL, 'p'},      {"svg", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    arguments a = {0};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        a.training = a.training || c == 't';
        a.profile = a.profile || c == 'p';
        if (c == 's')
            a.svg = optarg;
        if (c == 'r' && !parse_number(optarg, ROWS_MAX, &a.rows))
            return pm_cli_finish("plan", pm_fail(PM_INVALID, "--rows %s: wanted 1 to %d", optarg, ROWS_MAX));
        if (c == 'm' && !parse_number(optarg, MEMORY_MAX, &a.memory_mib))
            return pm_cli_finish("plan",
                                 pm_fail(PM_INVALID, "--memory %s: wanted 1 to %d MiB", optarg, MEMORY_MAX));
        if (c == 'n' && !parse_number(optarg, PM_THREADS_MAX, &a.threads))
            return pm_cli_finish("plan",
                                 pm_fail(PM_INVALID, "--threads %s: wanted 1 to %d", optarg, PM_THREADS_MAX));
        if (c == 'h' || c == '?')
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
    }
    if (optind + 1 != argc)
        return fputs(USAGE, stderr), 2;
    a.model = argv[optind];
    if (a.memory_mib && !a.training)
        return pm_cli_finish("plan",
                             pm_fail(PM_INVALID, "--memory is for --training: requests keep nothing"));
    return pm_cli_finish("plan", show(&a));
}
