#pragma once
// What the store's files share.
#include "snapshot/files.h"
#include "snapshot/store.h"

struct pm_store {
    char folder[512]; // ROOT/MODEL
    char model[72];
    bool write;
};
