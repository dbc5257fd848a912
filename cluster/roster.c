#include "cluster/roster_impl.h"

#include <stdlib.h>
#include <string.h>

enum { HELLO_RETRY_MS = 500, LINGER_MS = 3000, ABSENT_MS = 60000 };

const char *pm_role_name(Paramill__Role role)
{
    static const char *const names[] = {"none", "coordinator", "server", "worker", "checkpoint service"};
    return (unsigned)role < sizeof names / sizeof names[0] ? names[role] : "unknown";
}

static void make_places(pm_roster *r, int64_t now_ms)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < r->job->cluster.servers; i++)
        r->places[at++] = (place){.role = PARAMILL__ROLE__ROLE_SERVER, .rank = i, .absent_ms = now_ms};
    for (uint32_t i = 0; i < r->job->cluster.workers; i++)
        r->places[at++] = (place){.role = PARAMILL__ROLE__ROLE_WORKER, .rank = i, .absent_ms = now_ms};
    r->places[at] = (place){.role = PARAMILL__ROLE__ROLE_CHECKPOINT, .absent_ms = now_ms};
}

pm_status pm_roster_create(pm_roster **roster, const pm_roster_options *options, int64_t now_ms)
{
    const pm_job *job = options->job;
    pm_steps steps;
    pm_status status = pm_steps_make(&steps, job, options->train_rows);
    if (status.code != PM_OK)
        return status;
    if (job->cluster.servers == 0 || job->cluster.workers == 0)
        return pm_fail(PM_INVALID, "a cluster of %u servers and %u workers", job->cluster.servers,
                       job->cluster.workers);
    pm_roster *r = calloc(1, sizeof *r);
    if (!r)
        return pm_fail(PM_NO_MEMORY, "a coordinator");
    *r = (pm_roster){.job = job,
                     .events = options->events,
                     .steps = steps,
                     .train_rows = options->train_rows,
                     .vocabulary = options->vocabulary ? options->vocabulary : "",
                     .resume = options->resume,
                     .stay = options->stay,
                     .absent_ms = options->absent_ms ? options->absent_ms : ABSENT_MS,
                     .epoch = options->first_epoch ? options->first_epoch - 1 : 0,
                     .number = 1,
                     .phase_ms = now_ms};
    r->place_count = job->cluster.servers + job->cluster.workers + 1;
    r->places = calloc(r->place_count, sizeof *r->places);
    status = r->places ? pm_roster_score_create(r) : pm_fail(PM_NO_MEMORY, "a coordinator");
    if (status.code == PM_OK) {
        make_places(r, now_ms);
        *roster = r;
    } else {
        pm_roster_destroy(&r);
    }
    return status;
}

static void clear_place(place *p)
{
    free(p->name);
    free(p->host);
    for (uint32_t i = 0; i < p->endpoint_count; i++)
        free(p->endpoints[i]);
    free(p->endpoints);
    p->name = p->host = NULL;
    p->endpoints = NULL;
    p->endpoint_count = 0;
}

void pm_roster_destroy(pm_roster **roster)
{
    if (!roster || !*roster)
        return;
    pm_roster *r = *roster;
    for (uint32_t i = 0; r->places && i < r->place_count; i++)
        clear_place(&r->places[i]);
    pm_roster_score_destroy(r);
    pm_outbox_free(&r->outbox);
    free(r->places);
    free(r->kernel_set);
    free(r);
    *roster = NULL;
}

static place *find(pm_roster *r, const char *name)
{
    for (uint32_t i = 0; i < r->place_count; i++)
        if (r->places[i].here && !strcmp(r->places[i].name, name))
            return &r->places[i];
    return NULL;
}

