#pragma once
// One role of a job, run to its end on the calling thread: what `paramill server …`, the ranks of mpirun and
// the threads of the embedded mode have in common.
#include "cluster/coordinator.h"
#include "core/status.h"
#include "net/socket.h"

#include <stdatomic.h>

typedef enum pm_role { PM_COORDINATOR, PM_CHECKPOINT, PM_SERVER, PM_WORKER, PM_ROLES } pm_role;

extern const char *const pm_role_names[PM_ROLES];

typedef struct pm_role_options {
    pm_role role;
    int index;             // among its role, for logs; -1: not known
    const char *job_path;  // coordinator
    bool resume, stay;     // coordinator
    const char *bind;      // endpoint to listen on; not for workers
    const char *join;      // the coordinator's endpoint; not for the coordinator
    const char *host;      // name or address under which others reach this process; NULL: the machine's name
    const char *http;      // "host:port" for metrics and health; NULL: none
    const char *log_level; // NULL: info
    uint32_t shards;       // server
    pm_net *net;
    const atomic_bool *stop;
    void (*on_bound)(void *context, const char *endpoint); // coordinator; may be NULL
    void *on_bound_context;
} pm_role_options;

pm_status pm_role_run(const pm_role_options *options) PM_CHECKED;

// A net for a role that is a process of its own. Where the role has parameters to send and the system allows
// it, they go through shared memory to processes of this host.
pm_status pm_role_net_create(pm_net **net, pm_role role) PM_CHECKED;
