#ifndef PARAMILL_CLIENT_H
#define PARAMILL_CLIENT_H
// The C client of paramill: sends tensors to routers and gets the model's answers, each with the version and
// digest that gave it.
//
// A client belongs to one thread at a time. It speaks to the router that last answered; when that one is
// silent or overloaded, the request goes to the next (an inference may be done twice without harm), until its
// timeout.
//
//   pm_client *client = NULL;
//   char message[PM_CLIENT_MESSAGE];
//   pm_client_options options = {.routers = "tcp://a:8000,tcp://b:8000", .model = "fashion-cnn"};
//   if (pm_client_create(&client, &options, message)) …
//   pm_client_input input = {.name = "image", .data = pixels, .shape = {1, 1, 28, 28}, .rank = 4};
//   pm_client_result result;
//   if (pm_client_infer(client, &input, &result) == PM_CLIENT_OK) … result.data, result.version,
//   result.digest pm_client_result_free(&result); pm_client_destroy(&client);
//
// Link: pkg-config --cflags --libs paramill-client
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_CLIENT_MESSAGE = 256, PM_CLIENT_RANK_MAX = 8, PM_CLIENT_PENDING_MAX = 4096 };

typedef enum pm_client_code {
    PM_CLIENT_OK = 0,
    PM_CLIENT_INVALID,     // the request or an option is wrong: retrying does not help
    PM_CLIENT_TIMEOUT,     // no router answered in time
    PM_CLIENT_UNAVAILABLE, // routers answered that they cannot, until the timeout
    PM_CLIENT_NOT_FOUND,   // no such model or version is served
    PM_CLIENT_NO_MEMORY,   // or PM_CLIENT_PENDING_MAX requests are under way
    PM_CLIENT_FAILED       // anything else; the message says what
} pm_client_code;

typedef struct pm_client pm_client;

// Strings are copied. Zero means the default in brackets.
typedef struct pm_client_options {
    const char *routers; // endpoints separated by commas
    const char *model;   // its name in the store
    const char *version; // decimal; NULL: whichever the workers serve
    uint32_t timeout_ms; // of a request, fail-over included [5000]
    uint32_t attempt_ms; // silence after which the next router is tried [timeout_ms / number of routers, at
                         // most 1000]
} pm_client_options;

// Row-major with the batch as first dimension; copied by the call that takes it.
typedef struct pm_client_input {
    const char *name;       // NULL: the model's only input
    const float *data;      // FP32
    const int64_t *numbers; // INT64, where data is NULL
    int64_t shape[PM_CLIENT_RANK_MAX];
    uint32_t rank;
} pm_client_input;

typedef struct pm_client_result {
    pm_client_code code;
    char message[PM_CLIENT_MESSAGE]; // empty when code is PM_CLIENT_OK
    uint64_t ticket;                 // of pm_client_submit
    uint64_t version;                // that answered
    char digest[65];                 // of that version, hex
    float *data;                     // row-major; owned by the result
    int64_t shape[PM_CLIENT_RANK_MAX];
    uint32_t rank;
    size_t count;       // product of shape
    int64_t latency_us; // from submission to answer
} pm_client_result;

// Connects in the background; never waits for a router. PM_CLIENT_INVALID: message says which option.
pm_client_code pm_client_create(pm_client **client, const pm_client_options *options, char *message);

// Forgets what is under way; sets *client to NULL; NULL is allowed.
void pm_client_destroy(pm_client **client);

// Sends and waits. The result is to be freed whatever the code. Answers of earlier submissions that arrive
// meanwhile are kept for pm_client_poll.
pm_client_code pm_client_infer(pm_client *client, const pm_client_input *input, pm_client_result *result);

// Sends and returns at once; *ticket names the request.
pm_client_code pm_client_submit(pm_client *client, const pm_client_input *input, uint64_t *ticket);

// Waits up to timeout_ms (0: only looks) for any submission to be answered or to fail. Returns 1 with *result
// filled in (to be freed), 0 when nothing is ready. A call also does the client's work (resends, fail-over):
// call it often while anything is pending.
int pm_client_poll(pm_client *client, int timeout_ms, pm_client_result *result);

// Submissions that pm_client_poll has yet to give.
size_t pm_client_pending(const pm_client *client);

// What the model takes and gives: name, type ("FP32", "INT64") and shape (-1: the batch) of its input and
// output.
typedef struct pm_client_metadata {
    char input_name[128], output_name[128], input_type[16], output_type[16];
    int64_t input_shape[PM_CLIENT_RANK_MAX], output_shape[PM_CLIENT_RANK_MAX];
    uint32_t input_rank, output_rank;
} pm_client_metadata;

pm_client_code pm_client_describe(pm_client *client, pm_client_metadata *metadata, char *message);

// Frees data and zeroes the result.
void pm_client_result_free(pm_client_result *result);

#ifdef __cplusplus
}
#endif
#endif
