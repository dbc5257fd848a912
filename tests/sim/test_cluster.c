// Whole clusters on simulated time: for each seed another shape of job and another history of faults, and in
// the end the same bits as the undisturbed run. PM_SIM_SEEDS sets how many seeds, PM_SIM_SEED replays one.
#include "tests/sim/roles.h"

#include <criterion/criterion.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SEEDS = 60 };
#else
enum { SEEDS = 1000 };
#endif

enum { LIMIT_MS = 1800000 }; // simulated; a job that is not over by then hangs

static void make_job(cluster *c, world *w)
{
    static const pm_optimizer_kind kinds[] = {PM_OPTIMIZER_SGD, PM_OPTIMIZER_MOMENTUM, PM_OPTIMIZER_ADAM,
                                              PM_OPTIMIZER_ADAMW, PM_OPTIMIZER_ADAGRAD};
    uint32_t lanes = 1u << below(w, 5);
    c->job = (pm_job){
        .name = (char *)(uintptr_t) "sim",
        .text = (char *)(uintptr_t) "name: sim",
        .batch = lanes,
        .lanes = lanes,
        .epochs = 2,
        .optimizer = {.kind = kinds[below(w, 5)],
                      .learning_rate = 0.05,
                      .momentum = 0.9,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .epsilon = 1e-8,
                      .initial_accumulator = 0.125,
                      .weight_decay = below(w, 2) ? 0.01 : 0,
                      .schedule = below(w, 2) ? PM_SCHEDULE_COSINE : PM_SCHEDULE_CONSTANT,
                      .warmup_steps = (uint32_t)below(w, 5)},
        .cluster = {.servers = 1 + (uint32_t)below(w, 3),
                    .workers = 1 + (uint32_t)below(w, 5),
                    .shards_per_server = 1 + (uint32_t)below(w, 2),
                    .heartbeat_ms = 300,
                    .lease_ms = 3000,
                    .request_ms = 30000},
        .checkpoint = {.every_steps = (uint32_t)below(w, 6)},
    };
    const bool freezes = below(w, 2), rows = below(w, 4);
    for (uint32_t t = 0; t < TABLES; t++) {
        for (uint64_t i = 0; i < COUNTS[t]; i++)
            c->initial[t][i] = (float)(int32_t)(t * 1000 + i * 37 % 101 - 50) * 0.01f;
        c->tables[t] = (pm_table_spec){COUNTS[t],     t == 1,
                                       0.9,           1,
                                       true,          t == TABLES - 1 && freezes,
                                       c->initial[t], t == SPARSE && rows ? WIDTH : 0};
    }
}

static void step_rows(const cluster *c, double rate, uint64_t step, float *values,
                      float moments[PM_MOMENTS_MAX][64])
{
    float sum[ROWS * WIDTH], rows[ROWS * WIDTH], before[ROWS * WIDTH];
    uint32_t ids[ROWS];
    bool has[ROWS];
    const pm_block all = {0, c->job.lanes};
    block_rows(values, step, all, sum, has);
    const uint32_t count = pack_rows(sum, step, all, ids, rows);
    const pm_rows touched = {ids, count, WIDTH, true, rows, before, values, {moments[0], moments[1]}};
    pm_optimizer_apply_rows(&c->job.optimizer, rate, step, &touched);
}

// The undisturbed run, without any cluster: values (TABLES, 64) after all steps.
static void reference(const cluster *c, uint64_t steps, float values[TABLES][64])
{
    static const float zero[64];
    float moments[TABLES][PM_MOMENTS_MAX][64];
    for (size_t i = 0; i < sizeof moments / sizeof(float); i++)
        moments[i / (PM_MOMENTS_MAX * 64)][i / 64 % PM_MOMENTS_MAX][i % 64] =
            pm_optimizer_moment_start(&c->job.optimizer);
    memcpy(values, c->initial, sizeof c->initial);
    for (uint64_t s = 0; s < steps; s++)
        for (uint32_t t = 0; t < TABLES; t++) {
            float sum[64], next[64];
            const double rate = pm_optimizer_rate(&c->job.optimizer, s, steps);
            if (c->tables[t].width)
                step_rows(c, rate, s, values[t], moments[t]);
            if (c->tables[t].frozen || c->tables[t].width)
                continue;
            memcpy(sum, zero, sizeof sum);
            block_gradient(values[t], t, s, (pm_block){0, c->job.lanes}, sum);
            pm_update update = {COUNTS[t], true, sum, values[t], next, {moments[t][0], moments[t][1]}};
            if (c->tables[t].statistic)
                pm_statistic_apply(0.9, c->job.lanes, &update);
            else
                pm_optimizer_apply(&c->job.optimizer, rate, s, &update);
            memcpy(values[t], next, COUNTS[t] * sizeof(float));
        }
}

