// Attributes of nodes.
#include "model/graph_impl.h"

#include <string.h>

const pm_attribute *pm_node_attribute(const pm_node *node, const char *name)
{
    for (uint32_t i = 0; i < node->attribute_count; i++)
        if (strcmp(node->attributes[i].name, name) == 0)
            return &node->attributes[i];
    return NULL;
}

int64_t pm_node_int(const pm_node *node, const char *name, int64_t otherwise)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    return a && a->type == PM_ATTRIBUTE_INT ? a->i : otherwise;
}

float pm_node_float(const pm_node *node, const char *name, float otherwise)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    return a && a->type == PM_ATTRIBUTE_FLOAT ? a->f : otherwise;
}

const char *pm_node_string(const pm_node *node, const char *name, const char *otherwise)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    return a && a->type == PM_ATTRIBUTE_STRING ? a->s : otherwise;
}

const int64_t *pm_node_ints(const pm_node *node, const char *name, uint32_t *count)
{
    const pm_attribute *a = pm_node_attribute(node, name);
    bool given = a && a->type == PM_ATTRIBUTE_INTS;
    *count = given ? a->count : 0;
    return given ? a->ints : NULL;
}

pm_attribute pm_attribute_int(const char *name, int64_t value)
{
    return (pm_attribute){.name = name, .type = PM_ATTRIBUTE_INT, .i = value};
}

pm_attribute pm_attribute_float(const char *name, float value)
{
    return (pm_attribute){.name = name, .type = PM_ATTRIBUTE_FLOAT, .f = value};
}

pm_attribute pm_attribute_ints(const char *name, const int64_t *values, uint32_t count)
{
    return (pm_attribute){.name = name, .type = PM_ATTRIBUTE_INTS, .ints = values, .count = count};
}
