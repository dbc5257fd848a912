#include "cluster/lanes.h"
#include "cluster/roster.h"

#include "tests/unit/cluster_kit.h"

#include <jansson.h>

enum {
    SERVER = PARAMILL__ROLE__ROLE_SERVER,
    WORKER = PARAMILL__ROLE__ROLE_WORKER,
    CHECKPOINT = PARAMILL__ROLE__ROLE_CHECKPOINT,
    LANES = 8
};

// Two servers (peers 1, 2), two workers (3, 4), a checkpoint service (5); peer n is named "m<n>".
typedef struct kit {
    pm_job job;
    pm_roster *roster;
    int64_t now;
    uint64_t version, version_step;
    Paramill__Directive *last[10]; // newest directive to peer n
    uint32_t errors, refused_code, published;
    pm_progress progress;
    uint64_t validated_clock;
} kit;

static void on_step(void *context, const pm_progress *progress)
{
    ((kit *)context)->progress = *progress;
}

static void on_validation(void *context, uint64_t clock, double loss, double accuracy, uint64_t rows)
{
    (void)loss, (void)accuracy, (void)rows;
    ((kit *)context)->validated_clock = clock;
}

static void collect(kit *k)
{
    pm_outbox *out = pm_roster_outbox(k->roster);
    for (size_t i = 0; i < out->count; i++) {
        Paramill__Header *h = out->posts[i].message.header;
        uint8_t to = out->posts[i].to.id[0];
        k->published += h->body_case == PARAMILL__HEADER__BODY_PUBLISHED;
        if (h->body_case == PARAMILL__HEADER__BODY_ERROR) {
            k->errors++;
            k->refused_code = h->error->code;
        }
        if (h->body_case != PARAMILL__HEADER__BODY_DIRECTIVE)
            continue;
        if (k->last[to])
            paramill__directive__free_unpacked(k->last[to], NULL);
        k->last[to] = h->directive;
        h->body_case = PARAMILL__HEADER__BODY__NOT_SET;
        h->directive = NULL;
    }
    pm_outbox_clear(out);
}

static kit *make(bool resume)
{
    kit *k = calloc(1, sizeof *k);
    k->job = kit_job(LANES, 2, 2);
    const pm_roster_options options = {
        .job = &k->job,
        .train_rows = 10 * LANES,
        .resume = resume,
        .absent_ms = 60000,
        .first_epoch = 1,
        .events = {.context = k, .on_step = on_step, .on_validation = on_validation}};
    ok(pm_roster_create(&k->roster, &options, 0));
    return k;
}

static void drop(kit *k)
{
    for (int i = 0; i < 10; i++)
        if (k->last[i])
            paramill__directive__free_unpacked(k->last[i], NULL);
    pm_roster_destroy(&k->roster);
    free(k);
}

static void send(kit *k, uint8_t peer, uint64_t epoch, Paramill__Header__BodyCase kind, void *body)
{
    pm_peer from = kit_peer(peer);
    pm_message m = {.header = pm_header_create(1, epoch, kind, body)};
    pm_roster_handle(k->roster, &from, &m, k->now);
    pm_message_clear(&m);
    collect(k);
}

static void name_of(uint8_t peer, char name[8])
{
    snprintf(name, 8, "m%u", peer);
}

static void hello_as(kit *k, uint8_t peer, int role, const char *endpoint, const char *kernel_set)
{
    char name[8];
    name_of(peer, name);
    Paramill__Hello *hello = pm_proto_new(&paramill__hello__descriptor);
    hello->role = (Paramill__Role)role;
    hello->name = pm_proto_string(name);
    hello->host = pm_proto_string("here");
    hello->kernel_set = pm_proto_string(kernel_set);
    hello->kernel_set_bf16 = pm_proto_string(kernel_set[0] == 's' ? "sse" : "avxbf16");
    hello->endpoints = calloc(1, sizeof *hello->endpoints);
    if (role != WORKER)
        hello->endpoints[hello->n_endpoints++] = pm_proto_string(endpoint);
    send(k, peer, 0, PARAMILL__HEADER__BODY_HELLO, hello);
}

