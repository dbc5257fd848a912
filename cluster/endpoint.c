#include "cluster/endpoint.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void pm_host_name(char host[PM_HOST_MAX])
{
    if (gethostname(host, PM_HOST_MAX - 1) || !host[0])
        snprintf(host, PM_HOST_MAX, "localhost");
    host[PM_HOST_MAX - 1] = '\0';
}

pm_status pm_endpoint_number(char endpoint[PM_ENDPOINT_MAX], const char *bind, uint32_t index)
{
    size_t size = strlen(bind);
    int used = 0;
    if (index == 0 || (size > 2 && !strcmp(bind + size - 2, ":*")))
        used = snprintf(endpoint, PM_ENDPOINT_MAX, "%s", bind);
    else if (!strncmp(bind, "tcp:", 4))
        return pm_fail(PM_INVALID, "%s: a server of several shards needs a port each; use port *", bind);
    else
        used = snprintf(endpoint, PM_ENDPOINT_MAX, "%s-%u", bind, index);
    return used < PM_ENDPOINT_MAX ? pm_ok() : pm_fail(PM_INVALID, "%.64s…: an endpoint is too long", bind);
}

void pm_endpoint_public(char endpoint[PM_ENDPOINT_MAX], const char *bound, const char *host)
{
    static const char *const everywhere[] = {"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"};
    char name[PM_HOST_MAX];
    pm_host_name(name);
    for (int i = 0; i < 3; i++) {
        size_t size = strlen(everywhere[i]);
        if (strncmp(bound, everywhere[i], size) != 0)
            continue;
        snprintf(endpoint, PM_ENDPOINT_MAX, "tcp://%s:%s", host && host[0] ? host : name, bound + size);
        return;
    }
    snprintf(endpoint, PM_ENDPOINT_MAX, "%s", bound);
}
