#include "core/job_check.h"

#include <math.h>
#include <string.h>

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

static void real_default(double *value, double fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void complete_layers(pm_layer *layers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pm_layer *layer = &layers[i];
        bool pool = layer->op == PM_OP_MAX_POOL || layer->op == PM_OP_AVERAGE_POOL;
        layer->stride = or_default(layer->stride, pool ? layer->kernel : 1);
        if (layer->op == PM_OP_DROPOUT)
            real_default(&layer->ratio, 0.5);
        real_default(&layer->epsilon, 1e-5);
        real_default(&layer->momentum, 0.9);
        complete_layers(layer->layers, layer->layer_count);
        complete_layers(layer->shortcut, layer->shortcut_count);
    }
}

void pm_job_complete(pm_job *job)
{
    pm_job_cluster *c = &job->cluster;
    c->servers = or_default(c->servers, 1);
    c->worker_threads = or_default(c->worker_threads, 1);
    c->workers = or_default(c->workers, 1);
    c->shards_per_server = or_default(c->shards_per_server, 1);
    c->heartbeat_ms = or_default(c->heartbeat_ms, 500);
    c->lease_ms = or_default(c->lease_ms, 5000);
    c->request_ms = or_default(c->request_ms, 30000);
    if (job->data == PM_DATA_TEXT)
        real_default(&job->validation_split, 0.1);
    job->checkpoint.keep = or_default(job->checkpoint.keep, 5);
    for (uint32_t i = 0; i < job->augment_count; i++)
        if (job->augment[i].op == PM_AUGMENT_FLIP)
            real_default(&job->augment[i].probability, 0.5);
    real_default(&job->optimizer.momentum, 0.9);
    real_default(&job->optimizer.beta1, 0.9);
    real_default(&job->optimizer.beta2, 0.999);
    real_default(&job->optimizer.epsilon, job->optimizer.kind == PM_OPTIMIZER_ADAGRAD ? 1e-10 : 1e-8);
    complete_layers(job->model.layers, job->model.layer_count);
}

static bool is_name(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return text[length] == '\0' && length <= 64 && text[0] != '.' && text[0] != '-' && text[0] != '_';
}

static pm_status check_needs(const pm_layer *layer)
{
    static const struct {
        pm_op op;
        size_t offset; // of a uint32_t
        const char *says;
    } needs[] = {
        {PM_OP_GEMM, offsetof(pm_layer, units), "units: how many outputs"},
        {PM_OP_MATMUL, offsetof(pm_layer, units), "units: how many outputs"},
        {PM_OP_CONV, offsetof(pm_layer, channels), "channels and kernel"},
        {PM_OP_CONV, offsetof(pm_layer, kernel), "channels and kernel"},
        {PM_OP_MAX_POOL, offsetof(pm_layer, kernel), "kernel"},
        {PM_OP_AVERAGE_POOL, offsetof(pm_layer, kernel), "kernel"},
        {PM_OP_EMBEDDING, offsetof(pm_layer, vocabulary), "vocabulary and units"},
        {PM_OP_EMBEDDING, offsetof(pm_layer, units), "vocabulary and units"},
        {PM_OP_DOT_INTERACTION, offsetof(pm_layer, numbers), "numbers, vocabulary, units and layers"},
        {PM_OP_DOT_INTERACTION, offsetof(pm_layer, vocabulary), "numbers, vocabulary, units and layers"},
        {PM_OP_DOT_INTERACTION, offsetof(pm_layer, units), "numbers, vocabulary, units and layers"},
        {PM_OP_DOT_INTERACTION, offsetof(pm_layer, layer_count), "numbers, vocabulary, units and layers"},
        {PM_OP_ATTENTION, offsetof(pm_layer, heads), "heads"},
        {PM_OP_TRANSFORMER, offsetof(pm_layer, heads), "heads"},
        {PM_OP_LSTM, offsetof(pm_layer, units), "units: the size of its state"},
        {PM_OP_GRU, offsetof(pm_layer, units), "units: the size of its state"},
        {PM_OP_RESIDUAL, offsetof(pm_layer, layer_count), "layers"},
    };
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        const void *field = (const char *)layer + needs[i].offset;
        if (layer->op == needs[i].op && *(const uint32_t *)field == 0)
            return pm_fail(PM_INVALID, "needs %s", needs[i].says);
    }
    return pm_ok();
}

