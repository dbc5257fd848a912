#include "core/job.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char GOOD[] =
    "name: fashion\n"
    "seed: 7\n"
    "model:\n"
    "  input: {name: image, shape: [1, 28, 28]}\n"
    "  layers:\n"
    "    - {op: Conv, channels: 8, kernel: 3, pad: 1}\n"
    "    - {op: Relu}\n"
    "    - {op: MaxPool, kernel: 2}\n"
    "    - {op: Flatten}\n"
    "    - {op: Dropout}\n"
    "    - {op: Gemm, units: 10}\n"
    "data:\n"
    "  train: {features: a, targets: b}\n"
    "  validation: {features: c, targets: d}\n"
    "  augment: [{op: shift, pixels: 2}, {op: flip}, {op: crop, factor: 0.25}]\n"
    "loss: softmax_cross_entropy\n"
    "optimizer: {kind: adam, learning_rate: 0.001, learning_rates: [{match: \"conv*\", factor: 0.1}]}\n"
    "batch: 64\n"
    "lanes: 8\n"
    "epochs: 2\n"
    "cluster: {servers: 2, workers: 3}\n"
    "checkpoint: {store: store, every_steps: 100}\n";

Test(job, every_key_reaches_its_member)
{
    pm_job *job = NULL;
    pm_status status = pm_job_parse(&job, GOOD, "job.yaml");
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
    cr_assert_str_eq(job->name, "fashion");
    cr_assert_eq(job->seed, 7);
    cr_assert_str_eq(job->model.input_name, "image");
    cr_assert_eq(job->model.input_rank, 3);
    cr_assert_eq(job->model.input_shape[2], 28);
    cr_assert_eq(job->model.layer_count, 6);
    cr_assert_eq(job->model.layers[0].op, PM_OP_CONV);
    cr_assert_eq(job->model.layers[0].stride, 1);
    cr_assert_eq(job->model.layers[2].stride, 2, "a pool's stride is its window");
    cr_assert_float_eq(job->model.layers[4].ratio, 0.5, 1e-12);
    cr_assert_eq(job->model.layers[5].units, 10);
    cr_assert_str_eq(job->train.targets, "b");
    cr_assert_str_eq(job->validation->features, "c");
    cr_assert_eq(job->augment_count, 3);
    cr_assert_eq(job->augment[0].pixels, 2);
    cr_assert_float_eq(job->augment[1].probability, 0.5, 1e-12);
    cr_assert_eq(job->augment[2].op, PM_AUGMENT_CROP);
    cr_assert_eq(job->optimizer.kind, PM_OPTIMIZER_ADAM);
    cr_assert_float_eq(pm_job_rate_factor(&job->optimizer, "conv1.weight"), 0.1, 1e-12);
    cr_assert_float_eq(pm_job_rate_factor(&job->optimizer, "gemm1.weight"), 1, 1e-12);
    cr_assert_float_eq(job->optimizer.beta2, 0.999, 1e-12);
    cr_assert_eq(job->cluster.servers, 2);
    cr_assert_eq(job->cluster.workers, 3);
    cr_assert_eq(job->cluster.lease_ms, 5000);
    cr_assert_eq(job->checkpoint.every_steps, 100);
    cr_assert_eq(job->checkpoint.keep, 5);
    cr_assert_str_eq(job->text, GOOD);
    pm_job_destroy(&job);
    cr_assert_null(job);
}

