// The one file that names MPI.
#include "cluster/bootstrap.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <mpi.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

struct pm_bootstrap {
    int rank, size;
    bool one_host;
};

bool pm_bootstrap_present(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK");
}

static bool all_here(int size)
{
    MPI_Comm here;
    int local = 0;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_size(here, &local);
    MPI_Comm_free(&here);
    int smallest = 0;
    MPI_Allreduce(&local, &smallest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return smallest == size;
}

pm_status pm_bootstrap_open(pm_bootstrap **bootstrap)
{
    pm_bootstrap *b = calloc(1, sizeof *b);
    if (!b)
        return pm_fail(PM_NO_MEMORY, "the MPI bootstrap");
    int provided;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        free(b);
        return pm_fail(PM_UNAVAILABLE, "MPI does not start");
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &b->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &b->size);
    b->one_host = all_here(b->size);
    *bootstrap = b;
    return pm_ok();
}

void pm_bootstrap_close(pm_bootstrap **bootstrap)
{
    if (!bootstrap || !*bootstrap)
        return;
    MPI_Finalize();
    free(*bootstrap);
    *bootstrap = NULL;
}

int pm_bootstrap_rank(const pm_bootstrap *bootstrap)
{
    return bootstrap->rank;
}

int pm_bootstrap_size(const pm_bootstrap *bootstrap)
{
    return bootstrap->size;
}

bool pm_bootstrap_one_host(const pm_bootstrap *bootstrap)
{
    return bootstrap->one_host;
}

pm_status pm_bootstrap_share(pm_bootstrap *bootstrap, char *text, size_t size)
{
    (void)bootstrap;
    if (MPI_Bcast(text, (int)size, MPI_CHAR, 0, MPI_COMM_WORLD) != MPI_SUCCESS)
        return pm_fail(PM_UNAVAILABLE, "MPI does not carry the coordinator's address");
    return pm_ok();
}

pm_status pm_bootstrap_address(const pm_bootstrap *bootstrap, char *text, size_t size)
{
    snprintf(text, size, "127.0.0.1");
    if (bootstrap->one_host)
        return pm_ok();
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list))
        return pm_fail_errno("this machine's addresses");
    bool found = false;
    for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || i->ifa_flags & IFF_LOOPBACK ||
            !(i->ifa_flags & IFF_UP))
            continue;
        const struct sockaddr_in *a = (const void *)i->ifa_addr;
        found = inet_ntop(AF_INET, &a->sin_addr, text, (socklen_t)size) != NULL;
    }
    freeifaddrs(list);
    return found ? pm_ok()
                 : pm_fail(PM_UNAVAILABLE, "this machine has no IPv4 address that others could reach");
}
