#include "cli/roles.h"

#include "cli/progress.h"
#include "core/metrics.h"
#include "core/quality.h"
#include "model/graph.h"
#include "net/http.h"
#include "ps/checkpoint.h"
#include "ps/server.h"
#include "worker/augment.h"
#include "worker/dataset.h"
#include "worker/targets.h"
#include "worker/worker.h"

#include <string.h>

const char *const pm_role_names[PM_ROLES] = {"coordinator", "checkpoint", "server", "worker"};

typedef struct face {
    pm_metrics *metrics;
    pm_http *http;
    atomic_bool ready;
    pm_log log;
} face;

// The progress view's functions get the address of its first member.
typedef struct watch {
    pm_progress_view view;
    const pm_role_options *options;
} watch;

static void tell_address(void *context, const char *endpoint)
{
    const pm_role_options *o = ((watch *)context)->options;
    if (o->on_bound)
        o->on_bound(o->on_bound_context, endpoint);
}

static pm_status check_changes(const pm_job *job, const pm_graph *graph, const pm_row_shape *row)
{
    uint32_t rank;
    const int64_t *shape = pm_graph_input_shape(graph, &rank);
    pm_augment *augment = NULL;
    pm_status status = pm_augment_create(&augment, job, shape, rank);
    pm_targets *targets = NULL;
    if (status.code == PM_OK)
        status = pm_targets_create(&targets, job, row);
    pm_augment_destroy(&augment);
    pm_targets_destroy(&targets);
    return status;
}

// What is wrong with a model or its data is said here, once, before any member has begun.
// *train is to be destroyed.
static pm_status check_job(pm_job *job, pm_dataset **train)
{
    pm_graph *graph = NULL;
    pm_dataset *validation = NULL;
    pm_row_shape row = {0};
    pm_status status = pm_graph_from_job(&graph, job);
    if (status.code == PM_OK && job->model.onnx)
        status = pm_graph_digest_onnx(graph, job->model.onnx, job->model.digest);
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_notes(graph); i++)
        fprintf(stderr, "paramill: %s: %s\n", job->model.onnx, pm_graph_note(graph, i));
    if (status.code == PM_OK) {
        row = pm_row_shape_of(graph, job->loss);
        status = pm_dataset_load(train, &validation, job, &row);
    }
    if (status.code == PM_OK)
        status = check_changes(job, graph, &row);
    if (status.code == PM_OK)
        status = pm_quality_check(job, row.outputs);
    pm_dataset_destroy(&validation);
    pm_graph_destroy(&graph);
    return status;
}

static pm_status run_coordinator(const pm_role_options *o, face *f)
{
    pm_job *job = NULL;
    pm_dataset *train = NULL;
    watch w = {.options = o};
    pm_coordinator_options c = {.net = o->net,
                                .clock = pm_clock_monotonic(),
                                .log = f->log,
                                .resume = o->resume,
                                .stay = o->stay,
                                .bind = o->bind,
                                .events = pm_progress_events(&w.view),
                                .metrics = f->metrics,
                                .ready = &f->ready,
                                .stop = o->stop};
    pm_status status = pm_job_load(&job, o->job_path);
    if (status.code == PM_OK)
        status = check_job(job, &train);
    if (status.code == PM_OK) {
        c.job = job;
        c.train_rows = pm_dataset_rows(train);
        c.vocabulary = pm_dataset_vocabulary(train);
        c.events.on_bound = tell_address;
        status = pm_coordinator_run(&c);
        pm_progress_end(&w.view);
    }
    pm_dataset_destroy(&train);
    pm_job_destroy(&job);
    return status;
}

static pm_status run_server(const pm_role_options *o, face *f)
{
    const pm_server_options s = {.net = o->net,
                                 .clock = pm_clock_monotonic(),
                                 .log = f->log,
                                 .coordinator = o->join,
                                 .bind = o->bind,
                                 .host = o->host,
                                 .shards = o->shards,
                                 .metrics = f->metrics,
                                 .ready = &f->ready,
                                 .stop = o->stop};
    return pm_server_run(&s);
}

static pm_status run_checkpoint(const pm_role_options *o, face *f)
{
    const pm_checkpoint_options c = {.net = o->net,
                                     .clock = pm_clock_monotonic(),
                                     .log = f->log,
                                     .coordinator = o->join,
                                     .bind = o->bind,
                                     .host = o->host,
                                     .metrics = f->metrics,
                                     .ready = &f->ready,
                                     .stop = o->stop};
    return pm_checkpoint_run(&c);
}

static pm_status run_worker(const pm_role_options *o, face *f)
{
    const pm_worker_options w = {.net = o->net,
                                 .clock = pm_clock_monotonic(),
                                 .log = f->log,
                                 .coordinator = o->join,
                                 .host = o->host,
                                 .metrics = f->metrics,
                                 .ready = &f->ready,
                                 .stop = o->stop};
    return pm_worker_run(&w);
}

pm_status pm_role_run(const pm_role_options *options)
{
    static pm_status (*const runs[PM_ROLES])(const pm_role_options *, face *) = {
        run_coordinator, run_checkpoint, run_server, run_worker};
    face f = {.log = pm_log_make(pm_role_names[options->role], options->index, options->log_level)};
    pm_status status = pm_metrics_create(&f.metrics);
    if (status.code == PM_OK && options->http)
        status = pm_http_create(&f.http, options->http, f.metrics, &f.ready);
    if (status.code == PM_OK)
        status = runs[options->role](options, &f);
    pm_http_destroy(&f.http);
    pm_metrics_destroy(&f.metrics);
    return status;
}

pm_status pm_role_net_create(pm_net **net, pm_role role)
{
    pm_status status = pm_net_create(net);
    const pm_status shared = status.code == PM_OK && role != PM_COORDINATOR ? pm_net_share(*net) : pm_ok();
    if (shared.code != PM_OK)
        fprintf(stderr, "paramill: all messages go through sockets: %s\n", shared.message);
    return status;
}
