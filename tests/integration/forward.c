// The trainer's own forward pass, for comparison with what is served and with other runtimes:
//   forward JOB.yaml model.safetensors ROWS > outputs
// writes the raw float32 outputs of the first rows of the job's validation data, computed by the plan that
// the trainer validates with, its parameters read by name from the weights.
#include "snapshot/safetensors.h"
#include "worker/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = file ? calloc(1, 1 << 20) : NULL;
    if (text && fread(text, 1, (1 << 20) - 1, file) == 0)
        text[0] = '\0';
    if (file)
        fclose(file);
    return text;
}

static pm_status load(pm_trainer *trainer, const char *path)
{
    pm_safetensors *weights = NULL;
    pm_status status = pm_safetensors_open(&weights, path);
    for (size_t i = 0; status.code == PM_OK && i < trainer->tables; i++) {
        const pm_param *param = pm_graph_param(trainer->graph, i);
        const pm_tensor_view *view = pm_safetensors_find(weights, param->name);
        if (!view || view->size != param->count * sizeof(float))
            status = pm_fail(PM_INVALID, "%s has no %s of %zu values", path, param->name, param->count);
        else
            memcpy(pm_plan_param(trainer->training, i), view->data, view->size);
    }
    pm_safetensors_close(&weights);
    return status;
}

static pm_status forward(pm_trainer *trainer, uint64_t rows)
{
    size_t in = pm_graph_input_count(trainer->graph), out = pm_graph_output_count(trainer->graph);
    float *input = calloc(in, sizeof *input), *output = calloc(out, sizeof *output);
    int32_t target[1];
    pm_status status = input && output ? pm_ok() : pm_fail(PM_NO_MEMORY, "a row");
    if (status.code == PM_OK && rows > pm_dataset_rows(trainer->validation))
        status = pm_fail(PM_INVALID, "there are fewer rows");
    for (uint64_t row = 0; status.code == PM_OK && row < rows; row++) {
        pm_dataset_read(trainer->validation, row, 0, input, target);
        status = pm_plan_infer(trainer->inference, input, 1, output);
        if (status.code == PM_OK && fwrite(output, sizeof *output, out, stdout) != out)
            status = pm_fail(PM_IO, "standard output");
    }
    free(input);
    free(output);
    return status;
}

int main(int argc, char **argv)
{
    char *text = argc == 4 ? read_text(argv[1]) : NULL;
    if (!text) {
        fputs("usage: forward JOB.yaml model.safetensors ROWS\n", stderr);
        return 2;
    }
    pm_kernel_set(PM_PRECISION_F32);
    pm_trainer trainer;
    pm_status status = pm_trainer_open(&trainer, text, "");
    if (status.code == PM_OK) {
        status = load(&trainer, argv[2]);
        if (status.code == PM_OK)
            status = forward(&trainer, strtoull(argv[3], NULL, 10));
        pm_trainer_close(&trainer);
    }
    free(text);
    if (status.code != PM_OK)
        fprintf(stderr, "forward: %s\n", status.message);
    return status.code != PM_OK;
}
