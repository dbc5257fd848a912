// A constant stream of single requests, open loop, while versions change: prints failures, the versions seen,
// and the p99 latency near a swap (of the requests answered within 0.2 s of the first answer of a new
// version) and far from one. Latency counts from the moment a request was due, so a stall cannot hide.
#include "bench/latency.h"
#include "core/clock.h"
#include "paramill/client.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NEAR_US = 200000, VERSIONS_MAX = 1024 };

typedef struct sample {
    int64_t due_us, done_us; // since the beginning
    uint64_t version;
} sample;

typedef struct load {
    const char *routers, *model;
    double rate, seconds;
    uint64_t stop_after; // versions seen; 0: only the time ends it
    pm_client *client;
    pm_client_input input;
    float *values;
    sample *samples; // by ticket - first
    uint64_t first_ticket;
    size_t sent, answered, failed, capacity;
    uint64_t versions[VERSIONS_MAX];
    int64_t swap_us[VERSIONS_MAX]; // first answer of each
    size_t version_count;
    char failure[PM_CLIENT_MESSAGE];
} load;

static int parse(load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"router", required_argument, NULL, 'r'},         {"model", required_argument, NULL, 'm'},
        {"rate", required_argument, NULL, 'a'},           {"seconds", required_argument, NULL, 's'},
        {"until-versions", required_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r')
            l->routers = optarg;
        else if (c == 'm')
            l->model = optarg;
        else if (c == 'a')
            l->rate = strtod(optarg, NULL);
        else if (c == 's')
            l->seconds = strtod(optarg, NULL);
        else if (c == 'v')
            l->stop_after = strtoul(optarg, NULL, 10);
        else
            return 0;
    }
    return l->routers && l->model && l->rate > 0 && l->rate <= 100000 && l->seconds > 0 && l->seconds <= 3600;
}

static int prepare(load *l, char *message)
{
    pm_client_metadata m;
    pm_client_options options = {.routers = l->routers, .model = l->model, .timeout_ms = 10000};
    if (pm_client_create(&l->client, &options, message) != PM_CLIENT_OK)
        return 0;
    for (int i = 0; i < 12; i++) // until the first version is loaded
        if (pm_client_describe(l->client, &m, message) == PM_CLIENT_OK)
            break;
        else if (i == 11)
            return 0;
    size_t count = 1;
    l->input.rank = m.input_rank;
    for (uint32_t i = 0; i < m.input_rank; i++) {
        l->input.shape[i] = m.input_shape[i] < 0 ? 1 : m.input_shape[i];
        count *= (size_t)l->input.shape[i];
    }
    l->capacity = (size_t)(l->rate * l->seconds) + 16;
    l->values = calloc(count, sizeof *l->values);
    l->samples = calloc(l->capacity, sizeof *l->samples);
    for (size_t i = 0; l->values && i < count; i++)
        l->values[i] = (float)(i % 7) / 7.0f;
    l->input.data = l->values;
    return l->values && l->samples;
}

static void take(load *l, const pm_client_result *result, int64_t now_us)
{
    size_t i = (size_t)(result->ticket - l->first_ticket);
    if (result->code != PM_CLIENT_OK || i >= l->capacity) {
        l->failed++;
        snprintf(l->failure, sizeof l->failure, "%s", result->message);
        return;
    }
    l->samples[i].done_us = now_us;
    l->samples[i].version = result->version;
    l->answered++;
    for (size_t v = 0; v < l->version_count; v++)
        if (l->versions[v] == result->version)
            return;
    if (l->version_count == VERSIONS_MAX)
        return;
    l->versions[l->version_count] = result->version;
    l->swap_us[l->version_count++] = now_us;
}

static void stream(load *l)
{
    const pm_clock clock = pm_clock_monotonic();
    int64_t begin = pm_now_us(&clock), end_us = (int64_t)(l->seconds * 1e6);
    double gap_us = 1e6 / l->rate;
    for (;;) {
        int64_t now = pm_now_us(&clock) - begin;
        bool over = now >= end_us || (l->stop_after && l->version_count >= l->stop_after);
        int64_t due = (int64_t)((double)l->sent * gap_us);
        if (!over && now >= due && l->sent < l->capacity) {
            uint64_t ticket;
            if (pm_client_submit(l->client, &l->input, &ticket) == PM_CLIENT_OK) {
                if (l->sent == 0)
                    l->first_ticket = ticket;
                l->samples[ticket - l->first_ticket].due_us = due;
            } else {
                l->failed++;
            }
            l->sent++;
            continue;
        }
        if (over && pm_client_pending(l->client) == 0)
            return;
        pm_client_result result;
        int wait_ms = over ? 100 : (int)((due - now) / 1000);
        if (pm_client_poll(l->client, wait_ms > 0 ? wait_ms : 0, &result)) {
            take(l, &result, pm_now_us(&clock) - begin);
            pm_client_result_free(&result);
        }
    }
}

static void print(load *l)
{
    int64_t *near = calloc(l->capacity, sizeof *near), *far = calloc(l->capacity, sizeof *far);
    size_t near_count = 0, far_count = 0;
    for (size_t i = 0; near && far && i < l->capacity; i++) {
        const sample *s = &l->samples[i];
        bool swap = false;
        if (s->done_us == 0)
            continue;
        for (size_t v = 1; v < l->version_count; v++) // the first version seen was no swap
            swap |= llabs(s->done_us - l->swap_us[v]) <= NEAR_US;
        if (swap)
            near[near_count++] = s->done_us - s->due_us;
        else
            far[far_count++] = s->done_us - s->due_us;
    }
    double p_near = (double)pm_quantile(near, near_count, 0.99) / 1000;
    double p_far = (double)pm_quantile(far, far_count, 0.99) / 1000;
    printf("%zu requests at %.0f/s, %zu failed%s%s\n", l->sent, l->rate, l->failed, l->failed ? ": " : "",
           l->failure);
    printf("%zu versions answered, %zu swaps\n", l->version_count,
           l->version_count ? l->version_count - 1 : 0);
    printf("p50 %.2f ms  p99 between swaps %.2f ms (%zu)  p99 during a swap %.2f ms (%zu)  ratio %.2f\n",
           (double)pm_quantile(far, far_count, 0.5) / 1000, p_far, far_count, p_near, near_count,
           p_far > 0 ? p_near / p_far : 0);
    free(near);
    free(far);
}

int main(int argc, char **argv)
{
    load l = {.rate = 200, .seconds = 60};
    char message[PM_CLIENT_MESSAGE] = "no memory";
    if (!parse(&l, argc, argv)) {
        fputs("usage: swap_load --router ENDPOINT --model NAME [--rate 200] [--seconds 60] [--until-versions "
              "N]\n",
              stderr);
        return 2;
    }
    int ready = prepare(&l, message);
    if (ready) {
        stream(&l);
        print(&l);
    } else {
        fprintf(stderr, "swap_load: %s\n", message);
    }
    pm_client_destroy(&l.client);
    free(l.values);
    free(l.samples);
    return ready && l.failed == 0 ? 0 : 1;
}
