#include "net/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pm_http {
    struct MHD_Daemon *daemon;
    pm_metrics *metrics;
    const atomic_bool *ready;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *text, size_t size)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_line(struct MHD_Connection *connection, unsigned code, const char *line)
{
    return answer(connection, code, line, strlen(line));
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    (void)version, (void)upload, (void)upload_size, (void)state;
    pm_http *http = context;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    if (!strcmp(url, "/healthz"))
        return answer_line(connection, MHD_HTTP_OK, "ok\n");
    if (!strcmp(url, "/readyz"))
        return atomic_load(http->ready)
                   ? answer_line(connection, MHD_HTTP_OK, "ready\n")
                   : answer_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "not ready\n");
    if (strcmp(url, "/metrics") != 0)
        return answer_line(connection, MHD_HTTP_NOT_FOUND, "/metrics, /healthz, /readyz\n");
    pm_text text = {0};
    pm_metrics_render(http->metrics, &text);
    enum MHD_Result result = answer(connection, MHD_HTTP_OK, text.data ? text.data : "", text.size);
    pm_text_free(&text);
    return result;
}

static pm_status parse_listen(const char *listen, struct sockaddr_in *address)
{
    char host[128];
    const char *colon = strrchr(listen, ':');
    size_t length = colon ? (size_t)(colon - listen) : 0;
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    if (!colon || end == colon + 1 || *end || port > 65535 || length >= sizeof host)
        return pm_fail(PM_INVALID, "%s: an HTTP address is HOST:PORT or :PORT", listen);
    memcpy(host, listen, length);
    host[length] = '\0';
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (length == 0)
        return pm_ok();
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) || !found)
        return pm_fail(PM_INVALID, "%s: no such host", listen);
    address->sin_addr = ((struct sockaddr_in *)(void *)found->ai_addr)->sin_addr;
    freeaddrinfo(found);
    return pm_ok();
}

pm_status pm_http_create(pm_http **http, const char *listen, pm_metrics *metrics, const atomic_bool *ready)
{
    struct sockaddr_in address;
    pm_status status = parse_listen(listen, &address);
    if (status.code != PM_OK)
        return status;
    pm_http *h = calloc(1, sizeof *h);
    if (!h)
        return pm_fail(PM_NO_MEMORY, "an HTTP server");
    h->metrics = metrics;
    h->ready = ready;
    errno = 0;
    h->daemon =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, handle, h, MHD_OPTION_SOCK_ADDR,
                         (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT, 64u,
                         MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
    if (!h->daemon) {
        status = pm_fail(errno == EADDRINUSE ? PM_EXISTS : PM_IO, "cannot serve HTTP on %s: %s", listen,
                         strerror(errno));
        free(h);
        return status;
    }
    *http = h;
    return pm_ok();
}

void pm_http_destroy(pm_http **http)
{
    if (!http || !*http)
        return;
    MHD_stop_daemon((*http)->daemon);
    free(*http);
    *http = NULL;
}

uint16_t pm_http_port(const pm_http *http)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info ? info->port : 0;
}