static void hello(kit *k, uint8_t peer, int role)
{
    char name[8];
    name_of(peer, name);
    hello_as(k, peer, role, name, "avx");
}

static void beat(kit *k, uint8_t peer, uint64_t epoch, int phase, uint64_t clock)
{
    char name[8];
    name_of(peer, name);
    Paramill__Heartbeat *b = pm_proto_new(&paramill__heartbeat__descriptor);
    b->name = pm_proto_string(name);
    b->phase = (Paramill__Phase)phase;
    b->clock = clock;
    b->directive = k->last[peer] ? k->last[peer]->number : 0;
    if (peer == 5) {
        b->version = k->version;
        b->version_step = k->version_step;
    }
    send(k, peer, epoch, PARAMILL__HEADER__BODY_HEARTBEAT, b);
}

static const int ROLES[] = {0, SERVER, SERVER, WORKER, WORKER, CHECKPOINT};

static void gather(kit *k)
{
    for (uint8_t p = 1; p <= 5; p++)
        hello(k, p, ROLES[p]);
    for (uint8_t p = 1; p <= 5; p++)
        beat(k, p, 0, p == 5 ? PARAMILL__PHASE__PHASE_READY : PARAMILL__PHASE__PHASE_JOINED, 0);
}

static void run(kit *k)
{
    gather(k);
    uint64_t epoch = pm_roster_epoch(k->roster);
    for (uint8_t p = 1; p <= 5; p++)
        beat(k, p, epoch, PARAMILL__PHASE__PHASE_READY, k->last[p]->start_clock);
    cr_assert(pm_roster_is_running(k->roster));
}

static void all_beat(kit *k, uint8_t but)
{
    for (uint8_t p = 1; p <= 5; p++)
        if (p != but)
            beat(k, p, pm_roster_epoch(k->roster), PARAMILL__PHASE__PHASE_RUNNING, 0);
}

Test(roster, waits_for_all_then_prepares_then_runs)
{
    kit *k = make(false);
    hello(k, 1, SERVER);
    cr_assert_eq(k->last[1]->verb, PARAMILL__DIRECTIVE__VERB__WAIT);
    cr_assert_str_eq(k->last[1]->job, "name: kit");
    gather(k);
    for (uint8_t p = 1; p <= 5; p++) {
        cr_assert_eq(k->last[p]->verb, PARAMILL__DIRECTIVE__VERB__PREPARE);
        cr_assert_eq(k->last[p]->epoch, 1);
        cr_assert_eq(k->last[p]->start_clock, 0);
        cr_assert_eq(k->last[p]->restore_version, 0);
    }
    beat(k, 1, 1, PARAMILL__PHASE__PHASE_READY, 0);
    beat(k, 2, 0, PARAMILL__PHASE__PHASE_READY, 0);
    cr_assert_not(pm_roster_is_running(k->roster), "ready for another epoch is not ready");
    run(k);
    cr_assert_eq(k->last[3]->n_leases, 1);
    cr_assert_eq(k->last[3]->leases[0]->first, 0);
    cr_assert_eq(k->last[3]->leases[0]->count, 4);
    cr_assert_eq(k->last[4]->leases[0]->first, 4);
    cr_assert_eq(k->last[3]->n_members, 3);
    cr_assert_eq(k->last[2]->rank, 1);
    drop(k);
}

Test(roster, every_heartbeat_is_answered)
{
    kit *k = make(false);
    run(k);
    uint64_t number = k->last[3]->number;
    paramill__directive__free_unpacked(k->last[3], NULL);
    k->last[3] = NULL;
    beat(k, 3, 1, PARAMILL__PHASE__PHASE_RUNNING, 0);
    cr_assert_eq(k->last[3]->number, number, "nothing changed, so the number stays");
    drop(k);
}

