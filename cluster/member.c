#include "cluster/member.h"

#include "cluster/endpoint.h"
#include "cluster/membership.h"
#include "net/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { TICK_MS = 50, TELL_MS = 100, SCORES_MAX = 16, MEMBER_NAME_MAX = PM_HOST_MAX + 48 };

struct pm_member {
    pm_actor *actor;
    pm_clock clock;
    pm_log log;
    char name[MEMBER_NAME_MAX];
    pm_membership *core; // the actor's, once it runs
    pm_net *net;
    char *coordinator;
    atomic_bool stop; // when no goodbye can be sent
    // The role's thread's.
    pm_member_state told;
    int64_t told_ms;
    Paramill__Score *scores[SCORES_MAX]; // that wait for a flush
    size_t score_count;
};

// ---- on the actor's thread ----

typedef struct line {
    pm_member *member;
    pm_loop *loop;
    pm_socket *pipe, *socket;
    bool lost;
} line;

static int64_t now(const line *l)
{
    return pm_now_ms(&l->member->clock);
}

static void hand_over(line *l, pm_message *message)
{
    pm_status status = pm_socket_send(l->pipe, NULL, message);
    if (status.code != PM_OK)
        pm_log_warn(&l->member->log, "directive_lost", "reason=\"%s\"", status.message);
}

// Takes what the core wants done; once the line is lost, only the role's goodbye is waited for.
static void settle(line *l)
{
    pm_message directive = {0};
    pm_status status = l->lost ? pm_ok() : pm_membership_tick(l->member->core, now(l));
    pm_outbox_send(pm_membership_outbox(l->member->core), &l->socket, 1);
    if (!l->lost && pm_membership_take(l->member->core, &directive))
        hand_over(l, &directive);
    if (status.code == PM_OK)
        return;
    l->lost = true;
    pm_message error = {.header = pm_header_error(0, 0, status, 0)};
    if (error.header)
        hand_over(l, &error);
}

static void on_coordinator(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    line *l = context;
    (void)socket, (void)from;
    if (message->header->body_case == PARAMILL__HEADER__BODY_PUBLISHED) {
        hand_over(l, message);
        return;
    }
    pm_membership_handle(l->member->core, message, now(l));
    settle(l);
}

static void on_role(void *context, pm_socket *socket, const pm_peer *from, pm_message *message)
{
    line *l = context;
    (void)socket, (void)from;
    const Paramill__Header *header = message->header;
    if (header->body_case == PARAMILL__HEADER__BODY_HEARTBEAT) {
        const Paramill__Heartbeat *beat = header->heartbeat;
        const pm_member_state state = {beat->phase, header->epoch, beat->clock,
                                       beat->queue, beat->version, beat->version_step};
        pm_membership_tell(l->member->core, &state, now(l));
    } else if (header->body_case == PARAMILL__HEADER__BODY_REPORT) {
        message->header->body_case = PARAMILL__HEADER__BODY__NOT_SET; // the report is the core's from here on
        pm_membership_report(l->member->core, header->report, now(l));
    } else if (header->body_case == PARAMILL__HEADER__BODY_GOODBYE) {
        pm_membership_goodbye(l->member->core);
        pm_outbox_send(pm_membership_outbox(l->member->core), &l->socket, 1);
        pm_loop_end(l->loop);
        return;
    }
    settle(l);
}

static void on_tick(void *context)
{
    settle(context);
}

static pm_status member_main(void *argument, pm_socket *pipe)
{
    line l = {.member = argument, .pipe = pipe};
    pm_status status = pm_loop_create(&l.loop, l.member->clock, &l.member->stop);
    if (status.code == PM_OK)
        status = pm_socket_create(&l.socket, l.member->net, PM_SOCKET_DEALER);
    if (status.code == PM_OK)
        status = pm_socket_connect(l.socket, l.member->coordinator);
    if (status.code == PM_OK)
        status = pm_loop_add(l.loop, l.socket, on_coordinator, &l);
    if (status.code == PM_OK)
        status = pm_loop_add(l.loop, pipe, on_role, &l);
    if (status.code == PM_OK)
        status = pm_loop_timer(l.loop, TICK_MS, on_tick, &l);
    if (status.code == PM_OK) {
        settle(&l);
        status = pm_loop_run(l.loop);
    }
    if (status.code != PM_OK) {
        pm_message error = {.header = pm_header_error(0, 0, status, 0)};
        if (error.header)
            hand_over(&l, &error);
    }
    pm_socket_destroy(&l.socket);
    pm_loop_destroy(&l.loop);
    return status;
}

// ---- on the role's thread ----

static pm_status make_name(pm_member *member, const char *host)
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return pm_fail_errno("random numbers for a name");
    snprintf(member->name, sizeof member->name, "%s:%d:%016llx", host, (int)getpid(),
             (unsigned long long)random);
    return pm_ok();
}

