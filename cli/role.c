// paramill coordinator | server | worker | checkpoint: one role as a process.
#include "cli/commands.h"
#include "cli/roles.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: paramill coordinator JOB.yaml --bind tcp://*:7000 [--resume] [--stay]\n"
    "       paramill server --join tcp://HOST:7000 [--bind tcp://*:7001] [--host NAME] [--shards N]\n"
    "       paramill checkpoint --join tcp://HOST:7000 [--bind tcp://*:7002] [--host NAME]\n"
    "       paramill worker --join tcp://HOST:7000\n"
    "each also takes  --http [HOST]:PORT (metrics, /healthz, /readyz)  --log debug|info|warn|error\n"
    "--host is the name or address under which the others reach this process\n"
    "--no-shared-memory sends everything through sockets, to processes of this host too\n"
    "--stay keeps all roles when the job is done, so that its snapshots stay served\n";

enum { BIND = 256, JOIN, HOST, HTTP, LOG, RESUME, SHARDS, STAY, APART };

static int parse(pm_role_options *o, bool *apart, int argc, char **argv)
{
    static const struct option options[] = {{"bind", required_argument, NULL, BIND},
                                            {"join", required_argument, NULL, JOIN},
                                            {"host", required_argument, NULL, HOST},
                                            {"http", required_argument, NULL, HTTP},
                                            {"log", required_argument, NULL, LOG},
                                            {"shards", required_argument, NULL, SHARDS},
                                            {"resume", no_argument, NULL, RESUME},
                                            {"stay", no_argument, NULL, STAY},
                                            {"help", no_argument, NULL, 'h'},
                                            {"no-shared-memory", no_argument, NULL, APART},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case BIND:
            o->bind = optarg;
            break;
        case JOIN:
            o->join = optarg;
            break;
        case HOST:
            o->host = optarg;
            break;
        case HTTP:
            o->http = optarg;
            break;
        case LOG:
            o->log_level = optarg;
            break;
        case SHARDS:
            o->shards = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case RESUME:
            o->resume = true;
            break;
        case STAY:
            o->stay = true;
            break;
        case APART:
            *apart = true;
            break;
        default:
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
        }
    }
    bool coordinator = o->role == PM_COORDINATOR;
    if (coordinator ? !o->bind || optind + 1 != argc : !o->join || optind != argc)
        return fputs(USAGE, stderr), 2;
    o->job_path = coordinator ? argv[optind] : NULL;
    return -1;
}

// A coordinator on the loopback address means that everything is on this machine.
static void fill_addresses(pm_role_options *o)
{
    bool local = o->join && (!strncmp(o->join, "tcp://127.", 10) || !strncmp(o->join, "tcp://localhost", 15));
    if (!o->bind)
        o->bind = local ? "tcp://127.0.0.1:*" : "tcp://*:*";
    if (!o->host && local)
        o->host = "127.0.0.1";
}

int pm_cli_role(int argc, char **argv)
{
    pm_role_options options = {.index = -1, .stop = &pm_cli_stop};
    while (options.role < PM_ROLES && strcmp(argv[0], pm_role_names[options.role]) != 0)
        options.role++;
    bool apart = false;
    int code = parse(&options, &apart, argc, argv);
    if (code >= 0)
        return code;
    fill_addresses(&options);
    pm_cli_catch_signals();
    pm_status status = apart ? pm_net_create(&options.net) : pm_role_net_create(&options.net, options.role);
    if (status.code == PM_OK)
        status = pm_role_run(&options);
    pm_net_destroy(&options.net);
    return pm_cli_finish(argv[0], status);
}