Test(roster, the_lanes_of_a_dead_worker_go_to_the_others)
{
    kit *k = make(false);
    run(k);
    for (; k->now < 4000; k->now += 500)
        all_beat(k, 4);
    cr_assert(pm_roster_is_running(k->roster));
    cr_assert_eq(k->last[3]->epoch, 1);
    cr_assert_eq(k->last[3]->n_leases, 1);
    cr_assert_eq(k->last[3]->leases[0]->count, 8);
    beat(k, 1, 1, PARAMILL__PHASE__PHASE_RUNNING, 7);
    beat(k, 2, 1, PARAMILL__PHASE__PHASE_RUNNING, 6);
    hello(k, 6, WORKER);
    cr_assert_eq(k->last[6]->verb, PARAMILL__DIRECTIVE__VERB__RUN);
    cr_assert_eq(k->last[6]->clock, 6, "a worker that joins begins at the oldest slice");
    cr_assert_eq(k->last[6]->leases[0]->first, 4);
    cr_assert_eq(k->last[3]->leases[0]->count, 4);
    drop(k);
}

Test(roster, a_dead_server_sends_all_back_to_the_newest_version)
{
    kit *k = make(false);
    run(k);
    k->version = 1;
    k->version_step = 4;
    for (; k->now < 4000; k->now += 500)
        all_beat(k, 2);
    cr_assert_eq(k->last[3]->verb, PARAMILL__DIRECTIVE__VERB__WAIT);
    hello_as(k, 2, SERVER, "elsewhere", "");
    beat(k, 2, 0, PARAMILL__PHASE__PHASE_JOINED, 0);
    for (uint8_t p = 1; p <= 5; p++) {
        cr_assert_eq(k->last[p]->verb, PARAMILL__DIRECTIVE__VERB__PREPARE);
        cr_assert_eq(k->last[p]->epoch, 2);
        cr_assert_eq(k->last[p]->restore_version, 1);
        cr_assert_eq(k->last[p]->start_clock, 4);
    }
    drop(k);
}

Test(roster, versions_of_other_runs_count_only_when_resuming)
{
    kit *k = make(false);
    k->version = 7;
    k->version_step = 20;
    gather(k);
    cr_assert_eq(k->last[1]->restore_version, 0);
    cr_assert_eq(k->last[1]->published_step, 0);
    drop(k);
    k = make(true);
    k->version = 7;
    k->version_step = 8;
    gather(k);
    cr_assert_eq(k->last[1]->restore_version, 7);
    cr_assert_eq(k->last[1]->start_clock, 8);
    drop(k);
}

Test(roster, a_checkpoint_service_counts_once_its_store_is_open)
{
    kit *k = make(true);
    for (uint8_t p = 1; p <= 5; p++)
        hello(k, p, ROLES[p]);
    for (uint8_t p = 1; p <= 5; p++)
        beat(k, p, 0, PARAMILL__PHASE__PHASE_JOINED, 0);
    cr_assert_eq(k->last[1]->verb, PARAMILL__DIRECTIVE__VERB__WAIT);
    k->version = 3;
    k->version_step = 4;
    beat(k, 5, 0, PARAMILL__PHASE__PHASE_READY, 0);
    cr_assert_eq(k->last[1]->verb, PARAMILL__DIRECTIVE__VERB__PREPARE);
    cr_assert_eq(k->last[1]->restore_version, 3);
    drop(k);
}

Test(roster, training_goes_on_without_the_checkpoint_service_for_a_while)
{
    kit *k = make(false);
    run(k);
    for (; k->now < 30000; k->now += 500)
        all_beat(k, 5);
    cr_assert(pm_roster_is_running(k->roster));
    cr_assert_eq(k->last[1]->n_members, 2);
    for (; k->now < 70000; k->now += 500)
        all_beat(k, 5);
    cr_assert_eq(pm_roster_result(k->roster).code, PM_TIMEOUT);
    cr_assert_not_null(strstr(k->last[1]->reason, "checkpoint service 0"));
    drop(k);
}

