// The limits of the machine: multiply-adds of a core and of all threads, memory read and copied.
#include "cli/bench.h"
#include "model/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 1 << 16, MEMORY_BYTES = 128 << 20 };

typedef struct chains {
    double operations; // of one run
    float sum;
} chains;

static pm_status run_chains(void *ctx)
{
    chains *c = ctx;
    c->operations = pm_kernels_get()->multiply_adds(ROUNDS, (const float[]){0.5f, 1.0f}, &c->sum);
    return pm_ok();
}

typedef struct member {
    const pm_bench *bench;
    double rate;
    pm_status status;
} member;

static void *measure_chains(void *ctx)
{
    member *m = ctx;
    chains c = {0};
    double seconds = 1;
    m->status = pm_bench_best(m->bench, run_chains, &c, &seconds);
    m->rate = c.operations / seconds;
    return NULL;
}

// The rates of threads at once, added.
static pm_status chains_of(const pm_bench *bench, uint32_t threads, double *rate)
{
    pthread_t *ids = calloc(threads, sizeof *ids);
    member *members = calloc(threads, sizeof *members);
    uint32_t started = 0;
    pm_status status = ids && members ? pm_ok() : pm_fail(PM_NO_MEMORY, "%u threads", threads);
    for (; status.code == PM_OK && started < threads; started++) {
        members[started].bench = bench;
        if (pthread_create(&ids[started], NULL, measure_chains, &members[started]) != 0) {
            status = pm_fail(PM_INTERNAL, "thread %u does not start", started);
            break;
        }
    }
    *rate = 0;
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(ids[i], NULL);
        *rate += members[i].rate;
        status = status.code == PM_OK ? members[i].status : status;
    }
    free(ids);
    free(members);
    return status;
}

typedef struct memory {
    float *from, *to;
    size_t bytes;
    float sum;
} memory;

static pm_status run_read(void *ctx)
{
    memory *m = ctx;
    m->sum += pm_kernels_get()->read_all(m->from, m->bytes / sizeof *m->from);
    return pm_ok();
}

static pm_status run_copy(void *ctx)
{
    memory *m = ctx;
    memcpy(m->to, m->from, m->bytes);
    return pm_ok();
}

pm_status pm_bench_read_rate(const pm_bench *bench, size_t bytes, double *bytes_a_second)
{
    memory m = {.from = aligned_alloc(64, (bytes + 63) / 64 * 64), .bytes = bytes};
    double seconds = 1;
    if (!m.from)
        return pm_fail(PM_NO_MEMORY, "%zu bytes to read", bytes);
    memset(m.from, 0, bytes);
    pm_status status = pm_bench_best(bench, run_read, &m, &seconds);
    *bytes_a_second = (double)bytes / seconds;
    free(m.from);
    return status;
}

static pm_status copy_rate(const pm_bench *bench, double *bytes_a_second)
{
    memory m = {.from = malloc(MEMORY_BYTES), .to = malloc(MEMORY_BYTES), .bytes = MEMORY_BYTES};
    double seconds = 1;
    pm_status status = pm_fail(PM_NO_MEMORY, "%d bytes to copy", MEMORY_BYTES);
    if (m.from && m.to) {
        memset(m.from, 1, m.bytes);
        status = pm_bench_best(bench, run_copy, &m, &seconds);
    }
    *bytes_a_second = (double)m.bytes / seconds;
    free(m.from);
    free(m.to);
    return status;
}

pm_status pm_bench_limits(pm_bench *bench)
{
    double read = 0, copy = 0;
    pm_status status = chains_of(bench, 1, &bench->multiply_adds);
    if (status.code == PM_OK)
        status = chains_of(bench, bench->threads, &bench->multiply_adds_all);
    if (status.code == PM_OK)
        status = pm_bench_read_rate(bench, MEMORY_BYTES, &read);
    if (status.code == PM_OK)
        status = copy_rate(bench, &copy);
    if (status.code != PM_OK)
        return status;
    printf("limit multiply-adds: %.1f GFLOP/s a core, %.1f GFLOP/s on %u threads\n",
           bench->multiply_adds * 1e-9, bench->multiply_adds_all * 1e-9, bench->threads);
    printf("limit memory: %.1f GB/s read, %.1f GB/s copied\n", read * 1e-9, copy * 1e-9);
    return status;
}
