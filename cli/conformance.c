// paramill conformance DIR: runs the cases of the ONNX backend suite found below DIR (folders with model.onnx
// and test_data_set_N/{input,output}_N.pb) and holds the answers against theirs.
#include "cli/commands.h"
#include "cli/round_trip.h"
#include "core/text.h"
#include "model/evaluate.h"

#include <dirent.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH_LENGTH = 1024, FILE_LIMIT = 1 << 30, MAX_PORTS = 64, MAX_OPERATORS = 512, CASE_SECONDS = 120 };

// The suite's own rule.
static const double RTOL = 1e-3, ATOL = 1e-7;

typedef enum outcome { PASSED, WRONG, REFUSED, CRASHED, OUTCOMES } outcome;

static const char *const OUTCOME_NAMES[] = {"passed", "WRONG", "unsupported", "CRASHED"};

// Cases of onnx 1.12 whose wanted outputs do not follow from their model.
static const struct {
    const char *name, *why;
} CONTRADICTIONS[] = {
    {"test_adam_multiple", "its outputs were made with an epsilon of 0.01, which its model does not have"},
};

// What a case's process tells.
typedef struct verdict {
    outcome outcome;
    char message[PM_MESSAGE_MAX];
} verdict;

typedef struct tally {
    char name[128];
    unsigned counts[OUTCOMES];
    bool seen; // in the case at hand
} tally;

typedef struct run {
    const char *only, *write; // write: a folder for what passed, or NULL
    bool list;
    unsigned counts[OUTCOMES];
    tally operators[MAX_OPERATORS];
    size_t operator_count;
} run;

static verdict judge(outcome found, const char *message)
{
    verdict v = {.outcome = found};
    snprintf(v.message, sizeof v.message, "%s", message);
    return v;
}

// --- one case

static pm_status read_tensors(const char *set, const char *kind, pm_region *region, pm_tensor *tensors,
                              size_t *count)
{
    for (*count = 0; *count < MAX_PORTS; ++*count) {
        char path[PATH_LENGTH + 64], *bytes = NULL;
        size_t size = 0;
        snprintf(path, sizeof path, "%s/%s_%zu.pb", set, kind, *count);
        if (access(path, R_OK) != 0)
            return pm_ok();
        pm_status status = pm_read_file(path, FILE_LIMIT, &bytes, &size);
        if (status.code == PM_OK)
            status = pm_tensor_read_onnx(bytes, size, region, &tensors[*count]);
        free(bytes);
        if (status.code != PM_OK)
            return pm_wrap(status, "%s_%zu.pb", kind, *count);
    }
    return pm_fail(PM_UNSUPPORTED, "more than %d tensors", MAX_PORTS);
}

static double from_half(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                        : exponent     ? ldexp(1 + fraction / 1024.0, exponent - 15)
                                       : ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}

static double from_bfloat(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return (double)f;
}

// Whether element i of both is the same within the rule; integers must be equal.
static bool same_element(const pm_tensor *a, const pm_tensor *b, size_t i)
{
    const size_t size = pm_type_size(a->type);
    double x = 0, y = 0;
    switch (a->type) {
    case PM_TYPE_F32:
        x = (double)((const float *)a->data)[i];
        y = (double)((const float *)b->data)[i];
        break;
    case PM_TYPE_F64:
        x = ((const double *)a->data)[i];
        y = ((const double *)b->data)[i];
        break;
    case PM_TYPE_F16:
        x = from_half(((const uint16_t *)a->data)[i]);
        y = from_half(((const uint16_t *)b->data)[i]);
        break;
    case PM_TYPE_BF16:
        x = from_bfloat(((const uint16_t *)a->data)[i]);
        y = from_bfloat(((const uint16_t *)b->data)[i]);
        break;
    default:
        return memcmp((const char *)a->data + i * size, (const char *)b->data + i * size, size) == 0;
    }
    if (isnan(y) || isinf(y))
        return isnan(y) ? isnan(x) : x == y;
    return fabs(x - y) <= ATOL + RTOL * fabs(y);
}

