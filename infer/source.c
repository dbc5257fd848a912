#include "infer/source.h"

#include "proto/message.h"
#include "snapshot/serve.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 3000, STOP_CHECK_MS = 100, KEEP = 3 };

struct pm_source {
    pm_source_options options;
    pm_store *store;
    pm_socket *line; // to the checkpoint service; NULL: the store is written by others
    uint64_t request;
};

pm_status pm_source_create(pm_source **source, const pm_source_options *options)
{
    pm_source *s = calloc(1, sizeof *s);
    if (!s)
        return pm_fail(PM_NO_MEMORY, "a source of versions");
    s->options = *options;
    bool pulls = !options->store;
    pm_status status =
        pm_store_open(&s->store, pulls ? options->cache : options->store, options->model, pulls);
    if (status.code == PM_OK && pulls)
        status = pm_socket_create(&s->line, options->net, PM_SOCKET_DEALER);
    if (status.code == PM_OK && pulls)
        status = pm_socket_connect(s->line, options->checkpoint);
    if (status.code == PM_OK)
        *source = s;
    else
        pm_source_destroy(&s);
    return status;
}

void pm_source_destroy(pm_source **source)
{
    if (!source || !*source)
        return;
    pm_socket_destroy(&(*source)->line);
    pm_store_close(&(*source)->store);
    free(*source);
    *source = NULL;
}

pm_store *pm_source_store(pm_source *source)
{
    return source->store;
}

// Sends the request and waits for its answer; answers to earlier ones are dropped.
static pm_status ask(pm_source *s, pm_message *request, pm_message *answer)
{
    uint64_t id = request->header->request;
    pm_status status = pm_socket_send(s->line, NULL, request);
    for (int waited = 0; status.code == PM_OK && waited < ANSWER_MS;) {
        if (s->options.stop && atomic_load(s->options.stop))
            return pm_fail(PM_CANCELLED, "the worker stops");
        status = pm_socket_receive(s->line, NULL, answer, STOP_CHECK_MS);
        if (status.code == PM_TIMEOUT) {
            waited += STOP_CHECK_MS;
            status = pm_ok();
        } else if (status.code == PM_OK && answer->header->request == id) {
            if (answer->header->body_case == PARAMILL__HEADER__BODY_ERROR)
                return pm_error_status(answer->header->error);
            return pm_ok();
        } else if (status.code == PM_OK) {
            pm_message_clear(answer);
        }
    }
    if (status.code != PM_OK)
        return status;
    return pm_fail(PM_UNAVAILABLE, "the checkpoint service at %s does not answer within %d ms",
                   s->options.checkpoint, ANSWER_MS);
}

static pm_status pick(const Paramill__SnapshotListReply *reply, const char *name, uint64_t *version)
{
    char *end;
    uint64_t number = strtoull(name, &end, 10);
    *version = 0;
    if (!strcmp(name, "newest") && reply->n_versions > 0)
        *version = reply->versions[reply->n_versions - 1];
    for (size_t i = 0; i < reply->n_versions; i++)
        if (*name && !*end && reply->versions[i] == number)
            *version = number;
    for (size_t i = 0; i < reply->n_labels && i < reply->n_label_versions; i++)
        if (!strcmp(reply->labels[i], name))
            *version = reply->label_versions[i];
    return *version ? pm_ok() : pm_fail(PM_NOT_FOUND, "the checkpoint service has no version \"%s\"", name);
}

static pm_status resolve_remote(pm_source *s, const char *name, uint64_t *version)
{
    pm_message answer = {0}, request = {0};
    Paramill__SnapshotListRequest *list = pm_proto_new(&paramill__snapshot_list_request__descriptor);
    if (list)
        list->model = pm_proto_string(s->options.model);
    request.header = pm_header_create(++s->request, 0, PARAMILL__HEADER__BODY_SNAPSHOT_LIST_REQUEST, list);
    if (!request.header)
        return pm_fail(PM_NO_MEMORY, "a request for versions");
    pm_status status = ask(s, &request, &answer);
    if (status.code == PM_OK && answer.header->body_case != PARAMILL__HEADER__BODY_SNAPSHOT_LIST_REPLY)
        status = pm_fail(PM_PROTOCOL, "%s answers with something else than versions", s->options.checkpoint);
    if (status.code == PM_OK)
        status = pick(answer.header->snapshot_list_reply, name, version);
    pm_message_clear(&answer);
    return status;
}

pm_status pm_source_resolve(pm_source *source, const char *name, uint64_t *version)
{
    if (!source->line)
        return pm_store_resolve(source->store, name, version);
    pm_status status = resolve_remote(source, name, version);
    if (status.code == PM_UNAVAILABLE && pm_store_resolve(source->store, name, version).code == PM_OK)
        return pm_ok();
    return status;
}

static pm_status pull(pm_source *s, uint64_t version)
{
    pm_pull *copy = NULL;
    pm_status status = pm_pull_create(&copy, s->store, version);
    while (status.code == PM_OK && !pm_pull_is_done(copy)) {
        pm_message request = {0}, answer = {0};
        status = pm_pull_next(copy, ++s->request, &request);
        if (status.code == PM_OK)
            status = ask(s, &request, &answer);
        if (status.code == PM_OK)
            status = pm_pull_take(copy, &answer);
        pm_message_clear(&answer);
    }
    pm_pull_destroy(&copy);
    return status;
}

pm_status pm_source_fetch(pm_source *source, uint64_t version)
{
    char path[PM_PATH_MAX];
    pm_store_path(source->store, version, "manifest.json", path);
    if (!source->line || access(path, F_OK) == 0)
        return pm_ok();
    return pm_wrap(pull(source, version), "pulling from %s", source->options.checkpoint);
}

pm_status pm_source_trim(pm_source *source)
{
    return source->line ? pm_store_retain(source->store, KEEP) : pm_ok();
}
