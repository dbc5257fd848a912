#include "model/losses.h"

#include <string.h>

static const pm_loss_kind KINDS[] = {
    [PM_LOSS_SOFTMAX_CROSS_ENTROPY] = {"softmax_cross_entropy", "CrossEntropyRows", PM_TARGET_CLASS, true},
    [PM_LOSS_MEAN_SQUARED_ERROR] = {"mean_squared_error", "SquaredErrorRows", PM_TARGET_VALUES, false},
    [PM_LOSS_SOFT_CROSS_ENTROPY] = {"soft_cross_entropy", "SoftCrossEntropyRows", PM_TARGET_VALUES, true},
    [PM_LOSS_L1] = {"l1", "AbsoluteErrorRows", PM_TARGET_VALUES, false},
    [PM_LOSS_BINARY_CROSS_ENTROPY] = {"binary_cross_entropy", "BinaryCrossEntropyRows", PM_TARGET_VALUES,
                                      true},
    [PM_LOSS_BPR] = {"bpr", "RankingRows", PM_TARGET_CLASS, true},
};

enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

const pm_loss_kind *pm_loss_kind_of(pm_loss loss)
{
    return &KINDS[loss];
}

bool pm_loss_find(const char *name, pm_loss *loss)
{
    for (int i = 0; i < KIND_COUNT; i++)
        if (strcmp(KINDS[i].name, name) == 0) {
            *loss = (pm_loss)i;
            return true;
        }
    return false;
}
