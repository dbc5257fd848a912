#include "ps/disk.h"

#include "core/clock.h"
#include "snapshot/serve.h"

#include <string.h>

pm_cut *pm_disk_cut(pm_message *message)
{
    if (message->header->body_case != PARAMILL__HEADER__BODY_PUBLISHED || message->frame_count != 1 ||
        message->frames[0]->size != sizeof(pm_cut *))
        return NULL;
    pm_cut *cut;
    memcpy(&cut, message->frames[0]->data, sizeof cut);
    return cut;
}

bool pm_disk_asker(pm_message *message, pm_peer *peer)
{
    if (message->frame_count == 0 || message->frames[message->frame_count - 1]->size != sizeof *peer)
        return false;
    pm_buffer **last = &message->frames[--message->frame_count];
    memcpy(peer, (*last)->data, sizeof *peer);
    pm_buffer_unref(last);
    return true;
}

static pm_status send_cut(pm_socket *pipe, uint64_t request, pm_cut *cut)
{
    pm_message message = {.header = pm_header_create(request, 0, PARAMILL__HEADER__BODY_PUBLISHED,
                                                     pm_proto_new(&paramill__published__descriptor))};
    if (!message.header)
        return pm_fail(PM_NO_MEMORY, "a message");
    pm_status status = pm_message_add(&message, pm_buffer_copy(&cut, sizeof cut));
    if (status.code == PM_OK)
        status = pm_socket_send(pipe, NULL, &message);
    pm_message_clear(&message);
    return status;
}

pm_status pm_disk_save(pm_socket *pipe, pm_cut **cut)
{
    pm_status status = send_cut(pipe, 0, *cut);
    if (status.code != PM_OK)
        pm_cut_destroy(cut);
    *cut = NULL;
    return status;
}

static pm_status send_version(pm_socket *pipe, uint64_t version, uint64_t step)
{
    Paramill__Heartbeat *beat = pm_proto_new(&paramill__heartbeat__descriptor);
    if (beat) {
        beat->version = version;
        beat->version_step = step;
    }
    pm_message message = {.header = pm_header_create(0, 0, PARAMILL__HEADER__BODY_HEARTBEAT, beat)};
    return message.header ? pm_socket_send(pipe, NULL, &message) : pm_fail(PM_NO_MEMORY, "a message");
}

pm_status pm_disk_load(pm_socket *pipe, uint64_t version)
{
    return send_version(pipe, version, 0);
}

pm_status pm_disk_ask(pm_socket *pipe, const pm_peer *from, pm_message *request)
{
    pm_status status = pm_message_add(request, pm_buffer_copy(from, sizeof *from));
    return status.code == PM_OK ? pm_socket_send(pipe, NULL, request) : status;
}

// ---- on the disk's thread ----

static pm_status save(pm_disk *disk, pm_socket *pipe, pm_cut *cut)
{
    pm_clock clock = pm_clock_monotonic();
    int64_t begin = pm_now_us(&clock);
    uint64_t version = 0, step = cut->clock;
    pm_status status = pm_archive_save(disk->store, &disk->source, cut, &version);
    pm_cut_destroy(&cut);
    int64_t took = pm_now_us(&clock) - begin;
    pm_metric_observe_us(disk->save_seconds, took);
    if (status.code != PM_OK)
        return status;
    pm_log_info(&disk->log, "saved", "version=%llu step=%llu ms=%lld", (unsigned long long)version,
                (unsigned long long)step, (long long)(took / 1000));
    return send_version(pipe, version, step);
}

static pm_status load(pm_disk *disk, pm_socket *pipe, uint64_t version)
{
    pm_cut *cut = NULL;
    pm_status status = pm_archive_load(disk->store, disk->source.tables, version, &cut);
    if (status.code == PM_OK)
        status = send_cut(pipe, version, cut);
    if (status.code != PM_OK)
        pm_cut_destroy(&cut);
    return status;
}

static void answer(pm_disk *disk, pm_socket *pipe, pm_message *request)
{
    pm_peer peer;
    pm_message reply = {0};
    if (!pm_disk_asker(request, &peer))
        return;
    pm_status status = pm_snapshot_answer(disk->store, request, &reply);
    if (status.code == PM_OK)
        status = pm_message_add(&reply, pm_buffer_copy(&peer, sizeof peer));
    if (status.code == PM_OK)
        status = pm_socket_send(pipe, NULL, &reply);
    if (status.code != PM_OK) // the asker asks again
        pm_log_warn(&disk->log, "answer_lost", "reason=\"%s\"", status.message);
    pm_message_clear(&reply);
}

static void report(pm_socket *pipe, pm_status failure)
{
    pm_message error = {.header = pm_header_error(0, 0, failure, 0)};
    pm_status status = error.header ? pm_socket_send(pipe, NULL, &error) : pm_ok();
    (void)status; // without memory for three words nothing else can be said
}

pm_status pm_disk_main(void *argument, pm_socket *pipe)
{
    pm_disk *disk = argument;
    for (;;) {
        pm_message order = {0};
        pm_status status = pm_socket_receive(pipe, NULL, &order, -1);
        if (status.code == PM_CANCELLED)
            continue;
        if (status.code != PM_OK)
            return status;
        Paramill__Header__BodyCase kind = order.header->body_case;
        pm_cut *cut = pm_disk_cut(&order);
        if (cut)
            status = save(disk, pipe, cut);
        else if (kind == PARAMILL__HEADER__BODY_HEARTBEAT)
            status = load(disk, pipe, order.header->heartbeat->version);
        else if (kind != PARAMILL__HEADER__BODY_GOODBYE)
            answer(disk, pipe, &order);
        pm_message_clear(&order);
        if (kind == PARAMILL__HEADER__BODY_GOODBYE)
            return pm_ok();
        if (status.code != PM_OK)
            report(pipe, status);
    }
}
