#include "core/job.h"

#include "core/text.h"

#include <cyaml/cyaml.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOB_MAX_BYTES = 1 << 20 };

static const cyaml_strval_t OPS[] = {
    {"Gemm", PM_OP_GEMM},        {"Relu", PM_OP_RELU},
    {"Sigmoid", PM_OP_SIGMOID},  {"Tanh", PM_OP_TANH},
    {"Dropout", PM_OP_DROPOUT},  {"Conv", PM_OP_CONV},
    {"MaxPool", PM_OP_MAX_POOL}, {"AveragePool", PM_OP_AVERAGE_POOL},
    {"Flatten", PM_OP_FLATTEN},  {"BatchNormalization", PM_OP_BATCH_NORMALIZATION},
    {"Softmax", PM_OP_SOFTMAX},
};

static const cyaml_strval_t LOSSES[] = {
    {"softmax_cross_entropy", PM_LOSS_SOFTMAX_CROSS_ENTROPY},
    {"mean_squared_error", PM_LOSS_MEAN_SQUARED_ERROR},
};

static const cyaml_strval_t OPTIMIZERS[] = {
    {"sgd", PM_OPTIMIZER_SGD},
    {"momentum", PM_OPTIMIZER_MOMENTUM},
    {"adam", PM_OPTIMIZER_ADAM},
    {"adamw", PM_OPTIMIZER_ADAMW},
};

static const cyaml_strval_t SCHEDULES[] = {
    {"constant", PM_SCHEDULE_CONSTANT},
    {"cosine", PM_SCHEDULE_COSINE},
};

static const cyaml_strval_t AUGMENTS[] = {
    {"shift", PM_AUGMENT_SHIFT},   {"flip", PM_AUGMENT_FLIP},   {"rotate", PM_AUGMENT_ROTATE},
    {"scale", PM_AUGMENT_SCALE},   {"crop", PM_AUGMENT_CROP},   {"noise", PM_AUGMENT_NOISE},
    {"cutout", PM_AUGMENT_CUTOUT}, {"mixup", PM_AUGMENT_MIXUP},
};

#define REQUIRED CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL
#define UINT(key, need, type, member) CYAML_FIELD_UINT(key, need, type, member)
#define REAL(key, need, type, member) CYAML_FIELD_FLOAT(key, need, type, member)
#define TEXT(key, need, type, member)                                                                        \
    CYAML_FIELD_STRING_PTR(key, (need) | CYAML_FLAG_POINTER, type, member, 1, 4096)
#define WORD(key, need, type, member, words)                                                                 \
    CYAML_FIELD_ENUM(key, (need) | CYAML_FLAG_STRICT, type, member, words, CYAML_ARRAY_LEN(words))

static const cyaml_schema_field_t LAYER_FIELDS[] = {
    WORD("op", REQUIRED, pm_layer, op, OPS),
    UINT("units", OPTIONAL, pm_layer, units),
    UINT("channels", OPTIONAL, pm_layer, channels),
    UINT("kernel", OPTIONAL, pm_layer, kernel),
    UINT("stride", OPTIONAL, pm_layer, stride),
    UINT("pad", OPTIONAL, pm_layer, pad),
    CYAML_FIELD_BOOL("no_bias", OPTIONAL, pm_layer, no_bias),
    REAL("ratio", OPTIONAL, pm_layer, ratio),
    REAL("epsilon", OPTIONAL, pm_layer, epsilon),
    REAL("momentum", OPTIONAL, pm_layer, momentum),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t LAYER = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, pm_layer, LAYER_FIELDS)};
static const cyaml_schema_value_t DIMENSION = {CYAML_VALUE_INT(CYAML_FLAG_DEFAULT, int64_t)};

