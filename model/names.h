#pragma once
// A map from names to numbers, for the values of a graph being read.
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pm_names pm_names;

#define PM_NO_NAME UINT32_MAX

// An empty map; NULL when out of memory.
pm_names *pm_names_create(void);
void pm_names_destroy(pm_names **names);

// The number of the name (size bytes), or PM_NO_NAME.
uint32_t pm_names_find(const pm_names *names, const void *name, size_t size);

// Adds a name that is not there yet; its bytes must outlive the map.
pm_status pm_names_add(pm_names *names, const void *name, size_t size, uint32_t number) PM_CHECKED;