Test(roster, a_role_that_never_comes_is_named)
{
    kit *k = make(false);
    for (; k->now <= 60000; k->now += 500) {
        hello(k, 1, SERVER);
        beat(k, 1, 0, PARAMILL__PHASE__PHASE_JOINED, 0);
    }
    k->now = 60001;
    pm_roster_tick(k->roster, k->now);
    pm_status result = pm_roster_result(k->roster);
    cr_assert_eq(result.code, PM_TIMEOUT);
    cr_assert_not_null(strstr(result.message, "server 1"), "%s", result.message);
    drop(k);
}

Test(roster, a_failure_ends_the_job_with_its_members_name)
{
    kit *k = make(false);
    run(k);
    Paramill__Report *r = pm_proto_new(&paramill__report__descriptor);
    r->name = pm_proto_string("m4");
    r->failure = pm_proto_string("no such data");
    send(k, 4, 1, PARAMILL__HEADER__BODY_REPORT, r);
    cr_assert_eq(k->last[1]->verb, PARAMILL__DIRECTIVE__VERB__STOP);
    cr_assert_str_eq(k->last[1]->reason, "worker 1 on here: no such data");
    cr_assert_neq(k->last[1]->code, 0);
    cr_assert_not(pm_roster_is_over(k->roster, k->now));
    for (uint8_t p = 1; p <= 5; p++) {
        char name[8];
        name_of(p, name);
        Paramill__Goodbye *g = pm_proto_new(&paramill__goodbye__descriptor);
        g->name = pm_proto_string(name);
        send(k, p, 1, PARAMILL__HEADER__BODY_GOODBYE, g);
    }
    cr_assert(pm_roster_is_over(k->roster, k->now));
    drop(k);
}

Test(roster, members_that_do_not_fit_are_refused)
{
    kit *k = make(false);
    hello_as(k, 3, WORKER, "", "avx");
    hello_as(k, 4, WORKER, "", "sse");
    cr_assert_eq(k->refused_code, PM_INVALID, "another kernel set gives other bits");
    hello_as(k, 4, WORKER, "", "avx");
    hello_as(k, 6, WORKER, "", "avx");
    cr_assert_eq(k->refused_code, PM_UNAVAILABLE, "all places are taken");
    hello_as(k, 1, SERVER, "bad\nname", "");
    cr_assert_eq(k->refused_code, PM_INVALID);
    cr_assert_eq(k->errors, 3);
    beat(k, 9, 0, PARAMILL__PHASE__PHASE_JOINED, 0);
    cr_assert_eq(k->refused_code, PM_NOT_FOUND, "who is not known is asked to say hello");
    drop(k);
}

Test(roster, the_kernel_set_that_counts_is_that_of_the_jobs_precision)
{
    kit *k = make(false);
    k->job.precision = PM_PRECISION_BF16;
    hello_as(k, 3, WORKER, "", "avx");
    hello_as(k, 4, WORKER, "", "avx2");
    cr_assert_eq(k->errors, 0, "both round and sum alike");
    hello_as(k, 4, WORKER, "", "sse");
    cr_assert_eq(k->refused_code, PM_INVALID);
    drop(k);
}

Test(roster, whoever_has_a_members_address_takes_its_place_at_once)
{
    kit *k = make(false);
    run(k);
    hello_as(k, 7, SERVER, "m2", "");
    cr_assert_eq(k->last[7]->rank, 1);
    cr_assert_eq(k->last[7]->verb, PARAMILL__DIRECTIVE__VERB__WAIT);
    drop(k);
}

