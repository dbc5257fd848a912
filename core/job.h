#pragma once
// The job file (job.yaml): what to train, on what, how, and on which cluster. The schema is here and in job.c
// only; a wrong key, type or value is refused with file, line and what was expected. Everything is plain data
// owned by the pm_job; strings are never NULL where the comment does not say so.
//
//   name: fashion-cnn                      # names the model in the store: [a-z0-9][a-z0-9._-]*
//   seed: 1
//   model:
//     input: {name: image, shape: [1, 28, 28]}          # without the batch dimension
//     layers:
//       - {op: Conv, channels: 32, kernel: 3, pad: 1}
//       - {op: Relu}
//       - {op: MaxPool, kernel: 2}
//       - {op: Flatten}
//       - {op: Gemm, units: 10}
//     onnx: pretrained.onnx                             # instead of input and layers
//     output: dense2                                   # with onnx, optional: the value to train, where there
//     are more replace_last: {units: 10}                         # with onnx, optional: a fresh last layer
//     sparse: ["embedding*"]                            # optional: tables of which a step needs few rows
//   data:
//     train: {features: train-images-idx3-ubyte.gz, targets: train-labels-idx1-ubyte.gz}
//     validation: {features: …, targets: …}             # optional; or validation_split: 0.1
//     augment: [{op: shift, pixels: 2}, {op: flip}]     # optional
//   # or: data: {type: text, path: input.txt, context: 64}
//   loss: softmax_cross_entropy
//         # or mean_squared_error, l1, binary_cross_entropy, bpr
//   metrics: [accuracy, top_5, f1]                      # optional; also auc, log_loss, rmse
//   label_smoothing: 0.1                                # optional, as class_weights: [1, 2, …]
//   optimizer: {kind: adam, learning_rate: 0.001}
//   precision: f32                                      # or bf16
//   batch: 128                                          # rows of one step, all lanes together
//   lanes: 8
//   epochs: 3
//   steps_per_epoch: 250                                # optional: an epoch is so many steps
//   early_stopping: {patience: 5}                       # optional: epochs without a better validation loss
//   cluster: {servers: 2, workers: 2}
//   checkpoint: {store: store, every_steps: 500, keep: 10}
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PM_MAX_RANK = 8, PM_MAX_LANES = 256, PM_MAX_NESTING = 4 };

typedef enum pm_op {
    PM_OP_GEMM,
    PM_OP_RELU,
    PM_OP_SIGMOID,
    PM_OP_TANH,
    PM_OP_DROPOUT,
    PM_OP_CONV,
    PM_OP_MAX_POOL,
    PM_OP_AVERAGE_POOL,
    PM_OP_BATCH_NORMALIZATION,
    PM_OP_FLATTEN,
    PM_OP_SOFTMAX,
    PM_OP_GELU,
    PM_OP_GLOBAL_AVERAGE_POOL,
    PM_OP_RESIDUAL,
    PM_OP_MATMUL,
    PM_OP_LAYER_NORMALIZATION,
    PM_OP_EMBEDDING,
    PM_OP_POSITION_EMBEDDING,
    PM_OP_ATTENTION,
    PM_OP_TRANSFORMER,
    PM_OP_LSTM,
    PM_OP_GRU,
    PM_OP_DOT_INTERACTION
} pm_op;

// One entry of model.layers; which fields matter depends on op (0 means the default in brackets).
//
// What is not an ONNX operator of its name: GlobalAveragePool (N, C, H, W) gives (N, C). Residual adds what
// its layers and its shortcut (none: nothing changes) make of the same input. MatMul, (N, ..., in) to (N,
// ..., units), has a bias. Embedding, whole numbers (N, T) to (N, T, units), is the first layer: the model's
// input is int64. PositionEmbedding adds a vector for each place of (N, T, C). Attention is multi-head
// self-attention over (N, T, C), each place seeing itself and those before it. Transformer is a block of
// GPT-2: x + Attention(norm x), then x + MatMul(Gelu(MatMul(norm x))). LSTM and GRU give (N, T, units) of (N,
// T, C). DotInteraction is the first layer of a DLRM, over rows of numbers and then categories: its layers
// make a vector of units of the numbers, and each category, a whole number below vocabulary, is a row of a
// table of its own; it gives that vector and then the products of every two of the vectors. Tables begin
// uniform in
// +-1 / sqrt(vocabulary).
typedef struct pm_layer {
    pm_op op;
    uint32_t units;    // Gemm, MatMul, Embedding, LSTM, GRU: outputs; Transformer: of the inner one [4 C]
    uint32_t channels; // Conv: output channels
    uint32_t kernel;   // Conv, pools: square window
    uint32_t stride;   // Conv [1], pools [kernel]
    uint32_t pad;      // Conv, pools: zeros on each side [0]
    bool no_bias;      // Gemm, MatMul, Conv, Attention, Transformer (its norms have one)
    double ratio;      // fraction dropped, 0 <= ratio < 1: Dropout [0.5]; Transformer, of both additions [0]
    double epsilon;    // BatchNormalization, LayerNormalization, Transformer [1e-5]
    double momentum;   // BatchNormalization: weight of the old running value [0.9]
    uint32_t heads;    // Attention, Transformer: a divisor of C
    bool full;         // Attention, Transformer: each place sees all
    uint32_t vocabulary;                // Embedding, DotInteraction: rows of a table
    uint32_t numbers;                   // DotInteraction: how many of a row's inputs are numbers
    bool sparse;                        // Embedding, DotInteraction: see pm_job_model.sparse
    bool last;                          // LSTM, GRU: gives the last place alone, (N, units)
    struct pm_layer *layers, *shortcut; // Residual, DotInteraction (layers); at most PM_MAX_NESTING deep
    uint32_t layer_count, shortcut_count;
} pm_layer;

