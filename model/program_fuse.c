#include "model/program_fuse.h"

#include "model/compose.h"
#include "model/conv.h"
#include "model/program_fusing.h"
#include "model/window.h"

#include <stdlib.h>
#include <string.h>

static void find_readers(pm_fusing *f)
{
    const pm_graph *p = f->program;
    for (size_t v = 0; v < p->value_count; v++)
        f->reader[v] = f->producer[v] = PM_NOBODY;
    for (size_t i = 0; i < p->output_count; i++)
        f->readers[p->outputs[i]]++;
    for (uint32_t n = 0; n < p->node_count; n++) {
        for (uint32_t i = 0; i < p->nodes[n].output_count; i++)
            if (p->nodes[n].outputs[i] != PM_NO_VALUE)
                f->producer[p->nodes[n].outputs[i]] = n;
        for (uint32_t i = 0; i < p->nodes[n].input_count; i++) {
            const uint32_t value = p->nodes[n].inputs[i];
            if (value == PM_NO_VALUE)
                continue;
            f->readers[value]++;
            f->reader[value] = n;
        }
    }
}

bool pm_fusing_is(const pm_node *node, const char *domain, const char *name)
{
    return strcmp(node->op->domain, domain) == 0 && strcmp(node->op->name, name) == 0;
}

uint32_t pm_fusing_reader(const pm_fusing *f, uint32_t value)
{
    return value < f->values && f->readers[value] == 1 ? f->reader[value] : PM_NOBODY;
}

uint32_t pm_fusing_producer(const pm_fusing *f, uint32_t value, const char *domain, const char *name)
{
    const uint32_t node = value < f->values ? f->producer[value] : PM_NOBODY;
    return node != PM_NOBODY && !f->dropped[node] && pm_fusing_is(&f->program->nodes[node], domain, name)
               ? node
               : PM_NOBODY;
}

// The node that alone reads node's output, as its first input, and is the named operator; PM_NOBODY else.
static uint32_t follower(const pm_fusing *f, const pm_node *node, const char *domain, const char *name)
{
    const uint32_t value = node->outputs[0], reader = pm_fusing_reader(f, value);
    if (reader == PM_NOBODY)
        return PM_NOBODY;
    const pm_node *next = &f->program->nodes[reader];
    return pm_fusing_is(next, domain, name) && next->inputs[0] == value ? reader : PM_NOBODY;
}

// Node index makes the output of next, which is dropped, as its first.
static pm_status take_first(pm_fusing *f, uint32_t index, uint32_t next)
{
    pm_node *node = &f->program->nodes[index];
    uint32_t *outputs =
        pm_region_copy(f->program->region, node->outputs, node->output_count * sizeof *outputs);
    if (!outputs)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    outputs[0] = f->program->nodes[next].outputs[0];
    node->outputs = outputs;
    f->producer[outputs[0]] = index;
    f->dropped[next] = true;
    return pm_ok();
}

void pm_fusing_take_over(pm_fusing *f, uint32_t index, uint32_t next)
{
    const pm_node *taken = &f->program->nodes[next];
    f->program->nodes[index].outputs = taken->outputs;
    f->program->nodes[index].output_count = taken->output_count;
    for (uint32_t i = 0; i < taken->output_count; i++)
        if (taken->outputs[i] != PM_NO_VALUE)
            f->producer[taken->outputs[i]] = index;
    f->dropped[next] = true;
}

// What only dropped nodes read is dropped, too.
static void drop_unread(pm_fusing *f, size_t nodes)
{
    const pm_graph *p = f->program;
    memset(f->readers, 0, f->values * sizeof *f->readers);
    for (size_t i = 0; i < p->output_count; i++)
        f->readers[p->outputs[i]]++;
    for (size_t n = p->node_count; n-- > 0;) {
        const pm_node *node = &p->nodes[n];
        bool read = n >= nodes || (!f->inside[n] && !f->dropped[n]);
        for (uint32_t i = 0; i < node->output_count && !read && !f->dropped[n]; i++)
            read = node->outputs[i] != PM_NO_VALUE && f->readers[node->outputs[i]] > 0;
        if (n < nodes)
            f->dropped[n] = !read;
        for (uint32_t i = 0; i < node->input_count && read; i++)
            if (node->inputs[i] != PM_NO_VALUE && node->inputs[i] < f->values)
                f->readers[node->inputs[i]]++;
    }
}

