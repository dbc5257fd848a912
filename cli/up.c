// paramill up: one process a role on this machine, supervised. A role that dies is started again; what the
// job itself decides (it is over, or it cannot go on) comes from the coordinator's exit.
#include "cli/commands.h"
#include "core/clock.h"
#include "core/job.h"
#include "core/log.h"
#include "net/socket.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RESTARTS_MAX = 20,      // of one role; a role that dies more often will not get better
    RESTART_PAUSE_MS = 200, // keeps a role that dies at once from spinning
    GRACE_MS = 10000,       // for the rest to end once the coordinator has
    TICK_US = 50000,
    USER_ERROR = 2 // the exit code of input that a restart does not mend
};

typedef struct child {
    const char *role;
    int index;
    pid_t pid; // 0: not running
    int restarts;
    int64_t start_at_ms;
    bool finished;
} child;

typedef struct supervisor {
    const char *job_path, *log_level;
    char endpoint[64];
    char shards[16];    // of a server
    bool resume, apart; // apart: no shared memory
    child *children;    // the coordinator first
    int count;
    pm_clock clock;
    pm_log log;
    int result; // exit code
    bool over;
} supervisor;

static const char USAGE[] =
    "usage: paramill up JOB.yaml [--resume] [--endpoint tcp://127.0.0.1:PORT] [--log LEVEL]\n"
    "                   [--no-shared-memory]\n"
    "  runs every role of the job as a process of this machine and restarts those that die\n";

static void exec_role(const supervisor *s, const child *c)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    const char *argv[16];
    int n = 0;
    argv[n++] = "paramill";
    argv[n++] = c->role;
    bool coordinator = !strcmp(c->role, "coordinator");
    if (coordinator) {
        argv[n++] = s->job_path;
        argv[n++] = "--bind";
    } else {
        argv[n++] = "--join";
    }
    argv[n++] = s->endpoint;
    if (coordinator && (s->resume || c->restarts > 0))
        argv[n++] = "--resume";
    if (!strcmp(c->role, "server")) {
        argv[n++] = "--shards";
        argv[n++] = s->shards;
    }
    if (s->apart)
        argv[n++] = "--no-shared-memory";
    argv[n++] = "--log";
    argv[n++] = s->log_level;
    argv[n] = NULL;
    execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void start(supervisor *s, child *c)
{
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0)
        exec_role(s, c);
    if (c->pid < 0) {
        c->pid = 0;
        c->start_at_ms = pm_now_ms(&s->clock) + RESTART_PAUSE_MS;
        pm_log_warn(&s->log, "no_process", "for=%s error=\"%s\"", c->role, strerror(errno));
        return;
    }
    pm_log_info(&s->log, "started", "child=%s index=%d pid=%d", c->role, c->index, (int)c->pid);
}

static void end(supervisor *s, int result)
{
    s->over = true;
    s->result = result;
}

