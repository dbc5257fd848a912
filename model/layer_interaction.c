// DotInteraction: numbers and categories to pairs, as in DLRM (Naumov et al. 2019, "Deep Learning
// Recommendation Model for Personalization and Recommendation Systems").
#include "model/layer_builder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TABLES_MAX = 1024 };

// Columns [first, last) of the input.
static uint32_t columns(pm_layer_builder *b, const char *part, uint32_t x, int64_t first, int64_t last)
{
    const int64_t axis = 1;
    const size_t back = pm_layer_enter(b, part);
    const uint32_t inputs[] = {x, pm_layer_ints(b, "first", &first, 1), pm_layer_ints(b, "last", &last, 1),
                               pm_layer_ints(b, "axis", &axis, 1)};
    const uint32_t y = pm_layer_node(b, NULL, "Slice", inputs, 4, NULL, 0);
    pm_layer_leave(b, back);
    return y;
}

// The rows (N, 1, units) that column x (N, 1) names.
static uint32_t table_rows(pm_layer_builder *b, const pm_layer *layer, uint32_t column)
{
    const int64_t shape[] = {layer->vocabulary, layer->units};
    const pm_attribute whole = pm_attribute_int("to", PM_TYPE_I64);
    const pm_initial initial = {PM_INITIAL_UNIFORM, sqrt(1 / (double)layer->vocabulary)};
    const uint32_t weight = pm_layer_param(b, "weight", shape, 2, initial);
    const uint32_t ids = pm_layer_node(b, "ids", "Cast", &column, 1, &whole, 1);
    if (b->status.code == PM_OK)
        b->graph->params[b->graph->values[weight].param].sparse = layer->sparse;
    return pm_layer_2(b, NULL, "Gather", weight, ids);
}

// The products of every two of count vectors, from all products (N, count, count) of them.
static uint32_t pick_pairs(pm_layer_builder *b, uint32_t products, int64_t count)
{
    const pm_attribute axis = pm_attribute_int("axis", 1);
    const uint32_t flat = pm_layer_node(b, "flat", "Flatten", &products, 1, &axis, 1);
    int64_t *pairs = pm_region_alloc(b->graph->region, (size_t)(count * count) * sizeof *pairs);
    uint32_t found = 0;
    for (int64_t i = 0; pairs && i < count; i++)
        for (int64_t j = 0; j < i; j++)
            pairs[found++] = i * count + j;
    if (!pairs) {
        pm_layer_fail(b, pm_fail(PM_NO_MEMORY, "pairs of %d vectors", (int)count));
        return PM_NO_VALUE;
    }
    const uint32_t inputs[] = {flat, pm_layer_ints(b, "places", pairs, found)};
    return pm_layer_node(b, "pairs", "Gather", inputs, 2, &axis, 1);
}

void pm_layer_interaction(pm_layer_builder *b, const pm_layer *layer)
{
    const pm_tensor x = pm_layer_tensor(b, b->value);
    const int64_t tables = x.rank == 2 ? x.shape[1] - layer->numbers : 0;
    const int64_t shape[] = {0, 1, layer->units}, turned[] = {0, 2, 1};
    const pm_attribute axis = pm_attribute_int("axis", 1), order = pm_attribute_ints("perm", turned, 3);
    const uint32_t input = b->value;
    char name[PM_LAYER_NAME], part[32];
    uint32_t vectors[TABLES_MAX + 1];
    if (tables < 1 || tables > TABLES_MAX) {
        pm_layer_fail(b, pm_fail(PM_INVALID, "the input has to be %u numbers and then 1 to %d categories",
                                 layer->numbers, TABLES_MAX));
        return;
    }
    memcpy(name, b->name, sizeof name);
    b->value = columns(b, "numbers", input, 0, layer->numbers);
    pm_layer_build(b, "layers", layer->layers, layer->layer_count);
    memcpy(b->name, name, sizeof name);
    const pm_tensor dense = pm_layer_tensor(b, b->value);
    if (b->status.code == PM_OK && (dense.rank != 2 || dense.shape[1] != layer->units))
        pm_layer_fail(b, pm_fail(PM_INVALID, "its layers have to give %u numbers a row", layer->units));
    const uint32_t bottom = b->value;
    vectors[0] = pm_layer_2(b, "vector", "Reshape", bottom, pm_layer_ints(b, "one", shape, 3));
    for (int64_t t = 0; t < tables; t++) {
        snprintf(part, sizeof part, "table%d", (int)t + 1);
        const uint32_t column = columns(b, part, input, layer->numbers + t, layer->numbers + t + 1);
        const size_t back = pm_layer_enter(b, part);
        const size_t rows = pm_layer_enter(b, "rows");
        vectors[t + 1] = table_rows(b, layer, column);
        pm_layer_leave(b, rows);
        pm_layer_leave(b, back);
    }
    const uint32_t all = pm_layer_node(b, "all", "Concat", vectors, (uint32_t)tables + 1, &axis, 1);
    const uint32_t flipped = pm_layer_node(b, "flipped", "Transpose", &all, 1, &order, 1);
    const uint32_t products = pm_layer_2(b, "products", "MatMul", all, flipped);
    const uint32_t pairs = pick_pairs(b, products, tables + 1);
    b->value = pm_layer_node(b, NULL, "Concat", (const uint32_t[]){bottom, pairs}, 2, &axis, 1);
}