static pm_status add_attributes(pm_graph *program, pm_node *node, const pm_attribute *more, uint32_t count)
{
    pm_attribute *all = pm_region_alloc(program->region, (node->attribute_count + count) * sizeof *all);
    if (!all)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    if (node->attribute_count > 0)
        memcpy(all, node->attributes, node->attribute_count * sizeof *all);
    memcpy(all + node->attribute_count, more, count * sizeof *more);
    node->attributes = all;
    node->attribute_count += count;
    return pm_ok();
}

static pm_status fuse_relu(pm_fusing *f, uint32_t index)
{
    pm_node *node = &f->program->nodes[index];
    const uint32_t next = follower(f, node, "", "Relu");
    const pm_attribute relu[] = {pm_attribute_int("relu", 1)};
    if (next == PM_NOBODY)
        return pm_ok();
    pm_status status = take_first(f, index, next);
    return status.code == PM_OK ? add_attributes(f->program, node, relu, 1) : status;
}

// Whether the pool takes whole windows side by side.
static bool is_plain(const pm_window *pool)
{
    return pool->kernel_h == pool->stride_h && pool->kernel_w == pool->stride_w && !pool->pad_top &&
           !pool->pad_left && !pool->pad_bottom && !pool->pad_right &&
           pool->out_height * pool->kernel_h <= pool->height &&
           pool->out_width * pool->kernel_w <= pool->width;
}

static pm_status fuse_pool(pm_fusing *f, uint32_t index)
{
    pm_graph *p = f->program;
    pm_node *node = &p->nodes[index];
    const uint32_t next =
        follower(f, node, f->training ? PM_DOMAIN : "", f->training ? "MaxPoolWhere" : "MaxPool");
    pm_window window, pool;
    if (next == PM_NOBODY || !pm_node_int(node, "relu", 0) ||
        p->nodes[next].output_count != (f->training ? 2 : 1) || !p->values[node->inputs[1]].shared ||
        (node->input_count > 2 && !p->values[node->inputs[2]].shared))
        return pm_ok();
    pm_status status =
        pm_window_read(node, &p->values[node->inputs[0]].tensor, &p->values[node->inputs[1]].tensor, &window);
    if (status.code == PM_OK)
        status = pm_window_read(&p->nodes[next], &p->values[node->outputs[0]].tensor, NULL, &pool);
    if (status.code != PM_OK || !is_plain(&pool) || !pm_conv_by_channels(pm_kernels_get(), &window))
        return status;
    const int64_t *kernel =
        pm_region_copy(p->region, (int64_t[]){pool.kernel_h, pool.kernel_w}, 2 * sizeof *kernel);
    if (!kernel)
        return pm_fail(PM_NO_MEMORY, "node %.64s", node->name);
    const pm_attribute attributes[] = {pm_attribute_ints("pool", kernel, 2)};
    node->op = pm_operator_newest(PM_DOMAIN, "ConvPool");
    pm_fusing_take_over(f, index, next);
    return add_attributes(p, node, attributes, 1);
}

static bool all_shared(const pm_graph *p, const pm_node *node, uint32_t first)
{
    for (uint32_t i = first; i < node->input_count; i++)
        if (node->inputs[i] != PM_NO_VALUE && !p->values[node->inputs[i]].shared)
            return false;
    return true;
}