// Levels of lists inside the layer.
static uint32_t nesting_of(const pm_layer *layer)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < layer->layer_count + layer->shortcut_count; i++) {
        const pm_layer *inner =
            i < layer->layer_count ? &layer->layers[i] : &layer->shortcut[i - layer->layer_count];
        const uint32_t levels = 1 + nesting_of(inner);
        most = levels > most ? levels : most;
    }
    return most;
}

static pm_status check_layers(const pm_layer *layers, uint32_t count, uint32_t depth);

static pm_status check_layer(const pm_layer *layer, uint32_t depth)
{
    pm_status status = check_needs(layer);
    if (status.code != PM_OK)
        return status;
    if (!(layer->ratio >= 0 && layer->ratio < 1))
        return pm_fail(PM_INVALID, "ratio is in [0, 1)");
    if (!(layer->epsilon > 0) || !(layer->momentum >= 0 && layer->momentum <= 1))
        return pm_fail(PM_INVALID, "epsilon is above 0, momentum in [0, 1]");
    const bool residual = layer->op == PM_OP_RESIDUAL, interaction = layer->op == PM_OP_DOT_INTERACTION;
    if ((!residual && !interaction && layer->layer_count > 0) || (!residual && layer->shortcut_count > 0))
        return pm_fail(PM_INVALID, "has no layers of its own; only a Residual has, and a DotInteraction");
    if (depth == 0 && nesting_of(layer) > PM_MAX_NESTING)
        return pm_fail(PM_INVALID, "is nested more than %d deep", PM_MAX_NESTING);
    if (layer->sparse && layer->op != PM_OP_EMBEDDING && !interaction)
        return pm_fail(PM_INVALID, "is not sparse; only an Embedding can be, or a DotInteraction");
    status = pm_wrap(check_layers(layer->layers, layer->layer_count, depth + 1), "layers");
    if (status.code == PM_OK)
        status = pm_wrap(check_layers(layer->shortcut, layer->shortcut_count, depth + 1), "shortcut");
    return status;
}

// depth: of the list, 0 for the model's.
static pm_status check_layers(const pm_layer *layers, uint32_t count, uint32_t depth)
{
    for (uint32_t i = 0; i < count; i++) {
        if ((layers[i].op == PM_OP_EMBEDDING || layers[i].op == PM_OP_DOT_INTERACTION) &&
            (depth > 0 || i > 0))
            return pm_fail(PM_INVALID, "layer %u (%s): only the model's first layer can be one", i + 1,
                           pm_op_name(layers[i].op));
        pm_status status = check_layer(&layers[i], depth);
        if (status.code != PM_OK)
            return pm_wrap(status, "layer %u (%s)", i + 1, pm_op_name(layers[i].op));
    }
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
    return pm_fail(PM_INVALID, "data: augment %u (%s) needs %s", index + 1, pm_augment_name(a->op),
                   needs[a->op].says);
}

