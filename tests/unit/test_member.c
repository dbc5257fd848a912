// The line to a coordinator that the test plays itself.
#include "cluster/member.h"

#include "tests/unit/cluster_kit.h"

typedef struct kit {
    pm_net *net;
    pm_socket *coordinator;
    pm_member *member;
} kit;

static kit make(void)
{
    kit k = {0};
    ok(pm_net_create(&k.net));
    ok(pm_socket_create(&k.coordinator, k.net, PM_SOCKET_ROUTER));
    ok(pm_socket_bind(k.coordinator, "inproc://coordinator"));
    const pm_member_options options = {.role = PARAMILL__ROLE__ROLE_WORKER,
                                       .coordinator = "inproc://coordinator",
                                       .kernel_set = "any",
                                       .clock = pm_clock_monotonic(),
                                       .log = pm_log_make("test", -1, "error")};
    ok(pm_member_start(&k.member, k.net, &options));
    return k;
}

static void drop(kit *k)
{
    pm_member_stop(&k->member);
    pm_socket_destroy(&k->coordinator);
    pm_net_destroy(&k->net);
}

// The next report at the coordinator, which acknowledges it; hellos and heartbeats are passed over.
static pm_message next_report(kit *k)
{
    for (;;) {
        pm_message m = {0};
        pm_peer from;
        ok(pm_socket_receive(k->coordinator, &from, &m, 5000));
        if (m.header->body_case != PARAMILL__HEADER__BODY_REPORT) {
            pm_message_clear(&m);
            continue;
        }
        pm_message ack = {.header = pm_header_create(m.header->request, 0, PARAMILL__HEADER__BODY_ACK,
                                                     pm_proto_new(&paramill__ack__descriptor))};
        ok(pm_socket_send(k->coordinator, &from, &ack));
        return m;
    }
}

static void expect(kit *k, size_t scores, uint64_t first, uint64_t last)
{
    pm_message m = next_report(k);
    const Paramill__Report *r = m.header->report;
    cr_assert_eq(r->n_scores, scores);
    cr_assert_eq(r->scores[0]->clock, first);
    cr_assert_eq(r->scores[scores - 1]->clock, last);
    cr_assert_str_eq(r->name, pm_member_name(k->member));
    pm_message_clear(&m);
}

static void score(kit *k, uint64_t clock, bool evaluation)
{
    uint64_t counters[] = {clock, 7};
    Paramill__Score s = PARAMILL__SCORE__INIT;
    s.clock = clock;
    s.evaluation = evaluation;
    s.counters = counters;
    s.n_counters = 2;
    ok(pm_member_score(k->member, &s));
}

Test(member, scores_of_steps_wait_for_a_flush_or_their_number, .timeout = 30)
{
    kit k = make();
    for (uint64_t clock = 0; clock < 19; clock++)
        score(&k, clock, false);
    expect(&k, 16, 0, 15);
    ok(pm_member_flush(k.member));
    expect(&k, 3, 16, 18);
    ok(pm_member_flush(k.member));
    score(&k, 19, false);
    drop(&k); // with one that waits
}

Test(member, an_evaluation_goes_at_once_with_what_waits, .timeout = 30)
{
    kit k = make();
    score(&k, 4, false);
    score(&k, 5, true);
    pm_message m = next_report(&k);
    cr_assert_eq(m.header->report->n_scores, 2);
    cr_assert(m.header->report->scores[1]->evaluation);
    cr_assert_eq(m.header->report->scores[1]->n_counters, 2);
    cr_assert_eq(m.header->report->scores[1]->counters[0], 5);
    pm_message_clear(&m);
    drop(&k);
}

Test(member, another_phase_takes_what_waits_with_it, .timeout = 30)
{
    kit k = make();
    pm_member_state state = {.phase = PARAMILL__PHASE__PHASE_RUNNING, .epoch = 1, .clock = 1};
    ok(pm_member_tell(k.member, &state));
    score(&k, 1, false);
    state.phase = PARAMILL__PHASE__PHASE_FINISHED;
    ok(pm_member_tell(k.member, &state));
    expect(&k, 1, 1, 1);
    drop(&k);
}
