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

// Input channels whose windows are turned over at once; the widest panel.
enum { TURNED = 8, WINDOW = 9, PANEL_MAX = 32 };

// G times (a, b, c), for each output of a panel.
static void spread(const float *restrict a, const float *restrict b, const float *restrict c,
                   float (*restrict to)[PANEL_MAX], size_t panel)
{
    for (size_t o = 0; o < panel; o++) {
        const float ends = a[o] + c[o];
        to[0][o] = a[o];
        to[1][o] = 0.5f * (ends + b[o]);
        to[2][o] = 0.5f * (ends - b[o]);
        to[3][o] = c[o];
    }
}

// window (WINDOW, panel): an input channel's; plane: floats from one of the PM_TILE to the next.
static void set_window(const float *window, size_t panel, float *packed, size_t plane)
{
    float columns[3][4][PANEL_MAX], all[PM_TILE][PANEL_MAX];
    for (size_t j = 0; j < 3; j++)
        spread(window + j * panel, window + (3 + j) * panel, window + (6 + j) * panel, columns[j], panel);
    for (size_t i = 0; i < 4; i++)
        spread(columns[0][i], columns[1][i], columns[2][i], all + 4 * i, panel);
    for (size_t i = 0; i < PM_TILE; i++)
        memcpy(packed + i * plane, all[i], panel * sizeof *packed);
}

void pm_conv_tiles_pack(const pm_kernels *kernels, const pm_window *w, const float *weight, float *packed)
{
    const size_t outputs = (size_t)w->out_channels, channels = (size_t)w->channels, panel = kernels->panel;
    const size_t plane = (outputs + panel - 1) / panel * panel * channels;
    float turned[TURNED * WINDOW * PANEL_MAX];
    for (size_t first = 0; first < outputs; first += panel)
        for (size_t c = 0; c < channels; c += TURNED) {
            const size_t count = outputs - first < panel ? outputs - first : panel;
            const size_t several = channels - c < TURNED ? channels - c : TURNED;
            kernels->pack_panel(weight + (first * channels + c) * WINDOW, count, several * WINDOW,
                                channels * WINDOW, turned);
            for (size_t i = 0; i < several; i++, packed += panel)
                set_window(turned + i * WINDOW * panel, panel, packed, plane);
        }
}
