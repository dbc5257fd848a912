#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

enum { TIMEOUT_S = 300 };

static pm_tsan_test *first;
static const pm_tsan_test *current;

void pm_tsan_add(pm_tsan_test *test)
{
    test->next = first;
    first = test;
}

void pm_tsan_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s::%s failed at %s:%d: %s", current ? current->suite : "?",
            current ? current->name : "?", file, line, what);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void run(const pm_tsan_test *test)
{
    static const pm_tsan_options none;
    const pm_tsan_options *suite = &none;
    for (const pm_tsan_test *t = first; t; t = t->next)
        if (!t->name && !strcmp(t->suite, test->suite))
            suite = &t->options;
    void (*init)(void) = test->options.init ? test->options.init : suite->init;
    void (*fini)(void) = test->options.fini ? test->options.fini : suite->fini;
    current = test;
    alarm(TIMEOUT_S);
    if (init)
        init();
    test->run();
    if (fini)
        fini();
    alarm(0);
}

int main(void)
{
    int count = 0;
    for (const pm_tsan_test *t = first; t; t = t->next)
        if (t->name) {
            run(t);
            count++;
        }
    printf("%d tests passed\n", count);
    return count > 0 ? 0 : 1;
}
