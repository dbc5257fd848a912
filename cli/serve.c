// paramill serve: a router and its infer workers as threads of one process.
#include "cli/commands.h"
#include "infer/infer.h"
#include "infer/router_actor.h"
#include "net/actor.h"
#include "net/http.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char USAGE[] =
    "usage: paramill serve --store DIR --model NAME --front tcp://*:8000 [--version newest|LABEL|N]\n"
    "       [--workers N] [--threads N] [--max-rows N] [--http [HOST]:PORT] [--log debug|info|warn|error]\n";

enum { WORKERS_MAX = 64 };
enum { STORE = 256, MODEL, FRONT, VERSION, WORKERS, THREADS, MAX_ROWS, HTTP, LOG };

static const char *const BACK[] = {"inproc://back"};

typedef struct arguments {
    pm_infer_options infer;
    pm_router_run_options router;
    const char *http, *log_level;
    unsigned long workers;
} arguments;

typedef struct worker {
    pm_infer_options options;
    pm_actor *actor;
} worker;

static int take(arguments *a, int option, const char *value)
{
    switch (option) {
    case STORE:
        a->infer.store = value;
        return -1;
    case MODEL:
        a->infer.model = value;
        return -1;
    case FRONT:
        a->router.front = value;
        return -1;
    case VERSION:
        a->infer.version = value;
        return -1;
    case WORKERS:
        a->workers = strtoul(value, NULL, 10);
        return -1;
    case THREADS:
        a->infer.threads = (uint32_t)strtoul(value, NULL, 10);
        return -1;
    case MAX_ROWS:
        a->infer.max_rows = (uint32_t)strtoul(value, NULL, 10);
        return -1;
    case HTTP:
        a->http = value;
        return -1;
    case LOG:
        a->log_level = value;
        return -1;
    default:
        return fputs(USAGE, option == 'h' ? stdout : stderr), option == 'h' ? 0 : 2;
    }
}

static int parse(arguments *a, int argc, char **argv)
{
    static const struct option options[] = {{"store", required_argument, NULL, STORE},
                                            {"model", required_argument, NULL, MODEL},
                                            {"front", required_argument, NULL, FRONT},
                                            {"version", required_argument, NULL, VERSION},
                                            {"workers", required_argument, NULL, WORKERS},
                                            {"threads", required_argument, NULL, THREADS},
                                            {"max-rows", required_argument, NULL, MAX_ROWS},
                                            {"http", required_argument, NULL, HTTP},
                                            {"log", required_argument, NULL, LOG},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c, code; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        if ((code = take(a, c, optarg)) >= 0)
            return code;
    if (!a->infer.store || !a->infer.model || !a->router.front || a->workers < 1 ||
        a->workers > WORKERS_MAX || optind != argc)
        return fputs(USAGE, stderr), 2;
    return -1;
}

static pm_status worker_main(void *argument, pm_socket *pipe)
{
    (void)pipe;
    worker *w = argument;
    pm_status status = pm_infer_run(&w->options);
    if (status.code != PM_OK)
        atomic_store(&pm_cli_stop, true); // a worker ends by itself only when its options are wrong
    return status;
}

// The workers outlive the router, which needs them to answer what it holds.
static pm_status run(arguments *a, worker *workers)
{
    atomic_bool halt = false;
    pm_status status = pm_ok();
    for (unsigned long i = 0; i < a->workers && status.code == PM_OK; i++) {
        workers[i].options = a->infer;
        workers[i].options.log = pm_log_make("infer", (int)i, a->log_level);
        workers[i].options.stop = &halt;
        status = pm_actor_start(&workers[i].actor, a->infer.net, "infer", worker_main, &workers[i]);
    }
    if (status.code == PM_OK)
        status = pm_router_run(&a->router);
    atomic_store(&halt, true);
    for (unsigned long i = 0; i < a->workers; i++) {
        pm_status ended = pm_actor_join(&workers[i].actor);
        if (status.code == PM_OK)
            status = ended;
    }
    return status;
}

int pm_cli_serve(int argc, char **argv)
{
    arguments a = {.workers = 1,
                   .infer = {.clock = pm_clock_monotonic(), .routers = BACK, .router_count = 1},
                   .router = {.clock = pm_clock_monotonic(), .back = BACK[0], .stop = &pm_cli_stop}};
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    pm_cli_catch_signals();
    pm_http *http = NULL;
    atomic_bool ready = false;
    pm_net *net = NULL;
    pm_metrics *metrics = NULL;
    worker *workers = calloc(a.workers, sizeof *workers);
    pm_status status = workers ? pm_net_create(&net) : pm_fail(PM_NO_MEMORY, "%lu workers", a.workers);
    if (status.code == PM_OK)
        status = pm_metrics_create(&metrics);
    if (status.code == PM_OK && a.http)
        status = pm_http_create(&http, a.http, metrics, &ready);
    if (status.code == PM_OK) {
        a.infer.net = a.router.net = net;
        a.infer.metrics = a.router.metrics = metrics;
        a.router.ready = &ready;
        a.router.log = pm_log_make("router", -1, a.log_level);
        status = run(&a, workers);
    }
    pm_http_destroy(&http);
    pm_metrics_destroy(&metrics);
    pm_net_destroy(&net);
    free(workers);
    return pm_cli_finish("serve", status);
}
