// paramill router: takes requests from clients and gives them to infer workers.
#include "cli/commands.h"
#include "infer/router_actor.h"
#include "net/http.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char USAGE[] =
    "usage: paramill router --front tcp://*:8000 --back tcp://*:8001 [--queue N]\n"
    "       [--http [HOST]:PORT] [--log debug|info|warn|error]\n"
    "clients connect to --front, infer workers to --back; --queue: requests that may wait for one model\n";

typedef struct arguments {
    const char *front, *back, *http, *log_level;
    uint32_t queue;
} arguments;

enum { FRONT = 256, BACK, QUEUE, HTTP, LOG };

static int parse(arguments *a, int argc, char **argv)
{
    static const struct option options[] = {{"front", required_argument, NULL, FRONT},
                                            {"back", required_argument, NULL, BACK},
                                            {"queue", required_argument, NULL, QUEUE},
                                            {"http", required_argument, NULL, HTTP},
                                            {"log", required_argument, NULL, LOG},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case FRONT:
            a->front = optarg;
            break;
        case BACK:
            a->back = optarg;
            break;
        case QUEUE:
            a->queue = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case HTTP:
            a->http = optarg;
            break;
        case LOG:
            a->log_level = optarg;
            break;
        default:
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
        }
    }
    if (!a->front || !a->back || optind != argc)
        return fputs(USAGE, stderr), 2;
    return -1;
}

int pm_cli_router(int argc, char **argv)
{
    arguments a = {0};
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    pm_cli_catch_signals();
    pm_net *net = NULL;
    pm_metrics *metrics = NULL;
    pm_http *http = NULL;
    atomic_bool ready = false;
    pm_status status = pm_net_create(&net);
    if (status.code == PM_OK)
        status = pm_metrics_create(&metrics);
    if (status.code == PM_OK && a.http)
        status = pm_http_create(&http, a.http, metrics, &ready);
    if (status.code == PM_OK) {
        const pm_router_run_options options = {.net = net,
                                               .clock = pm_clock_monotonic(),
                                               .log = pm_log_make("router", -1, a.log_level),
                                               .front = a.front,
                                               .back = a.back,
                                               .queue_max = a.queue,
                                               .metrics = metrics,
                                               .ready = &ready,
                                               .stop = &pm_cli_stop};
        status = pm_router_run(&options);
    }
    pm_http_destroy(&http);
    pm_metrics_destroy(&metrics);
    pm_net_destroy(&net);
    return pm_cli_finish("router", status);
}
