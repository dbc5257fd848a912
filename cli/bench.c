// paramill bench: what this machine can do, and how near the engine comes to it.
#include "cli/bench.h"
#include "cli/commands.h"
#include "core/rng.h"
#include "model/plan.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char USAGE[] =
    "usage: paramill bench model [--threads N] [--quick] [PART …]\n"
    "measures the machine's limits (multiply-adds, memory), then the engine against them: matrix products,\n"
    "products of frozen weights, answers and training steps (f32, bf16) of a perceptron (784-512-256-10), "
    "of\n"
    "a convolutional net (two 3x3 convolutions of 32 and 64 channels with pools, 128, 10) on 28x28 images, "
    "and\n"
    "of a GPT (4 blocks of 4 heads, 128 wide, a context of 64 of 65 characters), and training steps of a\n"
    "DLRM (26 tables of 100,000 rows of 16, of which each row of data names one; batches of 2,048).\n"
    "Figures are medians; leave the machine idle meanwhile.\n"
    "  PART         products, inference, training or dlrm [all]\n"
    "  --threads N  threads of training, each with its part of the batch's lanes: a power of two [1]\n"
    "  --quick      fewer and shorter samples\n";

enum { THREADS_MAX = 64, SAMPLES = 11, SAMPLES_QUICK = 3 };

pm_status pm_bench_request_run(void *ctx)
{
    const pm_bench_request *r = ctx;
    return pm_plan_run(r->plan, &r->input, r->rows, (void *const[]){r->output});
}

double pm_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

float *pm_bench_numbers(size_t count, uint64_t stream)
{
    float *numbers = aligned_alloc(64, (count * sizeof *numbers + 63) / 64 * 64 + 64);
    const pm_rng_key key = pm_rng_key_make(stream, "bench");
    for (size_t i = 0; numbers && i < count; i++)
        numbers[i] = (float)(2 * pm_rng_uniform(key, 0, i) - 1);
    return numbers;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// Runs until least seconds have gone by; *count and *seconds: how often, how long it took.
static pm_status run_for(pm_bench_run run, void *ctx, double least, uint64_t *count, double *seconds)
{
    pm_status status = pm_ok();
    const double start = pm_bench_now();
    for (*count = 0, *seconds = 0; *seconds < least && status.code == PM_OK;
         *seconds = pm_bench_now() - start)
        for (uint64_t i = 0, more = *count ? *count : 1; i < more && status.code == PM_OK; i++, ++*count)
            status = run(ctx);
    return status;
}

// *seconds: the sample that part of them are faster than.
static pm_status measure(const pm_bench *bench, pm_bench_run run, void *ctx, double part, double *seconds)
{
    const uint32_t samples = bench->quick ? SAMPLES_QUICK : SAMPLES;
    double times[SAMPLES], taken = 0;
    uint64_t count = 0;
    // The warm-up fills caches and lets the core reach its speed; it also says how many runs make a sample.
    pm_status status = run_for(run, ctx, bench->quick ? 0.02 : 0.1, &count, &taken);
    const double each = taken / (double)(count ? count : 1), sample = bench->quick ? 0.01 : 0.03;
    const uint64_t runs = each < sample ? (uint64_t)(sample / each) : 1;
    for (uint32_t s = 0; s < samples && status.code == PM_OK; s++) {
        const double start = pm_bench_now();
        for (uint64_t i = 0; i < runs && status.code == PM_OK; i++)
            status = run(ctx);
        times[s] = (pm_bench_now() - start) / (double)runs;
    }
    if (status.code != PM_OK)
        return status;
    qsort(times, samples, sizeof *times, by_value);
    *seconds = times[(uint32_t)(samples * part)];
    return status;
}

pm_status pm_bench_median(const pm_bench *bench, pm_bench_run run, void *ctx, double *seconds)
{
    return measure(bench, run, ctx, 0.5, seconds);
}

pm_status pm_bench_best(const pm_bench *bench, pm_bench_run run, void *ctx, double *seconds)
{
    return measure(bench, run, ctx, 0, seconds);
}

static const struct {
    const char *name;
    pm_status (*run)(const pm_bench *bench);
} PARTS[] = {{"products", pm_bench_products},
             {"inference", pm_bench_inference},
             {"training", pm_bench_training},
             {"dlrm", pm_bench_dlrm}};

enum { PART_COUNT = sizeof PARTS / sizeof PARTS[0], ALL = (1u << PART_COUNT) - 1 };

// parts: bit i stands for PARTS[i].
static pm_status run_parts(pm_bench *bench, uint32_t parts)
{
    printf("kernels %s\n", pm_kernel_set(PM_PRECISION_BF16));
    pm_status status = pm_bench_limits(bench);
    for (uint32_t i = 0; i < PART_COUNT && status.code == PM_OK; i++)
        if (parts >> i & 1)
            status = PARTS[i].run(bench);
    return status;
}

// 0: what is named is none.
static uint32_t part_of(const char *name)
{
    for (uint32_t i = 0; i < PART_COUNT; i++)
        if (!strcmp(name, PARTS[i].name))
            return 1u << i;
    return 0;
}

static bool parse_threads(const char *text, uint32_t *threads)
{
    char *end = NULL;
    const unsigned long value = strtoul(text, &end, 10);
    *threads = (uint32_t)value;
    return text[0] >= '1' && text[0] <= '9' && *end == '\0' && value <= THREADS_MAX &&
           (value & (value - 1)) == 0;
}

int pm_cli_bench(int argc, char **argv)
{
    static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                            {"quick", no_argument, NULL, 'q'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    pm_bench bench = {.threads = 1};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        bench.quick = bench.quick || c == 'q';
        if (c == 't' && !parse_threads(optarg, &bench.threads))
            return pm_cli_finish("bench", pm_fail(PM_INVALID, "--threads %s: wanted a power of two up to %d",
                                                  optarg, THREADS_MAX));
        if (c == 'h' || c == '?')
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
    }
    if (optind >= argc || strcmp(argv[optind++], "model") != 0)
        return fputs(USAGE, stderr), 2;
    uint32_t parts = optind == argc ? ALL : 0;
    for (; optind < argc; optind++) {
        if (!part_of(argv[optind]))
            return pm_cli_finish("bench", pm_fail(PM_INVALID,
                                                  "%.64s is no part of it: wanted products, "
                                                  "inference, training or dlrm",
                                                  argv[optind]));
        parts |= part_of(argv[optind]);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return pm_cli_finish("bench", run_parts(&bench, parts));
}
