// paramill train: a whole job. Without a launcher all roles are threads of this process; under mpirun or srun
// each rank is one role: 0 the coordinator, 1 the checkpoint service, then the servers, then the workers.
#include "cli/commands.h"
#include "cli/roles.h"
#include "cluster/bootstrap.h"
#include "core/job.h"
#include "net/actor.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ENDPOINT_MAX = 128, GRACE_MS = 10000 };

typedef struct request {
    const char *job_path, *log_level, *http;
    bool resume;
} request;

static const char USAGE[] =
    "usage: paramill train JOB.yaml [--resume] [--log LEVEL] [--http [HOST]:PORT]\n"
    "       mpirun -n N paramill train JOB.yaml [--resume]      N: 2 + servers + workers of the job\n";

// ---- embedded: threads over inproc ----

typedef struct member {
    pm_role_options options;
    char bind[64];
    pm_actor *actor;
} member;

static pm_status member_main(void *argument, pm_socket *pipe)
{
    (void)pipe;
    return pm_role_run(&((member *)argument)->options);
}

static pm_status start_members(member *members, const pm_job *job, const pm_role_options *coordinator,
                               const atomic_bool *halt, uint32_t *count)
{
    const uint32_t counts[PM_ROLES] = {0, 1, job->cluster.servers, job->cluster.workers};
    for (int role = PM_CHECKPOINT; role < PM_ROLES; role++)
        for (uint32_t i = 0; i < counts[role]; i++) {
            member *m = &members[*count];
            snprintf(m->bind, sizeof m->bind, "inproc://%s-%u", pm_role_names[role], i);
            m->options = (pm_role_options){.role = (pm_role)role,
                                           .index = (int)i,
                                           .bind = m->bind,
                                           .join = coordinator->bind,
                                           .host = "here",
                                           .log_level = coordinator->log_level,
                                           .shards = job->cluster.shards_per_server,
                                           .net = coordinator->net,
                                           .stop = halt};
            pm_status status =
                pm_actor_start(&m->actor, coordinator->net, pm_role_names[role], member_main, m);
            if (status.code != PM_OK)
                return status;
            ++*count;
        }
    return pm_ok();
}

// The coordinator has told the members to stop; what does not by itself, or was told nothing, is halted.
static void join_members(member *members, uint32_t count, atomic_bool *halt, bool at_once)
{
    int waited_ms = at_once ? GRACE_MS : 0;
    for (uint32_t i = 0; i < count; i++) {
        while (!pm_actor_is_done(members[i].actor) && waited_ms < GRACE_MS) {
            usleep(10000);
            waited_ms += 10;
        }
        if (waited_ms >= GRACE_MS)
            atomic_store(halt, true);
        pm_status status = pm_actor_join(&members[i].actor);
        (void)status; // what went wrong with a member is in the coordinator's status
    }
}

static pm_status train_embedded(const request *r)
{
    pm_job *job = NULL;
    member *members = NULL;
    uint32_t count = 0;
    atomic_bool halt = false;
    pm_role_options coordinator = {.role = PM_COORDINATOR,
                                   .index = -1,
                                   .job_path = r->job_path,
                                   .resume = r->resume,
                                   .bind = "inproc://coordinator",
                                   .http = r->http,
                                   .log_level = r->log_level,
                                   .stop = &pm_cli_stop};
    pm_status status = pm_job_load(&job, r->job_path);
    if (status.code == PM_OK)
        status = pm_net_create(&coordinator.net);
    if (status.code == PM_OK) {
        members = calloc(1 + job->cluster.servers + job->cluster.workers, sizeof *members);
        status = members ? start_members(members, job, &coordinator, &halt, &count)
                         : pm_fail(PM_NO_MEMORY, "a table of threads");
    }
    if (status.code == PM_OK)
        status = pm_role_run(&coordinator);
    join_members(members, count, &halt, status.code != PM_OK);
    free(members);
    pm_net_destroy(&coordinator.net);
    pm_job_destroy(&job);
    return status;
}

// ---- under a launcher ----

typedef struct address_call {
    pm_bootstrap *bootstrap;
    bool done;
} address_call;

static void share_address(void *context, const char *endpoint)
{
    address_call *call = context;
    char text[ENDPOINT_MAX] = "", host[64] = "";
    const char *port = strrchr(endpoint, ':');
    pm_status status = pm_bootstrap_address(call->bootstrap, host, sizeof host);
    if (status.code == PM_OK && port)
        snprintf(text, sizeof text, "tcp://%s%s", host, port);
    status = pm_bootstrap_share(call->bootstrap, text, sizeof text);
    (void)status; // MPI's own error handler ends the job
    call->done = true;
}

