#pragma once
// A thread with a pipe. The actor's function owns one end and every socket it makes; the creator owns the
// other end and reaches the actor only through it.
#include "net/socket.h"

#include <stdatomic.h>

typedef struct pm_actor pm_actor;

// Runs on the new thread. pipe: the actor's PAIR end, destroyed after the function returns. What it returns
// is what pm_actor_join gives.
typedef pm_status (*pm_actor_function)(void *argument, pm_socket *pipe);

pm_status pm_actor_start(pm_actor **actor, pm_net *net, const char *name, pm_actor_function function,
                         void *argument) PM_CHECKED;

// The creator's end of the pipe.
pm_socket *pm_actor_pipe(pm_actor *actor);

// True once the function has returned.
bool pm_actor_is_done(const pm_actor *actor);

// Waits for the function to return and gives its status; destroys the actor and sets *actor to NULL.
pm_status pm_actor_join(pm_actor **actor) PM_CHECKED;