static verdict compare(const pm_tensor *got, const pm_tensor *wanted, size_t index)
{
    char text[PM_MESSAGE_MAX], a[96], b[96];
    const bool bits = got->type == PM_TYPE_BF16 && wanted->type == PM_TYPE_U16; // NumPy has no bfloat16
    if ((got->type != wanted->type && !bits) || !pm_shape_equal(got, wanted)) {
        snprintf(text, sizeof text, "output %zu is %s %s, wanted %s %s", index, pm_type_name(got->type),
                 pm_shape_text(got->shape, got->rank, a, sizeof a), pm_type_name(wanted->type),
                 pm_shape_text(wanted->shape, wanted->rank, b, sizeof b));
        return judge(WRONG, text);
    }
    for (size_t i = 0; i < wanted->count; i++)
        if (!same_element(got, wanted, i)) {
            snprintf(text, sizeof text, "output %zu differs at element %zu of %zu", index, i, wanted->count);
            return judge(WRONG, text);
        }
    return judge(PASSED, "");
}

// Where a set's model and tensors go; NULL: nowhere.
static verdict run_set(const char *set, const char *model, size_t size, const char *out, pm_region *region)
{
    pm_tensor inputs[MAX_PORTS], wanted[MAX_PORTS], *got = NULL;
    size_t input_count = 0, wanted_count = 0, got_count = 0;
    pm_status status = pm_onnx_check_ports(model, size);
    if (status.code == PM_OK)
        status = read_tensors(set, "input", region, inputs, &input_count);
    if (status.code == PM_OK)
        status = read_tensors(set, "output", region, wanted, &wanted_count);
    if (status.code == PM_OK)
        status = pm_evaluate_onnx(model, size, inputs, input_count, region, &got, &got_count);
    if (status.code != PM_OK)
        return judge(status.code == PM_UNSUPPORTED ? REFUSED : WRONG, status.message);
    if (got_count != wanted_count)
        return judge(WRONG, "another number of outputs");
    for (size_t i = 0; i < got_count; i++) {
        const verdict v = compare(&got[i], &wanted[i], i);
        if (v.outcome != PASSED)
            return v;
    }
    if (out)
        status = pm_round_trip_write(out, model, size, inputs, input_count, got, got_count);
    return status.code == PM_OK ? judge(PASSED, "") : judge(WRONG, status.message);
}

static verdict run_case(const char *folder, const char *model, size_t size, const char *out)
{
    unsigned sets = 0;
    for (;; sets++) {
        char set[PATH_LENGTH + 64];
        snprintf(set, sizeof set, "%s/test_data_set_%u", folder, sets);
        if (access(set, R_OK) != 0)
            break;
        pm_region *region = pm_region_create();
        const verdict v = region ? run_set(set, model, size, sets == 0 ? out : NULL, region)
                                 : judge(CRASHED, "out of memory");
        pm_region_destroy(&region);
        if (v.outcome != PASSED)
            return v;
    }
    return sets ? judge(PASSED, "") : judge(WRONG, "no test_data_set_0");
}

// A process of its own, so that one case cannot take the others with it.
static verdict run_apart(const char *folder, const char *model, size_t size, const char *out)
{
    int ends[2], state = 0;
    verdict v = judge(CRASHED, "no process");
    fflush(stdout);
    if (pipe(ends) != 0)
        return v;
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        alarm(CASE_SECONDS);
        v = run_case(folder, model, size, out);
        _exit(write(ends[1], &v, sizeof v) == (ssize_t)sizeof v ? 0 : 1);
    }
    close(ends[1]);
    const bool told = child > 0 && read(ends[0], &v, sizeof v) == (ssize_t)sizeof v;
    close(ends[0]);
    if (child > 0)
        waitpid(child, &state, 0);
    if (told)
        return v;
    v = judge(CRASHED, "");
    snprintf(v.message, sizeof v.message, "ended by signal %d", WIFSIGNALED(state) ? WTERMSIG(state) : 0);
    return v;
}

// --- all cases

static void note_operator(void *ctx, const char *domain, const char *op)
{
    run *r = ctx;
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", domain, domain[0] ? "." : "", op);
    size_t i = 0;
    while (i < r->operator_count && strcmp(r->operators[i].name, name) != 0)
        i++;
    if (i == MAX_OPERATORS)
        return;
    if (i == r->operator_count)
        strcpy(r->operators[r->operator_count++].name, name);
    r->operators[i].seen = true;
}

