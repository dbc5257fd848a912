// paramill status: asks a coordinator or a router what it is doing.
#include "cli/commands.h"
#include "net/socket.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 3000 };

static const char USAGE[] = "usage: paramill status ENDPOINT      e.g. tcp://127.0.0.1:7000\n";

static pm_status ask(pm_socket *socket, const char *endpoint, pm_message *answer)
{
    pm_message question = {.header = pm_header_create(1, 0, PARAMILL__HEADER__BODY_STATUS_REQUEST,
                                                      pm_proto_new(&paramill__status_request__descriptor))};
    if (!question.header)
        return pm_fail(PM_NO_MEMORY, "a question");
    pm_status status = pm_socket_connect(socket, endpoint);
    if (status.code == PM_OK)
        status = pm_socket_send(socket, NULL, &question);
    if (status.code == PM_OK)
        status = pm_socket_receive(socket, NULL, answer, WAIT_MS);
    pm_message_clear(&question);
    if (status.code == PM_TIMEOUT)
        return pm_fail(PM_TIMEOUT, "%s does not answer within %d ms; is a coordinator or router there?",
                       endpoint, WAIT_MS);
    if (status.code == PM_OK && answer->header->body_case == PARAMILL__HEADER__BODY_ERROR)
        return pm_wrap(pm_error_status(answer->header->error), "%s", endpoint);
    if (status.code == PM_OK && answer->header->body_case != PARAMILL__HEADER__BODY_STATUS_REPLY)
        return pm_fail(PM_PROTOCOL, "%s answers something else than a status", endpoint);
    return status;
}

static pm_status print(const char *json)
{
    json_error_t error;
    json_t *root = json_loads(json, 0, &error);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(root);
    if (!text)
        return pm_fail(PM_PROTOCOL, "the status is no JSON: %s", error.text);
    puts(text);
    free(text);
    return pm_ok();
}

int pm_cli_status(int argc, char **argv)
{
    if (argc != 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return fputs(USAGE, argc == 2 ? stdout : stderr), argc == 2 ? 0 : 2;
    pm_net *net = NULL;
    pm_socket *socket = NULL;
    pm_message answer = {0};
    pm_status status = pm_net_create(&net);
    if (status.code == PM_OK)
        status = pm_socket_create(&socket, net, PM_SOCKET_DEALER);
    if (status.code == PM_OK)
        status = ask(socket, argv[1], &answer);
    if (status.code == PM_OK)
        status = print(answer.header->status_reply->json);
    pm_message_clear(&answer);
    pm_socket_destroy(&socket);
    pm_net_destroy(&net);
    return pm_cli_finish("status", status);
}