// The input is a mapping of its own in the file and two members of pm_job_model here.
static const cyaml_schema_field_t INPUT_FIELDS[] = {
    TEXT("name", REQUIRED, pm_job_model, input_name),
    CYAML_FIELD_SEQUENCE_COUNT("shape", CYAML_FLAG_POINTER, pm_job_model, input_shape, input_rank, &DIMENSION,
                               1, PM_MAX_RANK - 1),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t MODEL_FIELDS[] = {
    TEXT("onnx", OPTIONAL, pm_job_model, onnx),
    {.key = "input",
     .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, pm_job_model, INPUT_FIELDS)},
     .data_offset = 0},
    CYAML_FIELD_SEQUENCE_COUNT("layers", OPTIONAL | CYAML_FLAG_POINTER, pm_job_model, layers, layer_count,
                               &LAYER, 1, 1000),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t DATASET_FIELDS[] = {
    TEXT("features", REQUIRED, pm_job_dataset, features),
    TEXT("targets", REQUIRED, pm_job_dataset, targets),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t AUGMENT_FIELDS[] = {
    WORD("op", REQUIRED, pm_job_augment, op, AUGMENTS),
    UINT("pixels", OPTIONAL, pm_job_augment, pixels),
    REAL("probability", OPTIONAL, pm_job_augment, probability),
    REAL("degrees", OPTIONAL, pm_job_augment, degrees),
    REAL("factor", OPTIONAL, pm_job_augment, factor),
    REAL("deviation", OPTIONAL, pm_job_augment, deviation),
    REAL("alpha", OPTIONAL, pm_job_augment, alpha),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t AUGMENT = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, pm_job_augment, AUGMENT_FIELDS)};

// data.train and data.validation are neighbours in pm_job, so the mapping "data" lies over pm_job itself.
static const cyaml_schema_field_t DATA_FIELDS[] = {
    CYAML_FIELD_MAPPING("train", REQUIRED, pm_job, train, DATASET_FIELDS),
    CYAML_FIELD_MAPPING_PTR("validation", OPTIONAL | CYAML_FLAG_POINTER, pm_job, validation, DATASET_FIELDS),
    REAL("validation_split", OPTIONAL, pm_job, validation_split),
    CYAML_FIELD_SEQUENCE_COUNT("augment", OPTIONAL | CYAML_FLAG_POINTER, pm_job, augment, augment_count,
                               &AUGMENT, 1, 32),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t RATE_FIELDS[] = {
    TEXT("match", REQUIRED, pm_job_rate, match),
    REAL("factor", REQUIRED, pm_job_rate, factor),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t RATE = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, pm_job_rate, RATE_FIELDS)};

static const cyaml_schema_field_t OPTIMIZER_FIELDS[] = {
    WORD("kind", REQUIRED, pm_job_optimizer, kind, OPTIMIZERS),
    REAL("learning_rate", REQUIRED, pm_job_optimizer, learning_rate),
    REAL("momentum", OPTIONAL, pm_job_optimizer, momentum),
    REAL("beta1", OPTIONAL, pm_job_optimizer, beta1),
    REAL("beta2", OPTIONAL, pm_job_optimizer, beta2),
    REAL("epsilon", OPTIONAL, pm_job_optimizer, epsilon),
    REAL("weight_decay", OPTIONAL, pm_job_optimizer, weight_decay),
    WORD("schedule", OPTIONAL, pm_job_optimizer, schedule, SCHEDULES),
    UINT("warmup_steps", OPTIONAL, pm_job_optimizer, warmup_steps),
    CYAML_FIELD_SEQUENCE_COUNT("learning_rates", OPTIONAL | CYAML_FLAG_POINTER, pm_job_optimizer, rates,
                               rate_count, &RATE, 1, 1000),
    CYAML_FIELD_END,
};

