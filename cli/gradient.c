// paramill gradient: one forward and backward pass over given rows, for those who ask why a model does not
// learn, and for holding gradients against another engine's.
#include "cli/commands.h"
#include "cli/param_file.h"
#include "model/losses.h"
#include "model/plan.h"
#include "snapshot/safetensors.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: paramill gradient MODEL.onnx --rows ROWS.safetensors --loss NAME --out OUT.safetensors\n"
    "one training step over the rows, as one lane and without an update: prints the loss and writes the\n"
    "gradient of every parameter under its name, of running statistics the batch's\n"
    "  --rows FILE  tensors named as the model's inputs, of their types, with rows first, and \"target\":\n"
    "               int32 classes (of each place of an output (rows, places, classes)) or float32 values, by "
    "the loss\n"
    "  --loss NAME  softmax_cross_entropy, soft_cross_entropy, mean_squared_error, l1, binary_cross_entropy\n"
    "               or bpr\n";

enum { ROWS_MAX = 1 << 20, STEP_SEED = 1 };

typedef struct arguments {
    const char *model, *rows, *out;
    pm_loss loss;
    bool has_loss;
} arguments;

static const pm_dtype DTYPES[] = {
    [PM_TYPE_F32] = PM_DTYPE_F32,  [PM_TYPE_U8] = PM_DTYPE_U8,     [PM_TYPE_I8] = PM_DTYPE_I8,
    [PM_TYPE_U16] = PM_DTYPE_U16,  [PM_TYPE_I16] = PM_DTYPE_I16,   [PM_TYPE_I32] = PM_DTYPE_I32,
    [PM_TYPE_I64] = PM_DTYPE_I64,  [PM_TYPE_BOOL] = PM_DTYPE_BOOL, [PM_TYPE_F16] = PM_DTYPE_F16,
    [PM_TYPE_F64] = PM_DTYPE_F64,  [PM_TYPE_U32] = PM_DTYPE_U32,   [PM_TYPE_U64] = PM_DTYPE_U64,
    [PM_TYPE_BF16] = PM_DTYPE_BF16};

// The tensor of the name, which must be of the type and hold rows times count elements.
static pm_status find_rows(const pm_safetensors *file, const char *name, pm_type type, size_t count,
                           uint64_t rows, const pm_tensor_view **view)
{
    *view = pm_safetensors_find(file, name);
    if (!*view)
        return pm_fail(PM_INVALID, "--rows: no tensor %.64s", name);
    if ((*view)->dtype != DTYPES[type])
        return pm_fail(PM_INVALID, "--rows: tensor %.64s is %s, wanted %s", name,
                       pm_dtype_name((*view)->dtype), pm_dtype_name(DTYPES[type]));
    if ((*view)->size != rows * count * pm_type_size(type))
        return pm_fail(PM_INVALID,
                       "--rows: tensor %.64s has %zu bytes, wanted %" PRIu64 " rows of %zu elements", name,
                       (*view)->size, rows, count);
    return pm_ok();
}

static pm_status count_rows(const pm_safetensors *file, const pm_graph *graph, uint64_t *rows)
{
    const pm_tensor_view *first = pm_safetensors_find(file, pm_graph_input_name(graph));
    if (!first || first->rank == 0)
        return pm_fail(PM_INVALID, "--rows: no rows of tensor %.64s", pm_graph_input_name(graph));
    *rows = first->shape[0];
    return *rows > 0 && *rows <= ROWS_MAX ? pm_ok()
                                          : pm_fail(PM_INVALID, "--rows: wanted 1 to %d rows", ROWS_MAX);
}

static pm_status fill(pm_plan *plan, const pm_graph *graph, const pm_safetensors *file, pm_loss loss,
                      uint64_t rows)
{
    const pm_tensor_view *view = NULL;
    pm_status status = pm_ok();
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_inputs(graph); i++) {
        const pm_port *port = pm_graph_input(graph, i);
        status = find_rows(file, port->name, port->type, port->count, rows, &view);
        if (status.code == PM_OK)
            memcpy(pm_plan_input_at(plan, i), view->data, view->size);
    }
    const bool classes = pm_loss_kind_of(loss)->target == PM_TARGET_CLASS;
    if (status.code == PM_OK)
        status = find_rows(file, "target", classes ? PM_TYPE_I32 : PM_TYPE_F32,
                           classes ? pm_loss_places(graph, loss) : pm_graph_output_count(graph), rows, &view);
    if (status.code == PM_OK)
        memcpy(pm_plan_target(plan), view->data, view->size);
    return status;
}

static const float *gradient(const void *plan, size_t index)
{
    return pm_plan_gradient(plan, index);
}

static pm_status write_gradients(const pm_plan *plan, const pm_graph *graph, const char *path, double loss)
{
    char text[32];
    snprintf(text, sizeof text, "%.17g", loss);
    return pm_param_file_write(path, graph, gradient, plan, "loss", text, NULL);
}

static pm_status run(const arguments *a)
{
    pm_graph *graph = NULL;
    pm_plan *plan = NULL;
    pm_safetensors *file = NULL;
    uint64_t rows = 0;
    pm_step step = {.seed = STEP_SEED, .lane_count = 1};
    pm_status status = pm_graph_load_onnx(&graph, a->model, NULL);
    for (size_t i = 0; status.code == PM_OK && i < pm_graph_notes(graph); i++)
        fprintf(stderr, "paramill gradient: %s\n", pm_graph_note(graph, i));
    if (status.code == PM_OK)
        status = pm_safetensors_open(&file, a->rows);
    if (status.code == PM_OK)
        status = count_rows(file, graph, &rows);
    if (status.code == PM_OK)
        status = pm_plan_create_training(&plan, graph, a->loss, (uint32_t)rows, 1, (uint32_t)rows);
    if (status.code == PM_OK)
        status = fill(plan, graph, file, a->loss, rows);
    if (status.code == PM_OK)
        status = pm_plan_step(plan, &step);
    if (status.code == PM_OK)
        step.loss /= (double)rows * (double)pm_loss_places(graph, a->loss);
    if (status.code == PM_OK)
        status = write_gradients(plan, graph, a->out, step.loss);
    if (status.code == PM_OK)
        printf("loss %.9g over %" PRIu64 " rows, %zu gradients\n", step.loss, rows,
               pm_graph_param_count(graph));
    pm_safetensors_close(&file);
    pm_plan_destroy(&plan);
    pm_graph_destroy(&graph);
    return status;
}

int pm_cli_gradient(int argc, char **argv)
{
    static const struct option options[] = {{"rows", required_argument, NULL, 'r'},
                                            {"loss", required_argument, NULL, 'l'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    arguments a = {0};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'r')
            a.rows = optarg;
        else if (c == 'o')
            a.out = optarg;
        else if (c == 'l' && !(a.has_loss = pm_loss_find(optarg, &a.loss)))
            return pm_cli_finish("gradient", pm_fail(PM_INVALID, "--loss %.32s is unknown", optarg));
        else if (c != 'l')
            return fputs(USAGE, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
    }
    if (optind + 1 != argc || !a.rows || !a.out || !a.has_loss)
        return fputs(USAGE, stderr), 2;
    a.model = argv[optind];
    return pm_cli_finish("gradient", run(&a));
}
