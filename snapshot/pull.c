#include "snapshot/serve.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

struct pm_pull {
    pm_store *store;
    pm_version_writer *writer; // NULL once published or given up
    uint64_t version;
    pm_buffer *json; // manifest.json as it came; NULL before
    pm_manifest manifest;
    uint32_t file;   // being pulled
    uint64_t offset; // of the next chunk
    int fd;          // of the file being written, -1: none
    bool done;
};

pm_status pm_pull_create(pm_pull **pull, pm_store *store, uint64_t version)
{
    pm_pull *p = calloc(1, sizeof *p);
    if (!p)
        return pm_fail(PM_NO_MEMORY, "a pull");
    p->store = store;
    p->version = version;
    p->fd = -1;
    pm_status status = pm_store_begin_copy(store, version, &p->writer);
    if (status.code == PM_OK)
        *pull = p;
    else
        free(p);
    return status;
}

void pm_pull_destroy(pm_pull **pull)
{
    if (!pull || !*pull)
        return;
    pm_pull *p = *pull;
    if (p->fd >= 0)
        close(p->fd);
    pm_version_abandon(&p->writer);
    pm_manifest_free(&p->manifest);
    pm_buffer_unref(&p->json);
    free(p);
    *pull = NULL;
}

static Paramill__Header *ask_manifest(const pm_pull *p, uint64_t id)
{
    Paramill__SnapshotManifestRequest *ask = pm_proto_new(&paramill__snapshot_manifest_request__descriptor);
    if (ask) {
        ask->model = pm_proto_string(pm_store_model(p->store));
        ask->version = p->version;
    }
    return pm_header_create(id, 0, PARAMILL__HEADER__BODY_SNAPSHOT_MANIFEST_REQUEST, ask);
}

static Paramill__Header *ask_chunk(const pm_pull *p, uint64_t id)
{
    Paramill__SnapshotChunkRequest *ask = pm_proto_new(&paramill__snapshot_chunk_request__descriptor);
    if (ask) {
        ask->model = pm_proto_string(pm_store_model(p->store));
        ask->version = p->version;
        ask->file = pm_proto_string(p->manifest.files[p->file].name);
        ask->offset = p->offset;
        ask->size = CHUNK;
    }
    return pm_header_create(id, 0, PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REQUEST, ask);
}

pm_status pm_pull_next(pm_pull *pull, uint64_t id, pm_message *request)
{
    if (pull->done)
        return pm_fail(PM_INTERNAL, "the pull is complete");
    request->header = pull->json ? ask_chunk(pull, id) : ask_manifest(pull, id);
    return request->header ? pm_ok() : pm_fail(PM_NO_MEMORY, "a request");
}

// Opens the next file that is wanted; publishes when there is none.
static pm_status next_file(pm_pull *p)
{
    while (p->file < p->manifest.file_count && !strncmp(p->manifest.files[p->file].name, "state-", 6))
        p->file++;
    if (p->file == p->manifest.file_count) {
        pm_status status = pm_version_publish_copy(&p->writer, p->json->data, p->json->size);
        p->done = status.code == PM_OK;
        return status;
    }
    char path[PM_PATH_MAX];
    pm_version_path(p->writer, p->manifest.files[p->file].name, path);
    p->offset = 0;
    p->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return p->fd < 0 ? pm_fail_errno("cannot create %s", path) : pm_ok();
}

static pm_status take_manifest(pm_pull *p, const pm_message *answer)
{
    if (answer->header->body_case != PARAMILL__HEADER__BODY_SNAPSHOT_MANIFEST_REPLY ||
        answer->frame_count != 1)
        return pm_fail(PM_PROTOCOL, "no manifest in the answer");
    pm_status status = pm_manifest_decode(&p->manifest, answer->frames[0]->data, answer->frames[0]->size);
    if (status.code != PM_OK)
        return status;
    p->json = pm_buffer_ref(answer->frames[0]);
    return next_file(p);
}

static pm_status take_chunk(pm_pull *p, const pm_message *answer)
{
    const Paramill__SnapshotChunkReply *reply = answer->header->snapshot_chunk_reply;
    if (answer->header->body_case != PARAMILL__HEADER__BODY_SNAPSHOT_CHUNK_REPLY || answer->frame_count != 1)
        return pm_fail(PM_PROTOCOL, "no chunk in the answer");
    const pm_manifest_file *file = &p->manifest.files[p->file];
    const pm_buffer *chunk = answer->frames[0];
    if (reply->offset != p->offset)
        return pm_ok(); // a repeated answer
    if (reply->total != file->bytes || chunk->size > CHUNK || chunk->size > file->bytes - p->offset ||
        (chunk->size == 0 && file->bytes > 0))
        return pm_fail(PM_CORRUPT, "%s does not have the size that the manifest says", file->name);
    for (size_t at = 0; at < chunk->size;) {
        ssize_t n = write(p->fd, (const char *)chunk->data + at, chunk->size - at);
        if (n < 0)
            return pm_fail_errno("cannot write %s", file->name);
        at += (size_t)n;
    }
    p->offset += chunk->size;
    if (p->offset < file->bytes)
        return pm_ok();
    int failed = fsync(p->fd);
    close(p->fd);
    p->fd = -1;
    p->file++;
    return failed ? pm_fail_errno("cannot sync %s", file->name) : next_file(p);
}

pm_status pm_pull_take(pm_pull *pull, const pm_message *answer)
{
    if (pull->done)
        return pm_ok();
    if (answer->header->body_case == PARAMILL__HEADER__BODY_ERROR)
        return pm_error_status(answer->header->error);
    pm_status status = pull->json ? take_chunk(pull, answer) : take_manifest(pull, answer);
    return pm_wrap(status, "pulling version %llu of %s", (unsigned long long)pull->version,
                   pm_store_model(pull->store));
}

bool pm_pull_is_done(const pm_pull *pull)
{
    return pull->done;
}
