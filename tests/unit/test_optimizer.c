#include "ps/optimizer.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { N = 1003, STEPS = 50 };

// The rules as they are printed in their papers, in double.
static void reference(const pm_job_optimizer *o, double rate, uint64_t step, double g, double *p, double m[2])
{
    double t = (double)step + 1;
    if (o->kind != PM_OPTIMIZER_ADAMW)
        g += o->weight_decay * *p;
    if (o->kind == PM_OPTIMIZER_SGD) {
        *p -= rate * g;
    } else if (o->kind == PM_OPTIMIZER_MOMENTUM) {
        m[0] = o->momentum * m[0] + g;
        *p -= rate * m[0];
    } else if (o->kind == PM_OPTIMIZER_ADAGRAD) {
        m[0] += g * g;
        *p -= rate * g / (sqrt(m[0]) + o->epsilon);
    } else {
        m[0] = o->beta1 * m[0] + (1 - o->beta1) * g;
        m[1] = o->beta2 * m[1] + (1 - o->beta2) * g * g;
        double mean = m[0] / (1 - pow(o->beta1, t)), square = m[1] / (1 - pow(o->beta2, t));
        if (o->kind == PM_OPTIMIZER_ADAMW)
            *p -= rate * o->weight_decay * *p;
        *p -= rate * mean / (sqrt(square) + o->epsilon);
    }
}

static float gradient(uint64_t step, size_t i)
{
    return (float)sin((double)(step * 131 + i * 7 + 1)) * (i % 5 == 0 ? 1e-4f : 1.0f);
}

static void compare(pm_optimizer_kind kind, double decay)
{
    const pm_job_optimizer o = {.kind = kind,
                                .learning_rate = 0.01,
                                .momentum = 0.9,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .epsilon = 1e-8,
                                .weight_decay = decay,
                                .schedule = PM_SCHEDULE_COSINE,
                                .warmup_steps = 5};
    static float values[2][N], moments[2][N], g[N];
    static double p[N], m[N][2];
    memset(moments, 0, sizeof moments);
    memset(m, 0, sizeof m);
    for (size_t i = 0; i < N; i++)
        p[i] = values[0][i] = (float)cos((double)i);
    for (uint64_t s = 0; s < STEPS; s++) {
        double rate = pm_optimizer_rate(&o, s, STEPS);
        for (size_t i = 0; i < N; i++)
            g[i] = gradient(s, i);
        pm_update u = {N, true, g, values[s % 2], values[(s + 1) % 2], {moments[0], moments[1]}};
        pm_optimizer_apply(&o, rate, s, &u);
        for (size_t i = 0; i < N; i++)
            reference(&o, rate, s, g[i], &p[i], m[i]);
    }
    for (size_t i = 0; i < N; i++)
        cr_assert_float_eq(values[STEPS % 2][i], p[i], 2e-5, "kind %d element %zu: %g, reference %g",
                           (int)kind, i, (double)values[STEPS % 2][i], p[i]);
}

Test(optimizer, every_rule_follows_its_formula)
{
    for (int kind = PM_OPTIMIZER_SGD; kind <= PM_OPTIMIZER_ADAGRAD; kind++) {
        compare((pm_optimizer_kind)kind, 0);
        compare((pm_optimizer_kind)kind, 0.05);
    }
}

Test(optimizer, what_does_not_decay_moves_by_its_gradient_alone)
{
    for (int kind = PM_OPTIMIZER_SGD; kind <= PM_OPTIMIZER_ADAGRAD; kind++) {
        pm_job_optimizer o = {.kind = (pm_optimizer_kind)kind,
                              .momentum = 0.9,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = 0.5};
        const float from = 2, g = 0.25f;
        float to[2], m[2][2] = {{0}};
        pm_optimizer_apply(&o, 0.1, 0, &(pm_update){1, false, &g, &from, &to[0], {&m[0][0], &m[0][1]}});
        o.weight_decay = 0;
        pm_optimizer_apply(&o, 0.1, 0, &(pm_update){1, true, &g, &from, &to[1], {&m[1][0], &m[1][1]}});
        cr_assert_eq(memcmp(&to[0], &to[1], sizeof *to), 0);
    }
}

Test(optimizer, a_cosine_ends_at_the_least_rate)
{
    const pm_job_optimizer o = {.learning_rate = 1e-3,
                                .min_learning_rate = 1e-4,
                                .schedule = PM_SCHEDULE_COSINE,
                                .warmup_steps = 100};
    cr_assert_float_eq(pm_optimizer_rate(&o, 0, 2000), 1e-5, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 100, 2000), 1e-3, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 1050, 2000), 5.5e-4, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 2000, 2000), 1e-4, 1e-12);
}

