#include "net/actor.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct pm_actor {
    pthread_t thread;
    pm_actor_function function;
    void *argument;
    pm_socket *near, *far;
    pm_status result;
    atomic_bool done;
    char name[16];
};

static void *actor_main(void *argument)
{
    pm_actor *actor = argument;
    actor->result = actor->function(actor->argument, actor->far);
    pm_socket_destroy(&actor->far);
    atomic_store(&actor->done, true);
    return NULL;
}

static pm_status make_pipe(pm_actor *actor, pm_net *net)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "inproc://actor-%p", (void *)actor);
    pm_status status = pm_socket_create(&actor->near, net, PM_SOCKET_PAIR);
    if (status.code == PM_OK)
        status = pm_socket_create(&actor->far, net, PM_SOCKET_PAIR);
    if (status.code == PM_OK)
        status = pm_socket_bind(actor->near, endpoint);
    if (status.code == PM_OK)
        status = pm_socket_connect(actor->far, endpoint);
    return status;
}

// Signals are the main thread's business.
static int start_thread(pm_actor *actor)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&actor->thread, NULL, actor_main, actor);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

pm_status pm_actor_start(pm_actor **actor, pm_net *net, const char *name, pm_actor_function function,
                         void *argument)
{
    pm_actor *a = calloc(1, sizeof *a);
    if (!a)
        return pm_fail(PM_NO_MEMORY, "a thread");
    a->function = function;
    a->argument = argument;
    snprintf(a->name, sizeof a->name, "%s", name);
    pm_status status = make_pipe(a, net);
    if (status.code == PM_OK && start_thread(a))
        status = pm_fail(PM_NO_MEMORY, "the operating system gives no thread for %s", name);
    if (status.code != PM_OK) {
        pm_socket_destroy(&a->near);
        pm_socket_destroy(&a->far);
        free(a);
        return status;
    }
    pthread_setname_np(a->thread, a->name);
    *actor = a;
    return pm_ok();
}

pm_socket *pm_actor_pipe(pm_actor *actor)
{
    return actor->near;
}

bool pm_actor_is_done(const pm_actor *actor)
{
    return atomic_load(&actor->done);
}

pm_status pm_actor_join(pm_actor **actor)
{
    pm_actor *a = *actor;
    if (!a)
        return pm_ok();
    pthread_join(a->thread, NULL);
    pm_status result = a->result;
    pm_socket_destroy(&a->near);
    free(a);
    *actor = NULL;
    return result;
}
