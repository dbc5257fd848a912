#pragma once
// Addresses: what to bind, and how others reach what was bound.
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

enum { PM_ENDPOINT_MAX = 256, PM_HOST_MAX = 128 };

// The machine's name, or "localhost".
void pm_host_name(char host[PM_HOST_MAX]);

// The address for the socket of this index: index 0 and ports chosen by the system ("tcp://HOST:*") stay as
// they are, ipc and inproc get "-INDEX" appended. PM_INVALID when several sockets are to share a fixed tcp
// port.
pm_status pm_endpoint_number(char endpoint[PM_ENDPOINT_MAX], const char *bind, uint32_t index) PM_CHECKED;

// How others reach a bound address: a tcp address of all interfaces gets the host's name (NULL: the
// machine's).
void pm_endpoint_public(char endpoint[PM_ENDPOINT_MAX], const char *bound, const char *host);