// Of the block's clocks from clock on.
static void report(kit *k, uint8_t worker, bool evaluation, uint64_t clock, size_t clocks, pm_block block)
{
    char name[8];
    name_of(worker, name);
    Paramill__Report *r = pm_proto_new(&paramill__report__descriptor);
    r->name = pm_proto_string(name);
    r->scores = calloc(clocks, sizeof *r->scores);
    for (; r->n_scores < clocks; r->n_scores++) {
        Paramill__Score *s = r->scores[r->n_scores] = pm_proto_new(&paramill__score__descriptor);
        s->clock = clock + r->n_scores;
        s->evaluation = evaluation;
        s->lane_first = block.first;
        s->lane_count = block.count;
        s->loss_sum = 2.0 * block.count;
        s->correct = block.count;
        s->rows = block.count * (uint64_t)2;
    }
    send(k, worker, pm_roster_epoch(k->roster), PARAMILL__HEADER__BODY_REPORT, r);
}

Test(roster, reports_make_progress_and_the_scores_of_a_cut)
{
    kit *k = make(false);
    run(k);
    const pm_block left = {0, 4}, right = {4, 4};
    report(k, 3, false, 0, 1, left);
    cr_assert_eq(k->progress.step, 0);
    report(k, 4, false, 0, 1, right);
    cr_assert_eq(k->progress.step, 1);
    report(k, 3, false, 1, 3, left);
    cr_assert_eq(k->progress.step, 1);
    report(k, 4, false, 1, 2, right);
    cr_assert_eq(k->progress.step, 3);
    report(k, 4, false, 3, 1, right);
    cr_assert_eq(k->progress.step, 4);
    cr_assert_float_eq(k->progress.loss, 1.0, 1e-12);
    cr_assert_float_eq(k->progress.accuracy, 0.5, 1e-12);
    cr_assert_geq(k->published, 1);
    report(k, 3, true, 10, 1, left);
    report(k, 4, true, 10, 1, right);
    cr_assert_eq(k->validated_clock, 10);
    drop(k);
}

Test(roster, the_job_is_done_when_the_last_version_is_there_and_workers_are_finished)
{
    kit *k = make(false);
    run(k);
    k->version = 5;
    k->version_step = 20;
    beat(k, 5, 1, PARAMILL__PHASE__PHASE_FINISHED, 20);
    cr_assert(pm_roster_is_running(k->roster));
    beat(k, 3, 1, PARAMILL__PHASE__PHASE_FINISHED, 20);
    beat(k, 4, 1, PARAMILL__PHASE__PHASE_FINISHED, 20);
    cr_assert_eq(k->last[1]->verb, PARAMILL__DIRECTIVE__VERB__STOP);
    cr_assert_str_eq(k->last[1]->reason, "");
    cr_assert_eq(pm_roster_result(k->roster).code, PM_OK);
    drop(k);
}

Test(roster, the_status_page_is_json)
{
    kit *k = make(false);
    run(k);
    pm_peer from = kit_peer(8);
    pm_message m = {.header = pm_header_create(5, 0, PARAMILL__HEADER__BODY_STATUS_REQUEST,
                                               pm_proto_new(&paramill__status_request__descriptor))};
    pm_roster_handle(k->roster, &from, &m, k->now);
    pm_message_clear(&m);
    pm_outbox *out = pm_roster_outbox(k->roster);
    const Paramill__Header *h = out->posts[out->count - 1].message.header;
    cr_assert_eq(h->body_case, PARAMILL__HEADER__BODY_STATUS_REPLY);
    cr_assert_eq(h->request, 5);
    json_t *page = json_loads(h->status_reply->json, 0, NULL);
    cr_assert_not_null(page);
    cr_assert_str_eq(json_string_value(json_object_get(page, "phase")), "running");
    cr_assert_eq(json_array_size(json_object_get(page, "members")), 5);
    json_decref(page);
    drop(k);
}