// Which measures go with which losses: bit l for loss l.
static pm_status check_metrics(const pm_job *job)
{
    enum {
        CLASSES = 1 << PM_LOSS_SOFTMAX_CROSS_ENTROPY,
        BINARY = 1 << PM_LOSS_BINARY_CROSS_ENTROPY,
        RANKING = 1 << PM_LOSS_BPR
    };
    static const unsigned losses[] = {[PM_QUALITY_ACCURACY] = CLASSES | BINARY | RANKING,
                                      [PM_QUALITY_TOP_2] = CLASSES | RANKING,
                                      [PM_QUALITY_TOP_3] = CLASSES | RANKING,
                                      [PM_QUALITY_TOP_5] = CLASSES | RANKING,
                                      [PM_QUALITY_TOP_10] = CLASSES | RANKING,
                                      [PM_QUALITY_AUC] = CLASSES | BINARY,
                                      [PM_QUALITY_LOG_LOSS] = CLASSES | BINARY,
                                      [PM_QUALITY_F1] = CLASSES | BINARY,
                                      [PM_QUALITY_RMSE] = 1 << PM_LOSS_MEAN_SQUARED_ERROR};
    if (job->metric_count > 0 && !pm_job_validates(job))
        return pm_fail(PM_INVALID, "metrics: data has no validation rows to measure");
    for (uint32_t i = 0; i < job->metric_count; i++)
        if (!(losses[job->metrics[i]] >> job->loss & 1))
            return pm_fail(PM_INVALID, "metrics: %s does not go with the job's loss",
                           pm_quality_name(job->metrics[i]));
    return pm_ok();
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

static pm_status check_files(const pm_job *job)
{
    const bool text = job->data == PM_DATA_TEXT;
    if (text && !job->text_path)
        return pm_fail(PM_INVALID, "data: a text needs path: its file");
    if (text && (job->train.features || job->validation || job->augment_count > 0))
        return pm_fail(PM_INVALID, "data: train, validation and augment do not go with a text");
    if (!text && (job->text_path || job->context > 0))
        return pm_fail(PM_INVALID, "data: path and context go with type: text");
    if (!text && !job->train.features)
        return pm_fail(PM_INVALID, "data: train: its features and targets are needed");
    return pm_ok();
}

static pm_status check_data(const pm_job *job)
{
    if (!fraction(job->validation_split))
        return pm_fail(PM_INVALID, "data: validation_split is in [0, 1)");
    if (job->validation && job->validation_split > 0)
        return pm_fail(PM_INVALID, "data: validation and validation_split are two answers to one question");
    pm_status status = check_files(job);
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
    if (!(o->initial_accumulator >= 0) || !isfinite(o->initial_accumulator))
        return pm_fail(PM_INVALID, "optimizer: initial_accumulator is 0 or above");
    if (o->initial_accumulator > 0 && o->kind != PM_OPTIMIZER_ADAGRAD)
        return pm_fail(PM_INVALID, "optimizer: initial_accumulator goes with adagrad");
    if (!(o->min_learning_rate >= 0 && o->min_learning_rate <= o->learning_rate))
        return pm_fail(PM_INVALID, "optimizer: min_learning_rate is from 0 to learning_rate");
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
    if (c->worker_threads > 256)
        return pm_fail(PM_INVALID, "cluster: worker_threads is at most 256");
    if (c->worker_memory_mib > 1 << 24)
        return pm_fail(PM_INVALID, "cluster: worker_memory_mib is in MiB, at most %d", 1 << 24);
    if (c->lease_ms < 3 * c->heartbeat_ms)
        return pm_fail(PM_INVALID, "cluster: lease_ms is at least three times heartbeat_ms");
    return pm_ok();
}

pm_status pm_job_check(const pm_job *job)
{
    if (!is_name(job->name))
        return pm_fail(PM_INVALID,
                       "name: \"%s\" is not of the form [a-z0-9][a-z0-9._-]*, up to 64 characters",
                       job->name);
    bool layers = job->model.input_name && job->model.layer_count > 0;
    bool any = job->model.input_name || job->model.layer_count > 0;
    if (job->model.onnx ? any : !layers)
        return pm_fail(PM_INVALID, "model: either input and layers, or onnx: a file");
    if ((job->model.replace_units > 0 || job->model.output) && !job->model.onnx)
        return pm_fail(PM_INVALID, "model: output and replace_last go with onnx");
    for (uint32_t i = 0; i < job->model.input_rank; i++)
        if (job->model.input_shape[i] < 1 || job->model.input_shape[i] > 1 << 20)
            return pm_fail(PM_INVALID, "model: input: shape: dimensions are from 1 to %d", 1 << 20);
    pm_status status = pm_wrap(check_layers(job->model.layers, job->model.layer_count, 0), "model");
    if (status.code != PM_OK)
        return status;
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
    status = check_targets(job);
    if (status.code == PM_OK)
        status = check_metrics(job);
    if (status.code == PM_OK)
        status = check_data(job);
    if (status.code == PM_OK)
        status = check_optimizer(&job->optimizer);
    return status.code == PM_OK ? check_cluster(&job->cluster, job->lanes) : status;
}
