#pragma once
// The part of Criterion that the tests use, for the thread sanitizer only: Criterion's sandbox wants memory
// at an address that the sanitizer keeps for itself. Tests run one after another in one process; the first
// failure ends it.
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct pm_tsan_options {
    int first; // so that a list of options may be empty
    void (*init)(void);
    void (*fini)(void);
    double timeout; // seconds
} pm_tsan_options;

typedef struct pm_tsan_test {
    struct pm_tsan_test *next;
    const char *suite, *name; // name NULL: the options of the suite
    void (*run)(void);
    pm_tsan_options options;
} pm_tsan_test;

void pm_tsan_add(pm_tsan_test *test);
void pm_tsan_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#define Test(suite_, name_, ...)                                                                             \
    static void suite_##_##name_##_run(void);                                                                \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)                                    \
    {                                                                                                        \
        static pm_tsan_test test = {                                                                         \
            .suite = #suite_, .name = #name_, .run = suite_##_##name_##_run, .options = {0, __VA_ARGS__}};   \
        pm_tsan_add(&test);                                                                                  \
    }                                                                                                        \
    static void suite_##_##name_##_run(void)

#define TestSuite(suite_, ...)                                                                               \
    __attribute__((constructor)) static void suite_##_add(void)                                              \
    {                                                                                                        \
        static pm_tsan_test test = {.suite = #suite_, .options = {0, __VA_ARGS__}};                          \
        pm_tsan_add(&test);                                                                                  \
    }

#define cr_assert(condition, ...)                                                                            \
    ((condition) ? (void)0 : pm_tsan_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__))
#define cr_assert_fail(...) cr_assert(false, __VA_ARGS__)
#define cr_expect cr_assert
#define cr_expect_float_eq cr_assert_float_eq
#define cr_assert_not(a, ...) cr_assert(!(a), __VA_ARGS__)
#define cr_assert_eq(a, b, ...) cr_assert((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...) cr_assert((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...) cr_assert((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...) cr_assert((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...) cr_assert((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...) cr_assert((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...) cr_assert((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...) cr_assert((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) cr_assert(strcmp(a, b) == 0, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) cr_assert(strcmp(a, b) != 0, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, size, ...) cr_assert(memcmp(a, b, size) == 0, __VA_ARGS__)
#define cr_assert_float_eq(a, b, epsilon, ...)                                                               \
    cr_assert(fabs((double)(a) - (double)(b)) <= (epsilon), __VA_ARGS__)
