#include "core/job.h"

#include "core/job_check.h"
#include "core/text.h"

#include <cyaml/cyaml.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOB_MAX_BYTES = 1 << 20 };

static const cyaml_strval_t OPS[] = {
    {"Gemm", PM_OP_GEMM},
    {"Relu", PM_OP_RELU},
    {"Sigmoid", PM_OP_SIGMOID},
    {"Tanh", PM_OP_TANH},
    {"Dropout", PM_OP_DROPOUT},
    {"Conv", PM_OP_CONV},
    {"MaxPool", PM_OP_MAX_POOL},
    {"AveragePool", PM_OP_AVERAGE_POOL},
    {"Flatten", PM_OP_FLATTEN},
    {"BatchNormalization", PM_OP_BATCH_NORMALIZATION},
    {"Softmax", PM_OP_SOFTMAX},
    {"Gelu", PM_OP_GELU},
    {"Residual", PM_OP_RESIDUAL},
    {"GlobalAveragePool", PM_OP_GLOBAL_AVERAGE_POOL},
    {"MatMul", PM_OP_MATMUL},
    {"LayerNormalization", PM_OP_LAYER_NORMALIZATION},
    {"Embedding", PM_OP_EMBEDDING},
    {"PositionEmbedding", PM_OP_POSITION_EMBEDDING},
    {"Attention", PM_OP_ATTENTION},
    {"Transformer", PM_OP_TRANSFORMER},
    {"LSTM", PM_OP_LSTM},
    {"GRU", PM_OP_GRU},
    {"DotInteraction", PM_OP_DOT_INTERACTION},
};

static const cyaml_strval_t LOSSES[] = {
    {"softmax_cross_entropy", PM_LOSS_SOFTMAX_CROSS_ENTROPY},
    {"mean_squared_error", PM_LOSS_MEAN_SQUARED_ERROR},
    {"l1", PM_LOSS_L1},
    {"binary_cross_entropy", PM_LOSS_BINARY_CROSS_ENTROPY},
    {"bpr", PM_LOSS_BPR},
};

static const cyaml_strval_t OPTIMIZERS[] = {
    {"sgd", PM_OPTIMIZER_SGD},     {"momentum", PM_OPTIMIZER_MOMENTUM}, {"adam", PM_OPTIMIZER_ADAM},
    {"adamw", PM_OPTIMIZER_ADAMW}, {"adagrad", PM_OPTIMIZER_ADAGRAD},
};

static const cyaml_strval_t SCHEDULES[] = {
    {"constant", PM_SCHEDULE_CONSTANT},
    {"cosine", PM_SCHEDULE_COSINE},
};

static const cyaml_strval_t DECAYS[] = {
    {"all", PM_DECAY_ALL},
    {"matrices", PM_DECAY_MATRICES},
};

static const cyaml_strval_t PRECISIONS[] = {
    {"f32", PM_PRECISION_F32},
    {"bf16", PM_PRECISION_BF16},
};

static const cyaml_strval_t DATA_TYPES[] = {
    {"idx", PM_DATA_IDX},
    {"text", PM_DATA_TEXT},
};

static const cyaml_strval_t QUALITIES[] = {
    {"accuracy", PM_QUALITY_ACCURACY}, {"top_2", PM_QUALITY_TOP_2},   {"top_3", PM_QUALITY_TOP_3},
    {"top_5", PM_QUALITY_TOP_5},       {"top_10", PM_QUALITY_TOP_10}, {"auc", PM_QUALITY_AUC},
    {"log_loss", PM_QUALITY_LOG_LOSS}, {"f1", PM_QUALITY_F1},         {"rmse", PM_QUALITY_RMSE},
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

static const cyaml_schema_value_t LAYER;

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
    UINT("heads", OPTIONAL, pm_layer, heads),
    CYAML_FIELD_BOOL("full", OPTIONAL, pm_layer, full),
    UINT("vocabulary", OPTIONAL, pm_layer, vocabulary),
    UINT("numbers", OPTIONAL, pm_layer, numbers),
    CYAML_FIELD_BOOL("sparse", OPTIONAL, pm_layer, sparse),
    CYAML_FIELD_BOOL("last", OPTIONAL, pm_layer, last),
    CYAML_FIELD_SEQUENCE_COUNT("layers", OPTIONAL | CYAML_FLAG_POINTER, pm_layer, layers, layer_count, &LAYER,
                               1, 1000),
    CYAML_FIELD_SEQUENCE_COUNT("shortcut", OPTIONAL | CYAML_FLAG_POINTER, pm_layer, shortcut, shortcut_count,
                               &LAYER, 1, 1000),
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

// A mapping of its own in the file, a member of pm_job_model here.
static const cyaml_schema_field_t REPLACE_FIELDS[] = {
    UINT("units", REQUIRED, pm_job_model, replace_units),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t PATTERN = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 4096)};