// A mapping of its own in the file, a member of pm_job here.
static const cyaml_schema_field_t EARLY_STOPPING_FIELDS[] = {
    UINT("patience", REQUIRED, pm_job, patience),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t CLUSTER_FIELDS[] = {
    UINT("servers", OPTIONAL, pm_job_cluster, servers),
    UINT("workers", OPTIONAL, pm_job_cluster, workers),
    UINT("shards_per_server", OPTIONAL, pm_job_cluster, shards_per_server),
    UINT("heartbeat_ms", OPTIONAL, pm_job_cluster, heartbeat_ms),
    UINT("lease_ms", OPTIONAL, pm_job_cluster, lease_ms),
    UINT("request_ms", OPTIONAL, pm_job_cluster, request_ms),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t CHECKPOINT_FIELDS[] = {
    TEXT("store", REQUIRED, pm_job_checkpoint, store),
    UINT("every_steps", OPTIONAL, pm_job_checkpoint, every_steps),
    UINT("keep", OPTIONAL, pm_job_checkpoint, keep),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t WEIGHT = {CYAML_VALUE_FLOAT(CYAML_FLAG_DEFAULT, double)};

static const cyaml_schema_field_t JOB_FIELDS[] = {
    TEXT("name", REQUIRED, pm_job, name),
    UINT("seed", OPTIONAL, pm_job, seed),
    CYAML_FIELD_MAPPING("model", REQUIRED, pm_job, model, MODEL_FIELDS),
    {.key = "data",
     .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, pm_job, DATA_FIELDS)},
     .data_offset = 0},
    WORD("loss", REQUIRED, pm_job, loss, LOSSES),
    REAL("label_smoothing", OPTIONAL, pm_job, label_smoothing),
    CYAML_FIELD_SEQUENCE_COUNT("class_weights", OPTIONAL | CYAML_FLAG_POINTER, pm_job, class_weights,
                               class_weight_count, &WEIGHT, 1, 1 << 20),
    CYAML_FIELD_MAPPING("optimizer", REQUIRED, pm_job, optimizer, OPTIMIZER_FIELDS),
    UINT("batch", REQUIRED, pm_job, batch),
    UINT("lanes", REQUIRED, pm_job, lanes),
    UINT("epochs", REQUIRED, pm_job, epochs),
    {.key = "early_stopping",
     .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, pm_job, EARLY_STOPPING_FIELDS)},
     .data_offset = 0},
    UINT("staleness", OPTIONAL, pm_job, staleness),
    CYAML_FIELD_MAPPING("cluster", OPTIONAL, pm_job, cluster, CLUSTER_FIELDS),
    CYAML_FIELD_MAPPING("checkpoint", REQUIRED, pm_job, checkpoint, CHECKPOINT_FIELDS),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t JOB = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, pm_job, JOB_FIELDS)};

// What the YAML library says while it loads: its first complaint, and the innermost place.
typedef struct complaint {
    char what[160];
    unsigned line;
} complaint;

static void hear(cyaml_log_t level, void *context, const char *format, va_list args)
{
    complaint *c = context;
    char text[256];
    if (level < CYAML_LOG_ERROR)
        return;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    const char *line = strstr(text, "line: ");
    if (line && c->line == 0)
        c->line = (unsigned)strtoul(line + 6, NULL, 10);
    if (c->what[0] == '\0') {
        const char *colon = strstr(text, ": ");
        snprintf(c->what, sizeof c->what, "%s", !strncmp(text, "Load: ", 6) && colon ? colon + 2 : text);
    }
}

// An unexpected key is reported at the line where its mapping begins; the key itself stands at or below it.
static void find_key(complaint *c, const char *text)
{
    static const char prefix[] = "Unexpected key: ";
    const char *key = c->what + sizeof prefix - 1;
    if (strncmp(c->what, prefix, sizeof prefix - 1) != 0)
        return;
    unsigned line = 1;
    for (const char *p = text; *p; p++) {
        line += *p == '\n';
        if (line < c->line || strncmp(p, key, strlen(key)) != 0 || p[strlen(key)] != ':')
            continue;
        c->line = line;
        return;
    }
}