pm_status pm_member_start(pm_member **member, pm_net *net, const pm_member_options *options)
{
    pm_member *m = calloc(1, sizeof *m);
    if (!m)
        return pm_fail(PM_NO_MEMORY, "a member");
    char host[PM_HOST_MAX];
    pm_host_name(host);
    if (options->host && options->host[0])
        snprintf(host, sizeof host, "%s", options->host);
    m->net = net;
    m->clock = options->clock;
    m->log = options->log;
    m->coordinator = strdup(options->coordinator);
    pm_status status = m->coordinator ? make_name(m, host) : pm_fail(PM_NO_MEMORY, "a member");
    const pm_membership_options core = {options, m->name, host, (uint32_t)getpid()};
    if (status.code == PM_OK)
        status = pm_membership_create(&m->core, &core, pm_now_ms(&m->clock));
    if (status.code == PM_OK)
        status = pm_actor_start(&m->actor, net, "member", member_main, m);
    *member = m;
    if (status.code != PM_OK)
        pm_member_stop(member);
    return status;
}

pm_socket *pm_member_pipe(pm_member *member)
{
    return pm_actor_pipe(member->actor);
}

const char *pm_member_name(const pm_member *member)
{
    return member->name;
}

static pm_status send(pm_member *member, uint64_t epoch, Paramill__Header__BodyCase kind, void *body)
{
    pm_message message = {.header = pm_header_create(0, epoch, kind, body)};
    if (!message.header)
        return pm_fail(PM_NO_MEMORY, "a message to the coordinator");
    return pm_wrap(pm_socket_send(pm_actor_pipe(member->actor), NULL, &message),
                   "the line to the coordinator");
}

static bool is_news(const pm_member *member, const pm_member_state *state)
{
    const pm_member_state *old = &member->told;
    return state->phase != old->phase || state->epoch != old->epoch || state->version != old->version ||
           pm_now_ms(&member->clock) >= member->told_ms + TELL_MS;
}

pm_status pm_member_tell(pm_member *member, const pm_member_state *state)
{
    if (!is_news(member, state))
        return pm_ok();
    pm_status status = pm_member_flush(member); // what was scored belongs to the state before
    if (status.code != PM_OK)
        return status;
    member->told = *state;
    member->told_ms = pm_now_ms(&member->clock);
    Paramill__Heartbeat *beat = pm_proto_new(&paramill__heartbeat__descriptor);
    if (beat) {
        beat->phase = state->phase;
        beat->clock = state->clock;
        beat->queue = state->queue;
        beat->version = state->version;
        beat->version_step = state->version_step;
    }
    return send(member, state->epoch, PARAMILL__HEADER__BODY_HEARTBEAT, beat);
}

// A copy with counters of its own; NULL when out of memory.
static Paramill__Score *copy_score(const Paramill__Score *score)
{
    Paramill__Score *copy = pm_proto_new(&paramill__score__descriptor);
    if (!copy)
        return NULL;
    *copy = *score;
    pm_proto_list(&copy->counters, &copy->n_counters, score->counters, score->n_counters);
    return copy;
}

pm_status pm_member_score(pm_member *member, const Paramill__Score *score)
{
    // None is left waiting where there is room for no more, unless a flush has failed.
    Paramill__Score *copy = member->score_count < SCORES_MAX ? copy_score(score) : NULL;
    if (!copy)
        return pm_fail(PM_NO_MEMORY, "the score of a step");
    member->scores[member->score_count++] = copy;
    return score->evaluation || member->score_count == SCORES_MAX ? pm_member_flush(member) : pm_ok();
}

pm_status pm_member_flush(pm_member *member)
{
    if (member->score_count == 0)
        return pm_ok();
    Paramill__Report *report = pm_proto_new(&paramill__report__descriptor);
    Paramill__Score **scores = report ? malloc(member->score_count * sizeof *scores) : NULL;
    if (scores) {
        memcpy(scores, member->scores, member->score_count * sizeof *scores);
        report->scores = scores;
        report->n_scores = member->score_count;
        member->score_count = 0;
    } else {
        protobuf_c_message_free_unpacked(report ? &report->base : NULL, NULL);
        report = NULL;
    }
    return send(member, 0, PARAMILL__HEADER__BODY_REPORT, report);
}

pm_status pm_member_fail(pm_member *member, pm_status why)
{
    Paramill__Report *report = pm_proto_new(&paramill__report__descriptor);
    if (report)
        report->failure = pm_proto_string(why.message);
    return send(member, 0, PARAMILL__HEADER__BODY_REPORT, report);
}

void pm_member_stop(pm_member **member)
{
    if (!member || !*member)
        return;
    pm_member *m = *member;
    if (m->actor) {
        pm_status status =
            send(m, 0, PARAMILL__HEADER__BODY_GOODBYE, pm_proto_new(&paramill__goodbye__descriptor));
        if (status.code != PM_OK)
            atomic_store(&m->stop, true);
        status = pm_actor_join(&m->actor);
        (void)status; // the role has been told through the pipe
    }
    pm_membership_destroy(&m->core);
    for (size_t i = 0; i < m->score_count; i++)
        paramill__score__free_unpacked(m->scores[i], NULL);
    free(m->coordinator);
    free(m);
    *member = NULL;
}