static void on_exit_of(supervisor *s, child *c, int how)
{
    bool coordinator = c == s->children;
    c->pid = 0;
    if (WIFEXITED(how) && (WEXITSTATUS(how) == 0 || coordinator || WEXITSTATUS(how) == USER_ERROR)) {
        c->finished = true;
        if (coordinator || WEXITSTATUS(how) == USER_ERROR)
            end(s, WEXITSTATUS(how));
        return;
    }
    pm_log_warn(&s->log, "died", "child=%s index=%d %s=%d", c->role, c->index,
                WIFSIGNALED(how) ? "signal" : "code", WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
    if (++c->restarts > RESTARTS_MAX) {
        fprintf(stderr, "paramill up: %s %d died %d times; its lines above say why\n", c->role, c->index,
                c->restarts);
        end(s, 1);
    }
    c->start_at_ms = pm_now_ms(&s->clock) + RESTART_PAUSE_MS;
}

static void reap(supervisor *s)
{
    int how;
    pid_t pid;
    while ((pid = waitpid(-1, &how, WNOHANG)) > 0)
        for (int i = 0; i < s->count; i++)
            if (s->children[i].pid == pid)
                on_exit_of(s, &s->children[i], how);
}

static int running(const supervisor *s)
{
    int n = 0;
    for (int i = 0; i < s->count; i++)
        n += s->children[i].pid > 0;
    return n;
}

static void signal_all(const supervisor *s, int number)
{
    for (int i = 0; i < s->count; i++)
        if (s->children[i].pid > 0)
            kill(s->children[i].pid, number);
}

static void supervise(supervisor *s)
{
    while (!s->over && !atomic_load(&pm_cli_stop)) {
        for (int i = 0; i < s->count; i++) {
            child *c = &s->children[i];
            if (c->pid == 0 && !c->finished && pm_now_ms(&s->clock) >= c->start_at_ms)
                start(s, c);
        }
        usleep(TICK_US);
        reap(s);
    }
}

// The members end by themselves when the coordinator told them; what does not is ended here.
static void wind_down(supervisor *s)
{
    if (!s->over)
        s->result = 130;
    if (!s->over || s->result != 0)
        signal_all(s, SIGTERM);
    s->over = true;
    int64_t until = pm_now_ms(&s->clock) + GRACE_MS;
    while (running(s) > 0 && pm_now_ms(&s->clock) < until) {
        usleep(TICK_US);
        for (int i = 0, how; i < s->count; i++)
            if (s->children[i].pid > 0 && waitpid(s->children[i].pid, &how, WNOHANG) == s->children[i].pid)
                s->children[i].pid = 0;
    }
    signal_all(s, SIGKILL);
    for (int i = 0; i < s->count; i++)
        if (s->children[i].pid > 0)
            waitpid(s->children[i].pid, NULL, 0);
}

static pm_status make_children(supervisor *s, const pm_job *job)
{
    const struct {
        const char *role;
        uint32_t count;
    } roles[] = {{"coordinator", 1},
                 {"checkpoint", 1},
                 {"server", job->cluster.servers},
                 {"worker", job->cluster.workers}};
    snprintf(s->shards, sizeof s->shards, "%u", job->cluster.shards_per_server);
    s->children = calloc(2 + job->cluster.servers + job->cluster.workers, sizeof *s->children);
    if (!s->children)
        return pm_fail(PM_NO_MEMORY, "a table of processes");
    for (size_t r = 0; r < sizeof roles / sizeof roles[0]; r++)
        for (uint32_t i = 0; i < roles[r].count; i++)
            s->children[s->count++] = (child){.role = roles[r].role, .index = (int)i};
    return pm_ok();
}

// A free port of the loopback address, held only while it is looked up.
static pm_status choose_endpoint(supervisor *s)
{
    pm_net *net = NULL;
    pm_socket *socket = NULL;
    pm_status status = pm_net_create(&net);
    if (status.code == PM_OK)
        status = pm_socket_create(&socket, net, PM_SOCKET_ROUTER);
    if (status.code == PM_OK)
        status = pm_socket_bind(socket, "tcp://127.0.0.1:*");
    if (status.code == PM_OK)
        snprintf(s->endpoint, sizeof s->endpoint, "%s", pm_socket_endpoint(socket));
    pm_socket_destroy(&socket);
    pm_net_destroy(&net);
    return status;
}

static int parse(supervisor *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"resume", no_argument, NULL, 'r'},    {"endpoint", required_argument, NULL, 'e'},
        {"log", required_argument, NULL, 'l'}, {"no-shared-memory", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},      {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (o == 'r')
            s->resume = true;
        else if (o == 'e')
            snprintf(s->endpoint, sizeof s->endpoint, "%s", optarg);
        else if (o == 'l')
            s->log_level = optarg;
        else if (o == 'n')
            s->apart = true;
        else
            return fputs(USAGE, o == 'h' ? stdout : stderr), o == 'h' ? 0 : 2;
    }
    if (optind + 1 != argc)
        return fputs(USAGE, stderr), 2;
    s->job_path = argv[optind];
    return -1;
}

int pm_cli_up(int argc, char **argv)
{
    supervisor s = {.log_level = "warn", .clock = pm_clock_monotonic()};
    int code = parse(&s, argc, argv);
    if (code >= 0)
        return code;
    s.log = pm_log_make("supervisor", -1, s.log_level);
    pm_cli_catch_signals();
    pm_job *job = NULL;
    pm_status status = pm_job_load(&job, s.job_path);
    if (status.code == PM_OK && !s.endpoint[0])
        status = choose_endpoint(&s);
    if (status.code == PM_OK)
        status = make_children(&s, job);
    if (status.code == PM_OK) {
        printf("coordinator at %s (paramill status %s)\n", s.endpoint, s.endpoint);
        supervise(&s);
        wind_down(&s);
    }
    pm_job_destroy(&job);
    free(s.children);
    return status.code == PM_OK ? s.result : pm_cli_finish("up", status);
}
