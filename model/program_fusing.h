#pragma once
// What the rules that join nodes of a program share. A rule is called for a node, looks at what is around it
// and lets one node stand for several; nodes that nobody reads any more are dropped in the end.
#include "model/operators.h"

#define PM_NOBODY UINT32_MAX

typedef struct pm_fusing {
    pm_graph *program;
    bool training;
    size_t values;      // that there were at first; those of later ones are in no list
    uint32_t *readers;  // (values): how many
    uint32_t *reader;   // (values): the last one, or PM_NOBODY
    uint32_t *producer; // (values): the node, or PM_NOBODY
    bool *inside;       // (nodes): what it makes may be needed no more
    bool *dropped;      // (nodes)
} pm_fusing;

bool pm_fusing_is(const pm_node *node, const char *domain, const char *name);

// The only node that reads the value; PM_NOBODY when there are more, or none.
uint32_t pm_fusing_reader(const pm_fusing *f, uint32_t value);

// The node that makes the value, when it is the named operator; PM_NOBODY else.
uint32_t pm_fusing_producer(const pm_fusing *f, uint32_t value, const char *domain, const char *name);

// Node index makes the outputs of next, which is dropped, in its place.
void pm_fusing_take_over(pm_fusing *f, uint32_t index, uint32_t next);

// --- the rules that are not in program_fuse.c

// A product and the Add of a row over it (program_fuse_block.c).
pm_status pm_fuse_bias(pm_fusing *f, uint32_t gemm) PM_CHECKED;

// x (1 + erf(x / sqrt 2)) / 2, written with five operators (program_fuse_block.c).
pm_status pm_fuse_gelu(pm_fusing *f, uint32_t erf) PM_CHECKED;

// Products with keys, scale, mask, softmax, product with values (program_fuse_attention.c).
pm_status pm_fuse_attention(pm_fusing *f, uint32_t softmax) PM_CHECKED;
