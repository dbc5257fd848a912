#pragma once
// The simulated world: time, a network that delays, loses, duplicates, reorders and cuts off, and processes
// that are killed and started again. Everything follows from one seed. Included by one test file only.
#include "cluster/outbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_MAX = 16 };

// Where a message goes: a socket (sub) of one life of a process. A message to an earlier life is lost.
typedef struct address {
    uint16_t node, life, sub;
} address;

typedef enum event_kind { DELIVER, TICK, START, KILL, WORK, STORED } event_kind;

typedef struct event {
    int64_t ms;
    uint64_t order; // ties go by age
    event_kind kind;
    address to, from;
    pm_message message;
    uint64_t number; // WORK, STORED: what the node made of it
} event;

typedef struct world {
    uint64_t random;
    int64_t now_ms;
    event *events; // a binary heap
    size_t count, capacity;
    uint64_t order;
    double loss, duplication;
    int64_t delay_ms;
    int64_t cut_off_until[NODES_MAX];
    uint64_t delivered, lost;
} world;

static uint64_t draw(world *w) // splitmix64 (Steele, Lea, Flood 2014)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t below(world *w, uint64_t bound)
{
    return draw(w) % bound;
}

static bool chance(world *w, double p)
{
    return (double)(draw(w) >> 11) * 0x1p-53 < p;
}

static bool earlier(const event *a, const event *b)
{
    return a->ms != b->ms ? a->ms < b->ms : a->order < b->order;
}

static void swap_events(event *a, event *b)
{
    event t = *a;
    *a = *b;
    *b = t;
}

static event *schedule(world *w, int64_t after_ms, event_kind kind, address to, uint64_t number)
{
    if (w->count == w->capacity) {
        w->capacity = w->capacity ? w->capacity * 2 : 256;
        w->events = realloc(w->events, w->capacity * sizeof *w->events);
        if (!w->events)
            abort();
    }
    size_t at = w->count++;
    w->events[at] =
        (event){.ms = w->now_ms + after_ms, .order = w->order++, .kind = kind, .to = to, .number = number};
    for (; at > 0 && earlier(&w->events[at], &w->events[(at - 1) / 2]); at = (at - 1) / 2)
        swap_events(&w->events[at], &w->events[(at - 1) / 2]);
    return &w->events[at];
}

static event next_event(world *w)
{
    event first = w->events[0];
    w->events[0] = w->events[--w->count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < w->count; child++)
            if (earlier(&w->events[child], &w->events[least]))
                least = child;
        if (least == at)
            break;
        swap_events(&w->events[at], &w->events[least]);
        at = least;
    }
    w->now_ms = first.ms;
    return first;
}

static bool is_cut_off(const world *w, uint16_t node)
{
    return w->now_ms < w->cut_off_until[node];
}

// Takes the message. What goes over a line goes through the codec.
static void transmit(world *w, address from, address to, pm_message *message)
{
    int copies = chance(w, w->loss) ? 0 : chance(w, w->duplication) ? 2 : 1;
    if (is_cut_off(w, from.node) || is_cut_off(w, to.node))
        copies = 0;
    w->delivered += copies > 0;
    w->lost += copies == 0;
    for (int i = 0; i < copies; i++) {
        event *e = schedule(w, 1 + (int64_t)below(w, (uint64_t)w->delay_ms), DELIVER, to, 0);
        e->from = from;
        pm_status status = pm_message_copy(&e->message, message);
        if (status.code != PM_OK)
            abort();
    }
    pm_message_clear(message);
}

static pm_peer peer_of(address a)
{
    pm_peer peer = {.size = sizeof a};
    memcpy(peer.id, &a, sizeof a);
    return peer;
}

static address address_of(const pm_peer *peer)
{
    address a;
    memcpy(&a, peer->id, sizeof a);
    return a;
}

static void endpoint_of(address a, char text[64])
{
    snprintf(text, 64, "sim:%u:%u:%u", a.node, a.life, a.sub);
}

static address parse_endpoint(const char *text)
{
    unsigned node = 0, life = 0, sub = 0;
    if (sscanf(text, "sim:%u:%u:%u", &node, &life, &sub) != 3)
        abort();
    return (address){(uint16_t)node, (uint16_t)life, (uint16_t)sub};
}

static void world_free(world *w)
{
    for (size_t i = 0; i < w->count; i++)
        pm_message_clear(&w->events[i].message);
    free(w->events);
}
