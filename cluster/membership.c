#include "cluster/membership.h"

#include <stdlib.h>
#include <string.h>

enum {
    HELLO_MS = 500,
    REPORT_RESEND_MS = 1000,
    REPORTS_MAX = 256,
    FIRST_HEARTBEAT_MS = 200,
    ABSENT_MS = 60000
};

typedef struct report {
    Paramill__Header *header; // NULL: this place is free
    int64_t resend_ms;
} report;

struct pm_membership {
    Paramill__Role role;
    char *coordinator, *name, *host, *kernel_set, *kernel_set_bf16, *code_version;
    char **endpoints;
    uint32_t endpoint_count, pid, heartbeat_ms, absent_ms;
    pm_outbox outbox;

    bool welcome;
    int64_t next_ms;  // of the next hello or heartbeat
    int64_t heard_ms; // of the coordinator
    uint64_t directive;
    pm_message newest; // directive that the role has not taken
    pm_member_state state;
    report reports[REPORTS_MAX]; // a ring: report n in place n % REPORTS_MAX
    uint64_t report_count;
    pm_status failure;
};

static bool copy_strings(pm_membership *m, const pm_membership_options *o)
{
    const pm_member_options *member = o->member;
    m->coordinator = strdup(member->coordinator);
    m->name = strdup(o->name);
    m->host = strdup(o->host);
    m->kernel_set = strdup(member->kernel_set ? member->kernel_set : "");
    m->kernel_set_bf16 = strdup(member->kernel_set_bf16 ? member->kernel_set_bf16 : "");
    m->code_version = strdup(member->code_version ? member->code_version : "");
    m->endpoints = calloc((size_t)member->endpoint_count + 1, sizeof *m->endpoints);
    bool good = m->coordinator && m->name && m->host && m->kernel_set && m->kernel_set_bf16 &&
                m->code_version && m->endpoints;
    for (uint32_t i = 0; good && i < member->endpoint_count; i++) {
        m->endpoints[i] = strdup(member->endpoints[i]);
        good = m->endpoints[i] != NULL;
        m->endpoint_count++;
    }
    return good;
}

pm_status pm_membership_create(pm_membership **membership, const pm_membership_options *options,
                               int64_t now_ms)
{
    pm_membership *m = calloc(1, sizeof *m);
    if (!m || !copy_strings(m, options)) {
        pm_membership_destroy(&m);
        return pm_fail(PM_NO_MEMORY, "a member");
    }
    m->role = options->member->role;
    m->pid = options->pid;
    m->heartbeat_ms = options->member->heartbeat_ms ? options->member->heartbeat_ms : FIRST_HEARTBEAT_MS;
    m->absent_ms = options->member->absent_ms ? options->member->absent_ms : ABSENT_MS;
    m->heard_ms = m->next_ms = now_ms;
    *membership = m;
    return pm_ok();
}

static void drop_report(report *r)
{
    if (r->header)
        paramill__header__free_unpacked(r->header, NULL);
    r->header = NULL;
}

void pm_membership_destroy(pm_membership **membership)
{
    if (!membership || !*membership)
        return;
    pm_membership *m = *membership;
    for (int i = 0; i < REPORTS_MAX; i++)
        drop_report(&m->reports[i]);
    for (uint32_t i = 0; m->endpoints && i < m->endpoint_count; i++)
        free(m->endpoints[i]);
    free(m->endpoints);
    free(m->coordinator);
    free(m->name);
    free(m->host);
    free(m->kernel_set);
    free(m->kernel_set_bf16);
    free(m->code_version);
    pm_message_clear(&m->newest);
    pm_outbox_free(&m->outbox);
    free(m);
    *membership = NULL;
}

static void post(pm_membership *m, uint64_t request, uint64_t epoch, Paramill__Header__BodyCase kind,
                 void *body)
{
    pm_outbox_post(&m->outbox, 0, NULL, pm_header_create(request, epoch, kind, body), NULL, 0);
}

static void say_hello(pm_membership *m)
{
    Paramill__Hello *hello = pm_proto_new(&paramill__hello__descriptor);
    if (!hello)
        return;
    hello->role = m->role;
    hello->name = pm_proto_string(m->name);
    hello->host = pm_proto_string(m->host);
    hello->pid = m->pid;
    hello->kernel_set = pm_proto_string(m->kernel_set);
    hello->kernel_set_bf16 = pm_proto_string(m->kernel_set_bf16);
    hello->code_version = pm_proto_string(m->code_version);
    hello->endpoints = calloc((size_t)m->endpoint_count + 1, sizeof *hello->endpoints);
    for (uint32_t i = 0; hello->endpoints && i < m->endpoint_count; i++)
        hello->endpoints[hello->n_endpoints++] = pm_proto_string(m->endpoints[i]);
    post(m, 1, m->state.epoch, PARAMILL__HEADER__BODY_HELLO, hello);
}

static void beat(pm_membership *m)
{
    Paramill__Heartbeat *beat = pm_proto_new(&paramill__heartbeat__descriptor);
    if (!beat)
        return;
    beat->name = pm_proto_string(m->name);
    beat->directive = m->directive;
    beat->phase = m->state.phase;
    beat->clock = m->state.clock;
    beat->queue = m->state.queue;
    beat->version = m->state.version;
    beat->version_step = m->state.version_step;
    post(m, 1, m->state.epoch, PARAMILL__HEADER__BODY_HEARTBEAT, beat);
}

