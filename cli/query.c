// paramill query: one request from a file, its answer as text.
#include "cli/commands.h"
#include "cli/tensor_file.h"
#include "paramill/client.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct request {
    pm_client_options client;
    size_t top;
    bool invert, raw;
    const char *path;
} request;

static const char USAGE[] =
    "usage: paramill query --router ENDPOINT[,ENDPOINT…] --model NAME FILE\n"
    "  FILE: a PNG or PGM image, a NumPy array (.npy) or JSON (nested arrays of numbers)\n"
    "  --top K          the K largest outputs, of the last place where there are several, with their\n"
    "                   softmax probability [3]\n"
    "  --raw            all outputs, one a line, as they are\n"
    "  --invert         1 - value: for dark on light images\n"
    "  --version N      ask for that version   --timeout MS  [5000]\n";

static int parse(request *r, int argc, char **argv)
{
    static const struct option options[] = {{"router", required_argument, NULL, 'r'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"top", required_argument, NULL, 'k'},
                                            {"raw", no_argument, NULL, 'a'},
                                            {"invert", no_argument, NULL, 'i'},
                                            {"version", required_argument, NULL, 'v'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'r':
            r->client.routers = optarg;
            break;
        case 'm':
            r->client.model = optarg;
            break;
        case 'k':
            r->top = strtoul(optarg, NULL, 10);
            break;
        case 'a':
            r->raw = true;
            break;
        case 'i':
            r->invert = true;
            break;
        case 'v':
            r->client.version = optarg;
            break;
        case 't':
            r->client.timeout_ms = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
        }
    }
    if (optind + 1 != argc || !r->client.routers || !r->client.model)
        return fputs(USAGE, stderr), 2;
    r->path = argv[optind];
    return -1;
}

static pm_status client_status(pm_client_code code, const char *message)
{
    if (code == PM_CLIENT_OK)
        return pm_ok();
    return pm_fail(code == PM_CLIENT_INVALID ? PM_INVALID : PM_UNAVAILABLE, "%s", message);
}

// One row in the shape and type that the model's metadata names; *values are the input's.
static pm_status read_input(const request *r, const pm_client_metadata *m, pm_client_input *input,
                            void **values)
{
    const bool whole = strcmp(m->input_type, "INT64") == 0;
    size_t count = 1;
    input->rank = m->input_rank;
    for (uint32_t i = 0; i < m->input_rank; i++) {
        input->shape[i] = m->input_shape[i] < 0 ? 1 : m->input_shape[i];
        count *= (size_t)input->shape[i];
    }
    size_t height = m->input_rank >= 2 ? (size_t)input->shape[m->input_rank - 2] : 1;
    size_t width = m->input_rank >= 1 ? (size_t)input->shape[m->input_rank - 1] : 1;
    *values = malloc(count * (whole ? sizeof(int64_t) : sizeof(float)));
    if (!*values)
        return pm_fail(PM_NO_MEMORY, "an input of %zu values", count);
    if (whole && r->invert)
        return pm_fail(PM_INVALID, "--invert is for images; the model takes whole numbers");
    if (whole) {
        input->numbers = *values;
        return pm_tensor_file_read_whole(r->path, *values, count);
    }
    input->data = *values;
    return pm_tensor_file_read(r->path, *values, height, width, count, r->invert);
}

// Of an output (1, places, classes) the last place's classes.
static void print_top(const pm_client_result *result, size_t top)
{
    const size_t count = result->rank > 2 ? (size_t)result->shape[result->rank - 1] : result->count;
    const float *values = result->data + (result->count - count);
    double sum = 0, largest = values[0];
    for (size_t i = 1; i < count; i++)
        largest = fmax(largest, values[i]);
    for (size_t i = 0; i < count; i++)
        sum += exp(values[i] - largest);
    bool *shown = calloc(count, sizeof *shown);
    for (size_t k = 0; shown && k < top && k < count; k++) {
        size_t best = count;
        for (size_t i = 0; i < count; i++)
            if (!shown[i] && (best == count || values[i] > values[best]))
                best = i;
        shown[best] = true;
        printf("class %zu  probability %.4f  logit %.4f\n", best, exp(values[best] - largest) / sum,
               values[best]);
    }
    free(shown);
}

static pm_status ask(const request *r, pm_client *client)
{
    pm_client_metadata metadata;
    pm_client_input input = {0};
    pm_client_result result = {0};
    char message[PM_CLIENT_MESSAGE];
    void *values = NULL;
    pm_status status = client_status(pm_client_describe(client, &metadata, message), message);
    if (status.code == PM_OK)
        status = read_input(r, &metadata, &input, &values);
    if (status.code == PM_OK)
        status = client_status(pm_client_infer(client, &input, &result), result.message);
    if (status.code == PM_OK && r->raw)
        for (size_t i = 0; i < result.count; i++)
            printf("%.9g\n", result.data[i]);
    else if (status.code == PM_OK)
        print_top(&result, r->top);
    if (status.code == PM_OK && !r->raw)
        printf("version %llu  digest %s  %.2f ms\n", (unsigned long long)result.version, result.digest,
               (double)result.latency_us / 1000);
    pm_client_result_free(&result);
    free(values);
    return status;
}

int pm_cli_query(int argc, char **argv)
{
    request r = {.top = 3};
    int code = parse(&r, argc, argv);
    if (code >= 0)
        return code;
    pm_client *client = NULL;
    char message[PM_CLIENT_MESSAGE];
    pm_status status = client_status(pm_client_create(&client, &r.client, message), message);
    if (status.code == PM_OK)
        status = ask(&r, client);
    pm_client_destroy(&client);
    return pm_cli_finish("query", status);
}
