// paramill infer: an infer worker, which answers the batches of its routers with one version of a model.
#include "infer/infer.h"
#include "cli/commands.h"
#include "net/http.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char USAGE[] =
    "usage: paramill infer --router tcp://HOST:8001 [--router …] --model NAME [--version newest|LABEL|N]\n"
    "       (--store DIR | --checkpoint tcp://HOST:7002 --cache DIR)\n"
    "       [--max-rows N] [--threads N] [--poll MS] [--http [HOST]:PORT] [--log debug|info|warn|error]\n"
    "the versions come from a store's folder, or are pulled from a checkpoint service into a cache of this\n"
    "worker's own; a new version (or a label that moves) is taken over without a pause;\n"
    "--threads N share the rows of a batch [1]\n";

enum { ROUTER = 256, MODEL, VERSION, STORE, CHECKPOINT, CACHE, MAX_ROWS, THREADS, POLL, HTTP, LOG };

typedef struct arguments {
    pm_infer_options infer;
    const char *routers[PM_INFER_ROUTERS];
    const char *http, *log_level;
} arguments;

static int take(arguments *a, int option, const char *value)
{
    switch (option) {
    case ROUTER:
        if (a->infer.router_count < PM_INFER_ROUTERS)
            a->routers[a->infer.router_count] = value;
        a->infer.router_count++;
        return -1;
    case MODEL:
        a->infer.model = value;
        return -1;
    case VERSION:
        a->infer.version = value;
        return -1;
    case STORE:
        a->infer.store = value;
        return -1;
    case CHECKPOINT:
        a->infer.checkpoint = value;
        return -1;
    case CACHE:
        a->infer.cache = value;
        return -1;
    case MAX_ROWS:
        a->infer.max_rows = (uint32_t)strtoul(value, NULL, 10);
        return -1;
    case THREADS:
        a->infer.threads = (uint32_t)strtoul(value, NULL, 10);
        return -1;
    case POLL:
        a->infer.poll_ms = (uint32_t)strtoul(value, NULL, 10);
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
    static const struct option options[] = {{"router", required_argument, NULL, ROUTER},
                                            {"model", required_argument, NULL, MODEL},
                                            {"version", required_argument, NULL, VERSION},
                                            {"store", required_argument, NULL, STORE},
                                            {"checkpoint", required_argument, NULL, CHECKPOINT},
                                            {"cache", required_argument, NULL, CACHE},
                                            {"max-rows", required_argument, NULL, MAX_ROWS},
                                            {"threads", required_argument, NULL, THREADS},
                                            {"poll", required_argument, NULL, POLL},
                                            {"http", required_argument, NULL, HTTP},
                                            {"log", required_argument, NULL, LOG},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c, code; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        if ((code = take(a, c, optarg)) >= 0)
            return code;
    bool from =
        a->infer.store ? !a->infer.checkpoint && !a->infer.cache : a->infer.checkpoint && a->infer.cache;
    if (a->infer.router_count == 0 || !a->infer.model || !from || optind != argc)
        return fputs(USAGE, stderr), 2;
    return -1;
}

int pm_cli_infer(int argc, char **argv)
{
    arguments a = {.infer = {.clock = pm_clock_monotonic(), .stop = &pm_cli_stop}};
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    pm_cli_catch_signals();
    pm_http *http = NULL;
    atomic_bool ready = false;
    a.infer.routers = a.routers;
    a.infer.ready = &ready;
    a.infer.log = pm_log_make("infer", -1, a.log_level);
    pm_status status = pm_net_create(&a.infer.net);
    if (status.code == PM_OK)
        status = pm_metrics_create(&a.infer.metrics);
    if (status.code == PM_OK && a.http)
        status = pm_http_create(&http, a.http, a.infer.metrics, &ready);
    if (status.code == PM_OK)
        status = pm_infer_run(&a.infer);
    pm_http_destroy(&http);
    pm_metrics_destroy(&a.infer.metrics);
    pm_net_destroy(&a.infer.net);
    return pm_cli_finish("infer", status);
}