// conv's weight times factor, and bias * factor + (offset - mean * factor), where factor = scale /
// sqrt(variance + epsilon): Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2.
static pm_status fold_norm(pm_graph *p, const pm_node *conv, const pm_node *norm, uint32_t *weight,
                           uint32_t *bias)
{
    pm_compose c = pm_compose_open(p, norm);
    const uint32_t *in = norm->inputs;
    const pm_tensor w = pm_compose_tensor(&c, conv->inputs[1]);
    int64_t shape[PM_MAX_RANK] = {w.shape[0]};
    for (uint32_t d = 1; d < w.rank; d++)
        shape[d] = 1;
    const double epsilon = (double)pm_node_float(norm, "epsilon", 1e-5f);
    const uint32_t root = pm_compose_1(&c, "Sqrt", pm_compose_by(&c, "Add", in[4], epsilon));
    const uint32_t factor = pm_compose_2(&c, "Div", in[1], root);
    *weight = pm_compose_2(&c, "Mul", conv->inputs[1], pm_compose_reshape(&c, factor, shape, w.rank));
    *bias = pm_compose_2(&c, "Sub", in[2], pm_compose_2(&c, "Mul", in[3], factor));
    if (conv->input_count > 2 && conv->inputs[2] != PM_NO_VALUE)
        *bias = pm_compose_2(&c, "Add", *bias, pm_compose_2(&c, "Mul", conv->inputs[2], factor));
    return c.status;
}

static pm_status fuse_norm(pm_fusing *f, uint32_t index)
{
    pm_graph *p = f->program;
    const pm_node conv = p->nodes[index]; // nodes move when some are added
    const uint32_t next = follower(f, &conv, "", "BatchNormalization");
    if (f->training || next == PM_NOBODY)
        return pm_ok();
    const pm_node norm = p->nodes[next];
    uint32_t inputs[3] = {conv.inputs[0]};
    if (!all_shared(p, &conv, 1) || !all_shared(p, &norm, 1) || norm.output_count != 1)
        return pm_ok();
    pm_status status = fold_norm(p, &conv, &norm, &inputs[1], &inputs[2]);
    const uint32_t *kept = pm_region_copy(p->region, inputs, sizeof inputs);
    if (status.code != PM_OK || !kept)
        return status.code == PM_OK ? pm_fail(PM_NO_MEMORY, "node %.64s", conv.name) : status;
    p->nodes[index].inputs = kept;
    p->nodes[index].input_count = 3;
    pm_fusing_take_over(f, index, next);
    return status;
}

static pm_status fuse_node(pm_fusing *f, uint32_t index)
{
    const pm_node *node = &f->program->nodes[index];
    const bool conv = pm_fusing_is(node, "", "Conv"), gemm = pm_fusing_is(node, "", "Gemm");
    pm_status status = pm_ok();
    if (f->dropped[index])
        return status;
    if (pm_fusing_is(node, "", "Erf"))
        return pm_fuse_gelu(f, index);
    if (pm_fusing_is(node, "", "Softmax"))
        return pm_fuse_attention(f, index);
    if (!conv && !gemm && !pm_fusing_is(node, "", "Add") && !pm_fusing_is(node, PM_DOMAIN, "BatchNormTrain"))
        return status;
    if (conv)
        status = fuse_norm(f, index);
    else if (gemm)
        status = pm_fuse_bias(f, index);
    if (status.code == PM_OK)
        status = fuse_relu(f, index);
    if (status.code == PM_OK && conv)
        status = fuse_pool(f, index);
    return status;
}

pm_status pm_program_fuse(pm_graph *program, bool training)
{
    const size_t nodes = program->node_count, values = program->value_count;
    pm_fusing f = {.program = program,
                   .training = training,
                   .values = values,
                   .readers = calloc(values + 1, sizeof *f.readers),
                   .reader = calloc(values + 1, sizeof *f.reader),
                   .producer = calloc(values + 1, sizeof *f.producer),
                   .inside = calloc(nodes + 1, sizeof *f.inside),
                   .dropped = calloc(nodes + 1, sizeof *f.dropped)};
    pm_status status = pm_fail(PM_NO_MEMORY, "a program of %zu nodes", nodes);
    if (f.readers && f.reader && f.producer && f.inside && f.dropped) {
        status = pm_ok();
        find_readers(&f);
    }
    for (uint32_t n = 0; n < nodes && status.code == PM_OK; n++)
        status = fuse_node(&f, n);
    if (status.code == PM_OK) {
        size_t kept = 0;
        drop_unread(&f, nodes);
        for (size_t n = 0; n < program->node_count; n++)
            if (n >= nodes || !f.dropped[n])
                program->nodes[kept++] = program->nodes[n];
        program->node_count = kept;
    }
    free(f.readers);
    free(f.reader);
    free(f.producer);
    free(f.inside);
    free(f.dropped);
    return status;
}