typedef enum pm_loss {
    PM_LOSS_SOFTMAX_CROSS_ENTROPY,
    PM_LOSS_MEAN_SQUARED_ERROR,
    PM_LOSS_SOFT_CROSS_ENTROPY, // against a weight for each class; has no name in a job, which softens its
                                // targets instead
    PM_LOSS_L1,                 // model/losses.h says what each is
    PM_LOSS_BINARY_CROSS_ENTROPY,
    PM_LOSS_BPR
} pm_loss;

// core/quality.h says what each is.
typedef enum pm_quality {
    PM_QUALITY_ACCURACY,
    PM_QUALITY_TOP_2,
    PM_QUALITY_TOP_3,
    PM_QUALITY_TOP_5,
    PM_QUALITY_TOP_10,
    PM_QUALITY_AUC,
    PM_QUALITY_LOG_LOSS,
    PM_QUALITY_F1,
    PM_QUALITY_RMSE
} pm_quality;

enum { PM_QUALITIES_MAX = 8 };

// Either onnx, or input and layers.
typedef struct pm_job_model {
    char *onnx;             // an ONNX file whose initializers are the initial values; NULL: built from layers
    char digest[65];        // not of the file: the SHA-256 that the ONNX file must have, hex; empty: any
    char *output;           // with onnx: the value that becomes its one output; NULL: its own
    uint32_t replace_units; // with onnx: outputs of a fresh layer in place of its last [0: stays as it is]
    char *input_name;       // NULL with onnx
    int64_t *input_shape;   // without the batch dimension
    uint32_t input_rank;    // 1 … PM_MAX_RANK - 1
    pm_layer *layers;
    uint32_t layer_count;
    char **sparse; // sparse_count shell patterns: parameters that match are tables of which a step pulls and
                   // pushes only the rows that its data name: data of Gathers on axis 0, whose ids follow
                   // from the model's input alone
    uint32_t sparse_count;
} pm_job_model;

// Of training: in bf16 the operands of convolutions and of products with a matrix are rounded to bfloat16 and
// summed in float32; everything else, the parameters, their gradients and the optimizer is float32, as is
// validation.
typedef enum pm_precision { PM_PRECISION_F32, PM_PRECISION_BF16 } pm_precision;

typedef enum pm_data_type { PM_DATA_IDX, PM_DATA_TEXT } pm_data_type;

typedef struct pm_job_dataset {
    char *features; // IDX file, gzipped or not; unsigned bytes become value / 255
    char *targets;  // IDX file: unsigned bytes are classes, floats are what the outputs are to be
} pm_job_dataset;

typedef enum pm_augment_op {
    PM_AUGMENT_SHIFT,
    PM_AUGMENT_FLIP,
    PM_AUGMENT_ROTATE,
    PM_AUGMENT_SCALE,
    PM_AUGMENT_CROP,
    PM_AUGMENT_NOISE,
    PM_AUGMENT_CUTOUT,
    PM_AUGMENT_MIXUP
} pm_augment_op;

// One entry of data.augment, applied to training rows in the order of the list.
typedef struct pm_job_augment {
    pm_augment_op op;
    uint32_t pixels;    // shift: at most so far each way; cutout: the side of the square of zeros
    double probability; // flip, left to right [0.5]
    double degrees;     // rotate: at most so far each way
    double factor; // scale: by 1 - factor to 1 + factor; crop: to a window of side 1 - factor to 1, stretched
    double deviation; // noise: normal, standard deviation
    double alpha;     // mixup: of a row with the next of its lane, in shares drawn from Beta(alpha, alpha)
} pm_job_augment;

typedef enum pm_optimizer_kind {
    PM_OPTIMIZER_SGD,
    PM_OPTIMIZER_MOMENTUM,
    PM_OPTIMIZER_ADAM,
    PM_OPTIMIZER_ADAMW,
    PM_OPTIMIZER_ADAGRAD
} pm_optimizer_kind;

// All parameters, or those of two axes and more: no biases, no scales and shifts of normalizations.
typedef enum pm_decay { PM_DECAY_ALL, PM_DECAY_MATRICES } pm_decay;

