#include "cli/commands.h"
#include "model/plan.h"

#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifndef PM_VERSION
#error "the build gives PM_VERSION"
#endif

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command COMMANDS[] = {
    {"train", pm_cli_train, "run a whole job: in this process, or as one rank under mpirun"},
    {"up", pm_cli_up, "run a whole job on this machine, one supervised process a role"},
    {"coordinator", pm_cli_role, "one role of a job: reads the job file, others join it"},
    {"server", pm_cli_role, "one role of a job: holds shards of the parameters"},
    {"worker", pm_cli_role, "one role of a job: computes gradients"},
    {"checkpoint", pm_cli_role, "one role of a job: publishes snapshots"},
    {"status", pm_cli_status, "what a running job or router is doing"},
    {"plan", pm_cli_plan, "what running a model takes: tasks, buffers, operations, time"},
    {"snapshot", pm_cli_snapshot, "list, show, verify and label the versions in a store"},
    {"router", pm_cli_router, "take requests and give them to infer workers"},
    {"infer", pm_cli_infer, "answer requests with a model's newest or labelled version"},
    {"serve", pm_cli_serve, "a router and infer workers in one process"},
    {"query", pm_cli_query, "send one request and print the answer"},
    {"bench", pm_cli_bench, "what the machine can do and how near the engine comes to it"},
    {"gradient", pm_cli_gradient, "one step of a model over given rows: its loss and gradients"},
    {"convert", pm_cli_convert, "write a model for other tools, parameters beside it"},
    {"conformance", pm_cli_conformance, "run the ONNX backend suite against this engine"},
};

atomic_bool pm_cli_stop;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&pm_cli_stop, true);
}

void pm_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int pm_cli_finish(const char *name, pm_status status)
{
    if (status.code == PM_OK)
        return 0;
    fprintf(stderr, "paramill %s: %s\n", name, status.message);
    return status.code == PM_INVALID || status.code == PM_UNSUPPORTED ? 2 : 1;
}

// Frames of up to a slice (1 MiB) come and go with every step. Given back to the system each time, their
// pages would have to be made anew, which takes longer than copying them.
static void keep_freed_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

static int usage(FILE *stream, int code)
{
    fprintf(stream, "usage: paramill COMMAND [ARGUMENT …]\n\n");
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++)
        fprintf(stream, "  %-12s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    fprintf(stream, "\nparamill COMMAND --help says more.\n");
    return code;
}

int main(int argc, char **argv)
{
    keep_freed_memory();
    if (argc < 2)
        return usage(stderr, 2);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
        return usage(stdout, 0);
    if (!strcmp(argv[1], "--version")) {
        printf("paramill %s\n", PM_VERSION);
        return 0;
    }
    (void)pm_kernel_set(
        PM_PRECISION_F32); // chooses the kernels, by way of the environment: before any thread
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++)
        if (!strcmp(argv[1], COMMANDS[i].name))
            return COMMANDS[i].run(argc - 1, argv + 1);
    fprintf(stderr, "paramill: no command \"%s\"; paramill --help lists them\n", argv[1]);
    return 2;
}
