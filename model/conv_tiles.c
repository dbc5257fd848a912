// The weights of minimal filtering: G w G' of each 3 x 3 window, where G = (1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2;
// 0 0 1).
#include "model/conv.h"

#include <string.h>

// Channels from which on sixteen products and the sums around them take less time than 36 products.
enum { CHANNELS_MIN = 16 };

bool pm_conv_is_tiled(const pm_window *w)
{
    return w->kernel_h == 3 && w->kernel_w == 3 && w->stride_h == 1 && w->stride_w == 1 &&
           w->channels >= CHANNELS_MIN && w->out_channels >= CHANNELS_MIN;
}

// G times the three numbers at steps.
static void spread(const float *w, size_t step, float out[4])
{
    const float ends = w[0] + w[2 * step];
    out[0] = w[0];
    out[1] = 0.5f * (ends + w[step]);
    out[2] = 0.5f * (ends - w[step]);
    out[3] = w[2 * step];
}

void pm_conv_tiles_pack(const pm_kernels *kernels, const pm_window *w, const float *weight, float *packed)
{
    const size_t outputs = (size_t)w->out_channels, channels = (size_t)w->channels, panel = kernels->panel;
    const size_t plane = (outputs + panel - 1) / panel * panel * channels;
    memset(packed, 0, PM_TILE * plane * sizeof *packed);
    for (size_t o = 0; o < outputs; o++)
        for (size_t c = 0; c < channels; c++, weight += 9) {
            float columns[3][4], rows[4];
            float *to = packed + (o / panel * channels + c) * panel + o % panel;
            for (size_t j = 0; j < 3; j++)
                spread(weight + j, 3, columns[j]);
            for (size_t i = 0; i < 4; i++) {
                spread(&columns[0][i], 4, rows);
                for (size_t j = 0; j < 4; j++, to += plane)
                    *to = rows[j];
            }
        }
}