// Replaces the first occurrence of from; the result is on the heap.
static char *with(const char *from, const char *to)
{
    const char *at = strstr(GOOD, from);
    char *text = malloc(sizeof GOOD + strlen(to));
    sprintf(text, "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
    return text;
}

static void refused(const char *from, const char *to, const char *line, const char *word)
{
    char *text = with(from, to);
    pm_job *job = NULL;
    pm_status status = pm_job_parse(&job, text, "job.yaml");
    cr_assert_neq(status.code, PM_OK, "accepted: %s", to);
    cr_assert_null(job);
    cr_assert(strstr(status.message, line), "no \"%s\" in: %s", line, status.message);
    cr_assert(strstr(status.message, word), "no \"%s\" in: %s", word, status.message);
    free(text);
}

Test(job, wrong_keys_types_and_values_are_refused_with_line_and_reason)
{
    refused("seed: 7", "sed: 7", "job.yaml:2:", "sed");
    refused("batch: 64", "batch: many", "job.yaml:18:", "many");
    refused("op: Relu", "op: Rel", "job.yaml:7:", "Rel");
    refused("loss: softmax_cross_entropy\n", "", "job.yaml:", "loss");
    refused("batch: 64", "precision: f16\nbatch: 64", "job.yaml:18:", "f16");
    refused("batch: 64", "batch: 63", "job.yaml", "batch: 63");
    refused("lanes: 8", "lanes: 6", "job.yaml", "lanes: 6");
    refused("name: fashion", "name: ../up", "job.yaml", "../up");
    refused("learning_rate: 0.001", "learning_rate: -1", "job.yaml", "learning_rate");
    refused("units: 10", "channels: 10", "job.yaml", "layer 6 (Gemm): needs units");
    refused("workers: 3", "workers: 9", "job.yaml", "9 workers for 8 lanes");
    refused("epochs: 2", "epochs: 2\nstaleness: 1", "job.yaml", "staleness");
    refused("batch: 64", "batch: 99999999999", "job.yaml:18:", "99999999999");
    refused("seed: 7", "seed: [1", "job.yaml", "");
    refused("factor: 0.1", "factor: -0.1", "job.yaml", "learning_rates 1 (conv*)");
    refused("  input: {name: image, shape: [1, 28, 28]}\n", "", "job.yaml",
            "either input and layers, or onnx");
    refused("  input:", "  onnx: model.onnx\n  input:", "job.yaml", "either input and layers, or onnx");
    refused("loss: softmax_cross_entropy", "loss: mean_squared_error\nlabel_smoothing: 0.1", "job.yaml",
            "label_smoothing");
    refused("loss: softmax_cross_entropy", "loss: softmax_cross_entropy\nclass_weights: [1, -1]", "job.yaml",
            "class 1");
    refused("op: shift", "op: shove", "job.yaml:", "shove");
    refused("factor: 0.25", "factor: 1.5", "job.yaml", "augment 3 (crop) needs a factor in (0, 1)");
    refused("{op: shift, pixels: 2}", "{op: noise}", "job.yaml", "augment 1 (noise) needs a deviation");
    refused("{features: c, targets: d}", "{features: c, targets: d}\n  validation_split: 0.1", "job.yaml",
            "validation_split");
    refused("epochs: 2", "epochs: 2\nearly_stopping: {patience: 3}", "job.yaml", "every_steps");
}

static const char NESTED[] = "name: nested\n"
                             "model:\n"
                             "  input: {name: image, shape: [1, 28, 28]}\n"
                             "  layers:\n"
                             "    - op: Residual\n"
                             "      layers:\n"
                             "        - {op: Conv, channels: 4, kernel: 3, pad: 1}\n"
                             "        - op: Residual\n"
                             "          layers: [{op: MaxPool, kernel: 3, pad: 1, stride: 1}]\n"
                             "      shortcut: [{op: Conv, channels: 4, kernel: 1}]\n"
                             "    - {op: GlobalAveragePool}\n"
                             "data: {train: {features: a, targets: b}}\n"
                             "loss: softmax_cross_entropy\n"
                             "optimizer: {kind: sgd, learning_rate: 0.1}\n"
                             "batch: 8\nlanes: 2\nepochs: 1\ncheckpoint: {store: s}\n";

Test(job, layers_may_hold_layers)
{
    pm_job *job = NULL;
    pm_status status = pm_job_parse(&job, NESTED, "nested.yaml");
    cr_assert_eq(status.code, PM_OK, "%s", status.message);
    const pm_layer *residual = &job->model.layers[0];
    cr_assert(residual->op == PM_OP_RESIDUAL && residual->layer_count == 2 && residual->shortcut_count == 1);
    cr_assert_eq(residual->layers[0].stride, 1, "defaults are set inside as well");
    cr_assert_eq(residual->layers[1].layers[0].kernel, 3);
    pm_job_destroy(&job);
}

static void refused_nested(const char *from, const char *to, const char *what)
{
    char text[2 * sizeof NESTED];
    const char *at = strstr(NESTED, from);
    pm_job *job = NULL;
    cr_assert_not_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - NESTED), NESTED, to, at + strlen(from));
    pm_status status = pm_job_parse(&job, text, "nested.yaml");
    cr_assert_eq(status.code, PM_INVALID, "%s", status.message);
    cr_assert(strstr(status.message, what) && !strchr(status.message, '\n'), "%s", status.message);
}

Test(job, wrong_nesting_is_refused_in_one_line)
{
    refused_nested("kernel: 3, pad: 1}", "pad: 1}",
                   "layer 1 (Residual): layers: layer 1 (Conv): needs channels and kernel");
    refused_nested("          layers: [{op: MaxPool, kernel: 3, pad: 1, stride: 1}]\n", "",
                   "layer 1 (Residual): layers: layer 2 (Residual): needs layers");
    refused_nested("{op: GlobalAveragePool}", "{op: Relu, layers: [{op: Relu}]}",
                   "layer 2 (Relu): has no layers of its own");
    refused_nested("{op: Conv, channels: 4, kernel: 1}", "{op: Embedding, vocabulary: 4, units: 2}",
                   "shortcut: layer 1 (Embedding): only the model's first layer");
    char deep[400] = "";
    for (int i = 0; i < PM_MAX_NESTING; i++)
        strcat(deep, "{op: Residual, layers: [");
    strcat(deep, "{op: Residual, layers: [{op: Relu}]}");
    for (int i = 0; i < PM_MAX_NESTING; i++)
        strcat(deep, "]}");
    refused_nested("{op: GlobalAveragePool}", deep, "layer 2 (Residual): is nested more than 4 deep");
}

Test(job, a_missing_file_is_named)
{
    pm_job *job = NULL;
    pm_status status = pm_job_load(&job, "/nowhere/job.yaml");
    cr_assert_eq(status.code, PM_NOT_FOUND);
    cr_assert(strstr(status.message, "/nowhere/job.yaml"));
}

Test(job, a_hundred_thousand_mutations_parse_or_are_refused, .timeout = 240)
{
    uint64_t state = 88172645463325252ull;
    char text[sizeof GOOD];
    for (int round = 0; round < 100000; round++) {
        memcpy(text, GOOD, sizeof GOOD);
        for (int change = 0; change < 3; change++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text[state % (sizeof GOOD - 1)] = (char)(' ' + (state >> 32) % 95);
        }
        pm_job *job = NULL;
        pm_status status = pm_job_parse(&job, text, "job.yaml");
        cr_assert_eq(status.code == PM_OK, job != NULL);
        pm_job_destroy(&job);
    }
}

Test(job, an_empty_text_is_refused)
{
    const char *const texts[] = {"", "\n", "# nothing\n", "---\n", "~\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pm_job *job = NULL;
        pm_status status = pm_job_parse(&job, texts[i], "empty.yaml");
        cr_assert_eq(status.code, PM_INVALID, "text %zu", i);
        cr_assert(strstr(status.message, "empty.yaml"), "%s", status.message);
        cr_assert_null(job);
    }
}