static const cyaml_schema_field_t MODEL_FIELDS[] = {
    TEXT("onnx", OPTIONAL, pm_job_model, onnx),
    TEXT("output", OPTIONAL, pm_job_model, output),
    {.key = "replace_last",
     .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, pm_job_model, REPLACE_FIELDS)},
     .data_offset = 0},
    {.key = "input",
     .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, pm_job_model, INPUT_FIELDS)},
     .data_offset = 0},
    CYAML_FIELD_SEQUENCE_COUNT("layers", OPTIONAL | CYAML_FLAG_POINTER, pm_job_model, layers, layer_count,
                               &LAYER, 1, 1000),
    CYAML_FIELD_SEQUENCE_COUNT("sparse", OPTIONAL | CYAML_FLAG_POINTER, pm_job_model, sparse, sparse_count,
                               &PATTERN, 1, 1000),
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
    WORD("type", OPTIONAL, pm_job, data, DATA_TYPES),
    TEXT("path", OPTIONAL, pm_job, text_path),
    UINT("context", OPTIONAL, pm_job, context),
    CYAML_FIELD_MAPPING("train", OPTIONAL, pm_job, train, DATASET_FIELDS),
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
    REAL("initial_accumulator", OPTIONAL, pm_job_optimizer, initial_accumulator),
    REAL("weight_decay", OPTIONAL, pm_job_optimizer, weight_decay),
    WORD("decay", OPTIONAL, pm_job_optimizer, decay, DECAYS),
    WORD("schedule", OPTIONAL, pm_job_optimizer, schedule, SCHEDULES),
    REAL("min_learning_rate", OPTIONAL, pm_job_optimizer, min_learning_rate),
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
    UINT("worker_threads", OPTIONAL, pm_job_cluster, worker_threads),
    UINT("worker_memory_mib", OPTIONAL, pm_job_cluster, worker_memory_mib),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t CHECKPOINT_FIELDS[] = {
    TEXT("store", REQUIRED, pm_job_checkpoint, store),
    UINT("every_steps", OPTIONAL, pm_job_checkpoint, every_steps),
    UINT("keep", OPTIONAL, pm_job_checkpoint, keep),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t WEIGHT = {CYAML_VALUE_FLOAT(CYAML_FLAG_DEFAULT, double)};

static const cyaml_schema_value_t QUALITY = {
    CYAML_VALUE_ENUM(CYAML_FLAG_STRICT, pm_quality, QUALITIES, CYAML_ARRAY_LEN(QUALITIES))};

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
    CYAML_FIELD_SEQUENCE_COUNT("metrics", OPTIONAL | CYAML_FLAG_POINTER, pm_job, metrics, metric_count,
                               &QUALITY, 1, PM_QUALITIES_MAX),
    CYAML_FIELD_MAPPING("optimizer", REQUIRED, pm_job, optimizer, OPTIMIZER_FIELDS),
    WORD("precision", OPTIONAL, pm_job, precision, PRECISIONS),
    UINT("batch", REQUIRED, pm_job, batch),
    UINT("lanes", REQUIRED, pm_job, lanes),
    UINT("epochs", REQUIRED, pm_job, epochs),
    UINT("steps_per_epoch", OPTIONAL, pm_job, steps_per_epoch),
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
    pm_job_complete(j);
    pm_status status = pm_wrap(pm_job_check(j), "%s", origin);
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

bool pm_job_judges(const pm_job *job)
{
    return job->loss == PM_LOSS_SOFTMAX_CROSS_ENTROPY || job->loss == PM_LOSS_BPR;
}

const char *pm_job_data_path(const pm_job *job)
{
    return job->data == PM_DATA_TEXT ? job->text_path : job->train.features;
}

bool pm_job_validates(const pm_job *job)
{
    return job->validation || job->validation_split > 0;
}

const char *pm_augment_name(pm_augment_op op)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(AUGMENTS); i++)
        if (AUGMENTS[i].val == (int64_t)op)
            return AUGMENTS[i].str;
    return "?";
}

const char *pm_quality_name(pm_quality quality)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(QUALITIES); i++)
        if (QUALITIES[i].val == (int64_t)quality)
            return QUALITIES[i].str;
    return "?";
}

const char *pm_op_name(pm_op op)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(OPS); i++)
        if (OPS[i].val == (int64_t)op)
            return OPS[i].str;
    return "?";
}
