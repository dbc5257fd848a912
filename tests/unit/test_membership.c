#include "cluster/membership.h"

#include "tests/unit/cluster_kit.h"

static pm_membership *make(void)
{
    static const char *const endpoints[] = {"inproc://a"};
    const pm_member_options member = {.role = PARAMILL__ROLE__ROLE_SERVER,
                                      .coordinator = "tcp://there:1",
                                      .endpoints = endpoints,
                                      .endpoint_count = 1};
    const pm_membership_options options = {&member, "me", "here", 1};
    pm_membership *m = NULL;
    ok(pm_membership_create(&m, &options, 0));
    return m;
}

static int sent(pm_membership *m) // body of the only message; 0 when there is none
{
    pm_outbox *out = pm_membership_outbox(m);
    cr_assert_leq(out->count, 1);
    int kind = out->count ? (int)out->posts[0].message.header->body_case : 0;
    pm_outbox_clear(out);
    return kind;
}

static void hear(pm_membership *m, Paramill__Header *header, int64_t now)
{
    pm_message message = {.header = header};
    pm_membership_handle(m, &message, now);
    pm_message_clear(&message);
}

static Paramill__Header *directive(uint64_t number, const char *job)
{
    Paramill__Directive *d = pm_proto_new(&paramill__directive__descriptor);
    d->number = number;
    d->job = pm_proto_string(job);
    d->vocabulary = pm_proto_string(job[0] ? "abc" : "");
    d->heartbeat_ms = 1000;
    return pm_header_create(0, 1, PARAMILL__HEADER__BODY_DIRECTIVE, d);
}

Test(membership, says_hello_until_it_is_welcome_and_beats_from_then_on)
{
    pm_membership *m = make();
    ok(pm_membership_tick(m, 0));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HELLO);
    ok(pm_membership_tick(m, 100));
    cr_assert_eq(sent(m), 0);
    ok(pm_membership_tick(m, 500));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HELLO);
    hear(m, directive(1, "job"), 600);
    ok(pm_membership_tick(m, 1000));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HEARTBEAT);
    ok(pm_membership_tick(m, 1900));
    cr_assert_eq(sent(m), 0);
    ok(pm_membership_tick(m, 2000));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HEARTBEAT);
    pm_membership_destroy(&m);
}

Test(membership, a_change_of_state_is_told_at_once)
{
    pm_membership *m = make();
    hear(m, directive(1, "job"), 0);
    ok(pm_membership_tick(m, 1000));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HEARTBEAT);
    const pm_member_state state = {.phase = PARAMILL__PHASE__PHASE_READY, .epoch = 3};
    pm_membership_tell(m, &state, 1001);
    ok(pm_membership_tick(m, 1001));
    cr_assert_eq(pm_membership_outbox(m)->posts[0].message.header->epoch, 3);
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HEARTBEAT);
    pm_membership_destroy(&m);
}

Test(membership, only_a_newer_directive_is_handed_on_and_the_job_goes_with_it)
{
    pm_membership *m = make();
    pm_message taken = {0};
    hear(m, directive(4, "the job"), 0);
    hear(m, directive(5, ""), 0);
    hear(m, directive(3, ""), 0);
    cr_assert(pm_membership_take(m, &taken));
    cr_assert_eq(taken.header->directive->number, 5);
    cr_assert_str_eq(taken.header->directive->job, "the job");
    cr_assert_str_eq(taken.header->directive->vocabulary, "abc");
    pm_message_clear(&taken);
    hear(m, directive(5, ""), 0);
    cr_assert_not(pm_membership_take(m, &taken));
    pm_membership_destroy(&m);
}

Test(membership, a_directive_inherits_the_job_of_the_one_it_replaces_unless_it_has_its_own)
{
    Paramill__Header *with = directive(1, "first"), *without = directive(2, ""),
                     *other = directive(3, "other");
    pm_directive_inherit(without->directive, with->directive);
    cr_assert_str_eq(without->directive->job, "first");
    cr_assert_str_eq(without->directive->vocabulary, "abc");
    cr_assert_str_eq(with->directive->job, "");
    pm_directive_inherit(other->directive, without->directive);
    cr_assert_str_eq(other->directive->job, "other");
    paramill__header__free_unpacked(with, NULL);
    paramill__header__free_unpacked(without, NULL);
    paramill__header__free_unpacked(other, NULL);
}

Test(membership, a_report_is_sent_until_acknowledged)
{
    pm_membership *m = make();
    hear(m, directive(1, "job"), 0);
    pm_membership_report(m, pm_proto_new(&paramill__report__descriptor), 0);
    uint64_t request = pm_membership_outbox(m)->posts[0].message.header->request;
    cr_assert_str_eq(pm_membership_outbox(m)->posts[0].message.header->report->name, "me");
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_REPORT);
    ok(pm_membership_tick(m, 1));
    pm_outbox_clear(pm_membership_outbox(m));
    hear(m, directive(1, ""), 500);
    ok(pm_membership_tick(m, 1000));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_REPORT);
    hear(m,
         pm_header_create(request, 1, PARAMILL__HEADER__BODY_ACK, pm_proto_new(&paramill__ack__descriptor)),
         1000);
    ok(pm_membership_tick(m, 5000));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HEARTBEAT);
    pm_membership_destroy(&m);
}

Test(membership, a_coordinator_that_forgot_it_gets_another_hello)
{
    pm_membership *m = make();
    hear(m, directive(9, "job"), 0);
    hear(m, pm_header_error(1, 0, pm_fail(PM_NOT_FOUND, "who"), 1), 10);
    ok(pm_membership_tick(m, 20));
    cr_assert_eq(sent(m), PARAMILL__HEADER__BODY_HELLO);
    hear(m, directive(2, "job"), 30);
    pm_message taken = {0};
    cr_assert(pm_membership_take(m, &taken));
    cr_assert_eq(taken.header->directive->number, 2, "a new coordinator counts from one");
    pm_message_clear(&taken);
    pm_membership_destroy(&m);
}

Test(membership, refusal_and_silence_are_failures_that_name_the_coordinator)
{
    pm_membership *m = make();
    hear(m, pm_header_error(1, 0, pm_fail(PM_INVALID, "wrong kernel set"), 0), 10);
    pm_status status = pm_membership_tick(m, 20);
    cr_assert_eq(status.code, PM_INVALID);
    cr_assert_not_null(strstr(status.message, "tcp://there:1"));
    pm_membership_destroy(&m);
    m = make();
    ok(pm_membership_tick(m, 60000));
    status = pm_membership_tick(m, 60001);
    cr_assert_eq(status.code, PM_TIMEOUT);
    cr_assert_not_null(strstr(status.message, "tcp://there:1"));
    pm_membership_destroy(&m);
}
