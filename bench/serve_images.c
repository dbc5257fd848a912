// Sends every image of an IDX file to a router, a bounded number at a time, and prints accuracy, requests/s,
// latency, who answered, and one image with its three best classes.
#include "bench/latency.h"
#include "core/clock.h"
#include "paramill/client.h"
#include "worker/idx.h"

#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT = 32, VERSIONS_MAX = 64 };

static const char *const FASHION[10] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                        "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

typedef struct tally {
    uint64_t version;
    char digest[65];
    size_t answers;
} tally;

typedef struct run {
    const char *routers, *model, *image_path, *label_path;
    size_t shown; // index of the image to draw
    pm_idx images, labels;
    pm_client *client;
    pm_client_metadata metadata;
    uint64_t *tickets; // of image i
    size_t sent, answered, correct, failed;
    int64_t *latency;
    tally versions[VERSIONS_MAX];
    size_t version_count;
    float shown_output[10];
    char failure[PM_CLIENT_MESSAGE];
} run;

static int parse(run *r, int argc, char **argv)
{
    static const struct option options[] = {
        {"router", required_argument, NULL, 'r'}, {"model", required_argument, NULL, 'm'},
        {"images", required_argument, NULL, 'i'}, {"labels", required_argument, NULL, 'l'},
        {"show", required_argument, NULL, 's'},   {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r')
            r->routers = optarg;
        else if (c == 'm')
            r->model = optarg;
        else if (c == 'i')
            r->image_path = optarg;
        else if (c == 'l')
            r->label_path = optarg;
        else if (c == 's')
            r->shown = strtoul(optarg, NULL, 10);
        else
            return 0;
    }
    return r->routers && r->model && r->image_path && r->label_path;
}

static void draw(const unsigned char *pixels, uint32_t height, uint32_t width)
{
    static const char *const shades[] = {" ", "░", "▒", "▓", "█"};
    for (uint32_t y = 0; y < height; y += 2) {
        for (uint32_t x = 0; x < width; x++) {
            unsigned sum = pixels[y * width + x], rows = 1;
            if (y + 1 < height) {
                sum += pixels[(y + 1) * width + x];
                rows = 2;
            }
            fputs(shades[sum * 5 / (256 * rows)], stdout);
        }
        putchar('\n');
    }
}

static void show_top(const run *r)
{
    double sum = 0, largest = r->shown_output[0];
    bool used[10] = {false};
    for (int i = 1; i < 10; i++)
        largest = fmax(largest, r->shown_output[i]);
    for (int i = 0; i < 10; i++)
        sum += exp(r->shown_output[i] - largest);
    for (int k = 0; k < 3; k++) {
        int best = -1;
        for (int i = 0; i < 10; i++)
            if (!used[i] && (best < 0 || r->shown_output[i] > r->shown_output[best]))
                best = i;
        used[best] = true;
        printf("  %-12s %.4f\n", FASHION[best], exp(r->shown_output[best] - largest) / sum);
    }
    printf("  it is a %s\n", FASHION[r->labels.values[r->shown]]);
}

static void count_version(run *r, const pm_client_result *result)
{
    size_t i = 0;
    while (i < r->version_count && strcmp(r->versions[i].digest, result->digest) != 0)
        i++;
    if (i == VERSIONS_MAX)
        return;
    if (i == r->version_count) {
        r->versions[i].version = result->version;
        memcpy(r->versions[i].digest, result->digest, sizeof result->digest);
        r->version_count++;
    }
    r->versions[i].answers++;
}

static void take(run *r, const pm_client_result *result)
{
    size_t image = 0;
    while (image < r->sent && r->tickets[image] != result->ticket)
        image++;
    if (result->code != PM_CLIENT_OK || image == r->sent || result->count != 10) {
        r->failed++;
        snprintf(r->failure, sizeof r->failure, "%s", result->message);
        return;
    }
    size_t best = 0;
    for (size_t i = 1; i < result->count; i++)
        best = result->data[i] > result->data[best] ? i : best;
    r->correct += best == r->labels.values[image];
    r->latency[r->answered++] = result->latency_us;
    count_version(r, result);
    if (image == r->shown)
        memcpy(r->shown_output, result->data, sizeof r->shown_output);
}

static void send_image(run *r)
{
    float pixels[4096];
    for (size_t i = 0; i < r->images.row_count; i++)
        pixels[i] = (float)r->images.values[r->sent * r->images.row_count + i] / 255.0f;
    pm_client_input input = {.data = pixels, .rank = r->metadata.input_rank};
    for (uint32_t i = 0; i < input.rank; i++)
        input.shape[i] = r->metadata.input_shape[i] < 0 ? 1 : r->metadata.input_shape[i];
    if (pm_client_submit(r->client, &input, &r->tickets[r->sent]) != PM_CLIENT_OK)
        r->failed++;
    r->sent++;
}

static void stream(run *r, double *seconds)
{
    const pm_clock clock = pm_clock_monotonic();
    int64_t begin = pm_now_us(&clock);
    size_t all = r->images.shape[0];
    while (r->sent < all || pm_client_pending(r->client) > 0) {
        while (r->sent < all && pm_client_pending(r->client) < IN_FLIGHT)
            send_image(r);
        pm_client_result result;
        if (pm_client_poll(r->client, 1000, &result)) {
            take(r, &result);
            pm_client_result_free(&result);
        }
    }
    *seconds = (double)(pm_now_us(&clock) - begin) / 1e6;
}

static pm_status prepare(run *r)
{
    char message[PM_CLIENT_MESSAGE];
    pm_client_options options = {.routers = r->routers, .model = r->model, .timeout_ms = 20000};
    pm_status status = pm_idx_load(&r->images, r->image_path);
    if (status.code == PM_OK)
        status = pm_idx_load(&r->labels, r->label_path);
    if (status.code == PM_OK && (r->images.rank != 3 || r->images.row_count > 4096 ||
                                 r->labels.shape[0] != r->images.shape[0] || r->shown >= r->images.shape[0]))
        status = pm_fail(PM_INVALID, "%s and %s are no images with labels", r->image_path, r->label_path);
    if (status.code != PM_OK)
        return status;
    r->tickets = calloc(r->images.shape[0], sizeof *r->tickets);
    r->latency = calloc(r->images.shape[0], sizeof *r->latency);
    if (!r->tickets || !r->latency)
        return pm_fail(PM_NO_MEMORY, "a table of requests");
    if (pm_client_create(&r->client, &options, message) != PM_CLIENT_OK ||
        pm_client_describe(r->client, &r->metadata, message) != PM_CLIENT_OK)
        return pm_fail(PM_UNAVAILABLE, "%s", message);
    return pm_ok();
}

static void print(run *r, double seconds)
{
    size_t n = r->answered;
    printf("%zu of %zu requests answered, %zu failed%s%s\n", n, r->sent, r->failed, r->failed ? ": " : "",
           r->failure);
    printf("accuracy %.4f\n", n ? (double)r->correct / (double)n : 0);
    printf("%.0f requests/s  p50 %.2f ms  p99 %.2f ms  (%d under way at a time)\n", (double)n / seconds,
           (double)pm_quantile(r->latency, n, 0.5) / 1000, (double)pm_quantile(r->latency, n, 0.99) / 1000,
           IN_FLIGHT);
    for (size_t i = 0; i < r->version_count; i++)
        printf("version %llu  digest %s  gave %zu answers\n", (unsigned long long)r->versions[i].version,
               r->versions[i].digest, r->versions[i].answers);
    draw(r->images.values + r->shown * r->images.row_count, r->images.shape[1], r->images.shape[2]);
    show_top(r);
}

int main(int argc, char **argv)
{
    run r = {0};
    if (!parse(&r, argc, argv)) {
        fputs("usage: serve_images --router ENDPOINT --model NAME --images IDX --labels IDX [--show INDEX]\n",
              stderr);
        return 2;
    }
    pm_status status = prepare(&r);
    if (status.code == PM_OK) {
        double seconds;
        stream(&r, &seconds);
        print(&r, seconds);
    } else {
        fprintf(stderr, "serve_images: %s\n", status.message);
    }
    pm_client_destroy(&r.client);
    pm_idx_free(&r.images);
    pm_idx_free(&r.labels);
    free(r.tickets);
    free(r.latency);
    return status.code == PM_OK && r.failed == 0 ? 0 : 1;
}