static void plan_faults(cluster *c)
{
    static const double losses[] = {0, 0, 0.01, 0.05, 0.15};
    world *w = &c->w;
    w->loss = losses[below(w, 5)];
    w->duplication = below(w, 2) ? 0.1 : 0;
    w->delay_ms = 1 + (int64_t)below(w, 40);
    static const uint64_t windows[] = {1500, 3000, 10000}; // most jobs without losses last two seconds
    uint64_t window = windows[below(w, 3)];
    uint32_t kills = (uint32_t)below(w, 5), cut_offs = (uint32_t)below(w, 3);
    for (uint32_t i = 0; i < kills; i++) {
        uint16_t victim = (uint16_t)(1 + below(w, c->node_count - 1));
        schedule(w, 800 + (int64_t)below(w, window), KILL, (address){victim, 0, 0}, 0);
    }
    for (uint32_t i = 0; i < cut_offs; i++) // a TICK of nobody marks the time
        schedule(w, 800 + (int64_t)below(w, window), TICK,
                 (address){(uint16_t)below(w, c->node_count), 0xffff, 0}, 0);
}

static void build(cluster *c, uint64_t seed)
{
    c->w.random = seed;
    make_job(c, &c->w);
    const pm_roster_options options = {
        .job = &c->job, .train_rows = 10 * (uint64_t)c->job.batch, .absent_ms = 60000, .first_epoch = 1};
    is_ok(c, pm_roster_create(&c->roster, &options, 0));
    uint16_t id = 1;
    for (uint32_t i = 0; i < c->job.cluster.servers; i++)
        c->nodes[id++].role = PARAMILL__ROLE__ROLE_SERVER;
    for (uint32_t i = 0; i < c->job.cluster.workers; i++)
        c->nodes[id++].role = PARAMILL__ROLE__ROLE_WORKER;
    c->nodes[id++].role = PARAMILL__ROLE__ROLE_CHECKPOINT;
    c->node_count = id;
    for (uint16_t n = 0; n < id; n++)
        c->nodes[n].id = n;
    for (uint16_t n = 1; n < id; n++)
        schedule(&c->w, (int64_t)below(&c->w, 1000), START, (address){n, 0, 0}, 0);
    schedule(&c->w, 0, TICK, (address){0, 0, 0}, 0);
    plan_faults(c);
}

static void coordinate(cluster *c, event *e)
{
    pm_peer from = peer_of(e->from);
    if (e->kind == DELIVER) {
        pm_roster_handle(c->roster, &from, &e->message, c->w.now_ms);
    } else {
        pm_roster_tick(c->roster, c->w.now_ms);
        schedule(&c->w, TICK_EVERY_MS, TICK, (address){0, 0, 0}, 0);
    }
    flush_roster(c);
}

static void dispatch(cluster *c, event *e)
{
    node *n = &c->nodes[e->to.node];
    if (e->kind == TICK && e->to.life == 0xffff) {
        c->w.cut_off_until[e->to.node] = c->w.now_ms + 200 + (int64_t)below(&c->w, 6000);
    } else if (e->kind == KILL) {
        c->kills += n->alive;
        if (n->alive)
            end_node(c, n);
    } else if (e->kind == START) {
        if (!n->alive && !pm_roster_is_over(c->roster, c->w.now_ms))
            start_node(c, n);
    } else if (e->to.node == 0) {
        coordinate(c, e);
    } else if (n->alive && n->life == e->to.life) {
        live(c, n, e);
    }
}

