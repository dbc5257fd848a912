// The status page: one JSON object with what the coordinator knows.
#include "cluster/roster_impl.h"

#include <jansson.h>
#include <math.h>

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *leases(const pm_roster *roster, const place *p)
{
    pm_block blocks[PM_BLOCKS_MAX];
    uint32_t count = p->here && roster->phase == RUN ? pm_roster_lease(roster, p, blocks) : 0;
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("[ii]", (int)blocks[i].first, (int)blocks[i].count));
    return list;
}

static json_t *member(const pm_roster *roster, const place *p, int64_t now_ms)
{
    static const char *const phases[] = {"joined", "preparing", "ready", "running", "finished"};
    json_t *object = json_pack("{ss si sb ss*}", "role", pm_role_name(p->role), "rank", (int)p->rank, "here",
                               p->here, "host", p->host);
    if (!object)
        return NULL;
    json_object_set_new(object, "silent_ms",
                        json_integer((json_int_t)(now_ms - (p->here ? p->heard_ms : p->absent_ms))));
    if (!p->here)
        return object;
    json_object_set_new(object, "name", json_string(p->name));
    json_object_set_new(object, "phase", json_string((unsigned)p->phase < 5 ? phases[p->phase] : "unknown"));
    json_object_set_new(object, "clock", json_integer((json_int_t)p->clock));
    json_object_set_new(object, "queue", json_integer((json_int_t)p->queue));
    if (p->role == PARAMILL__ROLE__ROLE_WORKER)
        json_object_set_new(object, "lanes", leases(roster, p));
    for (uint32_t i = 0; i < p->endpoint_count; i++) {
        if (i == 0)
            json_object_set_new(object, "endpoints", json_array());
        json_array_append_new(json_object_get(object, "endpoints"), json_string(p->endpoints[i]));
    }
    return object;
}

static void add_progress(const pm_roster *roster, json_t *page)
{
    pm_progress progress;
    pm_roster_progress(roster, &progress);
    json_object_set_new(page, "step", json_integer((json_int_t)progress.step));
    json_object_set_new(page, "total_steps", json_integer((json_int_t)progress.total_steps));
    json_object_set_new(page, "loss", number(progress.loss));
    json_object_set_new(page, "accuracy", number(progress.accuracy));
    json_object_set_new(page, "images_per_second", number(progress.images_per_second));
    json_object_set_new(page, "seconds_left", number(progress.seconds_left));
    const pm_score *v = &roster->last_validation;
    if (v->rows == 0)
        return;
    json_object_set_new(page, "validation_clock", json_integer((json_int_t)roster->last_validation_clock));
    json_object_set_new(page, "validation_loss", number(v->loss_sum / (double)v->rows));
    json_object_set_new(page, "validation_accuracy", number(pm_roster_accuracy(roster, v)));
}

char *pm_roster_page(const pm_roster *roster, int64_t now_ms)
{
    static const char *const phases[] = {"gathering", "preparing", "running", "stopped"};
    json_t *page = json_object();
    json_object_set_new(page, "job", json_string(roster->job->name));
    json_object_set_new(page, "phase", json_string(phases[roster->phase]));
    json_object_set_new(page, "reason", json_string(roster->result.message));
    json_object_set_new(page, "epoch", json_integer((json_int_t)roster->epoch));
    json_object_set_new(page, "directive", json_integer((json_int_t)roster->number));
    json_object_set_new(page, "clock", json_integer((json_int_t)pm_roster_clock(roster)));
    json_object_set_new(page, "version", json_integer((json_int_t)roster->version));
    json_object_set_new(page, "version_step", json_integer((json_int_t)roster->version_step));
    add_progress(roster, page);
    json_t *members = json_array();
    for (uint32_t i = 0; i < roster->place_count; i++)
        json_array_append_new(members, member(roster, &roster->places[i], now_ms));
    json_object_set_new(page, "members", members);
    char *text = json_dumps(page, JSON_INDENT(2));
    json_decref(page);
    return text;
}