static bool is_sound(const char *text)
{
    size_t size = strnlen(text, NAME_MAX_BYTES + 1);
    if (size == 0 || size > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return true;
}

static uint32_t endpoints_of(const pm_roster *r, Paramill__Role role)
{
    return role == PARAMILL__ROLE__ROLE_SERVER ? r->job->cluster.shards_per_server
                                               : role == PARAMILL__ROLE__ROLE_CHECKPOINT;
}

// The worker's, for the job.
static const char *kernel_set_of(const pm_roster *r, const Paramill__Hello *hello)
{
    return r->job->precision == PM_PRECISION_BF16 ? hello->kernel_set_bf16 : hello->kernel_set;
}

static pm_status check_hello(const pm_roster *r, const Paramill__Hello *hello)
{
    if (hello->role < PARAMILL__ROLE__ROLE_SERVER || hello->role > PARAMILL__ROLE__ROLE_CHECKPOINT)
        return pm_fail(PM_INVALID, "no member has role %d", (int)hello->role);
    if (!is_sound(hello->name) || !is_sound(hello->host))
        return pm_fail(PM_INVALID, "a member's name and host are 1 to %d printable characters",
                       NAME_MAX_BYTES);
    if (hello->n_endpoints != endpoints_of(r, hello->role))
        return pm_fail(PM_INVALID, "a %s of this job has %u endpoints, this one %zu",
                       pm_role_name(hello->role), endpoints_of(r, hello->role), hello->n_endpoints);
    for (size_t i = 0; i < hello->n_endpoints; i++)
        if (!is_sound(hello->endpoints[i]))
            return pm_fail(PM_INVALID, "an endpoint is 1 to %d printable characters", NAME_MAX_BYTES);
    if (hello->role == PARAMILL__ROLE__ROLE_WORKER && r->kernel_set &&
        strcmp(r->kernel_set, kernel_set_of(r, hello)) != 0)
        return pm_fail(PM_INVALID,
                       "the job runs with kernel set %s, this worker has %.64s; results would differ",
                       r->kernel_set, kernel_set_of(r, hello));
    return pm_ok();
}

// Whoever has the endpoint of a member that is thought to be here has taken its place: two cannot have it.
static bool has_endpoint(const place *p, const Paramill__Hello *hello)
{
    for (uint32_t i = 0; i < p->endpoint_count && i < hello->n_endpoints; i++)
        if (!strcmp(p->endpoints[i], hello->endpoints[i]))
            return true;
    return false;
}

// The place of a member that comes: of its address, else the one a member on its host had, else the lowest
// free one.
static place *choose(pm_roster *r, const Paramill__Hello *hello)
{
    place *same_host = NULL, *free_place = NULL;
    for (uint32_t i = 0; i < r->place_count; i++) {
        place *p = &r->places[i];
        if (p->role != hello->role)
            continue;
        if (p->name && has_endpoint(p, hello))
            return p;
        if (p->here)
            continue;
        if (!same_host && p->host && !strcmp(p->host, hello->host))
            same_host = p;
        if (!free_place)
            free_place = p;
    }
    return same_host ? same_host : free_place;
}

static pm_status take_place(pm_roster *r, place *p, const Paramill__Hello *hello)
{
    clear_place(p);
    p->name = strdup(hello->name);
    p->host = strdup(hello->host);
    p->endpoints = calloc(hello->n_endpoints + 1, sizeof *p->endpoints);
    bool enough = p->name && p->host && p->endpoints;
    for (size_t i = 0; enough && i < hello->n_endpoints; i++) {
        p->endpoints[i] = strdup(hello->endpoints[i]);
        enough = p->endpoints[i] != NULL;
        p->endpoint_count++;
    }
    if (hello->role == PARAMILL__ROLE__ROLE_WORKER && !r->kernel_set)
        r->kernel_set = strdup(kernel_set_of(r, hello));
    if (enough)
        return pm_ok();
    clear_place(p);
    return pm_fail(PM_UNAVAILABLE, "the coordinator is out of memory");
}

static void handle_hello(pm_roster *r, const pm_peer *from, const Paramill__Header *header, int64_t now_ms)
{
    const Paramill__Hello *hello = header->hello;
    pm_status status = check_hello(r, hello);
    if (status.code != PM_OK) {
        pm_outbox_refuse(&r->outbox, 0, from, header, status, 0);
        return;
    }
    place *p = find(r, hello->name);
    if (p) { // its first directive got lost
        p->peer = *from;
        p->heard_ms = now_ms;
        pm_roster_instruct(r, p);
        return;
    }
    if ((p = choose(r, hello))) {
        if (p->here)
            pm_roster_leave(r, p, now_ms);
        status = take_place(r, p, hello);
        if (status.code == PM_OK) {
            p->here = true;
            p->beats = false;
            p->phase = PARAMILL__PHASE__PHASE_JOINED;
            p->epoch = p->clock = p->queue = p->directive = 0;
            pm_roster_tell_missing(r);
        }
    } else {
        status = pm_fail(PM_UNAVAILABLE, "the job has a %s for each place", pm_role_name(hello->role));
    }
    if (status.code != PM_OK) {
        pm_outbox_refuse(&r->outbox, 0, from, header, status, HELLO_RETRY_MS);
        return;
    }
    p->peer = *from;
    p->heard_ms = now_ms;
    pm_roster_changed(r);
}

// A version counts when it is of this run: when the run resumed from the store, or made it.
static void note_version(pm_roster *r, const Paramill__Heartbeat *beat)
{
    if (!r->floor_known) {
        r->floor_known = true;
        r->floor_version = r->resume ? 0 : beat->version;
    }
    if (beat->version <= r->floor_version || beat->version <= r->version)
        return;
    r->version = beat->version;
    r->version_step = beat->version_step;
    if (r->began && r->events.on_version)
        r->events.on_version(r->events.context, r->version, r->version_step);
    pm_roster_changed(r); // shards may let go of the pieces
}

static void handle_heartbeat(pm_roster *r, const pm_peer *from, const Paramill__Header *header,
                             int64_t now_ms)
{
    const Paramill__Heartbeat *beat = header->heartbeat;
    place *p = find(r, beat->name);
    if (!p) {
        pm_outbox_refuse(&r->outbox, 0, from, header, pm_fail(PM_NOT_FOUND, "no such member; say hello"), 1);
        return;
    }
    p->peer = *from;
    p->heard_ms = now_ms;
    // What a checkpoint service says of versions counts once it has opened its store.
    p->beats = p->role != PARAMILL__ROLE__ROLE_CHECKPOINT || beat->phase != PARAMILL__PHASE__PHASE_JOINED;
    p->phase = beat->phase;
    p->epoch = header->epoch;
    p->clock = beat->clock;
    p->queue = beat->queue;
    p->directive = beat->directive;
    if (p->role == PARAMILL__ROLE__ROLE_CHECKPOINT && p->beats) {
        note_version(r, beat);
        pm_roster_publish_scores(r);
    }
    pm_roster_instruct(r, p);
}

static void handle_report(pm_roster *r, const pm_peer *from, const Paramill__Header *header, int64_t now_ms)
{
    const Paramill__Report *report = header->report;
    place *p = find(r, report->name);
    if (!p)
        return;
    Paramill__Header *ack = pm_header_create(header->request, header->epoch, PARAMILL__HEADER__BODY_ACK,
                                             pm_proto_new(&paramill__ack__descriptor));
    pm_outbox_post(&r->outbox, 0, from, ack, NULL, 0);
    if (report->failure[0])
        pm_roster_stop(r,
                       pm_fail(PM_UNAVAILABLE, "%s %u on %s: %.180s", pm_role_name(p->role), p->rank, p->host,
                               report->failure),
                       now_ms);
    else if (header->epoch == r->epoch && r->phase == RUN)
        pm_roster_score(r, report, now_ms);
}

static void handle_status(pm_roster *r, const pm_peer *from, const Paramill__Header *header, int64_t now_ms)
{
    Paramill__StatusReply *reply = pm_proto_new(&paramill__status_reply__descriptor);
    char *page = pm_roster_page(r, now_ms);
    if (reply && page)
        reply->json = page;
    else
        free(page);
    pm_outbox_post(&r->outbox, 0, from,
                   pm_header_create(header->request, r->epoch, PARAMILL__HEADER__BODY_STATUS_REPLY, reply),
                   NULL, 0);
}

void pm_roster_handle(pm_roster *roster, const pm_peer *from, pm_message *message, int64_t now_ms)
{
    const Paramill__Header *header = message->header;
    place *p = NULL;
    switch (header->body_case) {
    case PARAMILL__HEADER__BODY_HELLO:
        handle_hello(roster, from, header, now_ms);
        break;
    case PARAMILL__HEADER__BODY_HEARTBEAT:
        handle_heartbeat(roster, from, header, now_ms);
        break;
    case PARAMILL__HEADER__BODY_REPORT:
        handle_report(roster, from, header, now_ms);
        break;
    case PARAMILL__HEADER__BODY_GOODBYE:
        p = find(roster, header->goodbye->name);
        if (p)
            pm_roster_leave(roster, p, now_ms);
        break;
    case PARAMILL__HEADER__BODY_STATUS_REQUEST:
        handle_status(roster, from, header, now_ms);
        break;
    case PARAMILL__HEADER__BODY_RESTORE_DONE: // the heartbeat says it too
    case PARAMILL__HEADER__BODY_ERROR:
        break;
    default:
        pm_outbox_refuse(
            &roster->outbox, 0, from, header,
            pm_fail(PM_PROTOCOL, "a coordinator takes no message of kind %d", (int)header->body_case), 0);
    }
    pm_roster_tick(roster, now_ms);
}

void pm_roster_tick(pm_roster *roster, int64_t now_ms)
{
    for (uint32_t i = 0; i < roster->place_count; i++) {
        place *p = &roster->places[i];
        if (p->here && now_ms - p->heard_ms > roster->job->cluster.lease_ms)
            pm_roster_leave(roster, p, now_ms);
    }
    while (pm_roster_advance(roster, now_ms))
        pm_roster_changed(roster);
}

void pm_roster_stop(pm_roster *roster, pm_status why, int64_t now_ms)
{
    if (roster->phase == STOP)
        return;
    roster->phase = STOP;
    roster->phase_ms = now_ms;
    roster->result = why;
    pm_roster_changed(roster);
}

bool pm_roster_is_running(const pm_roster *roster)
{
    return roster->phase == RUN;
}

uint64_t pm_roster_epoch(const pm_roster *roster)
{
    return roster->epoch;
}

bool pm_roster_is_over(const pm_roster *roster, int64_t now_ms)
{
    if (roster->phase != STOP)
        return false;
    for (uint32_t i = 0; i < roster->place_count; i++)
        if (roster->places[i].here && now_ms - roster->phase_ms < LINGER_MS)
            return false;
    return true;
}

pm_status pm_roster_result(const pm_roster *roster)
{
    return roster->result;
}

pm_outbox *pm_roster_outbox(pm_roster *roster)
{
    return &roster->outbox;
}
