#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy
// as 1, 2, 3", SC 2011). A draw is a pure function of (key, counter), so any element of any stream can be had
// at any place and time; nothing is carried along.
#include <stdint.h>

typedef struct pm_rng_key {
    uint32_t word[2];
} pm_rng_key;

// The ten-round block: counter and key in, four words out.
void pm_philox(pm_rng_key key, const uint32_t counter[4], uint32_t out[4]);

// A key for a named use of a seed, e.g. pm_rng_key_make(seed, "init:conv1.weight"). Different purposes give
// unrelated streams.
pm_rng_key pm_rng_key_make(uint64_t seed, const char *purpose);

// A uniform double in [0, 1) made of 53 bits, drawn at (stream, index).
double pm_rng_uniform(pm_rng_key key, uint64_t stream, uint64_t index);

// A uniform integer in [0, bound) without modulo bias beyond 2^-64; bound > 0.
uint64_t pm_rng_below(pm_rng_key key, uint64_t stream, uint64_t index, uint64_t bound);

// A seeded permutation of [0, n), evaluated at position i (0 <= i < n) without a table: a cycle-walking
// Feistel network over Philox. Bijective for every key and epoch.
uint64_t pm_rng_permute(pm_rng_key key, uint64_t epoch, uint64_t i, uint64_t n);