static cyaml_config_t yaml_config(complaint *c)
{
    return (cyaml_config_t){.log_fn = hear,
                            .log_ctx = c,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_DEFAULT | CYAML_CFG_NO_ALIAS};
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

static void real_default(double *value, double fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void fill_defaults(pm_job *job)
{
    pm_job_cluster *c = &job->cluster;
    c->servers = or_default(c->servers, 1);
    c->workers = or_default(c->workers, 1);
    c->shards_per_server = or_default(c->shards_per_server, 1);
    c->heartbeat_ms = or_default(c->heartbeat_ms, 500);
    c->lease_ms = or_default(c->lease_ms, 5000);
    c->request_ms = or_default(c->request_ms, 30000);
    job->checkpoint.keep = or_default(job->checkpoint.keep, 5);
    for (uint32_t i = 0; i < job->augment_count; i++)
        if (job->augment[i].op == PM_AUGMENT_FLIP)
            real_default(&job->augment[i].probability, 0.5);
    real_default(&job->optimizer.momentum, 0.9);
    real_default(&job->optimizer.beta1, 0.9);
    real_default(&job->optimizer.beta2, 0.999);
    real_default(&job->optimizer.epsilon, 1e-8);
    for (uint32_t i = 0; i < job->model.layer_count; i++) {
        pm_layer *layer = &job->model.layers[i];
        bool pool = layer->op == PM_OP_MAX_POOL || layer->op == PM_OP_AVERAGE_POOL;
        layer->stride = or_default(layer->stride, pool ? layer->kernel : 1);
        if (layer->op == PM_OP_DROPOUT)
            real_default(&layer->ratio, 0.5);
        real_default(&layer->epsilon, 1e-5);
        real_default(&layer->momentum, 0.9);
    }
}

static bool is_name(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return text[length] == '\0' && length <= 64 && text[0] != '.' && text[0] != '-' && text[0] != '_';
}

static pm_status check_layer(const pm_layer *layer, uint32_t index)
{
    const char *op = pm_op_name(layer->op);
    bool pool = layer->op == PM_OP_MAX_POOL || layer->op == PM_OP_AVERAGE_POOL;
    if (layer->op == PM_OP_GEMM && layer->units == 0)
        return pm_fail(PM_INVALID, "layer %u (%s) needs units: how many outputs", index + 1, op);
    if (layer->op == PM_OP_CONV && (layer->channels == 0 || layer->kernel == 0))
        return pm_fail(PM_INVALID, "layer %u (%s) needs channels and kernel", index + 1, op);
    if (pool && layer->kernel == 0)
        return pm_fail(PM_INVALID, "layer %u (%s) needs kernel", index + 1, op);
    if (!(layer->ratio >= 0 && layer->ratio < 1))
        return pm_fail(PM_INVALID, "layer %u (%s): ratio is in [0, 1)", index + 1, op);
    if (!(layer->epsilon > 0) || !(layer->momentum >= 0 && layer->momentum <= 1))
        return pm_fail(PM_INVALID, "layer %u (%s): epsilon is above 0, momentum in [0, 1]", index + 1, op);
    return pm_ok();
}

static bool fraction(double value)
{
    return value >= 0 && value < 1;
}

static pm_status check_augment(const pm_job_augment *a, uint32_t index)
{
    static const struct {
        size_t offset; // of what the operation needs
        bool whole;
        double below;
        const char *says;
    } needs[] = {
        [PM_AUGMENT_SHIFT] = {offsetof(pm_job_augment, pixels), true, 1 << 20, "pixels, at least 1"},
        [PM_AUGMENT_FLIP] = {offsetof(pm_job_augment, probability), false, 1.0000001,
                             "a probability in (0, 1]"},
        [PM_AUGMENT_ROTATE] = {offsetof(pm_job_augment, degrees), false, 180.0000001, "degrees in (0, 180]"},
        [PM_AUGMENT_SCALE] = {offsetof(pm_job_augment, factor), false, 1, "a factor in (0, 1)"},
        [PM_AUGMENT_CROP] = {offsetof(pm_job_augment, factor), false, 1, "a factor in (0, 1)"},
        [PM_AUGMENT_NOISE] = {offsetof(pm_job_augment, deviation), false, 1e6, "a deviation above 0"},
        [PM_AUGMENT_CUTOUT] = {offsetof(pm_job_augment, pixels), true, 1 << 20, "pixels, at least 1"},
        [PM_AUGMENT_MIXUP] = {offsetof(pm_job_augment, alpha), false, 1.0000001, "an alpha in (0, 1]"},
    };
    const char *field = (const char *)a + needs[a->op].offset;
    double value;
    if (needs[a->op].whole)
        value = *(const uint32_t *)(const void *)field;
    else
        value = *(const double *)(const void *)field;
    if (value > 0 && value < needs[a->op].below)
        return pm_ok();
    return pm_fail(PM_INVALID, "data: augment %u (%s) needs %s", index + 1, AUGMENTS[a->op].str,
                   needs[a->op].says);
}

static pm_status check_targets(const pm_job *job)
{
    if (pm_job_softens(job) && job->loss != PM_LOSS_SOFTMAX_CROSS_ENTROPY)
        return pm_fail(PM_INVALID,
                       "label_smoothing, class_weights and mixup go with the loss softmax_cross_entropy");
    if (!fraction(job->label_smoothing))
        return pm_fail(PM_INVALID, "label_smoothing is in [0, 1)");
    for (uint32_t i = 0; i < job->class_weight_count; i++)
        if (!(job->class_weights[i] >= 0) || !isfinite(job->class_weights[i]))
            return pm_fail(PM_INVALID, "class_weights: the weight of class %u is 0 or above", i);
    return pm_ok();
}

static pm_status check_data(const pm_job *job)
{
    if (!fraction(job->validation_split))
        return pm_fail(PM_INVALID, "data: validation_split is in [0, 1)");
    if (job->validation && job->validation_split > 0)
        return pm_fail(PM_INVALID, "data: validation and validation_split are two answers to one question");
    pm_status status = pm_ok();
    for (uint32_t i = 0; i < job->augment_count && status.code == PM_OK; i++)
        status = check_augment(&job->augment[i], i);
    return status;
}

static pm_status check_optimizer(const pm_job_optimizer *o)
{
    if (!(o->learning_rate > 0) || !isfinite(o->learning_rate))
        return pm_fail(PM_INVALID, "optimizer: learning_rate is a number above 0");
    if (!fraction(o->momentum) || !fraction(o->beta1) || !fraction(o->beta2))
        return pm_fail(PM_INVALID, "optimizer: momentum, beta1 and beta2 are in [0, 1)");
    if (!(o->epsilon > 0) || !(o->weight_decay >= 0) || !isfinite(o->weight_decay))
        return pm_fail(PM_INVALID, "optimizer: epsilon is above 0, weight_decay 0 or above");
    for (uint32_t i = 0; i < o->rate_count; i++)
        if (!(o->rates[i].factor >= 0) || !isfinite(o->rates[i].factor))
            return pm_fail(PM_INVALID, "optimizer: learning_rates %u (%s): factor is 0 or above", i + 1,
                           o->rates[i].match);
    return pm_ok();
}

static pm_status check_cluster(const pm_job_cluster *c, uint32_t lanes)
{
    if (c->workers > lanes)
        return pm_fail(PM_INVALID, "cluster: %u workers for %u lanes; a worker needs a lane", c->workers,
                       lanes);
    if (c->servers > 1024 || c->shards_per_server > 64)
        return pm_fail(PM_INVALID, "cluster: at most 1024 servers of at most 64 shards");
    if (c->lease_ms < 3 * c->heartbeat_ms)
        return pm_fail(PM_INVALID, "cluster: lease_ms is at least three times heartbeat_ms");
    return pm_ok();
}

static pm_status check(const pm_job *job)
{
    if (!is_name(job->name))
        return pm_fail(PM_INVALID,
                       "name: \"%s\" is not of the form [a-z0-9][a-z0-9._-]*, up to 64 characters",
                       job->name);
    bool layers = job->model.input_name && job->model.layer_count > 0;
    bool any = job->model.input_name || job->model.layer_count > 0;
    if (job->model.onnx ? any : !layers)
        return pm_fail(PM_INVALID, "model: either input and layers, or onnx: a file");
    for (uint32_t i = 0; i < job->model.input_rank; i++)
        if (job->model.input_shape[i] < 1 || job->model.input_shape[i] > 1 << 20)
            return pm_fail(PM_INVALID, "model: input: shape: dimensions are from 1 to %d", 1 << 20);
    for (uint32_t i = 0; i < job->model.layer_count; i++) {
        pm_status status = check_layer(&job->model.layers[i], i);
        if (status.code != PM_OK)
            return pm_wrap(status, "model");
    }
    if (job->lanes == 0 || (job->lanes & (job->lanes - 1)) || job->lanes > PM_MAX_LANES)
        return pm_fail(PM_INVALID, "lanes: %u is no power of two from 1 to %d", job->lanes, PM_MAX_LANES);
    if (job->batch == 0 || job->batch % job->lanes || job->batch > 1 << 20)
        return pm_fail(PM_INVALID, "batch: %u is no multiple of lanes (%u) up to %d", job->batch, job->lanes,
                       1 << 20);
    if (job->epochs == 0)
        return pm_fail(PM_INVALID, "epochs: at least 1");
    if (job->patience > 0 && !pm_job_validates(job))
        return pm_fail(PM_INVALID, "early_stopping: data has no validation rows to judge by");
    if (job->patience > 0 && job->checkpoint.every_steps > 0)
        return pm_fail(
            PM_INVALID,
            "early_stopping: the job may end after any epoch, so checkpoint is at each epoch's end; "
            "leave every_steps out");
    if (job->staleness != 0)
        return pm_fail(PM_UNSUPPORTED, "staleness: only 0 (bulk synchronous) is built");
    pm_status status = check_targets(job);
    if (status.code == PM_OK)
        status = check_data(job);
    if (status.code == PM_OK)
        status = check_optimizer(&job->optimizer);
    return status.code == PM_OK ? check_cluster(&job->cluster, job->lanes) : status;
}

pm_status pm_job_parse(pm_job **job, const char *text, const char *origin)
{
    complaint c = {"", 0};
    cyaml_config_t config = yaml_config(&c);
    cyaml_data_t *data = NULL;
    cyaml_err_t error = cyaml_load_data((const uint8_t *)text, strlen(text), &config, &JOB, &data, NULL);
    if (error != CYAML_OK) {
        find_key(&c, text);
        const char *what = c.what[0] ? c.what : cyaml_strerror(error);
        return c.line ? pm_fail(PM_INVALID, "%s:%u: %s", origin, c.line, what)
                      : pm_fail(PM_INVALID, "%s: %s", origin, what);
    }
    pm_job *j = data;
    if (!j)
        return pm_fail(PM_INVALID, "%s: the job is empty", origin);
    fill_defaults(j);
    pm_status status = pm_wrap(check(j), "%s", origin);
    j->text = strdup(text);
    if (status.code == PM_OK && !j->text)
        status = pm_fail(PM_NO_MEMORY, "%s: a copy of the text", origin);
    if (status.code == PM_OK)
        *job = j;
    else
        pm_job_destroy(&j);
    return status;
}

pm_status pm_job_load(pm_job **job, const char *path)
{
    char *text;
    size_t size;
    pm_status status = pm_read_file(path, JOB_MAX_BYTES, &text, &size);
    if (status.code != PM_OK)
        return status;
    status = strlen(text) == size ? pm_job_parse(job, text, path)
                                  : pm_fail(PM_INVALID, "%s: holds a NUL byte; a job file is text", path);
    free(text);
    return status;
}

void pm_job_destroy(pm_job **job)
{
    if (!job || !*job)
        return;
    complaint c = {"", 0};
    cyaml_config_t config = yaml_config(&c);
    free((*job)->text);
    (*job)->text = NULL;
    cyaml_free(&config, &JOB, *job, 0);
    *job = NULL;
}

double pm_job_rate_factor(const pm_job_optimizer *optimizer, const char *parameter)
{
    for (uint32_t i = 0; i < optimizer->rate_count; i++)
        if (fnmatch(optimizer->rates[i].match, parameter, 0) == 0)
            return optimizer->rates[i].factor;
    return 1;
}

bool pm_job_softens(const pm_job *job)
{
    for (uint32_t i = 0; i < job->augment_count; i++)
        if (job->augment[i].op == PM_AUGMENT_MIXUP)
            return true;
    return job->label_smoothing > 0 || job->class_weight_count > 0;
}

bool pm_job_validates(const pm_job *job)
{
    return job->validation || job->validation_split > 0;
}

const char *pm_op_name(pm_op op)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(OPS); i++)
        if (OPS[i].val == (int64_t)op)
            return OPS[i].str;
    return "?";
}