typedef enum pm_schedule { PM_SCHEDULE_CONSTANT, PM_SCHEDULE_COSINE } pm_schedule;

// One entry of optimizer.learning_rates: what parameters whose names match learn at.
typedef struct pm_job_rate {
    char *match;   // a shell pattern: "conv*.weight"
    double factor; // of the learning rate; 0: the parameter is frozen: no gradient is computed for it, none
                   // is sent, and a BatchNormalization with frozen statistics normalizes by them in training
} pm_job_rate;

typedef struct pm_job_optimizer {
    pm_optimizer_kind kind;
    double learning_rate;
    double momentum;            // momentum [0.9]
    double beta1;               // adam, adamw [0.9]
    double beta2;               // adam, adamw [0.999]
    double epsilon;             // adam, adamw [1e-8], adagrad [1e-10]
    double initial_accumulator; // adagrad: what the sum of squares begins from [0]
    double weight_decay; // L2 for all but adamw, where it is decoupled; of a sparse table for the rows that a
                         // step touches [0]
    pm_decay decay;      // what weight_decay is for [all]
    pm_schedule schedule;
    double min_learning_rate; // cosine: the rate at the end [0]
    uint32_t warmup_steps;    // linear ramp from 0 [0]
    pm_job_rate *rates;       // rate_count; the first that matches a name counts, [1] where none does
    uint32_t rate_count;
} pm_job_optimizer;

typedef struct pm_job_cluster {
    uint32_t servers;           // processes that hold shards [1]
    uint32_t workers;           // [1]
    uint32_t shards_per_server; // [1]
    uint32_t heartbeat_ms;      // [500]
    uint32_t lease_ms;          // silence after which a member is dead [5000]
    uint32_t request_ms;        // deadline of one push or pull, after which the culprit is named [30000]
    uint32_t worker_threads;    // that share a worker's step [1]
    uint32_t worker_memory_mib; // most a step may take in a worker, in MiB [0: what the machine has]
} pm_job_cluster;

typedef struct pm_job_checkpoint {
    char *store;          // folder; relative to the working directory
    uint32_t every_steps; // 0: at each epoch's end
    uint32_t keep;        // newest versions kept, labelled ones on top [5]
} pm_job_checkpoint;

typedef struct pm_job {
    char *name;
    uint64_t seed;
    pm_job_model model;
    pm_data_type data;          // [idx]
    char *text_path;            // text: data.path, a UTF-8 file; NULL else
    uint32_t context;           // text: characters of a window [the model's input]
    pm_job_dataset train;       // idx; its members are NULL else
    pm_job_dataset *validation; // NULL when the job has none
    double validation_split;    // fraction of the training rows held out for validation [idx 0, text 0.1]
    pm_job_augment *augment;    // augment_count
    uint32_t augment_count;
    pm_loss loss;
    double label_smoothing; // cross-entropy: the part of a target that is spread evenly over all classes [0]
    double *class_weights; // cross-entropy: class_weight_count factors of the loss of a class's rows; NULL: 1
    uint32_t class_weight_count;
    pm_quality *metrics; // metric_count, of the validation data
    uint32_t metric_count;
    pm_job_optimizer optimizer;
    pm_precision precision; // [f32]
    uint32_t batch;         // divisible by lanes
    uint32_t lanes;         // power of two, at most PM_MAX_LANES
    uint32_t epochs;
    uint32_t steps_per_epoch; // [as many as go through all rows once]
    uint32_t
        patience; // early_stopping.patience: epochs without a better validation loss [0: never stops early]
    uint32_t staleness; // 0: bulk synchronous; the only one built so far, others are refused
    pm_job_cluster cluster;
    pm_job_checkpoint checkpoint;
    char *text; // the file as read: what the coordinator hands to every member, what a manifest records
} pm_job;

// Parses the text of a job file; origin is the name used in messages ("job.yaml"). PM_INVALID names origin,
// line and what was expected. The caller owns *job.
pm_status pm_job_parse(pm_job **job, const char *text, const char *origin) PM_CHECKED;

// Reads and parses a file of at most 1 MiB.
pm_status pm_job_load(pm_job **job, const char *path) PM_CHECKED;

void pm_job_destroy(pm_job **job);

// True when training targets are no longer one class a row: smoothed, weighted or mixed.
bool pm_job_softens(const pm_job *job);

// True when the loss says of each row whether the output is right, so that there is an accuracy.
bool pm_job_judges(const pm_job *job);

// The file that the job's rows come from, for messages.
const char *pm_job_data_path(const pm_job *job);

// True when the job has rows to validate on.
bool pm_job_validates(const pm_job *job);

// The factor of the learning rate of a parameter.
double pm_job_rate_factor(const pm_job_optimizer *optimizer, const char *parameter);

// What a job calls a layer kind: "Conv"; a change to training rows: "flip".
const char *pm_op_name(pm_op op);
const char *pm_augment_name(pm_augment_op op);

// What a job calls a measure: "f1".
const char *pm_quality_name(pm_quality quality);
