// Slices of sparse tables: sums of rows along the tree of lanes, the step of the rows that they touch, and
// what is answered to who asks for rows.
#include "ps/merge.h"
#include "ps/shard_impl.h"

#include <string.h>

enum { AHEAD = 8 }; // rows that are fetched before they are needed

size_t pm_shard_id_count(const pm_buffer *ids)
{
    return ids ? ids->size / sizeof(uint32_t) : 0;
}

static const uint32_t *ids_of(const pm_buffer *ids)
{
    return ids ? ids->data : NULL;
}

pm_status pm_shard_check_ids(const shard_slice *slice, const pm_buffer *ids)
{
    const size_t count = pm_shard_id_count(ids), rows = slice->place->count / slice->width;
    const uint32_t *id = ids->data;
    if (ids->size % sizeof *id || count == 0 || count > rows)
        return pm_fail(PM_INVALID, "%zu bytes of ids for table %u slice %u, which has %zu rows", ids->size,
                       slice->place->table, slice->place->slice, rows);
    bool good = id[count - 1] < rows;
    for (size_t i = 1; i < count; i++)
        good = good && id[i - 1] < id[i];
    return good ? pm_ok()
                : pm_fail(PM_INVALID, "ids of table %u slice %u do not ascend or are not below %zu",
                          slice->place->table, slice->place->slice, rows);
}

static pm_row_list list_of(const shard_slice *slice, uint32_t node)
{
    const bool any = slice->node_ids[node] != NULL;
    return (pm_row_list){ids_of(slice->node_ids[node]), any ? slice->nodes[node]->data : NULL,
                         pm_shard_id_count(slice->node_ids[node])};
}

// What the parent of two nodes has when one of them has no rows: the other's.
static void lift(shard_slice *slice, uint32_t parent, uint32_t child)
{
    slice->nodes[parent] = slice->node_ids[child] ? pm_buffer_ref(slice->nodes[child]) : NULL;
    slice->node_ids[parent] = slice->node_ids[child] ? pm_buffer_ref(slice->node_ids[child]) : NULL;
}

bool pm_shard_combine_rows(pm_shard *shard, shard_slice *slice, uint32_t parent)
{
    const uint32_t children[] = {2 * parent, 2 * parent + 1};
    const pm_row_list left = list_of(slice, children[0]), right = list_of(slice, children[1]);
    if (left.count == 0 || right.count == 0) {
        lift(slice, parent, children[left.count == 0]);
    } else {
        const size_t count = pm_rows_union(&left, &right);
        pm_buffer *ids = pm_pool_take(shard->pool, count * sizeof(uint32_t));
        pm_buffer *rows = pm_pool_take(shard->pool, count * slice->width * sizeof(float));
        if (!ids || !rows) {
            pm_buffer_unref(&ids);
            pm_buffer_unref(&rows);
            return false;
        }
        pm_rows_merge(&left, &right, slice->width, ids->data, rows->data);
        slice->nodes[parent] = rows;
        slice->node_ids[parent] = ids;
    }
    for (int i = 0; i < 2; i++) {
        pm_buffer_unref(&slice->nodes[children[i]]);
        pm_buffer_unref(&slice->node_ids[children[i]]);
        pm_lane_set_drop(&slice->in, children[i]);
    }
    pm_lane_set_put(&slice->in, parent);
    return true;
}

bool pm_shard_update_rows(pm_shard *shard, shard_slice *slice)
{
    pm_buffer *ids = slice->node_ids[1];
    const size_t count = pm_shard_id_count(ids);
    const bool enough =
        count == 0 || (pm_shard_own(shard, &slice->values) && pm_shard_own_moments(shard, slice));
    pm_buffer *previous = enough ? pm_pool_take(shard->pool, count * slice->width * sizeof(float)) : NULL;
    if (!previous)
        return false;
    const pm_table_spec *table = &shard->tables[slice->place->table];
    const pm_job_optimizer *optimizer = &shard->job->optimizer;
    pm_rows rows = {.ids = ids_of(ids),
                    .count = count,
                    .width = slice->width,
                    .decays = table->decays,
                    .gradient = count ? slice->nodes[1]->data : NULL,
                    .from = previous->data,
                    .to = slice->values->data};
    for (uint32_t i = 0; i < slice->moment_count; i++)
        rows.moments[i] = slice->moments[i]->data;
    pm_optimizer_apply_rows(optimizer,
                            table->rate * pm_optimizer_rate(optimizer, slice->clock, shard->steps.total),
                            slice->clock, &rows);
    pm_buffer_unref(&slice->previous);
    pm_buffer_unref(&slice->previous_ids);
    slice->previous = previous;
    slice->previous_ids = ids ? pm_buffer_ref(ids) : NULL;
    return true;
}

static void copy_rows(const shard_slice *slice, const uint32_t *ids, size_t count, float *to)
{
    const float *values = slice->values->data;
    const size_t width = slice->width;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch(values + ids[i + AHEAD] * width);
        memcpy(to + i * width, values + ids[i] * width, width * sizeof *to);
    }
}

// Puts back what the last step changed, among the rows of ids.
static void restore_rows(const shard_slice *slice, const uint32_t *ids, size_t count, float *to)
{
    const uint32_t *changed = ids_of(slice->previous_ids);
    const float *old = slice->previous->data;
    const size_t width = slice->width, changes = pm_shard_id_count(slice->previous_ids);
    for (size_t i = 0, j = 0; i < count && j < changes;) {
        if (ids[i] == changed[j])
            memcpy(to + i * width, old + j * width, width * sizeof *to);
        const bool next = ids[i] <= changed[j];
        j += ids[i] >= changed[j];
        i += next;
    }
}

static pm_buffer *all_rows(pm_shard *shard, const shard_slice *slice, bool before)
{
    if (!before)
        return pm_buffer_ref(slice->values);
    pm_buffer *all = pm_pool_copy(shard->pool, slice->values->data, slice->values->size);
    const uint32_t *changed = ids_of(slice->previous_ids);
    const float *old = slice->previous->data;
    for (size_t i = 0; all && i < pm_shard_id_count(slice->previous_ids); i++)
        memcpy((float *)all->data + changed[i] * slice->width, old + i * slice->width,
               slice->width * sizeof(float));
    return all;
}

pm_buffer *pm_shard_rows(pm_shard *shard, const shard_slice *slice, const pm_buffer *ids, uint64_t clock)
{
    const bool before = clock + 1 == slice->clock;
    if (!ids)
        return all_rows(shard, slice, before);
    const size_t count = pm_shard_id_count(ids);
    pm_buffer *rows = pm_pool_take(shard->pool, count * slice->width * sizeof(float));
    if (!rows)
        return NULL;
    copy_rows(slice, ids->data, count, rows->data);
    if (before)
        restore_rows(slice, ids->data, count, rows->data);
    return rows;
}