Test(optimizer, an_element_does_not_depend_on_where_its_slice_begins)
{
    const pm_job_optimizer o = {
        .kind = PM_OPTIMIZER_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01};
    static float from[N], g[N], whole[3][N], cut[3][N];
    for (size_t i = 0; i < N; i++) {
        from[i] = gradient(1, i);
        g[i] = gradient(2, i);
        whole[1][i] = cut[1][i] = gradient(3, i);
        whole[2][i] = cut[2][i] = fabsf(gradient(4, i));
    }
    pm_update all = {N, true, g, from, whole[0], {whole[1], whole[2]}};
    pm_optimizer_apply(&o, 0.1, 3, &all);
    for (size_t at = 0, size = 1; at < N; at += size, size = size % 37 + 1) {
        size_t count = size < N - at ? size : N - at;
        pm_update part = {count, true, g + at, from + at, cut[0] + at, {cut[1] + at, cut[2] + at}};
        pm_optimizer_apply(&o, 0.1, 3, &part);
    }
    cr_assert_eq(memcmp(whole, cut, sizeof whole), 0);
}

Test(optimizer, the_rate_warms_up_and_then_follows_its_schedule)
{
    pm_job_optimizer o = {.learning_rate = 0.4, .warmup_steps = 4, .schedule = PM_SCHEDULE_COSINE};
    cr_assert_float_eq(pm_optimizer_rate(&o, 0, 104), 0.1, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 3, 104), 0.4, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 4, 104), 0.4, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 54, 104), 0.2, 1e-12);
    cr_assert_float_eq(pm_optimizer_rate(&o, 104, 104), 0.0, 1e-12);
    o.schedule = PM_SCHEDULE_CONSTANT;
    cr_assert_float_eq(pm_optimizer_rate(&o, 103, 104), 0.4, 1e-12);
}

Test(optimizer, statistics_move_by_the_mean_of_the_lanes)
{
    float sum[] = {8, -4}, from[] = {1, 2}, to[2];
    pm_update u = {2, false, sum, from, to, {0}};
    pm_statistic_apply(0.75, 4, &u);
    cr_assert_float_eq(to[0], 0.75 * 1 + 0.25 * 2, 1e-6);
    cr_assert_float_eq(to[1], 0.75 * 2 + 0.25 * -1, 1e-6);
}

Test(optimizer, adagrad_is_the_one_of_pytorch)
{
    // torch.optim.Adagrad(lr=0.1, initial_accumulator_value=0.5, weight_decay=0.01) of PyTorch 1.13
    const pm_job_optimizer o = {
        .kind = PM_OPTIMIZER_ADAGRAD, .epsilon = 1e-10, .initial_accumulator = 0.5, .weight_decay = 0.01};
    const float g[3][3] = {{0.5f, -1, 2}, {-0.25f, 0.125f, 0}, {3, -2, 1e-3f}};
    const float values[] = {0.872334421f, -1.841202974f, 2.902816057f};
    const float sums[] = {9.876160622f, 5.629021168f, 4.622646332f};
    const float start = pm_optimizer_moment_start(&o);
    float p[2][3] = {{1, -2, 3}}, s[3] = {start, start, start};
    for (uint64_t i = 0; i < 3; i++)
        pm_optimizer_apply(&o, 0.1, i, &(pm_update){3, true, g[i], p[i % 2], p[(i + 1) % 2], {s}});
    for (int i = 0; i < 3; i++) {
        cr_assert_float_eq(p[1][i], values[i], 1e-6);
        cr_assert_float_eq(s[i], sums[i], 1e-6);
    }
}

Test(optimizer, rows_move_as_a_dense_table_does_and_the_others_stay)
{
    enum { WIDTH = 5, ROWS = 9, TOUCHED = 3 };
    const uint32_t ids[TOUCHED] = {0, 4, 8};
    for (int kind = PM_OPTIMIZER_SGD; kind <= PM_OPTIMIZER_ADAGRAD; kind++) {
        const pm_job_optimizer o = {.kind = (pm_optimizer_kind)kind,
                                    .momentum = 0.9,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .epsilon = 1e-8,
                                    .weight_decay = 0.01};
        float table[3][ROWS * WIDTH], old[3][ROWS * WIDTH], g[TOUCHED * WIDTH], from[TOUCHED * WIDTH];
        for (size_t i = 0; i < ROWS * WIDTH; i++)
            for (uint64_t k = 0; k < 3; k++)
                table[k][i] = old[k][i] = fabsf(gradient(k, i));
        for (size_t i = 0; i < TOUCHED * WIDTH; i++)
            g[i] = gradient(7, i);
        pm_optimizer_apply_rows(
            &o, 0.1, 3, &(pm_rows){ids, TOUCHED, WIDTH, true, g, from, table[0], {table[1], table[2]}});
        for (size_t row = 0, next = 0; row < ROWS; row++) {
            float *was[] = {old[0] + row * WIDTH, old[1] + row * WIDTH, old[2] + row * WIDTH}, to[WIDTH];
            if (next < TOUCHED && ids[next] == row) {
                cr_assert_arr_eq(from + next * WIDTH, was[0], sizeof to);
                pm_optimizer_apply(&o, 0.1, 3,
                                   &(pm_update){WIDTH, true, g + next * WIDTH, was[0], to, {was[1], was[2]}});
                memcpy(was[0], to, sizeof to);
                next++;
            }
            for (int k = 0; k < 3; k++)
                cr_assert_arr_eq(table[k] + row * WIDTH, was[k], sizeof to, "kind %d row %zu", kind, row);
        }
    }
}