static pm_status visit_case(run *r, const char *folder, const char *name)
{
    char path[PATH_LENGTH + 64], *model = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    pm_status status = pm_read_file(path, FILE_LIMIT, &model, &size);
    if (status.code != PM_OK)
        return status;
    for (size_t i = 0; i < r->operator_count; i++)
        r->operators[i].seen = false;
    (void)pm_onnx_each_operator(model, size, note_operator, r);
    verdict v = judge(PASSED, "");
    for (size_t i = 0; i < sizeof CONTRADICTIONS / sizeof CONTRADICTIONS[0]; i++)
        if (strcmp(name, CONTRADICTIONS[i].name) == 0)
            v = judge(REFUSED, CONTRADICTIONS[i].why);
    if (r->write)
        snprintf(path, sizeof path, "%s/%s", r->write, name);
    if (v.outcome == PASSED)
        v = run_apart(folder, model, size, r->write ? path : NULL);
    free(model);
    r->counts[v.outcome]++;
    for (size_t i = 0; i < r->operator_count; i++)
        if (r->operators[i].seen)
            r->operators[i].counts[v.outcome]++;
    if (r->list || v.outcome == WRONG || v.outcome == CRASHED)
        printf("%-11s %s%s%s\n", OUTCOME_NAMES[v.outcome], name, v.message[0] ? ": " : "", v.message);
    return status;
}

static pm_status visit(run *r, const char *folder, const char *name, unsigned depth);

static pm_status visit_below(run *r, const char *folder, unsigned depth)
{
    struct dirent **entries = NULL;
    const int count = scandir(folder, &entries, NULL, alphasort);
    pm_status status = count < 0 ? pm_fail_errno("%s", folder) : pm_ok();
    for (int i = 0; i < count; i++) {
        char path[PATH_LENGTH];
        const char *name = entries[i]->d_name;
        if (status.code == PM_OK && name[0] != '.' &&
            snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path)
            status = visit(r, path, name, depth + 1);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static pm_status visit(run *r, const char *folder, const char *name, unsigned depth)
{
    char path[PATH_LENGTH + 64];
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    if (access(path, R_OK) == 0)
        return !r->only || fnmatch(r->only, name, 0) == 0 ? visit_case(r, folder, name) : pm_ok();
    DIR *d = depth < 4 ? opendir(folder) : NULL;
    if (!d)
        return depth == 0 ? pm_fail_errno("%s", folder) : pm_ok();
    closedir(d);
    return visit_below(r, folder, depth);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tally *)a)->name, ((const tally *)b)->name);
}

static int report(run *r)
{
    qsort(r->operators, r->operator_count, sizeof *r->operators, by_name);
    printf("%-44s %8s %8s %12s\n", "operator", "passed", "failed", "unsupported");
    for (size_t i = 0; i < r->operator_count; i++) {
        const tally *t = &r->operators[i];
        printf("%-44s %8u %8u %12u\n", t->name, t->counts[PASSED], t->counts[WRONG] + t->counts[CRASHED],
               t->counts[REFUSED]);
    }
    const unsigned failed = r->counts[WRONG] + r->counts[CRASHED];
    printf("%u cases: %u passed, %u failed, %u unsupported\n",
           r->counts[PASSED] + failed + r->counts[REFUSED], r->counts[PASSED], failed, r->counts[REFUSED]);
    return failed == 0 && r->counts[PASSED] > 0 ? 0 : 1;
}

static int usage(FILE *stream, int code)
{
    fprintf(
        stream,
        "usage: paramill conformance DIR [--list] [--only PATTERN] [--write OUT]\n\n"
        "Runs the ONNX backend cases below DIR, such as /usr/share/libonnx-testdata/data/node of Debian's\n"
        "libonnx-testdata, and prints passed, failed and unsupported cases by operator.\n\n"
        "  --list          print every case, with why it is not passed\n"
        "  --only PATTERN  only cases whose folder's name matches, such as 'test_conv*'\n"
        "  --write OUT     write each model that passed as this engine exports it, with the inputs and "
        "outputs of\n"
        "                  its first set, into OUT/CASE\n");
    return code;
}

int pm_cli_conformance(int argc, char **argv)
{
    const char *folder = NULL, *only = NULL, *write_to = NULL;
    bool list = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help"))
            return usage(stdout, 0);
        if (!strcmp(argv[i], "--list"))
            list = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--write") && i + 1 < argc)
            write_to = argv[++i];
        else if (argv[i][0] != '-' && !folder)
            folder = argv[i];
        else
            return usage(stderr, 2);
    }
    run *r = folder ? calloc(1, sizeof *r) : NULL;
    if (!folder)
        return usage(stderr, 2);
    pm_status status = r ? pm_ok() : pm_fail(PM_NO_MEMORY, "a tally");
    int code = 1;
    if (r) {
        r->only = only;
        r->write = write_to;
        r->list = list;
        status = visit(r, folder, folder, 0);
        if (status.code == PM_OK)
            code = report(r);
    }
    free(r);
    return status.code == PM_OK ? code : pm_cli_finish("conformance", status);
}