static pm_role role_of_rank(const pm_job *job, int rank)
{
    if (rank < 2)
        return rank == 0 ? PM_COORDINATOR : PM_CHECKPOINT;
    return rank < 2 + (int)job->cluster.servers ? PM_SERVER : PM_WORKER;
}

static pm_status run_rank(const request *r, const pm_job *job, pm_bootstrap *bootstrap)
{
    int rank = pm_bootstrap_rank(bootstrap);
    bool here = pm_bootstrap_one_host(bootstrap);
    char endpoint[ENDPOINT_MAX] = "", host[64] = "";
    address_call call = {bootstrap, false};
    pm_role_options o = {.role = role_of_rank(job, rank),
                         .index = -1,
                         .job_path = r->job_path,
                         .resume = r->resume,
                         .bind = here ? "tcp://127.0.0.1:*" : "tcp://*:*",
                         .join = endpoint,
                         .host = host,
                         .log_level = r->log_level,
                         .shards = job->cluster.shards_per_server,
                         .stop = &pm_cli_stop,
                         .on_bound = share_address,
                         .on_bound_context = &call};
    pm_status status = pm_bootstrap_address(bootstrap, host, sizeof host);
    if (status.code == PM_OK)
        status = pm_role_net_create(&o.net, o.role);
    if (o.role == PM_COORDINATOR) {
        o.http = r->http;
        if (status.code == PM_OK)
            status = pm_role_run(&o);
        if (!call.done && pm_bootstrap_share(bootstrap, endpoint, sizeof endpoint).code != PM_OK)
            fprintf(stderr, "paramill train: MPI failed while the coordinator could not start\n");
    } else {
        pm_status shared = pm_bootstrap_share(bootstrap, endpoint, sizeof endpoint);
        if (status.code == PM_OK)
            status = shared;
        if (status.code == PM_OK && endpoint[0])
            status = pm_role_run(&o);
        if (status.code == PM_CANCELLED)
            status = pm_ok(); // the coordinator's rank says why
    }
    pm_net_destroy(&o.net);
    return status;
}

static pm_status train_ranks(const request *r)
{
    pm_bootstrap *bootstrap = NULL;
    pm_job *job = NULL;
    pm_status status = pm_bootstrap_open(&bootstrap);
    if (status.code != PM_OK)
        return status;
    int rank = pm_bootstrap_rank(bootstrap), size = pm_bootstrap_size(bootstrap);
    status = pm_job_load(&job, r->job_path);
    if (status.code == PM_OK) {
        int need = 2 + (int)(job->cluster.servers + job->cluster.workers);
        if (size < need)
            status = pm_fail(
                PM_INVALID,
                "%d ranks; the job takes %d: 1 coordinator, 1 checkpoint service, %u servers, %u workers",
                size, need, job->cluster.servers, job->cluster.workers);
        else if (rank < need)
            status = run_rank(r, job, bootstrap);
        else
            status = pm_bootstrap_share(bootstrap, (char[ENDPOINT_MAX]){""}, ENDPOINT_MAX); // a rank to spare
    }
    if (status.code != PM_OK && rank != 0 && status.code == PM_INVALID)
        status = pm_fail(PM_CANCELLED, "%s", ""); // every rank finds the same; rank 0 says it
    pm_job_destroy(&job);
    pm_bootstrap_close(&bootstrap);
    return status;
}

int pm_cli_train(int argc, char **argv)
{
    static const struct option options[] = {{"resume", no_argument, NULL, 'r'},
                                            {"log", required_argument, NULL, 'l'},
                                            {"http", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    request r = {.log_level = "warn"};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'r')
            r.resume = true;
        else if (c == 'l')
            r.log_level = optarg;
        else if (c == 'p')
            r.http = optarg;
        else
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
    }
    if (optind + 1 != argc)
        return fputs(USAGE, stderr), 2;
    r.job_path = argv[optind];
    pm_cli_catch_signals();
    pm_status status = pm_bootstrap_present() ? train_ranks(&r) : train_embedded(&r);
    if (status.code == PM_CANCELLED && !status.message[0])
        return 2;
    return pm_cli_finish("train", status);
}
