#include "snapshot/safetensors.h"

static const struct {
    const char *name;
    size_t size;
} DTYPES[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
              {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};

const char *pm_dtype_name(pm_dtype dtype)
{
    return DTYPES[dtype].name;
}

size_t pm_dtype_size(pm_dtype dtype)
{
    return DTYPES[dtype].size;
}
