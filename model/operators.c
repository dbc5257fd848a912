#include "model/operators.h"

#include <string.h>

static const pm_operator *const FAMILIES[] = {
    PM_FAMILY_ELEMENTWISE, PM_FAMILY_SHAPE,        PM_FAMILY_MATMUL,    PM_FAMILY_CONV,
    PM_FAMILY_POOL,        PM_FAMILY_NORM,         PM_FAMILY_REDUCE,    PM_FAMILY_RANDOM,
    PM_FAMILY_LOSS,        PM_FAMILY_UNARY,        PM_FAMILY_BINARY,    PM_FAMILY_CAST,
    PM_FAMILY_MOVE,        PM_FAMILY_REDUCTIONS,   PM_FAMILY_MOVES,     PM_FAMILY_CONV3,
    PM_FAMILY_POOL3,       PM_FAMILY_BATCH_MATMUL, PM_FAMILY_COMPOSED,  PM_FAMILY_GATHER,
    PM_FAMILY_MAKE,        PM_FAMILY_RECURRENT,    PM_FAMILY_OPTIMIZER, PM_FAMILY_SORT,
    PM_FAMILY_RESIZE,      PM_FAMILY_EINSUM,       PM_FAMILY_BLOCK,     PM_FAMILY_ATTENTION,
    PM_FAMILY_ROWS,        PM_FAMILY_PAIRS,
};

const pm_operator *pm_operator_find(const char *domain, const char *name, int64_t opset)
{
    for (size_t f = 0; f < sizeof FAMILIES / sizeof FAMILIES[0]; f++)
        for (const pm_operator *op = FAMILIES[f]; op->name; op++)
            if (strcmp(op->name, name) == 0 && strcmp(op->domain, domain) == 0 &&
                (op->domain[0] || (opset >= op->since && (op->until == 0 || opset <= op->until))))
                return op;
    return NULL;
}

const pm_operator *pm_operator_newest(const char *domain, const char *name)
{
    return pm_operator_find(domain, name, INT32_MAX);
}
