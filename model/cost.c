#include "model/cost.h"

#include "model/attention.h"

#include <string.h>

static uint64_t extent(const pm_tensor *t, uint32_t axis)
{
    return axis < t->rank ? (uint64_t)t->shape[axis] : 1;
}

static uint64_t multiply_adds(uint64_t outputs, uint64_t depth)
{
    return 2 * outputs * depth;
}

static uint64_t cost_gemm(const pm_task *task)
{
    const bool transposed = pm_node_int(task->node, "transA", 0) != 0;
    const uint64_t addend = task->node->input_count > 2 && task->in[2] ? task->out[0]->count : 0;
    return multiply_adds(task->out[0]->count, extent(task->in[0], !transposed)) + addend;
}

static uint64_t cost_matmul(const pm_task *task)
{
    return multiply_adds(task->out[0]->count, extent(task->in[0], task->in[0]->rank - 1));
}

// weight (out, in / group, window): each output is a sum over all but the first extent.
static uint64_t cost_conv(const pm_task *task)
{
    const pm_tensor *weight = task->in[1];
    const uint64_t bias = task->node->input_count > 2 && task->in[2] ? task->out[0]->count : 0;
    return multiply_adds(task->out[0]->count, pm_extent(weight, 1, weight->rank)) + bias;
}

// (x, weight) with the largest of windows of its output.
static uint64_t cost_conv_pool(const pm_task *task)
{
    uint32_t rank = 0;
    const int64_t *kernel = pm_node_ints(task->node, "pool", &rank);
    return (uint64_t)(kernel[0] * kernel[1]) * (cost_conv(task) + task->out[0]->count);
}

// weight (in, out / group, window): each input is spread over all but the first extent.
static uint64_t cost_conv_transpose(const pm_task *task)
{
    const pm_tensor *weight = task->in[1];
    return multiply_adds(task->in[0]->count, pm_extent(weight, 1, weight->rank));
}

// (dy, weight)
static uint64_t cost_input_grad(const pm_task *task)
{
    const pm_tensor *weight = task->in[1];
    return multiply_adds(task->in[0]->count, pm_extent(weight, 1, weight->rank));
}

// (x, dy) to the weight's
static uint64_t cost_weight_grad(const pm_task *task)
{
    const pm_tensor *weight = task->out[0];
    return multiply_adds(task->in[1]->count, pm_extent(weight, 1, weight->rank));
}

static uint64_t cost_pool(const pm_task *task)
{
    uint32_t rank = 0;
    uint64_t window = 1;
    const int64_t *kernel = pm_node_ints(task->node, "kernel_shape", &rank);
    if (!kernel)
        kernel = pm_node_ints(task->node, "kernel", &rank);
    for (uint32_t i = 0; i < rank; i++)
        window *= (uint64_t)kernel[i];
    const pm_tensor *small = task->out[0]->count < task->in[0]->count ? task->out[0] : task->in[0];
    return window * small->count;
}

static uint64_t cost_input(const pm_task *task)
{
    return task->in[0]->count;
}

static uint64_t cost_norm(const pm_task *task)
{
    return 2 * task->in[0]->count;
}

// Statistics and what follows from them.
static uint64_t cost_norm_train(const pm_task *task)
{
    return 6 * task->in[0]->count;
}

static uint64_t cost_softmax(const pm_task *task)
{
    return 5 * task->in[0]->count;
}

// Two products for each of the leading axes' indices, and a softmax between them; what a mask hides included.
static uint64_t cost_attention(const pm_task *task)
{
    const pm_attention a = pm_attention_read(task->node);
    uint64_t scores = (uint64_t)(a.queries * a.keys);
    for (uint32_t d = 0; d < a.axes; d++)
        scores *= (uint64_t)a.extent[d];
    return multiply_adds(scores, (uint64_t)(a.depth + a.width)) + 5 * scores;
}

static uint64_t cost_attention_grad(const pm_task *task)
{
    return 2 * cost_attention(task);
}