void pm_directive_inherit(Paramill__Directive *newer, Paramill__Directive *older)
{
    if (!older->job[0] || newer->job[0])
        return;
    char *const job = newer->job, *const vocabulary = newer->vocabulary;
    newer->job = older->job;
    newer->vocabulary = older->vocabulary;
    older->job = job;
    older->vocabulary = vocabulary;
}

static void take_directive(pm_membership *m, pm_message *message)
{
    const Paramill__Directive *directive = message->header->directive;
    m->welcome = true;
    if (directive->heartbeat_ms >= 10 && directive->heartbeat_ms <= 60000)
        m->heartbeat_ms = directive->heartbeat_ms;
    if (directive->number <= m->directive)
        return;
    if (m->newest.header)
        pm_directive_inherit(message->header->directive, m->newest.header->directive);
    m->directive = directive->number;
    pm_message_clear(&m->newest);
    pm_message_move(&m->newest, message);
}

static void take_error(pm_membership *m, const Paramill__Error *error, int64_t now_ms)
{
    if (error->code == PM_NOT_FOUND || error->retry_after_ms > 0) {
        if (m->welcome)
            m->directive = 0; // a new coordinator counts from one
        m->welcome = false;
        m->next_ms = now_ms + (error->retry_after_ms < 5000 ? error->retry_after_ms : 5000);
        return;
    }
    m->failure = pm_wrap(pm_error_status(error), "the coordinator at %s refuses this member", m->coordinator);
}

void pm_membership_handle(pm_membership *membership, pm_message *message, int64_t now_ms)
{
    pm_membership *m = membership;
    const Paramill__Header *header = message->header;
    m->heard_ms = now_ms;
    if (header->body_case == PARAMILL__HEADER__BODY_DIRECTIVE)
        take_directive(m, message);
    else if (header->body_case == PARAMILL__HEADER__BODY_ERROR)
        take_error(m, header->error, now_ms);
    else if (header->body_case == PARAMILL__HEADER__BODY_ACK) {
        report *r = &m->reports[header->request % REPORTS_MAX];
        if (r->header && r->header->request == header->request)
            drop_report(r);
    }
}

void pm_membership_tell(pm_membership *membership, const pm_member_state *state, int64_t now_ms)
{
    const pm_member_state *old = &membership->state;
    bool news = state->phase != old->phase || state->epoch != old->epoch || state->version != old->version;
    for (int i = 0; state->epoch != old->epoch && i < REPORTS_MAX; i++)
        drop_report(&membership->reports[i]); // of steps that are done anew
    membership->state = *state;
    if (news && membership->welcome)
        membership->next_ms = now_ms;
}

static void send_report(pm_membership *m, report *r, int64_t now_ms)
{
    pm_message message = {0}, original = {.header = r->header};
    pm_status status = pm_message_copy(&message, &original);
    if (status.code == PM_OK)
        status = pm_outbox_add(&m->outbox, 0, NULL, &message);
    r->resend_ms = now_ms + REPORT_RESEND_MS; // also when out of memory: later, then
}

void pm_membership_report(pm_membership *membership, Paramill__Report *body, int64_t now_ms)
{
    pm_membership *m = membership;
    report *r = &m->reports[++m->report_count % REPORTS_MAX];
    drop_report(r);
    body->name = pm_proto_string(m->name);
    r->header = pm_header_create(m->report_count, m->state.epoch, PARAMILL__HEADER__BODY_REPORT, body);
    if (r->header)
        send_report(m, r, now_ms);
}

pm_status pm_membership_tick(pm_membership *membership, int64_t now_ms)
{
    pm_membership *m = membership;
    if (m->failure.code != PM_OK)
        return m->failure;
    if (now_ms - m->heard_ms > m->absent_ms)
        return pm_fail(PM_TIMEOUT, "the coordinator at %s is silent for %u ms", m->coordinator, m->absent_ms);
    for (int i = 0; m->welcome && i < REPORTS_MAX; i++)
        if (m->reports[i].header && now_ms >= m->reports[i].resend_ms)
            send_report(m, &m->reports[i], now_ms);
    if (now_ms < m->next_ms)
        return pm_ok();
    if (m->welcome)
        beat(m);
    else
        say_hello(m);
    m->next_ms = now_ms + (m->welcome ? m->heartbeat_ms : HELLO_MS);
    return pm_ok();
}

void pm_membership_goodbye(pm_membership *membership)
{
    Paramill__Goodbye *goodbye = pm_proto_new(&paramill__goodbye__descriptor);
    if (goodbye)
        goodbye->name = pm_proto_string(membership->name);
    post(membership, 0, membership->state.epoch, PARAMILL__HEADER__BODY_GOODBYE, goodbye);
}

bool pm_membership_take(pm_membership *membership, pm_message *message)
{
    if (!membership->newest.header)
        return false;
    pm_message_move(message, &membership->newest);
    return true;
}

pm_outbox *pm_membership_outbox(pm_membership *membership)
{
    return &membership->outbox;
}
