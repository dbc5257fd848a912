// Element-wise kernels; see model/kernels.h.
#include "model/kernel_math.h"
#include "model/kernels_variant.h"

static void relu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i];
}

static void relu_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float d = dy[i];
        dx[i] = y[i] > 0 ? d : 0;
    }
}

static void sigmoid(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = pm_sigmoid(x[i]);
}

static void sigmoid_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

static void tanh_(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = pm_tanh(x[i]);
}

static void tanh_backward(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}

enum { PHILOX_BLOCK = 16 }; // blocks drawn side by side: 64 words

// Words 4 * first ... of the stream: block b of pm_philox at counter {b, lane, step}. Written side by side so
// that it becomes vectors; the ten rounds are those of core/rng.h.
static void draw(const pm_dropout *d, uint32_t first, uint32_t words[4][PHILOX_BLOCK])
{
    uint32_t c0[PHILOX_BLOCK], c1[PHILOX_BLOCK], c2[PHILOX_BLOCK], c3[PHILOX_BLOCK];
    for (uint32_t i = 0; i < PHILOX_BLOCK; i++) {
        c0[i] = first + i;
        c1[i] = d->lane;
        c2[i] = (uint32_t)d->step;
        c3[i] = (uint32_t)(d->step >> 32);
    }
    uint32_t k0 = d->key.word[0], k1 = d->key.word[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        for (uint32_t i = 0; i < PHILOX_BLOCK; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)p1;
            c3[i] = (uint32_t)p0;
        }
    }
    memcpy(words[0], c0, sizeof c0);
    memcpy(words[1], c1, sizeof c1);
    memcpy(words[2], c2, sizeof c2);
    memcpy(words[3], c3, sizeof c3);
}

// Element e belongs to the group e / 64 of blocks; inside it to word (e % 64) / 16 of block (e % 64) % 16.
static void dropout(const pm_dropout *d, const float *x, float *y, uint8_t *mask, size_t n)
{
    const uint32_t threshold = (uint32_t)(d->ratio * 4294967296.0f);
    const float scale = 1 / (1 - d->ratio);
    uint32_t words[4][PHILOX_BLOCK];
    const uint32_t *flat = words[0];
    for (size_t base = 0; base < n; base += 4 * PHILOX_BLOCK) {
        draw(d, (uint32_t)(base / 4), words);
        size_t count = n - base < 4 * PHILOX_BLOCK ? n - base : 4 * PHILOX_BLOCK;
        for (size_t i = 0; i < count; i++) {
            mask[base + i] = flat[i] >= threshold;
            y[base + i] = flat[i] >= threshold ? x[base + i] * scale : 0;
        }
    }
}

static void dropout_backward(float ratio, const uint8_t *mask, const float *dy, float *dx, size_t n)
{
    const float scale = 1 / (1 - ratio);
    for (size_t i = 0; i < n; i++) {
        float d = dy[i] * scale;
        dx[i] = mask[i] ? d : 0;
    }
}

static void add(float *sum, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += x[i];
}

static bool all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return bad == 0;
}

void PM_KERNEL(fill_element)(pm_kernels *table)
{
    table->relu = relu;
    table->relu_backward = relu_backward;
    table->sigmoid = sigmoid;
    table->sigmoid_backward = sigmoid_backward;
    table->tanh = tanh_;
    table->tanh_backward = tanh_backward;
    table->dropout = dropout;
    table->dropout_backward = dropout_backward;
    table->add = add;
    table->all_finite = all_finite;
}
