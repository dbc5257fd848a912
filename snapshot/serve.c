#include "snapshot/serve.h"

#include "core/text.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_MAX = 1 << 20 };

bool pm_snapshot_is_request(const pm_message *message)
{
    Paramill__Header__BodyCase kind = message->header->body_case;
    return kind == PARAMILL__HEADER__BODY_SNAPSHOT_LIST_REQUEST ||
           kind == PARAMILL__HEADER__BODY_SNAPSHOT_MANIFEST_REQUEST ||
           kind == PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REQUEST;
}

static pm_status check_model(pm_store *store, const char *model)
{
    if (model && !strcmp(model, pm_store_model(store)))
        return pm_ok();
    return pm_fail(PM_NOT_FOUND, "this store holds %s, not %s", pm_store_model(store), model ? model : "");
}

static pm_status fill_labels(pm_store *store, Paramill__SnapshotListReply *reply)
{
    pm_label labels[PM_LABELS_MAX];
    size_t count;
    pm_status status = pm_store_labels(store, labels, &count);
    if (status.code != PM_OK || count == 0)
        return status;
    reply->labels = calloc(count, sizeof *reply->labels);
    reply->label_versions = calloc(count, sizeof *reply->label_versions);
    if (!reply->labels || !reply->label_versions)
        return pm_fail(PM_NO_MEMORY, "a list of labels");
    for (size_t i = 0; i < count; i++) {
        reply->labels[i] = pm_proto_string(labels[i].name);
        if (!reply->labels[i])
            return pm_fail(PM_NO_MEMORY, "a list of labels");
        reply->n_labels = i + 1;
        reply->label_versions[i] = labels[i].version;
        reply->n_label_versions = i + 1;
    }
    return pm_ok();
}

static pm_status answer_list(pm_store *store, const Paramill__Header *in, pm_message *answer)
{
    pm_status status = check_model(store, in->snapshot_list_request->model);
    if (status.code != PM_OK)
        return status;
    Paramill__SnapshotListReply *reply = pm_proto_new(&paramill__snapshot_list_reply__descriptor);
    if (!reply)
        return pm_fail(PM_NO_MEMORY, "a list of versions");
    status = pm_store_list(store, &reply->versions, &reply->n_versions);
    if (status.code == PM_OK)
        status = fill_labels(store, reply);
    if (status.code != PM_OK) {
        paramill__snapshot_list_reply__free_unpacked(reply, NULL);
        return status;
    }
    answer->header =
        pm_header_create(in->request, in->epoch, PARAMILL__HEADER__BODY_SNAPSHOT_LIST_REPLY, reply);
    return answer->header ? pm_ok() : pm_fail(PM_NO_MEMORY, "a list of versions");
}

static pm_status answer_manifest(pm_store *store, const Paramill__Header *in, pm_message *answer)
{
    const Paramill__SnapshotManifestRequest *ask = in->snapshot_manifest_request;
    char path[PM_PATH_MAX], *json;
    size_t size;
    pm_status status = check_model(store, ask->model);
    if (status.code != PM_OK)
        return status;
    pm_store_path(store, ask->version, "manifest.json", path);
    status = pm_read_file(path, PM_MANIFEST_MAX, &json, &size);
    if (status.code != PM_OK)
        return status;
    Paramill__SnapshotManifestReply *reply = pm_proto_new(&paramill__snapshot_manifest_reply__descriptor);
    if (reply)
        reply->version = ask->version;
    answer->header =
        pm_header_create(in->request, in->epoch, PARAMILL__HEADER__BODY_SNAPSHOT_MANIFEST_REPLY, reply);
    status = answer->header ? pm_message_add(answer, pm_buffer_copy(json, size))
                            : pm_fail(PM_NO_MEMORY, "a manifest to send");
    free(json);
    return status;
}

static pm_status read_chunk(const char *path, uint64_t offset, uint32_t size, pm_buffer **chunk,
                            uint64_t *total)
{
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno("%s", path);
    pm_status status = fstat(fd, &stat) ? pm_fail_errno("%s", path) : pm_ok();
    uint64_t whole = status.code == PM_OK ? (uint64_t)stat.st_size : 0;
    if (status.code == PM_OK && offset > whole)
        status = pm_fail(PM_INVALID, "%s has %llu bytes", path, (unsigned long long)whole);
    if (status.code == PM_OK) {
        size_t want = whole - offset < size ? (size_t)(whole - offset) : size, got = 0;
        *chunk = pm_buffer_create(want);
        while (*chunk && got < want) {
            ssize_t n = pread(fd, (char *)(*chunk)->data + got, want - got, (off_t)(offset + got));
            if (n <= 0)
                break;
            got += (size_t)n;
        }
        if (!*chunk || got < want) {
            pm_buffer_unref(chunk);
            status = pm_fail(PM_IO, "cannot read %s", path);
        }
    }
    *total = whole;
    close(fd);
    return status;
}

static pm_status answer_chunk(pm_store *store, const Paramill__Header *in, pm_message *answer)
{
    const Paramill__SnapshotChunkRequest *ask = in->snapshot_chunk_request;
    pm_status status = check_model(store, ask->model);
    if (status.code == PM_OK && (!ask->file || !pm_manifest_name_ok(ask->file)))
        status = pm_fail(PM_INVALID, "no file name that a version could have");
    if (status.code == PM_OK && (ask->size == 0 || ask->size > CHUNK_MAX))
        status = pm_fail(PM_INVALID, "a chunk has 1 to %d bytes", CHUNK_MAX);
    if (status.code != PM_OK)
        return status;
    char path[PM_PATH_MAX];
    pm_buffer *chunk = NULL;
    uint64_t total = 0;
    pm_store_path(store, ask->version, ask->file, path);
    status = read_chunk(path, ask->offset, ask->size, &chunk, &total);
    if (status.code != PM_OK)
        return status;
    status = pm_message_add(answer, chunk);
    Paramill__SnapshotChunkReply *reply = pm_proto_new(&paramill__snapshot_chunk_reply__descriptor);
    if (reply) {
        reply->offset = ask->offset;
        reply->total = total;
    }
    answer->header =
        pm_header_create(in->request, in->epoch, PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REPLY, reply);
    return status.code == PM_OK && answer->header ? pm_ok() : pm_fail(PM_NO_MEMORY, "a chunk to send");
}

pm_status pm_snapshot_answer(pm_store *store, const pm_message *request, pm_message *answer)
{
    const Paramill__Header *in = request->header;
    pm_status status;
    if (in->body_case == PARAMILL__HEADER__BODY_SNAPSHOT_LIST_REQUEST)
        status = answer_list(store, in, answer);
    else if (in->body_case == PARAMILL__HEADER__BODY_SNAPSHOT_MANIFEST_REQUEST)
        status = answer_manifest(store, in, answer);
    else if (in->body_case == PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REQUEST)
        status = answer_chunk(store, in, answer);
    else
        status = pm_fail(PM_INVALID, "no request for snapshots");
    if (status.code == PM_OK)
        return status;
    pm_message_clear(answer);
    answer->header = pm_header_error(in->request, in->epoch, status, 0);
    return answer->header ? pm_ok() : pm_fail(PM_NO_MEMORY, "an answer");
}