static uint64_t cost_nothing(const pm_task *task)
{
    (void)task;
    return 0;
}

static const struct {
    const char *op;
    uint64_t (*cost)(const pm_task *task);
} COSTS[] = {
    {"Gemm", cost_gemm},
    {"MatMul", cost_matmul},
    {"Conv", cost_conv},
    {"ConvPool", cost_conv_pool},
    {"ConvTranspose", cost_conv_transpose},
    {"ConvInputGrad", cost_input_grad},
    {"ConvWeightGrad", cost_weight_grad},
    {"MaxPool", cost_pool},
    {"MaxPoolWhere", cost_pool},
    {"AveragePool", cost_pool},
    {"MaxPool3", cost_pool},
    {"AveragePool3", cost_pool},
    {"AveragePool3Back", cost_pool},
    {"MaxPool3Back", cost_input},
    {"Conv3", cost_conv},
    {"Conv3Input", cost_input_grad},
    {"Conv3Weight", cost_weight_grad},
    {"MaxPoolGrad", cost_input},
    {"AveragePoolGrad", cost_pool},
    {"GlobalAveragePool", cost_input},
    {"GlobalMaxPool", cost_input},
    {"ChannelSum", cost_input},
    {"SumTo", cost_input},
    {"LaneSum", cost_input},
    {"ArgMax", cost_input},
    {"BatchNormalization", cost_norm},
    {"BatchNormTrain", cost_norm_train},
    {"BatchNormGrad", cost_norm_train},
    {"LayerNormalization", cost_norm_train},
    {"LayerNorm", cost_norm_train},
    {"LayerNormGrad", cost_norm_train},
    {"Gelu", cost_softmax},
    {"Attention", cost_attention},
    {"AttentionGrad", cost_attention_grad},
    {"Softmax", cost_softmax},
    {"LogSoftmax", cost_softmax},
    {"SoftmaxGrad", cost_softmax},
    {"CrossEntropyRows", cost_softmax},
    {"SquaredErrorRows", cost_softmax},
    {"Cast", cost_nothing},
    {"Concat", cost_nothing},
    {"ConstantOfShape", cost_nothing},
    {"Expand", cost_nothing},
    {"Gather", cost_nothing},
    {"GatherElements", cost_nothing},
    {"GatherND", cost_nothing},
    {"OneHot", cost_nothing},
    {"Pad", cost_nothing},
    {"ScatterElements", cost_nothing},
    {"Shape", cost_nothing},
    {"Size", cost_nothing},
    {"Slice", cost_nothing},
    {"Split", cost_nothing},
    {"Tile", cost_nothing},
    {"Transpose", cost_nothing},
    {"Where", cost_nothing},
};

uint64_t pm_task_flops(const pm_task *task)
{
    const char *op = task->node->op->name;
    if ((task->node->op->traits & PM_TRAIT_VIEW) || task->node->input_count == 0 || !task->in[0])
        return 0;
    const uint64_t outputs = task->out[0] ? task->out[0]->count : 0;
    for (size_t i = 0; i < sizeof COSTS / sizeof COSTS[0]; i++)
        if (strcmp(COSTS[i].op, op) == 0)
            return task->out[0] ? COSTS[i].cost(task) : cost_input(task);
    return strncmp(op, "Reduce", 6) == 0 ? cost_input(task) : outputs;
}

size_t pm_task_lane_bytes(const pm_task *task)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < task->node->input_count; i++)
        bytes += task->input_stride[i];
    for (uint32_t i = 0; i < task->node->output_count; i++)
        bytes += task->output_stride[i];
    return bytes;
}

uint64_t pm_task_lane_ns(const pm_task *task)
{
    enum { FLOPS_A_NS = 64, BYTES_A_NS = 16 };
    return pm_task_flops(task) / FLOPS_A_NS + pm_task_lane_bytes(task) / BYTES_A_NS;
}