static pm_status compare(const cluster *c)
{
    pm_status status = pm_roster_result(c->roster);
    if (status.code != PM_OK)
        return pm_wrap(status, "the job failed");
    uint64_t steps = 10 * c->job.epochs;
    float values[TABLES][64];
    reference(c, steps, values);
    const pm_cut *last = c->stored_count ? c->store[c->stored_count - 1].cut : NULL;
    if (!last || last->clock != steps)
        return pm_fail(PM_INTERNAL, "the newest version is of step %llu",
                       last ? (unsigned long long)last->clock : 0);
    for (uint32_t t = 0; t < TABLES; t++) // one slice a table
        if (memcmp(last->values[t]->data, values[t], COUNTS[t] * sizeof(float)) != 0)
            return pm_fail(PM_INTERNAL, "table %u has other bits than the undisturbed run", t);
    return pm_ok();
}

typedef struct outcome {
    pm_status status;
    uint64_t delivered, lost, epochs, kills, restores;
    int64_t ms;
} outcome;

static outcome simulate(uint64_t seed)
{
    cluster *c = calloc(1, sizeof *c);
    build(c, seed);
    while (c->failure.code == PM_OK && c->w.now_ms < LIMIT_MS && !pm_roster_is_over(c->roster, c->w.now_ms)) {
        event e = next_event(&c->w);
        dispatch(c, &e);
        pm_message_clear(&e.message);
    }
    outcome o = {.status = c->failure,
                 .delivered = c->w.delivered,
                 .lost = c->w.lost,
                 .epochs = pm_roster_epoch(c->roster),
                 .kills = c->kills,
                 .restores = c->restores,
                 .ms = c->w.now_ms};
    if (o.status.code == PM_OK && !pm_roster_is_over(c->roster, c->w.now_ms))
        o.status = pm_fail(PM_TIMEOUT, "the job hangs");
    if (o.status.code == PM_OK)
        o.status = compare(c);
    for (uint32_t n = 1; n < c->node_count; n++)
        kill_node(c, &c->nodes[n]);
    for (uint32_t i = 0; i < c->stored_count; i++)
        pm_cut_destroy(&c->store[i].cut);
    pm_roster_destroy(&c->roster);
    world_free(&c->w);
    free(c);
    return o;
}

Test(cluster, faults_do_not_change_the_bits, .timeout = 280)
{
    const char *one = getenv("PM_SIM_SEED"), *many = getenv("PM_SIM_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1;
    uint64_t seeds = one ? 1 : many ? strtoull(many, NULL, 10) : SEEDS;
    uint64_t delivered = 0, lost = 0, epochs = 0, kills = 0, restores = 0;
    int64_t ms = 0;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        outcome o = simulate(seed);
        cr_assert_eq(o.status.code, PM_OK, "seed %llu (replay with PM_SIM_SEED): %s",
                     (unsigned long long)seed, o.status.message);
        delivered += o.delivered;
        lost += o.lost;
        epochs += o.epochs;
        kills += o.kills;
        restores += o.restores;
        ms += o.ms;
    }
    fprintf(
        stderr,
        "%llu seeds: %lld s simulated, %llu messages, %llu lost, %llu kills, %llu epochs, %llu restores\n",
        (unsigned long long)seeds, (long long)(ms / 1000), (unsigned long long)delivered,
        (unsigned long long)lost, (unsigned long long)kills, (unsigned long long)epochs,
        (unsigned long long)restores);
    if (!one && seeds >= 20) { // the histories are worth something
        cr_assert_gt(lost, 0);
        cr_assert_gt(kills, seeds / 2);
        cr_assert_gt(restores, seeds / 20, "some servers died and the job went back to a version");
    }
}

Test(cluster, a_seed_replays_exactly, .timeout = 60)
{
    outcome a = simulate(7), b = simulate(7);
    cr_assert_eq(a.ms, b.ms);
    cr_assert_eq(a.delivered, b.delivered);
    cr_assert_eq(a.lost, b.lost);
}
